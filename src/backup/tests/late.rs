//! Answers that come too late or never: nothing happens twice, nothing is left, and nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use object_store::memory::InMemory;

use super::*;
use crate::ErrorKind;
use crate::clock::SystemClock;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, Rule};

fn since(store: &Store, start: Duration) -> Duration {
    store.time().now() - start
}

/// A store that does this to an operation.
fn faulty(fault: Fault, operation: Operation) -> FaultStore {
    FaultStore::memory(0).rule(Rule::new(fault).on(operation))
}

/// The same to the first such request only.
fn faulty_once(fault: Fault, operation: Operation) -> (Store, FaultStore) {
    let faults = FaultStore::memory(0).rule(Rule::new(fault).on(operation).times(1));
    (faults.store(), faults)
}

async fn is_good(store: &Store, content: Bytes) {
    let (series, which) = latest();
    let manifest = find(store, &series, which).await.unwrap();
    assert_eq!(restore(store, &manifest).await.unwrap(), [content]);
    store.wait_idle().await;
    let left: Vec<String> = names(store).await.into_iter().filter(|name| name.contains("uploads")).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_completed_by_one_attempt_at_a_time() {
    // Longer than an attempt is waited for, so that the next one begins while this one is on its way.
    let (store, faults) = faulty_once(Fault::Latency(Duration::from_secs(100)), Operation::Complete);
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.most_at_once(Operation::Complete), 1);
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_worked_before_it_was_refused_counts() {
    // As a store does that repeats a lost completion itself, and finds no upload then.
    let faults = faulty(Fault::DeniedAfter, Operation::Complete);
    let store = faults.store();
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.open_uploads(), 0);
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_beginning_is_answered_too_late_is_ended_before_the_commit() {
    let (store, faults) = faulty_once(Fault::Latency(Duration::from_secs(50)), Operation::Begin);
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.open_uploads(), 0, "an upload that nobody knows of costs money for ever");
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_does_not_wait_for_ever_for_a_request_that_no_longer_matters() {
    let (store, _) = faulty_once(Fault::Hang, Operation::Begin);
    let start = store.time().now();
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert!(since(&store, start) < Duration::from_secs(120), "{:?}", since(&store, start));
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_ends_in_its_time_and_says_what_may_be_left() {
    for hanging in [Operation::List, Operation::Abort, Operation::Begin, Operation::Complete, Operation::Part] {
        let memory = Arc::new(InMemory::new());
        let faults = FaultStore::new(Arc::<InMemory>::clone(&memory), Arc::<InMemory>::clone(&memory), 0);
        let store = faults.store();
        let hang = || faults.add(Rule::new(Fault::Hang).on(hanging));
        let limit = Duration::from_secs(7);
        let mut backup = Backup::begin(&store, "orders", options(1).clean_up_timeout(limit)).await.unwrap();
        let id = backup.id().to_string();
        // These hang while data moves, those only when the clean-up sends them.
        if !matches!(hanging, Operation::List | Operation::Abort) {
            hang();
        }
        // Half a segment, so that an upload is open; or more than one, so that one is to be completed.
        let length = if hanging == Operation::Complete { 1_000_000 } else { 200_000 };
        backup.stripe_input(0, pieces(&noise(1, length)).chain(stream::pending())).unwrap();
        store.time().sleep(Duration::from_secs(1)).await;
        hang();
        let start = store.time().now();
        let outcome = backup.abort(given_up()).await;
        assert!(since(&store, start) <= limit, "{hanging:?}: {:?}", since(&store, start));
        store.wait_idle().await;
        assert!(since(&store, start) <= limit, "{hanging:?}: {:?} until nothing runs", since(&store, start));
        if let Err(error) = outcome {
            let text = error.report();
            assert!(text.contains(&id) && text.contains("`vdstream gc`"), "{text}");
            assert!(text.contains("did not end within 7s"), "{text}");
            assert_eq!(store.take_leftovers().unwrap().report(), text);
            assert!(
                names(&store).now_or_never().is_none_or(|names| names.iter().any(|name| name.ends_with("intent.json")))
            );
        } else {
            // What hangs is dropped with its stripe, and nothing of it is left.
            assert_eq!(hanging, Operation::Part);
        }
        assert!(store.take_leftovers().is_none());
        drop((store, faults));
        assert_eq!(Arc::strong_count(&memory), 1, "{hanging:?}: the store is held for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_cause_is_known_before_the_clean_up_ends() {
    // The store refuses a part, then hangs while the upload is aborted.
    let faults = faulty(Fault::Denied, Operation::Part).rule(Rule::new(Fault::Hang).on(Operation::Abort));
    let store = faults.store();
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    let mut writers = backup.take_writers().unwrap();
    let source = noise(1, 2_000_000);
    let start = store.time().now();
    let error = tokio::io::AsyncWriteExt::write_all(&mut writers[0], &source).await.unwrap_err();
    assert_eq!(Error::from(error).kind(), ErrorKind::Denied, "the writer learns why");
    assert_eq!(since(&store, start), Duration::ZERO, "the clean-up takes much longer");
    let later = Error::new(ErrorKind::Aborted, "ended by a signal");
    assert_eq!(
        backup.session.fail(later).kind(),
        ErrorKind::Denied,
        "what comes during the clean-up is not the first cause"
    );
    backup.abort(given_up()).await.unwrap_err();
}

/// Readers of many manifests wait for each other's memory.
#[tokio::test(start_paused = true)]
async fn who_waits_for_memory_does_not_give_up_the_store() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    store.create("x", "content".into()).await.unwrap();
    let gate = tokio::sync::Semaphore::new(1);
    let held = gate.acquire().await.unwrap();
    let release = async {
        store.time().sleep(Duration::from_secs(1000)).await;
        drop(held);
    };
    let (read, ()) = tokio::join!(store.read_gated("x", 100, &gate, 100), release);
    assert_eq!(read.unwrap().bytes, "content");
    assert_eq!(faults.log().iter().filter(|request| request.operation == Operation::Get).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_nobody_waits_for_ends_soon_even_if_the_store_hangs() {
    for list_hangs in [false, true] {
        let faults = faulty(Fault::Hang, Operation::Put);
        if list_hangs {
            faults.add(Rule::new(Fault::Hang).on(Operation::List));
        }
        let store = faults.store();
        let mut begin = Box::pin(Backup::begin(&store, "orders", options(1)));
        assert!(begin.as_mut().now_or_never().is_none());
        store.time().sleep(Duration::from_secs(3)).await;
        drop(begin);
        let start = store.time().now();
        store.wait_idle().await;
        assert!(since(&store, start) <= Duration::from_secs(6), "{:?}", since(&store, start));
        // The request may still arrive, whatever the clean-up found.
        let left = store.take_leftovers().unwrap().report();
        assert!(left.contains("did not answer the backup's first request"), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_store_holds_nothing_of_a_beginning_that_was_dropped() {
    for answer in [0, 1, 500] {
        // The listing is slow, so that the clean-up is still on its way when a wait that ends too early looks.
        let store = faulty(Fault::Latency(Duration::from_millis(answer)), Operation::Put)
            .rule(Rule::new(Fault::Latency(Duration::from_millis(100))).on(Operation::List))
            .store();
        let mut begin = Box::pin(Backup::begin(&store, "orders", options(1)));
        assert!(begin.as_mut().now_or_never().is_none());
        drop(begin);
        store.wait_idle().await;
        assert_eq!(names(&store).await, [""; 0], "answered after {answer} ms");
    }
}

#[test]
fn a_backup_that_is_dropped_outside_of_a_runtime_leaves_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Store::memory();
    let mut backup = runtime.block_on(Backup::begin(&store, "orders", options(1))).unwrap();
    let running = Arc::new(AtomicUsize::new(0));
    let (input, seen) = (pieces(&noise(1, 1_000_000)), Arc::clone(&running));
    runtime.block_on(async {
        backup
            .stripe_input(
                0,
                input
                    .inspect(move |_| {
                        let _before = seen.fetch_add(1, Ordering::Relaxed);
                    })
                    .chain(stream::pending()),
            )
            .unwrap();
        while running.load(Ordering::Relaxed) < 20 {
            tokio::task::yield_now().await;
        }
    });
    // On this thread there is no runtime now.
    drop(backup);
    runtime.block_on(async {
        store.wait_idle().await;
        assert_eq!(names(&store).await, [""; 0]);
    });
    let begin = Backup::begin(&store, "orders", options(1)).now_or_never().unwrap();
    assert_eq!(begin.unwrap_err().kind(), ErrorKind::Invalid, "a beginning needs one");
}

/// A bucket in which parts take their time, whoever waits for them; a part of an upload that is aborted meanwhile is kept.
fn late_parts() -> (Bucket, impl Fn() -> Store) {
    let clock = SystemClock::shared();
    let bucket = Bucket::new(Contents::default(), Arc::clone(&clock)).with_late_parts();
    let on = bucket.clone();
    let store = move || {
        let (objects, multipart) = (Arc::new(on.clone()), Arc::new(on.clone()));
        let store = Store::with_multipart(objects, multipart, "").part_limits(store::PartLimits::LOCAL);
        store.clock(Arc::clone(&clock))
    };
    (bucket, store)
}

/// Half a segment, so that an upload is open, with parts on their way.
async fn with_parts_on_their_way(store: &Store) -> Backup {
    let mut backup = Backup::begin(store, "orders", options(1)).await.unwrap();
    backup.stripe_input(0, pieces(&noise(1, 250_000)).chain(stream::pending())).unwrap();
    store.time().sleep(Duration::from_secs(1)).await;
    backup
}

#[tokio::test(start_paused = true)]
async fn a_part_that_arrives_after_the_abort_is_not_left_behind() {
    let (bucket, store) = late_parts();
    let store = store();
    let backup = with_parts_on_their_way(&store).await;
    backup.abort(given_up()).await.unwrap();
    store.wait_idle().await;
    assert_eq!(bucket.contents(), Contents::default(), "an upload without a record costs money for ever");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_arrives_after_its_backup_was_resumed_is_not_left_behind() {
    let (bucket, store) = late_parts();
    let (old_store, new_store) = (store(), store());
    let old = with_parts_on_their_way(&old_store).await;
    assert_eq!(bucket.contents().uploads.len(), 1);
    let resumed = ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
    let new = Backup::resume(&new_store, "orders", old.id(), resumed).await.unwrap();
    assert_eq!(bucket.contents().uploads.len(), 0);
    drop((old, new));
    old_store.wait_idle().await;
    new_store.wait_idle().await;
    assert_eq!(bucket.contents().uploads.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_cannot_be_ended_keeps_its_record_and_is_told() {
    let faults = FaultStore::memory(0);
    let store = faults.store();
    let backup = with_parts_on_their_way(&store).await;
    faults.add(Rule::new(Fault::Denied).on(Operation::Abort));
    backup.abort(given_up()).await.unwrap_err();
    store.wait_idle().await;
    let left = names(&store).await;
    assert!(left.iter().any(|name| name.contains("/uploads/")), "{left:?}");
    assert!(left.iter().any(|name| name.ends_with("intent.json")), "{left:?}");
    assert_eq!(faults.open_uploads(), 1);
    faults.heal();
    let plan = crate::backup::collection::plan(&store, None, Duration::ZERO).await.unwrap();
    crate::backup::collection::apply(&store, &plan, &mut Default::default()).await.unwrap();
    assert_eq!(faults.open_uploads(), 0);
    assert_eq!(names(&store).await, [""; 0]);
}
