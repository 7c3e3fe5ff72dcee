//! What is recorded. A further shape is a function here that ends a [`Recorder`], and a test in `mod.rs`.

use super::record::{Known, Recorder, Run};
use super::*;
use crate::backup::collection::{self, DEFAULT_GRACE};
use crate::backup::retention::{self, RetentionPolicy};
use crate::clock::Clock;
use crate::testing::{Contents, SimClock};

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

pub(super) async fn backup_of_one_stripe(seed: u64) -> Run {
    let mut recorder = Recorder::new(Contents::default(), Vec::new(), clock(), seed);
    recorder.back_up(&[noise(seed, LONG)], small()).await;
    recorder.end().await
}

pub(super) async fn backup_of_three_stripes(seed: u64) -> Run {
    let mut recorder = Recorder::new(Contents::default(), Vec::new(), clock(), seed);
    // One segment in parts, one whole, none.
    let content = [noise(seed, 140_000), noise(seed + 1, 20_000), Bytes::new()];
    recorder.back_up(&content, small()).await;
    recorder.end().await
}

/// Given up in the middle of an upload, by its producer.
pub(super) async fn abort(seed: u64) -> Run {
    let recorder = Recorder::new(Contents::default(), Vec::new(), clock(), seed);
    let mut backup = Backup::begin(&recorder.store, "orders", small().stripes(2)).await.unwrap();
    backup.stripe_input(0, pieces(&noise(seed, LONG)).chain(stream::pending())).unwrap();
    let recording = recorder.recording.clone();
    let failure = stream::once(async move {
        // The other stripe has sent what it has by then, however much that is.
        for _ in 0..10_000 {
            if recording.log().len() >= 30 {
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

/// Three committed backups, the second of which continues the first.
async fn committed(seed: u64, clock: &SimClock) -> (Contents, Vec<Known>) {
    let mut recorder = Recorder::new(Contents::default(), Vec::new(), clock.clone(), seed);
    let full = recorder.back_up(&[noise(seed, 70_000)], small()).await;
    // Each is newer than the one before, and their ids tell it.
    clock.advance(HOUR);
    let log = small().continues(full, Kind::Log);
    recorder.back_up(&[noise(seed + 1, 10)], log).await;
    clock.advance(HOUR);
    recorder.back_up(&[noise(seed + 2, 150_000)], small()).await;
    let run = recorder.end().await;
    let contents = run.log.rebuild(&run.before, run.log.len(), run.at);
    (contents, run.backups.into_iter().map(|known| Known { commit: None, ..known }).collect())
}

/// A policy deletes a chain and keeps the newest.
pub(super) async fn prune(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = committed(seed, &clock).await;
    let mut recorder = Recorder::new(contents, backups, clock, seed);
    let series: Series = "orders".parse().unwrap();
    let plan = retention::plan(&recorder.store, &series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
    let asked = recorder.events();
    let report = retention::apply(&recorder.store, &plan).await.unwrap();
    assert_eq!(report.deleted.len(), 2);
    recorder.deleted(&report.deleted, asked);
    recorder.end().await
}

/// A committed backup, a deleted one, and one that died in the middle of its uploads.
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

pub(super) async fn collection(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = leftovers(seed, &clock).await;
    assert!(!contents.uploads.is_empty(), "there is nothing to abort");
    clock.advance(DEFAULT_GRACE);
    let recorder = Recorder::new(contents, backups, clock, seed);
    let plan = collection::plan(&recorder.store, None, DEFAULT_GRACE).await.unwrap();
    let report = collection::apply(&recorder.store, &plan).await.unwrap();
    assert!(report.backups.len() == 3 && report.uploads > 0 && report.kept.is_empty(), "{report:?}");
    recorder.end().await
}

/// And while it works, a backup is made.
pub(super) async fn collection_beside_a_backup(seed: u64) -> Run {
    let clock = clock();
    let (contents, backups) = leftovers(seed, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let mut recorder = Recorder::new(contents, backups, clock, seed);
    let store = recorder.store.clone();
    let collector = async {
        let plan = collection::plan(&store, None, DEFAULT_GRACE).await.unwrap();
        collection::apply(&store, &plan).await.unwrap()
    };
    let content = [noise(seed + 9, 100_000)];
    let (report, _id) = tokio::join!(collector, recorder.back_up(&content, small()));
    assert!(report.backups.len() == 3 && report.kept.is_empty(), "{report:?}");
    recorder.end().await
}
