//! Answers that come too late or never: nothing happens twice, nothing is left, and nobody waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;

use super::fault_store::{Fate, store};
use super::*;
use crate::ErrorKind;

/// More time than anything here waits.
const NEVER: Fate = Fate::Hold(Duration::from_secs(1 << 30));

fn since(store: &Store, start: Duration) -> Duration {
    store.time().now() - start
}

/// True for the first call only.
fn once() -> impl Fn() -> bool + Send + Sync + 'static {
    let first = AtomicBool::new(true);
    move || first.swap(false, Ordering::Relaxed)
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
    let first = once();
    let (store, faults) = store(move |_, operation, _| match operation == "complete" && first() {
        true => Fate::Hold(Duration::from_secs(100)),
        false => Fate::Pass,
    });
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.most_completions_at_once(), 1);
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_worked_before_it_was_refused_counts() {
    // As a store does that repeats a lost completion itself, and finds no upload then.
    let (store, faults) = store(|_, operation, _| match operation {
        "complete" => Fate::DenyAfter,
        _ => Fate::Pass,
    });
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.open_uploads(), 0);
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_beginning_is_answered_too_late_is_ended_before_the_commit() {
    let first = once();
    let (store, faults) = store(move |_, operation, _| match operation == "begin" && first() {
        true => Fate::Hold(Duration::from_secs(50)),
        false => Fate::Pass,
    });
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert_eq!(faults.open_uploads(), 0, "an upload that nobody knows of costs money for ever");
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_does_not_wait_for_ever_for_a_request_that_no_longer_matters() {
    let first = once();
    let (store, _) = store(move |_, operation, _| match operation == "begin" && first() {
        true => NEVER,
        false => Fate::Pass,
    });
    let start = store.time().now();
    back_up(&store, &[noise(1, 250_000)]).await.unwrap();
    assert!(since(&store, start) < Duration::from_secs(120), "{:?}", since(&store, start));
    is_good(&store, noise(1, 250_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_ends_in_its_time_and_says_what_may_be_left() {
    for hanging in ["list", "abort", "begin", "complete", "part"] {
        let is_hanging = Arc::new(AtomicBool::new(false));
        let (store, faults) = store({
            let is_hanging = Arc::clone(&is_hanging);
            move |_, operation, _| match operation == hanging && is_hanging.load(Ordering::Relaxed) {
                true => NEVER,
                false => Fate::Pass,
            }
        });
        let limit = Duration::from_secs(7);
        let mut backup = Backup::begin(&store, "orders", options(1).clean_up_timeout(limit)).await.unwrap();
        let id = backup.id().to_string();
        // These hang while data moves, those only when the clean-up sends them.
        is_hanging.store(!matches!(hanging, "list" | "abort"), Ordering::Relaxed);
        // Half a segment, so that an upload is open; or more than one, so that one is to be completed.
        let length = if hanging == "complete" { 1_000_000 } else { 200_000 };
        backup.stripe_input(0, pieces(&noise(1, length)).chain(stream::pending())).unwrap();
        store.time().sleep(Duration::from_secs(1)).await;
        is_hanging.store(true, Ordering::Relaxed);
        let start = store.time().now();
        let outcome = backup.abort(given_up()).await;
        assert!(since(&store, start) <= limit, "{hanging}: {:?}", since(&store, start));
        store.wait_idle().await;
        assert!(since(&store, start) <= limit, "{hanging}: {:?} until nothing runs", since(&store, start));
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
            assert_eq!(hanging, "part");
        }
        assert!(store.take_leftovers().is_none());
        drop(store);
        assert_eq!(Arc::strong_count(&faults), 1, "{hanging}: the store is held for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_cause_is_known_before_the_clean_up_ends() {
    // The store refuses a part, then hangs while the upload is aborted.
    let (store, _) = store(|_, operation, _| match operation {
        "part" => Fate::Deny,
        "abort" => NEVER,
        _ => Fate::Pass,
    });
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

#[tokio::test(start_paused = true)]
async fn a_beginning_that_nobody_waits_for_ends_soon_even_if_the_store_hangs() {
    for hanging in ["put", "put and list"] {
        let (store, _) = store(move |_, operation, _| if hanging.contains(operation) { NEVER } else { Fate::Pass });
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
        let (store, _) = store(move |_, operation, _| match operation {
            "put" => Fate::Hold(Duration::from_millis(answer)),
            // So that the clean-up is still on its way when a wait that ends too early looks.
            "list" => Fate::Hold(Duration::from_millis(100)),
            _ => Fate::Pass,
        });
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
