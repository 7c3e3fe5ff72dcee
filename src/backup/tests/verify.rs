//! Damage is found, and its place is told.

use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::ErrorKind;
use crate::backup::retention::{RetentionPolicy, Verdict, plan};
use crate::clock::Clock as _;
use crate::testing::decoder::sealed;
use crate::testing::fault_store::Operation;
use crate::testing::{Contents, Fault, FaultStore, Rule, SimClock};

async fn damaged(change: impl AsyncFn(&InMemory, &[Path])) -> [VerifyReport; 3] {
    let memory = Arc::new(InMemory::new());
    let objects: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&memory);
    let store =
        Store::with_multipart(objects, Arc::<InMemory>::clone(&memory) as _, "").part_limits(store::PartLimits::LOCAL);
    let manifest = back_up(&store, &[noise(1, 3_000_000), noise(2, 700_000)]).await.unwrap().manifest;
    let paths: Vec<Path> = manifest.objects().map(|(_, name, _)| Path::from(name)).collect();
    change(&memory, &paths).await;
    let mut reports = Vec::new();
    for level in [VerifyLevel::Quick, VerifyLevel::Stored, VerifyLevel::Full] {
        let options = VerifyOptions::new(level).pipeline(config());
        reports.push(verify(&store, &manifest, options).await.unwrap());
    }
    let is_damaged = reports.iter().any(|report| !report.is_good());
    assert_eq!(restore(&store, &manifest).await.is_err(), is_damaged);
    reports.try_into().unwrap()
}

async fn bytes(memory: &InMemory, path: &Path) -> Vec<u8> {
    memory.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

fn found(reports: &[VerifyReport; 3]) -> [Vec<(u16, Option<u32>)>; 3] {
    reports.each_ref().map(|report| {
        assert!(report.damage.iter().all(|damage| damage.error.kind() == ErrorKind::Corrupt));
        report.damage.iter().map(|damage| (damage.stripe.unwrap(), damage.segment)).collect()
    })
}

#[tokio::test]
async fn nothing_is_wrong_with_a_good_backup() {
    let reports = damaged(async |_, _| {}).await;
    assert_eq!(found(&reports), [vec![], vec![], vec![]]);
    assert_eq!(reports[2].raw_bytes, 3_700_000);
    assert!(reports[1].stored_bytes > 3_700_000 && reports[0].stored_bytes == 0);
}

#[tokio::test]
async fn a_missing_or_cut_object_is_found_by_every_level() {
    let reports = damaged(async |memory, paths| memory.delete(&paths[0]).await.unwrap()).await;
    assert_eq!(found(&reports), [vec![(0, Some(0))], vec![(0, Some(0))], vec![(0, Some(0))]]);
    let reports = damaged(async |memory, paths| {
        let mut content = bytes(memory, &paths[1]).await;
        content.pop();
        memory.put(&paths[1], content.into()).await.unwrap();
    })
    .await;
    assert_eq!(found(&reports), [vec![(0, Some(1))], vec![(0, Some(1))], vec![(0, Some(1))]]);
    let message = reports[0].damage[0].error.to_string();
    assert!(message.contains("s00/000001.zst, offset ") && message.contains("expected"), "{message}");
}

#[tokio::test]
async fn changed_and_swapped_objects_are_found_by_reading() {
    let reports = damaged(async |memory, paths| {
        let mut content = bytes(memory, &paths[1]).await;
        content[1000] ^= 1;
        memory.put(&paths[1], content.into()).await.unwrap();
    })
    .await;
    // The hash of the object, and then the frame.
    assert_eq!(found(&reports), [vec![], vec![(0, Some(1))], vec![(0, Some(1)), (0, Some(1))]]);
    let reports = damaged(async |memory, paths| {
        let (one, two) = (bytes(memory, &paths[0]).await, bytes(memory, &paths[1]).await);
        memory.put(&paths[0], two.into()).await.unwrap();
        memory.put(&paths[1], one.into()).await.unwrap();
    })
    .await;
    let [_, stored, full] = found(&reports);
    assert_eq!(
        (stored.as_slice(), full.as_slice()),
        (&[(0, Some(0)), (0, Some(1))][..], &[(0, Some(0)), (0, Some(0)), (0, Some(1)), (0, Some(1))][..])
    );
}

#[tokio::test]
async fn segments_that_the_manifest_does_not_name_are_told_and_no_damage() {
    let store = Store::memory();
    let manifest = back_up(&store, &[noise(1, 700_000)]).await.unwrap().manifest;
    let directory = manifest.names().directory();
    let look = async |level| {
        let report = verify(&store, &manifest, VerifyOptions::new(level).pipeline(config())).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json.get("unnamed").is_some(), !report.unnamed.is_empty(), "{json}");
        report.unnamed
    };
    assert_eq!(look(VerifyLevel::Full).await, Unnamed::default());
    // A copy behind the end, what a process stored that was taken over from, and a stripe that there is not.
    let first = store.read_small(&manifest.objects().next().unwrap().1, u64::MAX).await.unwrap();
    let extra = ["s00/000000-c02.zst", "s00/000009.zst", "s07/000000.zst"].map(|name| format!("{directory}/{name}"));
    for name in extra.iter().rev() {
        store.create(name, first.clone()).await.unwrap();
    }
    for level in [VerifyLevel::Quick, VerifyLevel::Full] {
        let unnamed = look(level).await;
        assert_eq!((unnamed.count, &unnamed.objects[..]), (3, &extra[..]));
    }
    // The first by name, however many there are.
    for number in (100..250).rev() {
        store.create(&format!("{directory}/s00/{number:06}.zst"), "x".into()).await.unwrap();
    }
    let unnamed = look(VerifyLevel::Quick).await;
    assert_eq!((unnamed.count, unnamed.objects.len()), (153, 100));
    assert!(unnamed.objects.is_sorted() && unnamed.objects[..2] == extra[..2], "{unnamed:?}");
    assert!(unnamed.objects[99].ends_with("s00/000197.zst"), "{unnamed:?}");
    assert_eq!(restore(&store, &manifest).await.unwrap(), [noise(1, 700_000)]);
}

#[tokio::test]
async fn a_verification_can_be_spawned() {
    let store = Store::memory();
    let manifest = back_up(&store, &[noise(1, 10)]).await.unwrap().manifest;
    let tasks = store.tasks().clone();
    let task = tasks.spawn(async move {
        let listing = list(&store, None).await.unwrap();
        let report = verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Full).pipeline(config())).await.unwrap();
        (listing.backups.len(), report.is_good(), verifications(&store, &manifest).await.unwrap().len())
    });
    assert_eq!(task.await.unwrap(), (1, true, 1));
}

#[tokio::test]
async fn results_are_recorded_never_replaced_and_told_by_lists() {
    let clock = SimClock::new();
    let store = Store::memory().clock(clock.shared());
    let manifest = back_up(&store, &[noise(1, 2_000_000)]).await.unwrap().manifest;
    assert_eq!(list(&store, None).await.unwrap().backups[0].verified, None);
    let run = async |options: VerifyOptions| verify(&store, &manifest, options.pipeline(config())).await.unwrap();
    // All at the same millisecond, and none in the place of another.
    let mut names = Vec::new();
    for level in [VerifyLevel::Quick, VerifyLevel::Stored, VerifyLevel::Full] {
        names.push(run(VerifyOptions::new(level)).await.record.unwrap());
    }
    names.dedup();
    assert_eq!(names.len(), 3);
    assert_eq!(run(VerifyOptions::new(VerifyLevel::Quick).record(false)).await.record, None);
    assert_eq!(verifications(&store, &manifest).await.unwrap().len(), 3);
    let last = list(&store, None).await.unwrap().backups[0].verified.unwrap();
    assert_eq!((last.level, last.outcome, last.good), (VerifyLevel::Full, Outcome::Good, manifest.segments() as u64));

    // A damaged segment is told, by the record too, and the good ones are not read again.
    let total = manifest.segments();
    assert!(total >= 3, "{total}");
    let (_, name, _) = manifest.objects().nth(1).unwrap();
    store.delete(&name).await.unwrap();
    clock.advance(Duration::from_secs(3600));
    let damaged = run(VerifyOptions::new(VerifyLevel::Stored)).await;
    assert_eq!((damaged.damage.len(), damaged.read), (1, total - 1));
    let last = list(&store, None).await.unwrap().backups[0].verified.unwrap();
    assert_eq!((last.outcome, last.good), (Outcome::Damaged, total as u64 - 1));
    let hour = Duration::from_secs(3600);
    for (level, age, read) in [
        (VerifyLevel::Stored, hour / 2, 0),
        (VerifyLevel::Stored, Duration::MAX, 0),
        // The last full one is an hour old.
        (VerifyLevel::Full, hour / 2, total - 1),
        (VerifyLevel::Full, hour * 2, 0),
    ] {
        let again = run(VerifyOptions::new(level).since_last(age).record(false)).await;
        assert_eq!((again.read, again.skipped, again.damage.len()), (read, total - 1 - read, 1), "{level} {age:?}");
    }
}

/// A segment that any record had once found good was left out for ever, also when a later record told damage of it.
#[tokio::test]
async fn a_segment_that_was_found_damaged_is_read_again_whatever_was_found_before() {
    let (bucket, clock) = collection::bucket(Contents::default());
    let store = collection::on(&bucket, &clock);
    let manifest = back_up(&store, &[noise(1, 2_000_000)]).await.unwrap().manifest;
    let total = manifest.segments();
    let (_, segment, _) = manifest.objects().nth(1).unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let put = async |content: Bytes| {
        store.delete(&segment).await.unwrap();
        store.create(&segment, content).await.unwrap();
    };
    let run = async |options: VerifyOptions| {
        clock.advance(Duration::from_secs(86_400));
        let report = verify(&store, &manifest, options.pipeline(config())).await.unwrap();
        assert!(report.record.is_some(), "{report:?}");
        (report.read, report.skipped, report.is_good())
    };
    let since = |level| VerifyOptions::new(level).since_last(Duration::MAX);
    assert_eq!(run(VerifyOptions::new(VerifyLevel::Full)).await, (total, 0, true));
    let mut changed = content.to_vec();
    changed[1000] ^= 1;
    put(changed.into()).await;
    assert_eq!(run(since(VerifyLevel::Stored)).await, (0, total, true), "nobody has seen it yet");
    assert_eq!(run(VerifyOptions::new(VerifyLevel::Stored)).await, (total, 0, false));
    for level in [VerifyLevel::Stored, VerifyLevel::Full, VerifyLevel::Stored] {
        assert_eq!(run(since(level)).await, (1, total - 1, false), "{level}");
        let sample = Sample { size: SampleSize::Count(1), seed: 7 };
        assert_eq!(run(since(level).sample(sample)).await, (1, total - 1, false), "{level}, a sample");
    }
    // It is read until it was found good at that level.
    put(content).await;
    assert_eq!(run(since(VerifyLevel::Stored)).await, (1, total - 1, true));
    assert_eq!(run(since(VerifyLevel::Stored)).await, (0, total, true));
    assert_eq!(run(since(VerifyLevel::Full)).await, (1, total - 1, true));
    assert_eq!(run(since(VerifyLevel::Full)).await, (0, total, true));
}

/// What is told of the one backup: its last verification, damage that stands, and how many records there are. A list, a look at the
/// one backup, retention and all records together say the same.
async fn told(store: &Store, manifest: &Manifest) -> (LastVerification, Option<LastVerification>, usize) {
    let listed = list(store, None).await.unwrap().backups[0].clone();
    let records = verifications(store, manifest).await.unwrap();
    let standing = standing(store, manifest).await.unwrap();
    assert_eq!((listed.verified, listed.standing_damage), (standing.verified, standing.damage));
    assert_eq!(standing, Standing::of(&records), "{records:?}");
    let judged = plan(store, &manifest.series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
    let is_ignored = matches!(judged.backups[0].verdict, Verdict::Ignore { .. });
    assert!(is_ignored || standing.damage.is_none(), "{judged:?}");
    (standing.verified.unwrap(), standing.damage, records.len())
}

/// Records of a version to come, or of nothing at all, hid what was told before them.
#[tokio::test]
async fn damage_is_told_however_many_newer_records_cannot_be_used() {
    for is_newer in [true, false] {
        let (bucket, clock) = collection::bucket(Contents::default());
        let store = collection::on(&bucket, &clock);
        let manifest = back_up(&store, &[noise(1, 700_000)]).await.unwrap().manifest;
        let (_, segment, _) = manifest.objects().next().unwrap();
        let content = store.read_small(&segment, u64::MAX).await.unwrap();
        let look = async |level| {
            clock.advance(Duration::from_secs(60));
            verify(&store, &manifest, VerifyOptions::new(level).pipeline(config())).await.unwrap().record.unwrap()
        };
        // What a list, a look at the one backup and retention tell.
        let told = async || {
            let standing = standing(&store, &manifest).await.unwrap();
            let listed = list(&store, None).await.unwrap().backups[0].clone();
            let found = (listed.verified, listed.standing_damage, listed.has_unread_verification);
            assert_eq!(found, (standing.verified, standing.damage, standing.has_unread));
            let judged = plan(&store, &manifest.series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
            let is_ignored = matches!(judged.backups[0].verdict, Verdict::Ignore { .. });
            assert_eq!(is_ignored, standing.damage.is_some() || standing.has_unread, "{judged:?}");
            (standing.verified.unwrap().outcome, standing.damage.is_some(), standing.has_unread)
        };
        let good = look(VerifyLevel::Full).await;
        let text = String::from_utf8(store.read_small(&good, u64::MAX).await.unwrap().to_vec()).unwrap();
        let unusable = match is_newer {
            true => sealed(text.replace("\"version\":1", "\"version\":2").as_bytes()),
            false => text.as_bytes()[1..].to_vec(),
        };
        let mut added = Vec::new();
        let mut add = async || {
            clock.advance(Duration::from_secs(60));
            added.push(manifest.names().of(&names::ObjectName::Verified(clock.wall())));
            store.create(added.last().unwrap(), unusable.clone().into()).await.unwrap();
        };
        assert_eq!(told().await, (Outcome::Good, false, false));
        add().await;
        assert_eq!(told().await, (Outcome::Good, false, true), "it may tell damage");
        store.delete(&segment).await.unwrap();
        look(VerifyLevel::Full).await;
        store.create(&segment, content).await.unwrap();
        for _ in 0..5 {
            add().await;
            assert_eq!(told().await, (Outcome::Damaged, true, true));
        }
        for _ in 0..2 {
            look(VerifyLevel::Quick).await;
            assert_eq!(
                told().await,
                (Outcome::Good, true, true),
                "a look at names and sizes has not shown that it is gone"
            );
        }
        if !is_newer {
            look(VerifyLevel::Full).await;
            assert_eq!(told().await, (Outcome::Damaged, true, true), "they are damage themselves");
            for name in &added {
                store.delete(name).await.unwrap();
            }
            assert_eq!(told().await, (Outcome::Damaged, true, true), "nobody knows what they told");
        }
        look(VerifyLevel::Full).await;
        assert_eq!(told().await, (Outcome::Good, false, false));
        look(VerifyLevel::Quick).await;
        assert_eq!(told().await, (Outcome::Good, false, false));
        let records = verifications(&store, &manifest).await.unwrap();
        assert_eq!(Standing::of(&records), standing(&store, &manifest).await.unwrap());
    }
}

/// Beside a record that is dated ahead all are read.
#[tokio::test]
async fn so_it_is_beside_a_record_that_is_dated_ahead() {
    let (bucket, clock) = collection::bucket(Contents::default());
    let ahead = SimClock::new();
    ahead.advance(clock.now() + Duration::from_secs(366 * 86_400));
    let (store, wrong) = (collection::on(&bucket, &clock), collection::on(&bucket, &ahead));
    let manifest = back_up(&store, &[noise(1, 1000)]).await.unwrap().manifest;
    let look = async |store: &Store, level| {
        clock.advance(Duration::from_secs(60));
        verify(store, &manifest, VerifyOptions::new(level).pipeline(config())).await.unwrap();
        standing(store, &manifest).await.unwrap().has_unread
    };
    assert!(!look(&wrong, VerifyLevel::Full).await);
    assert!(!look(&store, VerifyLevel::Full).await);
    clock.advance(Duration::from_secs(60));
    let name = manifest.names().of(&names::ObjectName::Verified(clock.wall()));
    store.create(&name, "{}".into()).await.unwrap();
    assert!(standing(&store, &manifest).await.unwrap().has_unread);
    assert!(look(&store, VerifyLevel::Quick).await);
    store.delete(&name).await.unwrap();
    assert!(look(&wrong, VerifyLevel::Full).await, "nobody can say which came first");
    assert!(!look(&store, VerifyLevel::Full).await);
}

/// A quick look after a deep one made everything look good again.
#[tokio::test]
async fn damage_stands_whatever_is_looked_at_later_until_it_is_shown_to_be_gone() {
    let store = Store::memory();
    let manifest = back_up(&store, &[noise(1, 2_000_000)]).await.unwrap().manifest;
    let (_, segment, _) = manifest.objects().next().unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let look = async |level, part: Option<Sample>| {
        let mut options = VerifyOptions::new(level).pipeline(config());
        if let Some(part) = part {
            options = options.sample(part);
        }
        verify(&store, &manifest, options).await.unwrap();
        let (last, damage, _) = told(&store, &manifest).await;
        assert_eq!(last.level, level);
        damage.map(|damage| damage.level)
    };
    assert_eq!(look(VerifyLevel::Full, None).await, None);
    store.delete(&segment).await.unwrap();
    assert_eq!(look(VerifyLevel::Stored, None).await, Some(VerifyLevel::Stored));
    store.create(&segment, content).await.unwrap();
    for _ in 0..3 {
        assert_eq!(look(VerifyLevel::Quick, None).await, Some(VerifyLevel::Stored), "sizes do not refute hashes");
    }
    let part = Sample { size: SampleSize::Count(1), seed: 0 };
    assert_eq!(look(VerifyLevel::Full, Some(part)).await, Some(VerifyLevel::Stored), "a part does not speak for all");
    // The last record tells it without the others.
    let records = verifications(&store, &manifest).await.unwrap();
    assert_eq!(records.last().unwrap().earlier_damage, records[4].earlier_damage);
    assert_eq!(Standing::of(&records[5..]), Standing::of(&records));
    assert_eq!(look(VerifyLevel::Stored, None).await, None);
    assert_eq!(look(VerifyLevel::Quick, None).await, None);
}

/// One that began before the damage was found may have looked at the object before it was damaged.
#[tokio::test(start_paused = true)]
async fn what_was_found_while_a_verification_ran_is_not_cleared_by_it() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let manifest = back_up(&store, &[noise(1, 700_000)]).await.unwrap().manifest;
    let (_, segment, _) = manifest.objects().next().unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let level = |level| VerifyOptions::new(level).pipeline(config());
    faults.add(Rule::new(Fault::Latency(Duration::from_secs(10))).on(Operation::Get).path("s00/"));
    let meanwhile = async {
        store.time().sleep(Duration::from_secs(1)).await;
        store.delete(&segment).await.unwrap();
        assert!(!verify(&store, &manifest, level(VerifyLevel::Quick)).await.unwrap().is_good());
        store.create(&segment, content.clone()).await.unwrap();
    };
    let (report, ()) = tokio::join!(verify(&store, &manifest, level(VerifyLevel::Full)), meanwhile);
    let report = report.unwrap();
    assert!(report.is_good() && report.elapsed > Duration::from_secs(10), "{report:?}");
    let (last, damage, _) = told(&store, &manifest).await;
    assert_eq!((last.level, last.outcome), (VerifyLevel::Full, Outcome::Good));
    assert_eq!(damage.map(|damage| damage.level), Some(VerifyLevel::Quick));

    // What was known when it began is cleared, also if others carried it on meanwhile.
    store.delete(&segment).await.unwrap();
    assert!(!verify(&store, &manifest, level(VerifyLevel::Full)).await.unwrap().is_good());
    store.create(&segment, content.clone()).await.unwrap();
    let meanwhile = async {
        store.time().sleep(Duration::from_secs(1)).await;
        assert!(verify(&store, &manifest, level(VerifyLevel::Quick)).await.unwrap().is_good());
        assert_eq!(told(&store, &manifest).await.1.map(|damage| damage.level), Some(VerifyLevel::Full));
    };
    let (report, ()) = tokio::join!(verify(&store, &manifest, level(VerifyLevel::Full)), meanwhile);
    assert!(report.unwrap().is_good());
    assert_eq!(told(&store, &manifest).await.1, None);
}

/// A machine whose clock is behind found damage, and its record came before the good one that it had seen.
#[tokio::test]
async fn a_record_of_a_clock_that_is_behind_comes_after_those_that_were_there() {
    let (bucket, clock) = collection::bucket(Contents::default());
    let behind = SimClock::new();
    behind.advance(Duration::from_secs(86_400));
    let (store, late) = (collection::on(&bucket, &clock), collection::on(&bucket, &behind));
    let manifest = back_up(&store, &[noise(1, 700_000)]).await.unwrap().manifest;
    let (_, segment, _) = manifest.objects().nth(1).unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let run = async |store: &Store| {
        clock.advance(Duration::from_secs(60));
        let options = VerifyOptions::new(VerifyLevel::Stored).pipeline(config());
        verify(store, &manifest, options).await.unwrap();
        let (last, damage, records) = told(store, &manifest).await;
        (last.outcome, damage.is_some(), records)
    };
    assert_eq!(run(&store).await, (Outcome::Good, false, 1));
    store.delete(&segment).await.unwrap();
    assert_eq!(run(&late).await, (Outcome::Damaged, true, 2));
    store.create(&segment, content).await.unwrap();
    assert_eq!(run(&late).await, (Outcome::Good, false, 3));
}

/// A "good, full" from a clock that was ahead once hid every damage that was found before its date had come.
#[tokio::test]
async fn a_record_that_is_dated_ahead_hides_no_damage() {
    let (bucket, clock) = collection::bucket(Contents::default());
    let ahead = SimClock::new();
    ahead.advance(clock.now() + Duration::from_secs(366 * 86_400));
    let store = collection::on(&bucket, &clock);
    let wrong = collection::on(&bucket, &ahead);
    let manifest = back_up(&store, &[noise(1, 700_000)]).await.unwrap().manifest;
    let (_, segment, _) = manifest.objects().nth(1).unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let run = async |store: &Store, level| {
        clock.advance(Duration::from_secs(60));
        ahead.advance(Duration::from_secs(60));
        let report = verify(store, &manifest, VerifyOptions::new(level).pipeline(config())).await.unwrap();
        assert!(report.record.is_some(), "{report:?}");
        report
    };
    let told = async || {
        let (last, damage, records) = told(&store, &manifest).await;
        (last.outcome, damage.map(|damage| damage.level), records)
    };
    run(&wrong, VerifyLevel::Full).await;
    assert_eq!(told().await, (Outcome::Good, None, 1));
    store.delete(&segment).await.unwrap();
    run(&store, VerifyLevel::Stored).await;
    assert_eq!(told().await, (Outcome::Damaged, Some(VerifyLevel::Stored), 2));
    // Nor does another one: nobody can say which came first.
    store.create(&segment, content.clone()).await.unwrap();
    run(&wrong, VerifyLevel::Full).await;
    assert_eq!(told().await, (Outcome::Damaged, Some(VerifyLevel::Stored), 3));
    run(&store, VerifyLevel::Full).await;
    assert_eq!(told().await, (Outcome::Good, None, 4));

    // A damage is a damage, whatever the date, until somebody has looked later and found none.
    store.delete(&segment).await.unwrap();
    run(&wrong, VerifyLevel::Stored).await;
    assert_eq!(told().await, (Outcome::Damaged, Some(VerifyLevel::Stored), 5));
    store.create(&segment, content).await.unwrap();
    run(&store, VerifyLevel::Full).await;
    assert_eq!(told().await, (Outcome::Good, None, 6));

    // Nor does it spare a reading, not even when its date has come.
    let total = manifest.segments();
    clock.advance(Duration::from_secs(400 * 86_400));
    let since = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).since_last(Duration::from_secs(90 * 86_400));
    assert_eq!(verify(&store, &manifest, since).await.unwrap().read, total);
}

#[tokio::test]
async fn samples_add_up_to_everything() {
    let store = Store::memory();
    let manifest = back_up(&store, &[noise(1, 2_000_000), noise(2, 700_000)]).await.unwrap().manifest;
    let total = manifest.segments();
    let mut reads = Vec::new();
    for seed in 0.. {
        let sample = Sample { size: SampleSize::Count(3), seed };
        let options = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).sample(sample);
        let report = verify(&store, &manifest, options.since_last(Duration::MAX)).await.unwrap();
        assert!(report.is_good(), "{report:?}");
        assert_eq!(report.chosen.as_ref().unwrap().count(), report.read as u64);
        if report.read == 0 {
            break;
        }
        reads.push(report.read);
    }
    assert_eq!(reads.iter().sum::<usize>(), total);
    println!("{total} segments in {} samples", reads.len());
    let quick = || VerifyOptions::new(VerifyLevel::Quick);
    for wrong in [quick().sample(Sample { size: SampleSize::Count(1), seed: 0 }), quick().since_last(Duration::MAX)] {
        let error = verify(&store, &manifest, wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().ends_with("use level stored or full"), "{error}");
    }
}

/// A listing that lagged far behind once cost one request after the other.
#[tokio::test(start_paused = true)]
async fn what_a_listing_lacks_is_asked_for_a_few_at_once_and_told_in_order() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    let manifest = back_up(&store, &[noise(1, 6_000_000), noise(2, 400_000)]).await.unwrap().manifest;
    assert!(manifest.segments() > 10, "{}", manifest.segments());
    faults.add(Rule::new(Fault::StaleList(usize::MAX)));
    // The first are answered last.
    faults.add(Rule::new(Fault::Latency(Duration::from_secs(5))).on(Operation::Head).path("s00/00000"));
    faults.add(Rule::new(Fault::Latency(Duration::from_secs(1))).on(Operation::Head));
    let options = || VerifyOptions::new(VerifyLevel::Quick).record(false);
    let report = verify(&store, &manifest, options()).await.unwrap();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(faults.most_at_once(Operation::Head), 8);

    let missing: Vec<String> = manifest.objects().step_by(3).map(|(_, name, _)| name).collect();
    for name in &missing {
        store.delete(name).await.unwrap();
    }
    let report = verify(&store, &manifest, options()).await.unwrap();
    assert_eq!(report.damage.iter().map(|damage| damage.object.as_str()).collect::<Vec<_>>(), missing);
}

/// Eight reads at once share a link of a megabyte per second: each piece of 8 MiB takes longer than a small request may, however often
/// it is asked for again.
#[tokio::test(start_paused = true)]
async fn a_slow_link_ends_no_verification() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    let slow = PipelineConfig { segment_bytes: 1 << 30, ..PipelineConfig::default() };
    let mut backup = Backup::begin(&store, "orders", options(1).pipeline(slow.clone())).await.unwrap();
    backup.stripe_input(0, complete(&noise(1, 17_000_000))).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    faults.add(Rule::new(Fault::Bandwidth(1_000_000 / 8)).on(Operation::Get));
    for level in [VerifyLevel::Stored, VerifyLevel::Full] {
        let options = VerifyOptions::new(level).pipeline(slow.clone()).record(false);
        let report = verify(&store, &manifest, options).await.unwrap();
        assert!(report.is_good() && report.stored_bytes > 17_000_000, "{level}: {report:?}");
        assert!(report.elapsed > Duration::from_secs(2 * 60), "{level}: {:?}", report.elapsed);
    }
}

#[tokio::test]
async fn a_list_asks_for_three_things_of_each_backup_at_most() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    let mut expected = 2;
    for number in 0..5 {
        let manifest = back_up(&store, &[noise(number, 1000)]).await.unwrap().manifest;
        expected += 2;
        for _ in 0..number {
            verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Quick).pipeline(config())).await.unwrap();
        }
        expected += usize::from(number > 0);
    }
    store.wait_idle().await;
    faults.forget();
    assert_eq!(list(&store, None).await.unwrap().backups.len(), 5);
    println!("{} requests for 5 backups", faults.log().len());
    assert_eq!(faults.log().len(), expected);
}

#[tokio::test]
async fn labels_that_could_not_be_read_back_are_refused_at_the_beginning() {
    let store = Store::memory();
    let huge = options(1).label("a", "x".repeat(1 << 20));
    let host = options(1).host(Some("x".repeat(1 << 20)));
    let many = (0..=MAX_LABELS).fold(options(1), |options, number| options.label(number.to_string(), ""));
    for options in [huge, host, many] {
        let error = Backup::begin(&store, "orders", options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.report().contains("labels"), "{}", error.report());
    }
    store.wait_idle().await;
    assert_eq!(names(&store).await, [""; 0]);
}

/// Verifies at `level` while somebody looks every few milliseconds. Answers what was seen, in order, and the report.
async fn watched(store: &Store, manifest: &Manifest, level: VerifyLevel) -> (Vec<VerifyProgress>, VerifyReport) {
    let watch = VerifyWatch::new();
    let options = VerifyOptions::new(level).pipeline(config()).watch(&watch).record(false);
    let mut seen = vec![watch.progress()];
    let look = async {
        for _ in 0..100_000 {
            store.time().sleep(Duration::from_millis(5)).await;
            seen.push(watch.progress());
        }
    };
    let report = tokio::select! {
        report = verify(store, manifest, options) => report.unwrap(),
        () = look => panic!("it does not end"),
    };
    seen.push(watch.progress());
    (seen, report)
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_was_read_and_what_there_is_to_read() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let manifest = back_up(&store, &[noise(1, 1_500_000), noise(2, 700_000)]).await.unwrap().manifest;
    faults.add(Rule::new(Fault::Latency(Duration::from_millis(20))).on(Operation::Get));
    let (stored, raw) = (manifest.stored_bytes(), manifest.raw_bytes());
    let (step, none) = (|progress: &VerifyProgress| progress.step.as_str(), Duration::ZERO);
    for (level, steps, total, raw) in [
        (VerifyLevel::Quick, &["names"][..], None, 0),
        (VerifyLevel::Stored, &["names", "hashes"], Some(stored), 0),
        (VerifyLevel::Full, &["names", "hashes", "content"], Some(2 * stored), raw),
    ] {
        let (seen, report) = watched(&store, &manifest, level).await;
        assert!(report.is_good(), "{report:?}");
        let mut order: Vec<&str> = seen.iter().map(step).collect();
        order.dedup();
        assert_eq!(order, steps);
        assert!(seen.is_sorted_by_key(|progress| (progress.read_bytes, progress.raw_bytes)), "{level}: {seen:?}");
        let last = seen.last().unwrap();
        assert_eq!((last.total_bytes, last.read_bytes), (total, total.unwrap_or(0)), "{level}");
        assert_eq!((last.raw_bytes, last.findings, last.throttled), (raw, 0, none), "{level}");
        if let Some(total) = total {
            let within = seen.iter().filter(|progress| (1..total).contains(&progress.read_bytes));
            assert!(within.count() > 3 && last.store_wait > none, "{level}: {seen:?}");
            assert!(seen.iter().all(|progress| step(progress) == "names" || progress.total_bytes == Some(total)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_is_not_waited_for_by_a_watch() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let manifest = back_up(&store, &[noise(1, 1_500_000), noise(2, 700_000)]).await.unwrap().manifest;
    let stored = manifest.stored_bytes();
    let (_, _, summary) = manifest.objects().nth(1).unwrap();
    let first_reading = summary.stored_bytes.div_ceil(config().part_bytes as u64);
    // Seen by its hash and by its content, then only by its content, because somebody changed it in between.
    let least = 2 * stored - summary.stored_bytes;
    for passed in [0, first_reading] {
        faults.heal();
        faults.forget();
        faults.add(Rule::new(Fault::WrongBytes).on(Operation::Get).path("s00/000001").after(passed));
        let (seen, report) = watched(&store, &manifest, VerifyLevel::Full).await;
        let findings = if passed == 0 { 2 } else { 1 };
        assert_eq!(report.damage.len(), findings, "{report:?}");
        let last = seen.last().unwrap();
        assert_eq!((last.total_bytes, last.findings), (Some(last.read_bytes), findings as u64), "{passed}: {last:?}");
        assert!((least..2 * stored).contains(&last.read_bytes), "{passed}: {last:?}");
    }
}

/// What hangs never ends a wait, and is the one thing to know.
#[tokio::test(start_paused = true)]
async fn a_watch_tells_of_a_read_that_hangs_while_it_does() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let manifest = back_up(&store, &[noise(1, 1_500_000)]).await.unwrap().manifest;
    let (_, _, summary) = manifest.objects().nth(1).unwrap();
    let first_reading = summary.stored_bytes.div_ceil(config().part_bytes as u64);
    for (step, passed) in [(VerifyStep::Hashes, 0), (VerifyStep::Content, first_reading)] {
        faults.heal();
        faults.forget();
        faults.add(Rule::new(Fault::Hang).on(Operation::Get).path("s00/000001").after(passed));
        let watch = VerifyWatch::new();
        let options = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).watch(&watch).record(false);
        let look = async {
            store.time().sleep(Duration::from_secs(5)).await;
            let before = watch.progress();
            store.time().sleep(Duration::from_secs(5)).await;
            (before, watch.progress())
        };
        let (before, after) = tokio::select! {
            looked = look => looked,
            report = verify(&store, &manifest, options) => panic!("{report:?}"),
        };
        assert_eq!(after.step, step);
        let (store_wait, cpu_wait) = (after.store_wait - before.store_wait, after.cpu_wait - before.cpu_wait);
        assert!(store_wait >= Duration::from_secs(5) && cpu_wait < Duration::from_secs(1), "{before:?} {after:?}");
        let last = watch.progress();
        store.time().sleep(Duration::from_secs(5)).await;
        assert_eq!(watch.progress(), last, "it was dropped");
    }
}
