//! Backups that one process begins and another one ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;

use super::*;
use crate::ErrorKind;
use crate::backup::collection::{DEFAULT_GRACE, apply, plan};
use crate::backup::retention;
use crate::backup::store::PartLimits;
use crate::clock::Clock as _;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, RecordingStore, Rule, SimClock};

fn bucket(contents: Contents) -> Bucket {
    Bucket::new(contents, SimClock::new().shared())
}

fn over(objects: Arc<dyn ObjectStore>, multipart: Arc<dyn MultipartStore>) -> Store {
    Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL)
}

fn on(bucket: &Bucket) -> Store {
    over(Arc::new(bucket.clone()), Arc::new(bucket.clone()))
}

fn at_once() -> ResumeOptions {
    ResumeOptions::default().pipeline(config()).silence(Duration::ZERO)
}

/// Three segments and a bit; one put; nothing.
fn contents() -> Vec<Bytes> {
    vec![noise(1, 1_300_000), noise(2, 100_000), Bytes::new()]
}

/// Two segments, and one.
fn little() -> Vec<Bytes> {
    vec![noise(1, 330_000), noise(2, 70_000)]
}

async fn back_up_little(store: &Store) -> BackupId {
    let config = PipelineConfig { segment_bytes: 1, concurrency: 2, ..config() };
    let mut backup = Backup::begin(store, "orders", options(2).pipeline(config)).await.unwrap();
    for (stripe, content) in (0..).zip(little()) {
        backup.stripe_input(stripe, complete(&content)).unwrap();
    }
    backup.commit().await.unwrap().manifest.id
}

async fn resume(store: &Store, id: BackupId) -> Result<Backup> {
    Backup::resume(store, "orders", id, at_once()).await
}

/// Gives every stripe what is missing of it, or everything once more, and commits.
async fn finish(mut backup: Backup, contents: &[Bytes], replays: bool) -> Result<BackupReport> {
    let offsets = backup.offsets();
    let (all, kept): (usize, u64) = (contents.iter().map(Bytes::len).sum(), offsets.iter().sum());
    for ((stripe, content), offset) in (0..).zip(contents).zip(offsets) {
        let mut rest = content.clone();
        if replays {
            backup.replay(stripe)?;
        } else {
            rest = rest.slice(usize::try_from(offset).unwrap()..);
        }
        backup.stripe_input(stripe, complete(&rest))?;
    }
    let report = backup.commit().await?;
    let moved = all as u64 - if replays { 0 } else { kept };
    assert_eq!(report.progress.raw_bytes, moved, "what was stored before was not taken in");
    Ok(report)
}

/// One backup is there, whole at every level, with nothing beside it but the claims.
async fn is_whole(store: &Store, contents: &[Bytes], at: &str) {
    store.wait_idle().await;
    let listing = list(store, None).await.unwrap();
    assert_eq!((listing.backups.len(), listing.damaged.len(), listing.uncommitted.len()), (1, 0, 0), "{at}");
    let (series, which) = latest();
    let manifest = find(store, &series, which).await.unwrap();
    assert!(restore(store, &manifest).await.unwrap() == contents, "{at}: restored something else");
    for level in [VerifyLevel::Stored, VerifyLevel::Full] {
        let report =
            verify(store, &manifest, VerifyOptions::new(level).pipeline(config()).record(false)).await.unwrap();
        assert!(report.is_good(), "{at}: {report:?}");
    }
    let mut expected: BTreeSet<String> = manifest.objects().map(|(_, name, _)| name).collect();
    expected.extend([manifest.names().intent(), manifest.names().manifest()]);
    // A crash may leave the object by which it was tried what the store does.
    let is_beside = |name: &String| name.contains("/claims/") || name.starts_with(".vdstream/");
    let found: BTreeSet<String> = names(store).await.into_iter().filter(|name| !is_beside(name)).collect();
    assert_eq!(found, expected, "{at}");
}

/// A backup in a bucket, recorded, of which nothing was lost.
async fn recorded(before: Contents, work: impl AsyncFnOnce(Store) -> BackupId) -> (crate::testing::Log, BackupId) {
    let bucket = bucket(before);
    let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket)).interleaved(7);
    let store = over(Arc::new(recording.clone()), Arc::new(recording.clone()));
    let id = work(store.clone()).await;
    store.wait_idle().await;
    (recording.log(), id)
}

/// Takes a crash over, and ends the backup if there is something to go on with.
async fn go_on(found: &Contents, id: BackupId, replays: bool, at: &str) -> &'static str {
    let bucket = bucket(found.clone());
    let store = on(&bucket);
    let outcome = match resume(&store, id).await {
        Ok(backup) => {
            finish(backup, &little(), replays).await.unwrap_or_else(|error| panic!("{at}: {}", error.report()));
            is_whole(&store, &little(), at).await;
            "gone on with"
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(!found.objects.keys().any(|name| name.ends_with("intent.json")), "{at}: {}", error.report());
            "not begun"
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{at}: {}", error.report());
            let is_complete = found.objects.keys().any(|name| name.ends_with("manifest.json"));
            assert!(is_complete && error.report().contains("complete already"), "{at}: {}", error.report());
            return "complete";
        }
    };
    // An upload that was begun and not recorded holds nothing, and nobody knows of it.
    let known = bucket.contents().uploads.into_values().filter(|upload| !upload.parts.is_empty()).count();
    assert_eq!(known, 0, "{at}: uploads are left");
    outcome
}

#[tokio::test(start_paused = true)]
async fn a_backup_cut_at_any_point_goes_on_and_restores() {
    let (log, id) = recorded(Contents::default(), async |store| back_up_little(&store).await).await;
    let mut outcomes = std::collections::BTreeMap::new();
    for events in 0..=log.len() {
        for (nth, crash) in log.crashes(&Contents::default(), events, Timestamp::UNIX_EPOCH).into_iter().enumerate() {
            let replays = (events + nth) % 2 == 1;
            let at = format!("after {events} events, {}, replayed: {replays}", crash.note);
            *outcomes.entry(go_on(&crash.contents, id, replays, &at).await).or_insert(0) += 1;
        }
    }
    println!("{} events: {outcomes:?}", log.len());
    assert!(outcomes["gone on with"] > 50 && outcomes.len() == 3, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_backup_cut_at_any_point_is_resumed_again() {
    let (log, id) = recorded(Contents::default(), async |store| back_up_little(&store).await).await;
    // Where a segment is whole and an upload runs.
    let before = (0..log.len()).map(|events| log.rebuild(&Contents::default(), events, Timestamp::UNIX_EPOCH)).find(
        |contents| {
            let segments = contents.objects.keys().filter(|name| name.ends_with(".zst")).count();
            segments > 0 && contents.uploads.values().any(|upload| !upload.parts.is_empty())
        },
    );
    let before = before.unwrap();
    let (log, _) = recorded(before.clone(), async |store| {
        let backup = resume(&store, id).await.unwrap();
        finish(backup, &little(), true).await.unwrap();
        id
    })
    .await;
    let mut outcomes = std::collections::BTreeMap::new();
    for events in 0..=log.len() {
        for (nth, crash) in log.crashes(&before, events, Timestamp::UNIX_EPOCH).into_iter().enumerate() {
            let replays = (events + nth) % 2 == 1;
            let at = format!("after {events} events, {}, replayed: {replays}", crash.note);
            *outcomes.entry(go_on(&crash.contents, id, replays, &at).await).or_insert(0) += 1;
        }
    }
    println!("{} events: {outcomes:?}", log.len());
    assert!(outcomes["gone on with"] > 50 && outcomes["complete"] > 0, "{outcomes:?}");
}

/// Waits until these objects are there.
async fn stored(store: &Store, bucket: &Bucket, wanted: &[&str]) {
    let is_there = |name: &&str| bucket.contents().objects.keys().any(|object| object.ends_with(*name));
    for _ in 0..100_000 {
        if wanted.iter().all(is_there) {
            return;
        }
        store.time().sleep(Duration::from_millis(10)).await;
    }
    panic!("they never come: {:?}", bucket.contents().objects.keys());
}

/// A backup of which two segments of stripe 0 and all of stripe 1 are stored, and whose process has died.
async fn crashed() -> (Bucket, Store, BackupId) {
    let bucket = bucket(Contents::default());
    let store = on(&bucket);
    let mut backup = Backup::begin(&store, "orders", options(3)).await.unwrap();
    let id = backup.id();
    for (stripe, content) in (0..).zip(contents()) {
        let source = pieces(&content.slice(..content.len().min(1_200_000))).chain(stream::pending());
        match stripe {
            0 => backup.stripe_input(stripe, source).unwrap(),
            _ => backup.stripe_input(stripe, complete(&content)).unwrap(),
        }
    }
    stored(&store, &bucket, &["s00/000000.zst", "s00/000001.zst", "s01/000000.zst"]).await;
    // As the bucket is now; what the process still does to it is not seen.
    let frozen = self::bucket(bucket.contents());
    drop(backup);
    store.wait_idle().await;
    let store = on(&frozen);
    (frozen, store, id)
}

#[tokio::test(start_paused = true)]
async fn only_the_rest_is_stored_and_names_tell_by_whom() {
    for replays in [false, true] {
        let (bucket, store, id) = crashed().await;
        let before: BTreeSet<String> =
            bucket.contents().objects.into_keys().filter(|name| name.ends_with(".zst")).collect();
        let backup = resume(&store, id).await.unwrap();
        let offsets = backup.offsets();
        assert!(offsets[0] > 500_000 && offsets[0] < 1_200_000 && offsets[1..] == [100_000, 0], "{offsets:?}");
        let limit = backup.pipeline().plan().total_bytes;
        let report = finish(backup, &contents(), replays).await.unwrap();
        assert!(report.progress.memory_peak <= limit);
        let taken = report.progress.stripes[0];
        assert_eq!((taken.position, taken.durable), (1_300_000, 1_300_000));
        // What was stored by this process is less than the whole, and nothing is stored twice.
        assert!(report.progress.stored_bytes < 1_300_000 - offsets[0] + 10_000, "{:?}", report.progress);
        let after: BTreeSet<String> =
            bucket.contents().objects.into_keys().filter(|name| name.ends_with(".zst")).collect();
        assert!(before.iter().filter(|name| after.contains(*name)).count() >= 3);
        assert!(after.difference(&before).all(|name| name.ends_with("-c02.zst")), "{after:?}");
        is_whole(&store, &contents(), "").await;
        let error = resume(&store, id).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Conflict && error.report().contains("complete already"),
            "{}",
            error.report()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_differs_is_refused_with_the_first_offset_and_nothing_is_lost() {
    let (bucket, store, id) = crashed().await;
    let stored = usize::try_from(resume(&store, id).await.unwrap().offsets()[0]).unwrap();
    store.wait_idle().await;
    let frame = 64 << 10;
    for at in [0, 1, frame - 1, frame, 3 * frame + 7, stored - frame, stored - 1] {
        let store = on(&bucket);
        let mut changed = contents();
        let mut bytes = changed[0].to_vec();
        bytes[at] ^= 0x40;
        bytes[at + 1] ^= 1;
        changed[0] = bytes.into();
        let error = finish(resume(&store, id).await.unwrap(), &changed, true).await.unwrap_err();
        let expected = format!("stripe 0, offset {at}: the replay differs");
        assert!(error.kind() == ErrorKind::Invalid && error.report().contains(&expected), "{}", error.report());
        store.wait_idle().await;
    }
    for end in [0, 1, frame, stored - 1] {
        let store = on(&bucket);
        let mut short = contents();
        short[0] = short[0].slice(..end);
        let error = finish(resume(&store, id).await.unwrap(), &short, true).await.unwrap_err();
        let expected = format!("stripe 0, offset {end}: the replay differs");
        assert!(error.kind() == ErrorKind::Invalid && error.report().contains(&expected), "{}", error.report());
        store.wait_idle().await;
    }
    let store = on(&bucket);
    finish(resume(&store, id).await.unwrap(), &contents(), true).await.unwrap();
    is_whole(&store, &contents(), "").await;
}

/// Who sends it through a writer learns the cause from the answer to its end, and from nothing else.
#[tokio::test(start_paused = true)]
async fn a_replay_that_ends_too_early_tells_its_writer_so() {
    let (_, store, id) = crashed().await;
    let mut backup = resume(&store, id).await.unwrap();
    backup.replay(0).unwrap();
    let mut writers = backup.take_writers().unwrap();
    let (writer, short) = (&mut writers[0], contents()[0].slice(..1000));
    tokio::io::AsyncWriteExt::write_all(writer, &short).await.unwrap();
    let error = Error::from(tokio::io::AsyncWriteExt::shutdown(writer).await.unwrap_err());
    let expected = "stripe 0, offset 1000: the replay differs from what is stored: it ends here";
    assert!(error.kind() == ErrorKind::Invalid && error.report().contains(expected), "{}", error.report());
    let error = backup.commit().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.report().contains(expected), "{}", error.report());
}

#[tokio::test(start_paused = true)]
async fn a_flush_in_the_middle_of_a_replayed_frame_tells_the_truth() {
    for is_changed in [false, true] {
        let (_, store, id) = crashed().await;
        let mut backup = resume(&store, id).await.unwrap();
        backup.replay(0).unwrap();
        let mut head = contents()[0].slice(..100_000).to_vec();
        if is_changed {
            head[99_999] ^= 1;
        }
        let (told, mut answer) = tokio::sync::oneshot::channel();
        let flush = Input::Flush(Ack::new(move |outcome| drop(told.send(outcome))));
        let source = stream::iter([Ok(Input::Data(head.into())), Ok(flush)]).chain(stream::pending());
        backup.stripe_input(0, source).unwrap();
        let outcome = (&mut answer).await.unwrap();
        match outcome {
            Ok(()) => assert!(!is_changed),
            Err(error) => {
                assert!(is_changed && error.report().contains("stripe 0, offset 99999"), "{}", error.report());
            }
        }
        backup.abort(given_up()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_who_resume_at_once_one_wins_and_the_other_is_told() {
    let (_, store, id) = crashed().await;
    let (one, other) = tokio::join!(resume(&store, id), resume(&store, id));
    let (winner, error) = match (one, other) {
        (Ok(winner), Err(error)) | (Err(error), Ok(winner)) => (winner, error),
        (one, other) => panic!("{:?} {:?}", one.map(|backup| backup.id()), other.map(|backup| backup.id())),
    };
    assert!(error.kind() == ErrorKind::Conflict && error.report().contains("another process"), "{}", error.report());
    finish(winner, &contents(), false).await.unwrap();
    is_whole(&store, &contents(), "").await;
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_shows_signs_of_life_is_left_alone_until_it_is_silent_or_was_released() {
    let memory = Store::memory();
    let mut backup = Backup::begin(&memory, "orders", options(1)).await.unwrap();
    let id = backup.id();
    backup.stripe_input(0, pieces(&noise(1, 400_000)).chain(stream::pending())).unwrap();
    let patient = || ResumeOptions::default().pipeline(config());
    let error = Backup::resume(&memory, "orders", id, patient()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Conflict && error.report().contains("seems to be running"),
        "{}",
        error.report()
    );
    // Who does not ask gets it, and gives it back in good order: then nobody has to wait.
    let taken = resume(&memory, id).await.unwrap();
    taken.abort(given_up()).await.unwrap();
    drop(Backup::resume(&memory, "orders", id, patient()).await.unwrap());
    drop(backup);
    memory.wait_idle().await;
}

/// A machine that is five minutes ahead of the store once took over whatever lived.
#[tokio::test(start_paused = true)]
async fn silence_is_measured_by_the_stores_clock() {
    const MINUTE: Duration = Duration::from_secs(60);
    for ahead in [true, false] {
        let (bucket, clock) = collection::bucket(Contents::default());
        let id = collection::killed(&bucket, &clock).await;
        // Another machine, an hour off.
        let other = SimClock::new();
        other.advance(if ahead { clock.now() + 60 * MINUTE } else { clock.now() - 60 * MINUTE });
        let store = collection::on(&bucket, &other);
        let patient = || ResumeOptions::default().pipeline(config());
        for minutes in [0, 4] {
            clock.advance(minutes * MINUTE);
            other.advance(minutes * MINUTE);
            let error = Backup::resume(&store, "orders", id, patient()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
            let said = format!("written to {} s ago", minutes * 60);
            assert!(error.report().contains(&said), "{ahead}: {}", error.report());
        }
        clock.advance(MINUTE);
        other.advance(MINUTE);
        let resumed = Backup::resume(&store, "orders", id, patient()).await.unwrap();
        resumed.abort(given_up()).await.unwrap();
    }
}

/// What was killed on a machine whose clock was a year ahead could be resumed only a year later.
#[tokio::test(start_paused = true)]
async fn on_disk_a_clock_that_was_ahead_is_not_waited_for() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (wrong, ahead) = collection::bucket(Contents::default());
    ahead.advance(366 * 24 * collection::HOUR);
    let id = collection::killed(&wrong, &ahead).await;
    let clock = SimClock::new();
    clock.advance(1000 * collection::HOUR);
    let patient = || ResumeOptions::default().pipeline(config());
    let disk = Bucket::new(wrong.contents(), clock.shared());
    let store = collection::on(&disk, &clock);
    let error = Backup::resume(&store, "orders", id, patient()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "another machine's clock is believed: {}", error.report());

    // What was written when the clock was right again counts.
    let store = store.sharing_clock();
    store.create(&format!("orders/{id}/s00/000009.zst"), "alive".into()).await.unwrap();
    for minutes in [0, 4] {
        clock.advance(minutes * MINUTE);
        let error = Backup::resume(&store, "orders", id, patient()).await.unwrap_err();
        let said = format!("written to {} s ago", minutes * 60);
        assert!(error.report().contains(&said), "{}", error.report());
    }
    clock.advance(MINUTE);
    let resumed = Backup::resume(&store, "orders", id, patient()).await.unwrap();
    resumed.abort(given_up()).await.unwrap();
}

/// How the first process ends, at which time, and whether the second one commits.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_taken_over_from_harms_nothing_whenever_it_wakes() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Wakes {
        BeforeTheResumption,
        BeforeTheEnd,
        AfterTheEnd,
    }
    let mut counts = [0, 0];
    for is_complete in [true, false] {
        for first_commits in [true, false] {
            for second_commits in [true, false] {
                for wakes in [Wakes::BeforeTheResumption, Wakes::BeforeTheEnd, Wakes::AfterTheEnd] {
                    let at = format!("complete: {is_complete}, commits: {first_commits} {second_commits}, {wakes:?}");
                    let bucket = bucket(Contents::default());
                    let store = on(&bucket);
                    let mut first = Backup::begin(&store, "orders", options(1)).await.unwrap();
                    let id = first.id();
                    let content = noise(1, 1_300_000);
                    let (go, gone) = tokio::sync::oneshot::channel::<()>();
                    let gate = stream::once(async move {
                        let _woken = gone.await;
                        Ok(Input::Data(Bytes::new()))
                    });
                    let (head, tail) = (content.slice(..1_200_000), content.slice(1_200_000..));
                    if is_complete {
                        first.stripe_input(0, complete(&content)).unwrap();
                        first.wait_stripes().await.unwrap();
                    } else {
                        first.stripe_input(0, pieces(&head).chain(gate).chain(complete(&tail))).unwrap();
                        stored(&store, &bucket, &["s00/000001.zst"]).await;
                    }
                    let mut first = Some(first);
                    let mut go = Some(go);
                    let mut wake = async || {
                        drop(go.take());
                        let Some(first) = first.take() else { return false };
                        match first_commits {
                            true => match first.commit().await {
                                Ok(_) => true,
                                Err(error) => {
                                    let report = error.report();
                                    let is_there = ["it is complete", "another manifest stands"];
                                    let is_there = is_there.iter().any(|words| report.contains(words));
                                    assert_eq!(may_be_committed(&error), is_there, "{report}");
                                    false
                                }
                            },
                            false => {
                                first.abort(given_up()).await.unwrap();
                                false
                            }
                        }
                    };
                    let mut committed = 0;
                    if wakes == Wakes::BeforeTheResumption {
                        committed += usize::from(wake().await);
                    }
                    let second = resume(&store, id).await;
                    if wakes == Wakes::BeforeTheEnd {
                        committed += usize::from(wake().await);
                    }
                    let contents = [content];
                    if let Ok(second) = second {
                        match second_commits {
                            true => committed += usize::from(finish(second, &contents, true).await.is_ok()),
                            false => second.abort(given_up()).await.unwrap(),
                        }
                    }
                    if wakes == Wakes::AfterTheEnd {
                        committed += usize::from(wake().await);
                    }
                    store.wait_idle().await;
                    assert!(committed <= 1, "{at}: both have committed");
                    assert!(committed == 1 || !second_commits || wakes == Wakes::BeforeTheResumption, "{at}: none has");
                    let listing = list(&store, None).await.unwrap();
                    assert_eq!((listing.backups.len(), listing.damaged.len()), (committed, 0), "{at}");
                    if committed == 1 {
                        is_whole(&store, &contents, &at).await;
                    }
                    assert!(bucket.contents().uploads.is_empty(), "{at}: uploads are left");
                    counts[committed] += 1;
                }
            }
        }
    }
    println!("{} orders, {} of them with a backup", counts[0] + counts[1], counts[1]);
}

/// It stands still between its last segment and its commit. Meanwhile another process has resumed the backup, committed it and
/// removed that segment, and then somebody deletes the backup: so its name is free again.
#[tokio::test]
async fn a_deleted_backup_does_not_come_back_by_a_process_that_was_taken_over_from() {
    const MINUTE: Duration = Duration::from_secs(60);
    // It was never silent for long; it may have been taken for dead; its clock was ahead when it began, and was set right.
    for (pause, ahead) in [(5 * MINUTE, 0), (48 * collection::HOUR, 0), (12 * MINUTE, 10)] {
        let (bucket, clock) = collection::bucket(Contents::default());
        let store = collection::on(&bucket, &clock);
        let machine = collection::SetBack::default();
        machine.clock.advance(clock.now() + ahead * MINUTE);
        let first_store = collection::on(&bucket, &clock).clock(Arc::new(machine.clone()));
        let contents = [noise(1, 100_000), noise(2, 50_000)];
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let gate = stream::once(async move {
            let _woken = gone.await;
            Ok(Input::Data(Bytes::new()))
        });
        let mut first = Backup::begin(&first_store, "orders", options(2)).await.unwrap();
        let id = first.id();
        first.stripe_input(0, complete(&contents[0])).unwrap();
        first.stripe_input(1, gate.chain(complete(&contents[1]))).unwrap();
        let is_stored = |segment: &str| bucket.contents().objects.contains_key(&format!("orders/{id}/{segment}.zst"));
        // Nothing of it is on its way that resuming would end.
        while !is_stored("s00/000000") || bucket.contents().objects.keys().any(|name| name.contains("/uploads/")) {
            tokio::task::yield_now().await;
        }
        let second = resume(&store, id).await.unwrap();
        drop(go);
        while !is_stored("s01/000000") {
            tokio::task::yield_now().await;
        }
        let manifest = finish(second, &contents, true).await.unwrap().manifest;
        assert!(!is_stored("s01/000000"), "it belongs to nobody");
        let deletion = retention::plan_deletion(&store, &manifest.series, id, retention::Descendants::Refuse).await;
        retention::apply(&store, &deletion.unwrap(), &mut Default::default()).await.unwrap();

        clock.advance(pause);
        machine.clock.advance(pause);
        *machine.back.lock() = ahead * MINUTE;
        let error = first.commit().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.report().contains("was deleted"), "{}", error.report());
        assert!(!may_be_committed(&error), "its manifest was taken back");
        first_store.wait_idle().await;
        store.wait_idle().await;
        let listing = list(&store, None).await.unwrap();
        assert!(listing.backups.is_empty() && listing.damaged.is_empty(), "{pause:?} {ahead}: {listing:?}");
        assert_eq!(restore(&store, &manifest).await.unwrap(), contents, "whoever has begun to read it goes on");

        clock.advance(DEFAULT_GRACE);
        let plan = plan(&store, None, DEFAULT_GRACE).await.unwrap();
        apply(&store, &plan, &mut Default::default()).await.unwrap();
        assert_eq!(bucket.contents(), Contents::default(), "{pause:?} {ahead}");
    }
}

/// The one that resumes is no longer silent when it has read everything, so it does not know that it was.
#[tokio::test(start_paused = true)]
async fn what_a_collection_removed_while_it_was_read_back_is_not_committed() {
    for is_marked in [false, true] {
        let (bucket, store, id) = crashed().await;
        let backup = resume(&store, id).await.unwrap();
        assert!(backup.offsets()[0] > 500_000);
        // As it is after the collection, or in its middle.
        match is_marked {
            true => store.create(&format!("orders/{id}/collected/mark"), "{}".into()).await.unwrap(),
            false => {
                bucket.edit(|contents| drop(contents.objects.remove(&format!("orders/{id}/intent.json")).unwrap()))
            }
        }
        let error = finish(backup, &contents(), false).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && !may_be_committed(&error), "{}", error.report());
        assert!(error.report().contains("took it for dead"), "{}", error.report());
        assert!(list(&store, None).await.unwrap().backups.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment_ends_what_is_kept() {
    let (bucket, store, id) = crashed().await;
    let name = format!("orders/{id}/s00/000001.zst");
    bucket.edit(|contents| {
        let object = contents.objects.get_mut(&name).unwrap();
        let mut bytes = object.bytes.to_vec();
        bytes[100_000] ^= 1;
        object.bytes = bytes.into();
    });
    let backup = resume(&store, id).await.unwrap();
    let offsets = backup.offsets();
    assert!(offsets[0] > 100_000 && offsets[0] < 600_000, "{offsets:?}");
    finish(backup, &contents(), false).await.unwrap();
    is_whole(&store, &contents(), "").await;
}

#[tokio::test(start_paused = true)]
async fn the_look_at_what_is_stored_tells_how_much_it_has_read_of_how_much() {
    for damaged in [None, Some("s00/000000.zst"), Some("s00/000001.zst")] {
        let (bucket, _, id) = crashed().await;
        let objects = bucket.contents().objects.into_iter().filter(|(name, _)| name.ends_with(".zst"));
        let sizes: Vec<(String, u64)> = objects.map(|(name, object)| (name, object.bytes.len() as u64)).collect();
        let damaged = damaged.map(|object| format!("orders/{id}/{object}"));
        if let Some(name) = &damaged {
            bucket.edit(|contents| {
                let object = contents.objects.get_mut(name).unwrap();
                let mut bytes = object.bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                object.bytes = bytes.into();
            });
        }
        // Each read takes its time, so that it is seen what is told between two of them.
        let slow = Rule::new(Fault::Bandwidth(1_000_000)).on(Operation::Get);
        let slow = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).rule(slow);
        let store = slow.store();
        let watch = ResumeWatch::new();
        assert_eq!(watch.progress(), ResumeProgress::default(), "not known before it begins");
        let mut resumed = std::pin::pin!(Backup::resume(&store, "orders", id, at_once().watch(&watch)));
        let mut seen = vec![watch.progress()];
        let backup = loop {
            tokio::select! {
                biased;
                backup = &mut resumed => break backup.unwrap(),
                () = store.time().sleep(Duration::from_millis(1)) => {}
            }
            let now = watch.progress();
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        };
        let all: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(seen.iter().find_map(|progress| progress.total_bytes), Some(all), "{damaged:?}");
        assert!(seen.windows(2).all(|two| two[0].read_bytes <= two[1].read_bytes), "{seen:?}");
        let is_between = |progress: &ResumeProgress| progress.read_bytes > 0 && progress.read_bytes < all;
        assert!(seen.iter().any(is_between), "it is told while it goes on: {seen:?}");
        let last = watch.progress();
        assert_eq!(last.total_bytes, Some(last.read_bytes), "{damaged:?}: what is not read does not count");
        // All but the damaged one, which is read in part, and what follows it in its stripe.
        let is_read = |name: &String| damaged.as_ref().is_none_or(|damaged| name < damaged || name.contains("/s01/"));
        let least: u64 = sizes.iter().filter(|(name, _)| is_read(name)).map(|(_, bytes)| bytes).sum();
        let most =
            sizes.iter().find(|(name, _)| Some(name) == damaged.as_ref()).map_or(least, |(_, bytes)| least + bytes - 1);
        assert!((least..=most).contains(&last.read_bytes), "{damaged:?}: {last:?} of {sizes:?}");
        backup.abort(given_up()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_resumed_is_refused_and_stays_as_it_is() {
    let (bucket, store, id) = crashed().await;
    let before = bucket.contents();
    let other = BackupId::generate(Timestamp::UNIX_EPOCH);
    let error = resume(&store, other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());

    for careless in [Bucket::ignoring_create_only, Bucket::without_create_only] {
        let careless = careless(self::bucket(before.clone()));
        let error = resume(&on(&careless), id).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.report().contains("create-only"), "{}", error.report());
        assert_eq!(careless.contents(), before);
    }

    let small = at_once().pipeline(PipelineConfig { memory_limit: 1 << 20, ..config() });
    let error = Backup::resume(&store, "orders", id, small).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.report().contains("memory_limit"), "{}", error.report());

    let deleted = format!("orders/{id}/deleted/20260102T030405.678Z.json");
    store.create(&deleted, "x".into()).await.unwrap();
    let error = resume(&store, id).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.report().contains("being removed"), "{}", error.report());
}

#[cfg(feature = "encryption")]
#[tokio::test(start_paused = true)]
async fn an_encrypted_backup_is_not_resumed() {
    let store = Store::memory();
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    let mut recipients = crate::pipeline::Recipients::new();
    recipients.add(recipient).unwrap();
    let backup = Backup::begin(&store, "orders", options(1).recipients(recipients)).await.unwrap();
    let error = resume(&store, backup.id()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.report().contains("encrypted"), "{}", error.report());
    backup.abort(given_up()).await.unwrap();
}
