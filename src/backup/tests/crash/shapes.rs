//! What is recorded. A further shape is a function here that ends a [`Recorder`], and a test in `mod.rs`.

use std::time::Duration;

use super::record::{Known, Recorder, Run, at_once};
use super::*;
use crate::backup::collection::{self, CollectionReport, DEFAULT_GRACE};
use crate::backup::retention::{self, DeletionReport, Descendants, RetentionPlan, RetentionPolicy};
use crate::clock::Clock;
use crate::testing::{Contents, Effect, Event, Operation, SimClock, StoredObject};

/// A stripe of a segment in parts and another one.
const LONG: usize = 200_000;

/// Few and small requests, a few of them at once.
fn small() -> BackupOptions {
    let config = PipelineConfig { segment_bytes: 100_000, concurrency: 3, ..config() };
    BackupOptions::default().pipeline(config)
}

fn clock() -> SimClock {
    let clock = SimClock::new();
    clock.advance(1000 * HOUR);
    clock
}

/// On a bucket that holds nothing.
fn fresh(seed: u64) -> Recorder {
    Recorder::new(Contents::default(), Vec::new(), clock(), seed)
}

fn orders() -> Series {
    "orders".parse().unwrap()
}

/// Segments in parts, and a whole one.
pub(super) async fn backup_of_one_stripe(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    recorder.back_up(&[noise(seed, 4 * LONG + 10_000)], small()).await;
    recorder.end().await
}

/// Many segments in parts, a few, none.
pub(super) async fn backup_of_three_stripes(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = [noise(seed, 3 * LONG), noise(seed + 1, 150_000), Bytes::new()];
    recorder.back_up(&content, small()).await;
    recorder.end().await
}

/// So slow that the backup gives signs of life beside its segment.
pub(super) async fn backup_on_a_slow_link(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = noise(seed, 3 * 70_000);
    let mut backup = Backup::begin(&recorder.store, "orders", options(1)).await.unwrap();
    let (recording, clock) = (recorder.recording.clone(), recorder.clock.clone());
    let is_part = |event: &&Event| matches!(event, Event::Began { operation: Operation::Change(Effect::Part { .. }) });
    // Each piece is a part, and the next one comes long after it was stored.
    let pieces: Vec<Bytes> = content.chunks(70_000).map(Bytes::copy_from_slice).collect();
    let slow = stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
        let (recording, clock) = (recording.clone(), clock.clone());
        async move {
            let mut idle = 0;
            while number > 0 && idle < 100 {
                let log = recording.log();
                let answered = log.events().iter().filter(|event| matches!(event, Event::Ended { .. })).count();
                let is_idle = log.events().iter().filter(is_part).count() >= number && log.len() == 2 * answered;
                idle = if is_idle { idle + 1 } else { 0 };
                tokio::task::yield_now().await;
            }
            if number > 0 {
                clock.advance(Duration::from_secs(11 * 60));
            }
            Ok(Input::Data(piece))
        }
    });
    backup.stripe_input(0, slow.chain(complete(&Bytes::new()))).unwrap();
    backup.wait_stripes().await.unwrap();
    let (id, asked) = (backup.id(), recorder.events());
    backup.commit().await.unwrap();
    recorder.expect(Known { id, content: vec![content], commit: Some((asked, recorder.events())), deletion: None });
    let run = recorder.end().await;
    let is_record = |event: &&Event| matches!(event, Event::Began { operation: Operation::Change(Effect::Put { object, .. }) } if object.contains("/uploads/"));
    let records = run.log.events().iter().filter(is_record).count();
    assert_eq!(records, 3, "seed {seed}: that of the upload, and two signs of life");
    run
}

/// Two at once, in one series.
pub(super) async fn two_backups(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let (one, other) = ([noise(seed, 140_000)], [noise(seed + 1, 20_000), noise(seed + 2, 100_000)]);
    let (one, other) = tokio::join!(recorder.make(&one, small()), recorder.make(&other, small()));
    recorder.expect(one);
    recorder.expect(other);
    recorder.end().await
}

/// Given up in the middle of an upload, by its producer.
pub(super) async fn abort(seed: u64) -> Run {
    let recorder = fresh(seed);
    let mut backup = Backup::begin(&recorder.store, "orders", small().stripes(2)).await.unwrap();
    backup.stripe_input(0, pieces(&noise(seed, 2 * LONG)).chain(stream::pending())).unwrap();
    let recording = recorder.recording.clone();
    let failure = stream::once(async move {
        // The other stripe has sent what it has by then, however much that is.
        for _ in 0..10_000 {
            if recording.log().len() >= 50 {
                break;
            }
            tokio::task::yield_now().await;
        }
        Err(given_up())
    });
    backup.stripe_input(1, pieces(&noise(seed + 1, 150_000)).chain(failure)).unwrap();
    backup.commit().await.unwrap_err();
    recorder.end().await
}

/// Given up by its producer while parts are on their way that take longer to arrive than they are waited for.
pub(super) async fn abort_with_parts_on_their_way(seed: u64) -> Run {
    let recorder = fresh(seed).with_late_parts(seed);
    let mut backup = Backup::begin(&recorder.store, "orders", small()).await.unwrap();
    let recording = recorder.recording.clone();
    let failure = stream::once(async move {
        let wanted = 1 + usize::from(!seed.is_multiple_of(2));
        for _ in 0..10_000 {
            let log = recording.log();
            let parts = log.in_flight(log.len()).into_iter().filter(|effect| matches!(effect, Effect::Part { .. }));
            if parts.count() >= wanted {
                break;
            }
            tokio::task::yield_now().await;
        }
        Err(given_up())
    });
    backup.stripe_input(0, pieces(&noise(seed, LONG + 50_000)).chain(failure)).unwrap();
    let time_goes_on = async {
        loop {
            recorder.clock.advance(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = backup.commit() => drop(outcome.unwrap_err()),
        () = time_goes_on => {}
    }
    recorder.end().await
}

/// What a backup has whose process is killed: once in the middle of the first stripe, and once further on. The other stripe is one whole
/// segment, which is on its way then.
fn interrupted(seed: u64) -> [Bytes; 2] {
    [noise(seed, 800_000), noise(seed + 1, 20_000)]
}
const EARLY: usize = 420_000;
const LATER: usize = 700_000;

/// Killed, and resumed by another process: every second time from a source that starts again.
pub(super) async fn resume(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = interrupted(seed);
    let id = recorder.killed(None, &content, small(), EARLY);
    recorder.resume(id, &content, small(), !seed.is_multiple_of(2)).await;
    recorder.end().await
}

/// The process that resumes it is killed too, a segment later, and a third one goes on.
pub(super) async fn resume_twice(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = interrupted(seed);
    let id = recorder.killed(None, &content, small(), EARLY);
    recorder.killed(Some(id), &content, small(), LATER);
    recorder.resume(id, &content, small(), seed.is_multiple_of(2)).await;
    recorder.end().await
}

/// Two processes resume it at the same moment.
pub(super) async fn two_resume(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = interrupted(seed);
    let id = recorder.killed(None, &content, small(), EARLY);
    let resume = async || {
        let backup = Backup::resume(&recorder.store, "orders", id, at_once(&small())).await?;
        let asked = recorder.finish(backup, &content, false).await?;
        Ok::<_, Error>((asked, recorder.events()))
    };
    let commit = one_wins(tokio::join!(resume(), resume()));
    recorder.expect(Known { id, content: content.to_vec(), commit: Some(commit), deletion: None });
    recorder.end().await
}

/// A process that was thought dead lives, has stored everything, and commits while another one resumes the backup.
pub(super) async fn taken_over(seed: u64) -> Run {
    let mut recorder = fresh(seed);
    let content = [noise(seed, 150_000)];
    let mut old = recorder.begin(&content, small()).await;
    old.wait_stripes().await.unwrap();
    let id = old.id();
    let asked = recorder.events();
    let store = recorder.store.clone();
    let (first, second) = tokio::join!(
        async {
            // Sometimes the one is first, sometimes the other.
            for _ in 0..seed % 4 * 40 {
                tokio::task::yield_now().await;
            }
            old.commit().await.map(|_| (asked, recorder.events()))
        },
        async {
            let backup = Backup::resume(&store, "orders", id, at_once(&small())).await?;
            recorder.finish(backup, &content, true).await.map(|_| (asked, recorder.events()))
        }
    );
    let commit = one_wins((first, second));
    recorder.expect(Known { id, content: content.to_vec(), commit: Some(commit), deletion: None });
    recorder.end().await
}

fn one_wins<T>(outcomes: (Result<T>, Result<T>)) -> T {
    match outcomes {
        (Ok(winner), Err(_)) | (Err(_), Ok(winner)) => winner,
        (Ok(_), Ok(_)) => panic!("both have committed it"),
        (Err(one), Err(other)) => panic!("none has committed it: {}; {}", one.report(), other.report()),
    }
}

/// A chain of three, one of two, and a backup that stands alone.
async fn committed(seed: u64, clock: &SimClock) -> (Contents, Vec<Known>) {
    let mut recorder = Recorder::new(Contents::default(), Vec::new(), clock.clone(), seed);
    let mut last = None;
    for (number, (len, kind)) in (0..).zip([
        (70_000, Kind::Full),
        (10, Kind::Differential),
        (20, Kind::Log),
        (10_000, Kind::Full),
        (0, Kind::Log),
        (150_000, Kind::Full),
    ]) {
        let options = match (kind, last) {
            (Kind::Full, _) | (_, None) => small(),
            (kind, Some(parent)) => small().continues(parent, kind),
        };
        last = Some(recorder.back_up(&[noise(seed + number, len)], options).await);
        // Each is newer than the one before, and their ids tell it.
        clock.advance(HOUR);
    }
    let run = recorder.end().await;
    let contents = run.log.rebuild(&run.before, run.log.len(), run.at);
    (contents, run.backups.into_iter().map(|known| Known { commit: None, ..known }).collect())
}

/// Carries out a deletion.
async fn retire(store: &Store, plan: &RetentionPlan) -> DeletionReport {
    let mut report = DeletionReport::default();
    retention::apply(store, plan, &mut report).await.unwrap();
    report
}

/// A policy deletes two chains and keeps the newest.
pub(super) async fn prune(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = committed(seed, &clock).await;
    let mut recorder = Recorder::new(contents, backups, clock, seed);
    let plan = retention::plan(&recorder.store, &orders(), &RetentionPolicy::new().keep_last(1)).await.unwrap();
    let asked = recorder.events();
    let report = retire(&recorder.store, &plan).await;
    assert_eq!(report.deleted.len(), 5);
    recorder.deleted(&report.deleted, asked);
    recorder.end().await
}

/// A backup in the middle of a chain is deleted by name, with the one that continues it. Its parent stays.
pub(super) async fn delete(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = committed(seed, &clock).await;
    let id = backups[1].id;
    let mut recorder = Recorder::new(contents, backups, clock, seed);
    let plan = retention::plan_deletion(&recorder.store, &orders(), id, Descendants::Delete).await.unwrap();
    let asked = recorder.events();
    let report = retire(&recorder.store, &plan).await;
    assert_eq!(report.deleted.len(), 2);
    recorder.deleted(&report.deleted, asked);
    recorder.end().await
}

/// A committed backup, deleted ones, and one that died in the middle of its uploads.
async fn leftovers(seed: u64, clock: &SimClock) -> (Contents, Vec<Known>) {
    let pruned = prune(seed).await;
    // It was made at the same time.
    clock.advance(pruned.clock.now() - clock.now());
    let contents = pruned.log.rebuild(&pruned.before, pruned.log.len(), pruned.at);
    let backups = pruned.backups.into_iter().filter(|known| known.deletion.is_none()).collect();
    let recorder = Recorder::new(contents, Vec::new(), clock.clone(), seed);
    let mut backup = recorder.begin(&[noise(seed, LONG), noise(seed + 1, LONG)], small()).await;
    backup.wait_stripes().await.unwrap();
    backup.abort(given_up()).await.unwrap();
    let run = recorder.end().await;
    // Somewhere in its middle there is most to collect: uploads with parts, their records, and whole segments.
    let weight = |contents: &Contents| {
        let parts = contents.uploads.values().filter(|upload| !upload.parts.is_empty()).count();
        (parts.min(2), contents.objects.len() + parts)
    };
    let states = (0..=run.log.len()).map(|events| run.log.rebuild(&run.before, events, run.at));
    (states.max_by_key(weight).unwrap(), backups)
}

async fn collect(store: &Store) -> CollectionReport {
    let plan = collection::plan(store, None, DEFAULT_GRACE).await.unwrap();
    let mut report = CollectionReport::default();
    collection::apply(store, &plan, &mut report).await.unwrap();
    assert!(report.kept.is_empty() && report.later.is_empty(), "{report:?}");
    report
}

pub(super) async fn collection(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = leftovers(seed, &clock).await;
    assert!(!contents.uploads.is_empty(), "there is nothing to abort");
    clock.advance(DEFAULT_GRACE);
    let recorder = Recorder::new(contents, backups, clock, seed);
    let report = collect(&recorder.store).await;
    assert!(report.backups.len() == 6 && report.uploads > 0, "{report:?}");
    recorder.end().await
}

/// And while it works, a backup is made.
pub(super) async fn collection_beside_a_backup(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = leftovers(seed, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let mut recorder = Recorder::new(contents, backups, clock, seed);
    let store = recorder.store.clone();
    let content = [noise(seed + 9, 100_000)];
    let (report, _id) = tokio::join!(collect(&store), recorder.back_up(&content, small()));
    assert_eq!(report.backups.len(), 6, "{report:?}");
    recorder.end().await
}

/// What a process that resumed a backup leaves beside it if it dies right after its commit, and what one that was taken over from has
/// stored later.
pub(super) async fn collection_of_what_a_manifest_does_not_name(seed: u64) -> Run {
    let resumed = resume_twice(seed).await;
    let (asked, done) = resumed.backups[0].commit.unwrap();
    // Requests of the processes before it may have had their effect.
    let states = (asked..=done).flat_map(|events| resumed.log.crashes(&resumed.before, events, resumed.at));
    let segments = |contents: &Contents| contents.objects.keys().filter(|name| name.ends_with(".zst")).count();
    let committed = states
        .map(|crash| crash.contents)
        .filter(|contents| contents.objects.keys().any(|name| name.ends_with("manifest.json")));
    let mut contents = committed.max_by_key(segments).unwrap();
    let clock = resumed.clock;
    for index in 50..53 {
        let name = format!("orders/{}/s00/{index:06}.zst", resumed.backups[0].id);
        let late = StoredObject { bytes: noise(seed, 1000), modified: clock.wall() };
        contents.objects.insert(name, late);
    }
    clock.advance(DEFAULT_GRACE);
    let backups = resumed.backups.into_iter().map(|known| Known { commit: None, ..known }).collect();
    let recorder = Recorder::new(contents, backups, clock, seed);
    let report = collect(&recorder.store).await;
    assert!(report.backups.is_empty() && report.objects > 3, "{report:?}");
    recorder.end().await
}
