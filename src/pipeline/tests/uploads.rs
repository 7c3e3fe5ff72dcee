//! The task of an upload: in which order it sends parts, and what it says when it ends.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::store::{Fault, MemoryStore, Op};
use super::*;
use crate::buffer::MemoryBudget;
use crate::error::ErrorKind;
use crate::pipeline::encrypt::seal::Part;
use crate::pipeline::plan::MemoryPlan;
use crate::pipeline::progress::Counters;
use crate::pipeline::stop::Stop;
use crate::pipeline::upload::Uploader;
use crate::pipeline::writer::Shared;
use crate::pipeline::{Direction, SegmentId};

/// Some stores can take a part only when those before it have come. With one place in flight, one that overtakes them would hold the
/// place that they wait for, until its time is up. The threads of the runtime run first what was spawned last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_overtakes_those_before_it() {
    for seed in 0..200 {
        let store = MemoryStore::new();
        let pipeline = backup_pipeline(PipelineConfig { concurrency: 1, ..small() }, 1, &store);
        pipeline.backup_stripe(0, pieces(&data(20 * 64 * KIB, seed), 64 * KIB)).await.unwrap();
        let log = store.state.log.lock();
        let parts: Vec<Op> = log.iter().map(|(_, op)| *op).filter(|op| matches!(op, Op::Part(_))).collect();
        assert!(parts.len() > 5 && parts.is_sorted(), "{seed}: {parts:?}");
    }
}

/// A store whose uploads cannot be begun: it refuses, or panics.
fn no_beginning(panics: bool) -> MemoryStore {
    MemoryStore::with_faults(move |_, op, _| {
        assert!(!(panics && op == Op::Begin), "injected");
        (op == Op::Begin).then_some(Fault::Fail(ErrorKind::Denied))
    })
}

fn shared(store: &MemoryStore) -> Arc<Shared> {
    let plan = MemoryPlan::new(&small(), Direction::Backup, 1, 1, false).unwrap();
    let budget = MemoryBudget::new(small().memory_limit);
    let (store, clock) = (Arc::new(store.clone()), SystemClock::shared());
    let counters = Arc::new(Counters::new(Direction::Backup, 1, Duration::ZERO));
    Arc::new(Shared::new(&small(), plan, &budget, store, clock, TaskTracker::new(), counters).unwrap())
}

/// Whoever sends parts learns only that nobody takes them, and would tell that as the first cause.
#[tokio::test]
async fn an_upload_says_why_it_ends_before_it_takes_no_more_parts() {
    for (panics, kind) in [(false, ErrorKind::Denied), (true, ErrorKind::Internal)] {
        let shared = shared(&no_beginning(panics));
        let uploader = Arc::new(OnceLock::<Uploader>::new());
        let (told, at_end) = oneshot::channel();
        let watched = Arc::clone(&uploader);
        let stop = Stop::new(move |cause| {
            let _ = told.send((cause.kind(), watched.get().is_some_and(Uploader::is_open)));
        });
        let started = Uploader::start(&shared, SegmentId { stripe: 0, index: 0 }, Arc::new(stop));
        assert!(uploader.set(started).is_ok());
        let mut slot = shared.parts.acquire().await;
        slot.put(b"content");
        uploader.get().unwrap().part(&shared, Part::plain(Some(slot))).await.unwrap();
        assert_eq!(at_end.await, Ok((kind, true)), "panics: {panics}");
    }
}

#[tokio::test]
async fn a_panic_is_told_as_one() {
    let store = no_beginning(true);
    let pipeline = backup_pipeline(small(), 1, &store);
    let error = pipeline.backup_stripe(0, pieces(&data(80 * 64 * KIB, 1), 64 * KIB)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Internal && error.report().contains("panicked"), "{error:?}");
    assert_idle(&pipeline, &store).await;
}
