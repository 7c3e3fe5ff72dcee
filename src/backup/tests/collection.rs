//! Collections of what backups leave behind, beside all that can happen at the same time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;

use super::*;
use crate::ErrorKind;
use crate::backup::collection::{
    CollectionPlan, CollectionReport, DEFAULT_GRACE, Reason, SAFE_GRACE, Verdict, apply, plan,
};
use crate::backup::retention::{self, Descendants};
use crate::backup::store::PartLimits;
use crate::clock::Clock;
use crate::pipeline::{SegmentId, SegmentStore as _};
use crate::sync::Mutex;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, RecordingStore, Rule, SimClock, StoredObject};

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A bucket and its clock, which is also that of the machines that use it.
pub(super) fn bucket(contents: Contents) -> (Bucket, SimClock) {
    let clock = SimClock::new();
    // Not at the beginning of time: ages are looked back at.
    clock.advance(1000 * HOUR);
    (Bucket::new(contents, clock.shared()), clock)
}

pub(super) fn on<S: ObjectStore + MultipartStore + Clone>(store: &S, clock: &SimClock) -> Store {
    let (objects, multipart) = (Arc::new(store.clone()), Arc::new(store.clone()));
    Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL).clock(clock.shared())
}

/// What a backup leaves whose process dies in the middle of its upload: whole segments, an open upload and its record.
pub(super) async fn killed(bucket: &Bucket, clock: &SimClock) -> BackupId {
    let store = on(bucket, clock);
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    let id = backup.id();
    backup.stripe_input(0, pieces(&noise(7, 800_000)).chain(stream::pending())).unwrap();
    let has_upload = |contents: &Contents| contents.uploads.values().any(|upload| !upload.parts.is_empty());
    while !(has_upload(&bucket.contents()) && bucket.contents().objects.keys().any(|name| name.ends_with(".zst"))) {
        tokio::task::yield_now().await;
    }
    let left = bucket.contents();
    backup.abort(given_up()).await.unwrap();
    bucket.edit(|contents| *contents = left);
    id
}

fn reasons(plan: &CollectionPlan) -> Vec<(Reason, Verdict)> {
    plan.leftovers.iter().map(|leftover| (leftover.reason, leftover.verdict)).collect()
}

async fn collect(store: &Store, grace: Duration) -> CollectionReport {
    let plan = plan(store, None, grace).await.unwrap();
    applied(store, &plan).await
}

/// Applies a plan to its end.
async fn applied(store: &Store, plan: &CollectionPlan) -> CollectionReport {
    let mut report = CollectionReport::default();
    apply(store, plan, &mut report).await.unwrap();
    report
}

#[tokio::test]
async fn a_killed_backup_goes_after_the_grace_time_with_its_uploads() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let good = back_up(&store, &[noise(1, 500_000)]).await.unwrap().manifest;
    store.wait_idle().await;
    let committed = bucket.contents();
    let id = killed(&bucket, &clock).await;
    let left = bucket.contents();

    clock.advance(DEFAULT_GRACE - Duration::from_secs(1));
    let early = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert!(matches!(reasons(&early)[..], [(Reason::NeverCommitted, Verdict::Wait { .. })]), "{early:?}");
    assert_eq!(applied(&store, &early).await, CollectionReport::default());
    assert_eq!(bucket.contents(), left, "nothing was changed, and nothing was tried");

    clock.advance(Duration::from_secs(1));
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(reasons(&due), [(Reason::NeverCommitted, Verdict::Remove)]);
    assert_eq!(bucket.contents(), left, "a plan changes nothing");
    let report = applied(&store, &due).await;
    assert_eq!((report.backups, report.uploads), (vec![id], due.leftovers[0].uploads));
    assert_eq!(bucket.contents(), committed);
    assert_eq!(restore(&store, &good).await.unwrap(), [noise(1, 500_000)]);
    assert_eq!(collect(&store, Duration::ZERO).await, CollectionReport::default(), "the second one finds nothing");
}

#[tokio::test]
async fn the_data_of_a_deleted_backup_stays_for_its_readers_and_then_goes() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let manifest = back_up(&store, &[noise(1, 500_000)]).await.unwrap().manifest;
    clock.advance(100 * HOUR);
    let deletion = retention::plan_deletion(&store, &manifest.series, manifest.id, Descendants::Refuse).await.unwrap();
    retention::apply(&store, &deletion, &mut Default::default()).await.unwrap();
    assert_eq!(collect(&store, DEFAULT_GRACE).await, CollectionReport::default());
    assert_eq!(restore(&store, &manifest).await.unwrap(), [noise(1, 500_000)], "who had read the manifest goes on");
    clock.advance(DEFAULT_GRACE);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(reasons(&due), [(Reason::Deleted, Verdict::Remove)]);
    applied(&store, &due).await;
    assert_eq!(bucket.contents(), Contents::default());
}

#[tokio::test]
async fn beside_a_committed_backup_only_strays_go() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let manifest = back_up(&store, &[noise(1, 500_000)]).await.unwrap().manifest;
    verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Full)).await.unwrap();
    store.wait_idle().await;
    let committed = bucket.contents();
    // The record of a finished upload whose deletion was lost, a half-written record, and what a stopped deletion left.
    let directory = manifest.names().directory();
    let object = |bytes: &'static [u8]| StoredObject { bytes: Bytes::from_static(bytes), modified: clock.wall() };
    let segment = SegmentId { stripe: 0, index: 0 };
    let record = intent::UploadRecord {
        id: manifest.id,
        segment,
        claim: 0,
        is_encrypted: false,
        upload: "over".to_owned(),
        created: clock.wall(),
    };
    let record = StoredObject { bytes: record.encode().unwrap().into(), modified: clock.wall() };
    bucket.edit(|contents| {
        contents.objects.insert(format!("{directory}/uploads/s00-000000.json"), record);
        contents.objects.insert(format!("{directory}/deleted/20260101T000000.000Z.json"), object(b"{}"));
        contents.objects.insert(format!("{directory}/collected/20260101T000000.000Z.json"), object(b"{}"));
        contents.stage(
            &format!("{directory}/verified/20260101T000000.000Z.json"),
            &"0".repeat(32),
            Bytes::new(),
            clock.wall(),
        );
        contents.objects.insert(format!("{}/probe-{}", names::PROBES, "0".repeat(32)), object(b"first"));
        // And what others keep here.
        contents.objects.insert(format!("{directory}/notes.txt"), object(b"theirs"));
        contents.objects.insert("elsewhere/notes.txt".to_owned(), object(b"theirs"));
    });
    assert_eq!(collect(&store, HOUR).await, CollectionReport::default(), "all of it is young");
    clock.advance(HOUR);
    let report = collect(&store, HOUR).await;
    assert_eq!((report.backups, report.objects, report.uploads), (vec![], 5, 1));
    let mut left = bucket.contents();
    assert!(left.objects.remove(&format!("{directory}/notes.txt")).is_some());
    assert!(left.objects.remove("elsewhere/notes.txt").is_some());
    assert_eq!(left, committed);
}

/// What a process that was taken over from stores after the commit, or what a crash before the clean-up leaves.
#[tokio::test]
async fn segments_that_the_manifest_does_not_name_go_and_nothing_else() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let manifest = back_up(&store, &[noise(1, 500_000), Bytes::new()]).await.unwrap().manifest;
    store.wait_idle().await;
    let committed = bucket.contents();
    let directory = manifest.names().directory();
    let count = manifest.stripes[0].segments.len();
    let unnamed = [
        format!("{directory}/s00/000000-c02.zst"),
        format!("{directory}/s00/{count:06}.zst"),
        format!("{directory}/s00/000000.zst.age"),
        format!("{directory}/s01/000000.zst"),
        format!("{directory}/s07/000003-c01.zst"),
    ];
    for name in &unnamed {
        store.create(name, "another".into()).await.unwrap();
        clock.advance(HOUR);
    }
    // The last was stored an hour ago, so its process may live, and the others may be its own.
    let early = plan(&store, None, 2 * HOUR).await.unwrap();
    assert_eq!(early.leftovers.len(), unnamed.len(), "{early:?}");
    assert!(reasons(&early).iter().all(|found| matches!(found, (Reason::Unnamed, Verdict::Wait { .. }))), "{early:?}");
    clock.advance(HOUR);
    let due = plan(&store, None, 2 * HOUR).await.unwrap();
    assert_eq!(reasons(&due), [(Reason::Unnamed, Verdict::Remove); 5]);

    // Whoever stores one more before the plan is applied lives.
    let alive = format!("{directory}/s00/000009.zst");
    store.create(&alive, "alive".into()).await.unwrap();
    let report = applied(&store, &due).await;
    assert_eq!((report.objects, report.kept.len()), (0, unnamed.len()), "{report:?}");
    assert!(report.kept.iter().all(|left| unnamed.contains(&left.what) && left.why.contains("too young")));
    store.delete(&alive).await.unwrap();

    // So does a manifest that is deleted meanwhile, or cannot be read.
    let (all, name) = (bucket.contents(), manifest.names().manifest());
    bucket.edit(|contents| contents.objects.remove(&name));
    let report = applied(&store, &due).await;
    assert!(report.objects == 0 && report.kept[0].why.contains("deleted meanwhile"), "{report:?}");
    store.create(&name, "torn".into()).await.unwrap();
    let report = applied(&store, &due).await;
    assert_eq!(report.objects, 0, "{report:?}");
    assert!(plan(&store, None, Duration::ZERO).await.unwrap().leftovers.is_empty());
    bucket.edit(|contents| *contents = all);

    let report = collect(&store, 2 * HOUR).await;
    assert_eq!((report.objects, report.kept), (5, vec![]));
    assert_eq!(bucket.contents(), committed);
    assert_eq!(restore(&store, &manifest).await.unwrap(), [noise(1, 500_000), Bytes::new()]);
}

#[tokio::test]
async fn what_shows_life_after_the_plan_stays() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let id = killed(&bucket, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    let segment = format!("orders/{id}/s00/000009.zst");
    store.create(&segment, "alive".into()).await.unwrap();
    let before = bucket.contents();
    let report = applied(&store, &due).await;
    assert!(report.backups.is_empty() && report.kept[0].why.contains("too young"), "{report:?}");
    assert_eq!(bucket.contents(), before, "and the mark is gone");

    clock.advance(DEFAULT_GRACE);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    store.create(&format!("orders/{id}/manifest.json"), "whatever it says".into()).await.unwrap();
    let before = bucket.contents();
    let report = applied(&store, &due).await;
    assert!(report.backups.is_empty() && report.kept[0].why.contains("committed"), "{report:?}");
    assert_eq!(bucket.contents(), before, "a manifest that cannot be read protects its backup as well");
}

/// A machine whose clock is ten days ahead takes everything for old. The store's clock decides.
#[tokio::test]
async fn a_wrong_clock_removes_nothing_that_lives() {
    let (bucket, clock) = bucket(Contents::default());
    killed(&bucket, &clock).await;
    let before = bucket.contents();
    let ahead = SimClock::new();
    ahead.advance(clock.now() + 240 * HOUR);
    let store = on(&bucket, &ahead);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(reasons(&due), [(Reason::NeverCommitted, Verdict::Remove)]);
    let report = applied(&store, &due).await;
    assert!(report.backups.is_empty() && report.kept[0].why.contains("store's clock"), "{report:?}");
    assert_eq!(bucket.contents(), before);
    // One that is behind waits longer than it has to, and then removes the same.
    let behind = SimClock::new();
    clock.advance(DEFAULT_GRACE);
    behind.advance(clock.now() - 20 * HOUR);
    let store = on(&bucket, &behind);
    assert_eq!(collect(&store, DEFAULT_GRACE).await, CollectionReport::default());
    behind.advance(20 * HOUR);
    clock.advance(20 * HOUR);
    assert_eq!(collect(&store, DEFAULT_GRACE).await.backups.len(), 1);
    assert_eq!(bucket.contents(), Contents::default());
}

/// What was left on local disk by a machine whose clock was a year ahead stayed for a year and longer.
#[tokio::test]
async fn on_disk_what_is_dated_in_the_future_goes() {
    let (wrong, ahead) = bucket(Contents::default());
    ahead.advance(366 * DEFAULT_GRACE);
    let id = killed(&wrong, &ahead).await;
    let probe = StoredObject { bytes: Bytes::from_static(b"first"), modified: ahead.wall() };
    let mut left = wrong.contents().on_disk(ahead.wall());
    left.objects.insert(format!("{}/probe-{}", names::PROBES, "0".repeat(32)), probe);
    let (disk, clock) = bucket(left.clone());
    let store = on(&disk, &clock);
    let found = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert!(
        found.leftovers.len() == 2 && found.removed().count() == 0,
        "another machine's clock is believed: {found:?}"
    );

    // What was written when the clock was right again counts.
    let store = store.sharing_clock();
    let alive = format!("orders/{id}/s00/000009.zst");
    store.create(&alive, "alive".into()).await.unwrap();
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(due.waiting().map(|leftover| leftover.last_sign).collect::<Vec<_>>(), [clock.wall()]);
    store.delete(&alive).await.unwrap();
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(due.removed().count(), 2, "{due:?}");

    // The disk is that of a file server whose clock is right, and this machine's is not.
    let server = Bucket::new(left, ahead.shared());
    let elsewhere = on(&server, &clock).sharing_clock();
    let before = server.contents();
    let report = applied(&elsewhere, &due).await;
    assert!(report.objects == 0 && report.kept.len() == 2, "{report:?}");
    assert_eq!(server.contents(), before);

    let report = applied(&store, &due).await;
    assert_eq!((report.backups.len(), report.singles.len(), report.kept), (1, 1, vec![]));
    assert_eq!(disk.contents(), Contents::default());
}

#[tokio::test]
async fn what_is_locked_is_for_later_and_found_again() {
    let (bucket, clock) = bucket(Contents::default());
    let id = killed(&bucket, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    faults.add(Rule::new(Fault::Denied).on(Operation::Delete).path(".zst"));
    let store = faults.store();
    let report = collect(&store, DEFAULT_GRACE).await;
    assert!(report.backups.is_empty() && !report.later.is_empty(), "{report:?}");
    assert!(report.later.iter().all(|left| left.what.ends_with(".zst")), "{report:?}");
    assert_eq!(report.uploads, 1, "what is not locked goes");
    let names: Vec<String> = bucket.contents().objects.into_keys().collect();
    assert!(names.contains(&format!("orders/{id}/intent.json")), "what finds the rest stays: {names:?}");
    assert!(names.iter().all(|name| !name.contains("/uploads/")), "{names:?}");
    assert!(bucket.contents().uploads.is_empty());
    faults.heal();
    let report = collect(&store, DEFAULT_GRACE).await;
    assert_eq!(report.backups, [id]);
    assert_eq!(bucket.contents(), Contents::default());
}

/// Who is told that nothing was changed believes that all is still there.
#[tokio::test(start_paused = true)]
async fn a_collection_that_fails_half_way_says_what_it_has_done() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    let committed = back_up(&store, &[noise(1, 1000)]).await.unwrap().manifest;
    let single = format!("{}/s00/000007.zst", committed.names().directory());
    store.create(&single, "of nobody".into()).await.unwrap();
    let mut deleted = Vec::new();
    for seed in 0..2 {
        let manifest = back_up(&store, &[noise(seed, 1000)]).await.unwrap().manifest;
        let plan = retention::plan_deletion(&store, &manifest.series, manifest.id, Descendants::Refuse).await.unwrap();
        retention::apply(&store, &plan, &mut Default::default()).await.unwrap();
        // The committed one is `#0` in rules, these are `#1` and `#2`.
        deleted.push((manifest.id, format!("#{}/intent.json", seed + 1)));
    }
    deleted.sort_unstable();
    let due = plan(&store, None, Duration::ZERO).await.unwrap();
    assert_eq!(due.removed().count(), 3, "{due:?}");
    // Of the second, the segment goes and the intent does not.
    faults.add(Rule::new(Fault::SlowDown).on(Operation::Delete).path(&deleted[1].1));
    let mut report = CollectionReport::default();
    let error = apply(&store, &due, &mut report).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!((report.backups, report.singles), (vec![deleted[0].0], vec![single]));
    // The single one; segment, record, intent and mark of the first; segment and record of the second.
    assert_eq!(report.objects, 7);
    faults.heal();
    let left = names(&store).await;
    assert!(left.contains(&format!("orders/{}/intent.json", deleted[1].0)), "{left:?}");
    assert_eq!(collect(&store, Duration::ZERO).await.backups, [deleted[1].0]);
}

#[tokio::test]
async fn a_damaged_record_of_an_upload_is_kept_and_told() {
    let (bucket, clock) = bucket(Contents::default());
    let id = killed(&bucket, &clock).await;
    clock.advance(DEFAULT_GRACE);
    bucket.edit(|contents| {
        for (name, object) in &mut contents.objects {
            if name.contains("/uploads/") {
                object.bytes = Bytes::from_static(b"torn");
            }
        }
    });
    let store = on(&bucket, &clock);
    let report = collect(&store, DEFAULT_GRACE).await;
    assert!(report.later[0].what.contains("/uploads/") && report.backups.is_empty(), "{report:?}");
    let names: Vec<String> = bucket.contents().objects.into_keys().collect();
    assert!(names.contains(&format!("orders/{id}/intent.json")) && !names.iter().any(|name| name.ends_with(".zst")));
}

/// A process that slept for longer than the grace time wakes when its backup is being removed, or was. In whatever order the
/// requests of both come through: no damaged backup is visible, and whoever loses is told.
#[tokio::test]
async fn a_writer_that_wakes_beside_a_collection_commits_all_or_nothing() {
    let (mut committed, mut collected) = (0, 0);
    for seed in 0..150 {
        let (bucket, clock) = bucket(Contents::default());
        let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone())).interleaved(seed);
        let store = on(&recording, &clock);
        let content = [noise(seed, 400_000)];
        let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
        backup.stripe_input(0, complete(&content[0])).unwrap();
        backup.wait_stripes().await.unwrap();
        store.wait_idle().await;
        clock.advance(DEFAULT_GRACE);
        let plan = plan(&store, None, DEFAULT_GRACE).await.unwrap();
        assert_eq!(plan.removed().count(), 1);
        // One of them gets a head start.
        let start = async |steps: u64| {
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        };
        let writer = async {
            start(seed % 50).await;
            backup.commit().await
        };
        let collector = async {
            start(seed / 50 * 10).await;
            applied(&store, &plan).await
        };
        let (commit, _report) = tokio::join!(writer, collector);
        store.wait_idle().await;
        let listing = list(&store, None).await.unwrap();
        assert!(listing.damaged.is_empty());
        match commit {
            Ok(report) => {
                committed += 1;
                assert_eq!(restore(&store, &report.manifest).await.unwrap(), content, "seed {seed}");
                assert_eq!(listing.backups.len(), 1);
            }
            Err(error) => {
                collected += 1;
                assert_eq!(error.kind(), ErrorKind::Conflict, "seed {seed}: {}", error.report());
                assert!(listing.backups.is_empty(), "seed {seed}: {}", error.report());
                collect(&store, Duration::ZERO).await;
                assert_eq!(bucket.contents(), Contents::default(), "seed {seed}");
            }
        }
    }
    println!("{committed} committed, {collected} collected");
    assert!(committed > 0 && collected > 0, "{committed} and {collected}: both must be seen to win");
}

/// A clock whose calendar can be set back.
#[derive(Debug, Clone, Default)]
pub(super) struct SetBack {
    pub(super) clock: SimClock,
    pub(super) back: Arc<Mutex<Duration>>,
}

impl Clock for SetBack {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall(&self) -> Timestamp {
        self.clock.wall() - *self.back.lock()
    }

    fn sleep(&self, duration: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.clock.sleep(duration)
    }
}

/// Who was silent for two hours, of which a calendar that was set back does not tell, once looked for no mark.
#[test]
fn a_calendar_that_is_set_back_hides_no_silence() {
    for (passed, back, was_silent) in [(20, 0, false), (40, 0, true), (40, 30, true), (120, 100, true), (10, 20, true)]
    {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let clock = SetBack::default();
        clock.clock.advance(1000 * HOUR);
        let store = Store::memory().clock(Arc::new(clock.clone()));
        let names = names::Names::new(Series::default(), BackupId::generate(clock.wall()));
        let segments = segments::Segments::new(&store, names);
        clock.clock.advance(minutes(passed));
        *clock.back.lock() = minutes(back);
        assert_eq!(segments.was_silent(), was_silent, "{passed} minutes, set back by {back}");
    }
}

/// A backup whose uploads were completed a moment ago counted as alive, and a collection saw the dates of their beginnings.
#[tokio::test]
async fn a_completion_is_no_sign_of_life() {
    let (bucket, clock) = bucket(Contents::default());
    let bucket = bucket.dating_by_beginning();
    let (store, begun) = (on(&bucket, &clock), clock.wall());
    let names = names::Names::new(Series::default(), BackupId::generate(begun));
    let segments = segments::Segments::new(&store, names.clone());
    let segment = SegmentId { stripe: 0, index: 0 };
    let upload = segments.begin(segment).await.unwrap();
    upload.put_part(0, vec![Bytes::from_static(b"rows")]).await.unwrap();
    clock.advance(HOUR / 3);
    upload.complete(1, 4).await.unwrap();
    assert_eq!(bucket.contents().objects[&names.segment(segment)].modified, begun);
    assert!(!segments.was_silent());
    clock.advance(HOUR / 3);
    assert!(segments.was_silent(), "for 40 minutes");
}

/// Ends the input of a stripe.
type End = tokio::sync::oneshot::Sender<()>;

/// A backup of two stripes, each with an upload that has parts, and whose input ends when it is told to.
async fn with_two_uploads(store: &Store, bucket: &Bucket) -> (Backup, [End; 2]) {
    let mut backup = Backup::begin(store, "orders", options(2)).await.unwrap();
    let ends = [0, 1].map(|stripe: u16| {
        let (end, ended) = tokio::sync::oneshot::channel();
        let rest = stream::once(async move {
            ended.await.unwrap();
            Ok(Input::Data(Bytes::new()))
        });
        let input = pieces(&noise(stripe.into(), 250_000)).chain(rest).chain(complete(&Bytes::new()));
        backup.stripe_input(stripe, input).unwrap();
        end
    });
    until(bucket, |contents| contents.uploads.values().filter(|upload| upload.parts.len() == 3).count() == 2).await;
    (backup, ends)
}

/// Lets others work until the bucket is so.
async fn until(bucket: &Bucket, is_so: impl Fn(&Contents) -> bool) {
    while !is_so(&bucket.contents()) {
        tokio::task::yield_now().await;
    }
}

/// The names of the records of uploads.
fn records(contents: &Contents) -> Vec<String> {
    contents.objects.keys().filter(|name| name.contains("/uploads/")).cloned().collect()
}

#[tokio::test]
async fn a_backup_that_is_collected_after_its_last_completion_is_not_committed() {
    let (bucket, clock) = bucket(Contents::default());
    let bucket = bucket.dating_by_beginning();
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    let (mut backup, ends) = with_two_uploads(&faults.store(), &bucket).await;
    // From now on it leaves no other signs of life than its data.
    faults.add(Rule::new(Fault::Denied).on(Operation::Put).path("/uploads/"));
    for (end, left) in ends.into_iter().zip([1, 0]) {
        clock.advance(Duration::from_secs(29 * 60));
        end.send(()).unwrap();
        until(&bucket, |contents| contents.uploads.len() == left && records(contents).len() == left).await;
    }
    backup.wait_stripes().await.unwrap();
    clock.advance(Duration::from_secs(10 * 60));
    let store = on(&bucket, &clock);
    assert_eq!(collect(&store, HOUR).await.backups, [backup.id()]);
    let error = backup.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    assert!(list(&store, None).await.unwrap().backups.is_empty());
    collect(&store, Duration::ZERO).await;
    assert_eq!(bucket.contents(), Contents::default());
}

/// A backup on a link so slow that a part takes longer than a sign of life may be missing, and its input.
async fn on_a_slow_link(store: &Store) -> (Backup, futures::channel::mpsc::UnboundedSender<Bytes>) {
    let config = PipelineConfig { segment_bytes: 2_000_000, ..config() };
    let mut backup = Backup::begin(store, "orders", options(1).pipeline(config)).await.unwrap();
    let (input, pieces) = futures::channel::mpsc::unbounded();
    backup.stripe_input(0, pieces.map(|piece| Ok(Input::Data(piece))).chain(complete(&Bytes::new()))).unwrap();
    (backup, input)
}

/// Sends a piece that is a part, and waits until that is stored, and all that is asked for then has happened.
async fn send_part(bucket: &Bucket, input: &futures::channel::mpsc::UnboundedSender<Bytes>, number: usize) -> Bytes {
    let piece = noise(number as u64, 70_000);
    input.unbounded_send(piece.clone()).unwrap();
    until(bucket, |contents| contents.uploads.values().any(|upload| upload.parts.len() >= number)).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    piece
}

/// A segment of a slow link takes longer than the shortest safe grace time. A collection that was said to be safe ended its upload.
#[tokio::test]
async fn a_backup_whose_segment_takes_longer_than_the_grace_time_lives() {
    let (bucket, clock) = bucket(Contents::default());
    let bucket = bucket.dating_by_beginning();
    let (store, beside) = (on(&bucket, &clock), on(&bucket, &clock));
    let (mut backup, input) = on_a_slow_link(&store).await;
    let mut content = Vec::new();
    for number in 1..=10 {
        content.extend_from_slice(&send_part(&bucket, &input, number).await);
        assert_eq!(records(&bucket.contents()).len(), if number == 1 { 1 } else { 2 }, "the last sign alone stays");
        clock.advance(Duration::from_secs(11 * 60));
        assert_eq!(collect(&beside, SAFE_GRACE).await, CollectionReport::default(), "part {number}");
    }
    drop(input);
    backup.wait_stripes().await.unwrap();
    until(&bucket, |contents| contents.uploads.is_empty() && records(contents).len() == 1).await;
    // The upload has ended, and its object is as old as its beginning.
    clock.advance(HOUR / 3);
    assert_eq!(collect(&beside, SAFE_GRACE).await, CollectionReport::default());
    assert!(!backup.session.segments.was_silent());
    let manifest = backup.commit().await.unwrap().manifest;
    assert_eq!(records(&bucket.contents()), [""; 0]);
    assert_eq!(restore(&store, &manifest).await.unwrap(), [content]);
}

#[tokio::test]
async fn signs_of_life_end_with_their_backup_and_end_none_that_cannot_give_them() {
    for is_denied in [false, true] {
        for is_committed in [false, true] {
            let (bucket, clock) = bucket(Contents::default());
            let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
            let store = faults.store();
            let (backup, input) = on_a_slow_link(&store).await;
            send_part(&bucket, &input, 1).await;
            if is_denied {
                faults.add(Rule::new(Fault::Denied).on(Operation::Put).path("/uploads/"));
            }
            for number in 2..=4 {
                clock.advance(Duration::from_secs(11 * 60));
                send_part(&bucket, &input, number).await;
            }
            assert_eq!(records(&bucket.contents()).len(), if is_denied { 1 } else { 2 });
            drop(input);
            match is_committed {
                true => drop(backup.commit().await.unwrap()),
                false => backup.abort(given_up()).await.unwrap(),
            }
            store.wait_idle().await;
            assert_eq!(records(&bucket.contents()), [""; 0]);
            assert_eq!(bucket.contents() == Contents::default(), !is_committed);
        }
    }
}

#[tokio::test]
async fn two_collections_at_once_do_the_same() {
    for seed in 0..20 {
        let (bucket, clock) = bucket(Contents::default());
        killed(&bucket, &clock).await;
        clock.advance(DEFAULT_GRACE);
        let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone())).interleaved(seed);
        let store = on(&recording, &clock);
        let plan = plan(&store, None, DEFAULT_GRACE).await.unwrap();
        tokio::join!(applied(&store, &plan), applied(&store, &plan));
        collect(&store, DEFAULT_GRACE).await;
        assert_eq!(bucket.contents(), Contents::default(), "seed {seed}");
    }
}

/// A listing that lags behind does not have the manifest. It was read by its name all the same.
#[tokio::test]
async fn a_manifest_that_no_listing_has_protects_its_backup() {
    let (bucket, clock) = bucket(Contents::default());
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    let store = faults.store();
    let hide = |count| faults.add(Rule::new(Fault::StaleList(count)).on(Operation::List));
    let manifest = back_up(&store, &[noise(1, 1000)]).await.unwrap().manifest;
    clock.advance(DEFAULT_GRACE);
    hide(1);
    assert!(
        list(&store, None).await.unwrap().backups.len() == 1
            && !names(&store).await.contains(&manifest.names().manifest())
    );
    let found = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert!(found.leftovers.is_empty(), "{found:?}");
    faults.heal();

    // It is committed after the plan was made, by a process that had slept.
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    backup.stripe_input(0, complete(&noise(2, 1000))).unwrap();
    backup.wait_stripes().await.unwrap();
    clock.advance(DEFAULT_GRACE);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!(reasons(&due), [(Reason::NeverCommitted, Verdict::Remove)]);
    let late = backup.commit().await.unwrap().manifest;
    store.wait_idle().await;
    let committed = bucket.contents();
    // The probe and the mark are younger.
    hide(3);
    let report = applied(&store, &due).await;
    assert!(report.backups.is_empty() && report.kept[0].why.contains("committed"), "{report:?}");
    assert_eq!(bucket.contents(), committed);
    assert_eq!(restore(&store, &late).await.unwrap(), [noise(2, 1000)]);
}

/// More objects than are held at once, some of them locked.
#[tokio::test]
async fn more_objects_than_are_held_at_once_go_in_pieces() {
    const COUNT: u32 = 30_000;
    let (bucket, clock) = bucket(Contents::default());
    let names = names::Names::new(Series::default(), BackupId::generate(Timestamp::UNIX_EPOCH));
    let modified = clock.wall();
    bucket.edit(|contents| {
        for index in 0..COUNT {
            let name = names.segment(SegmentId { stripe: 0, index });
            contents.objects.insert(name, StoredObject { bytes: Bytes::new(), modified });
        }
    });
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    faults.add(Rule::new(Fault::Denied).on(Operation::Delete).path("000042.zst"));
    clock.advance(DEFAULT_GRACE);
    let store = faults.store();
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    assert_eq!((due.leftovers.len(), due.leftovers[0].objects), (1, u64::from(COUNT)));
    let report = applied(&store, &due).await;
    assert_eq!((report.objects, report.later.len()), (u64::from(COUNT) - 1, 1));
    assert_eq!(bucket.contents().objects.len(), 2, "the locked one, and the mark");
}

#[tokio::test]
async fn one_series_is_one_series() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    killed(&bucket, &clock).await;
    let other: Series = "other".parse().unwrap();
    assert!(plan(&store, Some(&other), Duration::ZERO).await.unwrap().leftovers.is_empty());
    let orders: Series = "orders".parse().unwrap();
    let found = plan(&store, Some(&orders), Duration::ZERO).await.unwrap();
    assert_eq!(found.leftovers.len(), 1);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["grace_seconds"], 0);
    assert_eq!(json["leftovers"][0]["series"], "orders");
    assert_eq!(json["leftovers"][0]["verdict"], "remove");
    assert_eq!(json["leftovers"][0]["reason"], "never committed");
}
