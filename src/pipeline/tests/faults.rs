//! Stores that fail, stall, ask for less, and callers that leave: the first cause is told, and nothing is left behind.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::store::{Fault, MemoryStore, Op};
use super::*;
use crate::buffer::MemoryBudget;
use crate::pipeline::plan::MemoryPlan;
use crate::pipeline::progress::Counters;
use crate::pipeline::reader::{Next, Shared, deliver};
use crate::pipeline::{Ack, Direction};
use crate::sync::Mutex;
use crate::{Error, ErrorKind};

const FRAME: usize = 64 * KIB;

/// What an acknowledgement was told.
type Told = Arc<Mutex<Option<Result<()>>>>;

fn ack() -> (Ack, Told) {
    let told = Told::default();
    let slot = Arc::clone(&told);
    (Ack::new(move |outcome| *slot.lock() = Some(outcome)), told)
}

#[tokio::test(start_paused = true)]
async fn passing_faults_and_lost_answers_are_tried_again() {
    for fault in
        [Fault::Fail(ErrorKind::Unavailable), Fault::Fail(ErrorKind::Throttled), Fault::LostAnswer, Fault::Hang]
    {
        for size in [FRAME / 4, 8 * FRAME] {
            // A lost answer to `begin` leaves an upload that nobody can name; finding it is the collector's work.
            let store = MemoryStore::with_faults(move |_, op, before| {
                (before < 2 && !(op == Op::Begin && fault == Fault::LostAnswer)).then_some(fault)
            });
            let bytes = data(size, 7);
            let pipeline = backup_pipeline(small(), 1, &store);
            let summary = pipeline.backup_stripe(0, pieces(&bytes, 5000)).await.unwrap();
            assert_idle(&pipeline, &store).await;
            let back = restore_pipeline(small(), 1, &store);
            assert!(restore(&back, 0, &summary).await.unwrap() == bytes[..]);
            let progress = pipeline.progress();
            assert!(progress.retries >= 2);
            assert_eq!(progress.throttles > 0, fault == Fault::Fail(ErrorKind::Throttled));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_does_not_pass_ends_within_the_stated_time() {
    let store = MemoryStore::with_faults(|_, op, _| (op == Op::Part(1)).then_some(Fault::Hang));
    let clock = SystemClock::shared();
    let pipeline = Pipeline::for_backup(small(), 1, Arc::new(store.clone()), Arc::clone(&clock)).unwrap();
    let begun = clock.now();
    let error = pipeline.backup_stripe(0, pieces(&data(20 * FRAME, 1), FRAME)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.report().contains("cannot put part 1 of stripe 0 segment 0 (attempt 10, "));
    // Ten attempts of 30.5 s, and nine pauses of at most 0.1, 0.2, 0.4 … 15 s.
    let most = Duration::from_millis(10 * 30_500 + 100 * 127 + 12_800 + 15_000);
    assert!(clock.now() - begun <= most, "{:?}", clock.now() - begun);
    assert_idle(&pipeline, &store).await;
    assert_eq!(store.count(|op| op == Op::Abort), 1);
}

/// Many at once, which take turns after the first of them came to nothing.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_each_other_end_within_the_stated_time_too() {
    for concurrency in [1, 2, 8, 64] {
        let store = MemoryStore::with_faults(|_, op, _| matches!(op, Op::Part(_)).then_some(Fault::Hang));
        let clock = SystemClock::shared();
        let config = PipelineConfig { concurrency, memory_limit: 256 << 20, ..small() };
        let pipeline = Pipeline::for_backup(config, 1, Arc::new(store.clone()), Arc::clone(&clock)).unwrap();
        let begun = clock.now();
        let error = pipeline.backup_stripe(0, pieces(&data(400 * FRAME, 1), FRAME)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        // One attempt more than one request alone: whose turn it is when the time is up.
        let most = Duration::from_millis(11 * 30_500 + 100 * 127 + 12_800 + 15_000);
        assert!(clock.now() - begun <= most, "{concurrency}: {:?}", clock.now() - begun);
        assert_idle(&pipeline, &store).await;
    }
}

/// A small request waits for its place behind large ones, which have far longer: that is not the time in which it was refused.
#[tokio::test(start_paused = true)]
async fn a_small_request_that_waits_for_large_ones_is_not_given_up() {
    let (clock, begins) = (SystemClock::shared(), Arc::new(Mutex::new(Vec::new())));
    let (time, seen) = (Arc::clone(&clock), Arc::clone(&begins));
    let store = MemoryStore::with_faults(move |id, op, before| match (id.stripe, op) {
        (0, Op::Part(_)) if before == 0 => Some(Fault::Hang),
        (1, Op::Begin) => {
            seen.lock().push(time.now().as_secs());
            (before < 2).then_some(Fault::Fail(ErrorKind::Unavailable))
        }
        _ => None,
    });
    // A part has eleven minutes.
    let config = PipelineConfig { concurrency: 1, min_bytes_per_second: 100, ..small() };
    let pipeline = Pipeline::for_backup(config, 2, Arc::new(store.clone()), clock).unwrap();
    let bytes = data(20 * FRAME, 1);
    let stripes = (0..2).map(|stripe| pipeline.backup_stripe(stripe, pieces(&bytes, FRAME)));
    futures::future::try_join_all(stripes).await.unwrap();
    let begins = std::mem::take(&mut *begins.lock());
    // It waited for longer than its own attempts could take, and the pauses between them.
    assert!(begins.len() == 3 && begins.windows(2).any(|two| two[1] - two[0] > 341), "{begins:?}");
    assert_idle(&pipeline, &store).await;
}

/// A server that is restarted, or a link that is down, for less than the stated time ends no backup, however soon the ten
/// attempts are used up.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_while_ends_nothing() {
    let clock = SystemClock::shared();
    for (away, is_survived) in [(1, true), (20, true), (60, true), (89, true), (200, false)] {
        let (time, begun) = (Arc::clone(&clock), clock.now());
        let away = Duration::from_secs(away);
        let store = MemoryStore::with_faults(move |_, op, _| {
            let is_down = op == Op::Part(1) && time.now() - begun < away;
            is_down.then_some(Fault::Fail(ErrorKind::Unavailable))
        });
        let pipeline = Pipeline::for_backup(small(), 1, Arc::new(store.clone()), Arc::clone(&clock)).unwrap();
        let outcome = pipeline.backup_stripe(0, pieces(&data(20 * FRAME, 1), FRAME)).await;
        assert_eq!(outcome.is_ok(), is_survived, "{away:?}: {outcome:?}");
        // The time, and the longest pause.
        assert!(clock.now() - begun <= away.min(Duration::from_secs(90)) + Duration::from_secs(16));
        assert_idle(&pipeline, &store).await;
    }
}

/// Requests that share a slow link are each slow: together they take longer than one may, alone they do not.
#[tokio::test(start_paused = true)]
async fn on_a_slow_link_fewer_requests_go_at_once() {
    let config = PipelineConfig { concurrency: 8, ..small() };
    let store = MemoryStore::with_faults(|_, op, before| {
        // The first round of everything takes too long.
        (matches!(op, Op::Part(_)) && before == 0).then_some(Fault::Hang)
    });
    let pipeline = backup_pipeline(config, 1, &store);
    let running = pipeline.backup_stripe(0, pieces(&data(40 * FRAME, 1), FRAME));
    running.await.unwrap();
    let progress = pipeline.progress();
    assert!(progress.concurrency < 8, "{progress:?}");
    assert_eq!(progress.throttles, 0, "the store never said so");
}

#[tokio::test(start_paused = true)]
async fn every_operation_that_fails_for_good_aborts_and_tells_everybody_why() {
    for failing in [Op::Begin, Op::Part(0), Op::Part(3), Op::Complete, Op::Put] {
        for abort_fails in [false, true] {
            let store = MemoryStore::with_faults(move |_, op, _| {
                (op == failing || (abort_fails && op == Op::Abort)).then_some(Fault::Fail(ErrorKind::Denied))
            });
            let pipeline = backup_pipeline(small(), 1, &store);
            let size = if failing == Op::Put { 1000 } else { 20 * FRAME };
            let (flush, flush_told) = ack();
            let (complete, complete_told) = ack();
            let inputs = pieces(&data(size, 2), FRAME)
                .chain(stream::iter([Ok(Input::Flush(flush)), Ok(Input::Complete(complete))]));
            let error = pipeline.backup_stripe(0, inputs).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{failing:?}: {error:?}");
            assert!(error.report().ends_with("injected"), "{error:?}");
            // An acknowledgement that was never taken from the source is dropped, which says "aborted".
            for told in [flush_told, complete_told] {
                let told = told.lock().clone().expect("answered").unwrap_err();
                assert!(matches!(told.kind(), ErrorKind::Denied | ErrorKind::Aborted), "{told:?}");
            }
            pipeline.wait_idle().await;
            assert_eq!(pipeline.held_slots(), 0);
            if !abort_fails {
                assert_eq!(store.open_uploads(), 0);
            }
            assert!(store.objects(0).is_empty());
        }
    }
}

/// Wherever in the pipeline it is: the assembler waits with it until what is before it has gone on.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_was_taken_tells_why_the_stripe_failed() {
    let mut counts = [0, 0];
    for frames in 1..=24 {
        for failing in [Op::Part(0), Op::Part(2), Op::Complete, Op::Put] {
            let store =
                MemoryStore::with_faults(move |_, op, _| (op == failing).then_some(Fault::Fail(ErrorKind::Denied)));
            let pipeline = backup_pipeline(small(), 1, &store);
            let (complete, told) = ack();
            let is_taken = AtomicBool::new(false);
            let inputs =
                pieces(&data(frames * FRAME - 1, 2), FRAME).chain(stream::iter([Ok(Input::Complete(complete))]));
            let inputs = inputs.inspect(|item| {
                is_taken.fetch_or(matches!(item, Ok(Input::Complete(_))), Ordering::Relaxed);
            });
            let outcome = pipeline.backup_stripe(0, inputs).await;
            let told = told.lock().clone().expect("answered");
            match outcome {
                Ok(_) => assert!(told.is_ok(), "{frames} {failing:?}"),
                Err(error) => {
                    let is_taken = is_taken.load(Ordering::Relaxed);
                    assert_eq!(error.kind(), ErrorKind::Denied);
                    let wanted = if is_taken { ErrorKind::Denied } else { ErrorKind::Aborted };
                    assert_eq!(told.unwrap_err().kind(), wanted, "{frames} {failing:?}");
                    counts[usize::from(is_taken)] += 1;
                }
            }
            pipeline.wait_idle().await;
        }
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[tokio::test]
async fn an_error_of_the_source_aborts_what_was_started_before_it_is_returned() {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(small(), 1, &store);
    let failing = stream::iter([Err(Error::new(ErrorKind::Exhausted, "the producer died"))]);
    let error = pipeline.backup_stripe(0, pieces(&data(20 * FRAME, 2), FRAME).chain(failing)).await.unwrap_err();
    assert_eq!((error.kind(), error.report().as_str()), (ErrorKind::Exhausted, "the producer died"));
    assert_eq!(store.open_uploads(), 0, "aborted before the error is returned");
    assert_idle(&pipeline, &store).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_asks_for_less_gets_less() {
    let store = MemoryStore::with_faults(|_, op, before| {
        (matches!(op, Op::Part(0..6)) && before == 0).then_some(Fault::Fail(ErrorKind::Throttled))
    });
    let config = PipelineConfig { concurrency: 8, ..small() };
    let pipeline = backup_pipeline(config, 1, &store);
    pipeline.backup_stripe(0, pieces(&data(40 * FRAME, 2), FRAME)).await.unwrap();
    let progress = pipeline.progress();
    assert_eq!((progress.concurrency < 8, progress.throttles), (true, 6), "{progress:?}");
    assert_idle(&pipeline, &store).await;
}

/// Ends with `None` instead of the poll after the first `polls`.
struct Leave<F> {
    inner: Pin<Box<F>>,
    polls: usize,
}

impl<F: Future> Future for Leave<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.inner.as_mut().poll(cx).map(Some)
    }
}

#[tokio::test]
async fn a_backup_dropped_at_any_await_leaves_nothing_behind() {
    let config = PipelineConfig { segment_bytes: 4 * FRAME as u64, ..small() };
    let bytes = data(30 * FRAME + 5, 3);
    let mut dropped = 0;
    for polls in 0.. {
        let store = MemoryStore::new();
        let pipeline = backup_pipeline(config.clone(), 1, &store);
        let (flush, told) = ack();
        // A source that is not always ready gives more places to leave at.
        let source = pieces(&bytes, 40_000).chain(stream::iter([Ok(Input::Flush(flush))])).then(|input| async {
            tokio::task::yield_now().await;
            input
        });
        let run = Leave { inner: Box::pin(pipeline.backup_stripe(0, source)), polls };
        let outcome = run.await;
        assert_idle(&pipeline, &store).await;
        let told = told.lock().clone().expect("every acknowledgement is answered");
        match outcome {
            None => dropped += 1,
            Some(summary) => {
                summary.unwrap();
                told.unwrap();
                break;
            }
        }
    }
    assert!(dropped > 30, "only {dropped} places to leave at");
}

#[tokio::test]
async fn a_restore_dropped_at_any_item_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let config = PipelineConfig { segment_bytes: 4 * FRAME as u64, ..small() };
    let pipeline = backup_pipeline(config.clone(), 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(&data(30 * FRAME, 3), FRAME)).await.unwrap();
    for items in 0..=30 {
        let back = restore_pipeline(config.clone(), 1, &store);
        let mut frames = Box::pin(back.restore_stripe(0, &summary));
        for _ in 0..items {
            frames.next().await.unwrap().unwrap();
        }
        drop(frames);
        assert_idle(&back, &store).await;
        let budget = back.budget().clone();
        drop(back);
        assert_eq!((budget.used(), budget.reserved()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_whose_read_fails_is_not_starved_by_later_ranges() {
    // A failed read gives its memory back; if a later range took it, the stripe would wait for ever.
    let store = MemoryStore::with_faults(|_, op, before| {
        (op == Op::Read && before % 2 == 0).then_some(Fault::Fail(ErrorKind::Unavailable))
    });
    let bytes = data(300 * FRAME, 3);
    let pipeline = backup_pipeline(small(), 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(&bytes, FRAME)).await.unwrap();
    let back = restore_pipeline(PipelineConfig { concurrency: 2, ..small() }, 1, &store);
    assert!(restore(&back, 0, &summary).await.unwrap() == bytes[..]);
    assert!(back.progress().retries > 10);
    assert_idle(&back, &store).await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_stops_the_read_ahead() {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(small(), 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(&data(200 * FRAME, 3), FRAME)).await.unwrap();
    let back = restore_pipeline(small(), 1, &store);
    let mut frames = Box::pin(back.restore_stripe(0, &summary));
    let held = frames.next().await.unwrap().unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let reads = store.count(|op| op == Op::Read);
    assert!(reads < 20, "{reads} reads for one frame");
    drop(held);
}

#[test]
fn a_restore_for_which_the_system_has_no_thread_fails() {
    let store = MemoryStore::new();
    let runtime = |stack_bytes| {
        tokio::runtime::Builder::new_current_thread().enable_time().thread_stack_size(stack_bytes).build().unwrap()
    };
    let pipeline = backup_pipeline(small(), 1, &store);
    let backup = pipeline.backup_stripe(0, pieces(&data(20 * 64 * KIB, 1), 64 * KIB));
    let summary = runtime(2 << 20).block_on(backup).unwrap();
    // More than any process can have.
    let outcome = runtime(1 << 47).block_on(async {
        let pipeline = restore_pipeline(small(), 1, &store);
        restore(&pipeline, 0, &summary).await
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Internal);
}

/// What hands frames on may be lost, by a bug or with its runtime. That is no end of a stripe.
#[tokio::test]
async fn frames_that_end_without_saying_so_are_an_error() {
    let store = MemoryStore::new();
    let plan = MemoryPlan::new(&small(), Direction::Restore, 1, 1, false).unwrap();
    let counters = Arc::new(Counters::new(Direction::Restore, 1, Duration::ZERO));
    let (clock, budget) = (SystemClock::shared(), MemoryBudget::new(small().memory_limit));
    let shared = Shared::new(&small(), plan, &budget, Arc::new(store), clock, TaskTracker::new(), counters);
    let shared = Arc::new(shared.unwrap());
    for is_said in [true, false] {
        let (sender, frames) = mpsc::channel(2);
        sender.send(Ok(Next::Frame(shared.cpu.start(|| Ok(Bytes::from_static(b"rows")))))).await.unwrap();
        if is_said {
            sender.send(Ok(Next::End)).await.unwrap();
        }
        drop(sender);
        let found: Vec<Result<Bytes>> = deliver(Arc::clone(&shared), 0, frames).collect().await;
        let (first, rest) = found.split_first().unwrap();
        assert_eq!(first.as_ref().unwrap(), "rows");
        let kinds: Vec<ErrorKind> = rest.iter().map(|item| item.as_ref().unwrap_err().kind()).collect();
        assert_eq!(kinds, if is_said { vec![] } else { vec![ErrorKind::Internal] });
    }
}
