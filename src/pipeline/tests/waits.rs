//! Who is waited for is known while the wait goes on: what hangs never ends one.

use std::time::Duration;

use futures::{StreamExt, stream};

use super::store::{Fault, MemoryStore, Op};
use super::*;
use crate::clock::Clock as _;
use crate::pipeline::{Direction, Kept};

const FRAME: usize = 64 * KIB;

/// Seconds of waiting that progress tells of for ten seconds in the middle of `work`, which does not come to its end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waited {
    source: u64,
    frame: u64,
    thread: u64,
    store: u64,
}

async fn waited(pipeline: &Pipeline, work: impl Future) -> Waited {
    let clock = SystemClock::new();
    let look = async {
        clock.sleep(Duration::from_secs(5)).await;
        let before = pipeline.progress();
        clock.sleep(Duration::from_secs(10)).await;
        (before, pipeline.progress())
    };
    let (before, after) = tokio::select! {
        looked = look => looked,
        _ = work => panic!("it hangs"),
    };
    // Timers go by milliseconds.
    let seconds = |before: Duration, after: Duration| (after - before + Duration::from_millis(500)).as_secs();
    Waited {
        source: seconds(before.source_wait, after.source_wait),
        frame: seconds(before.frame_wait, after.frame_wait),
        thread: seconds(before.cpu_wait, after.cpu_wait),
        store: seconds(before.store_wait, after.store_wait),
    }
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_is_silent_shows_while_it_is() {
    for silent in [1, 3] {
        let store = MemoryStore::new();
        let pipeline = backup_pipeline(small(), 3, &store);
        let stripes = (0..3).map(|stripe| {
            let source = pieces(&data(3 * FRAME + 5, 1), FRAME);
            let rest = if stripe < silent { stream::pending().left_stream() } else { stream::empty().right_stream() };
            pipeline.backup_stripe(stripe, source.chain(rest))
        });
        let waited = waited(&pipeline, futures::future::try_join_all(stripes)).await;
        assert_eq!(waited, Waited { source: 10 * u64::from(silent), ..Waited::default() });
        assert_idle(&pipeline, &store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_of_a_backup_that_hangs_shows_while_it_does() {
    type Hangs = fn(Op) -> bool;
    let hangs: [(&str, usize, Hangs); 5] = [
        ("put", FRAME / 4, |op| op == Op::Put),
        ("begin", 20 * FRAME, |op| op == Op::Begin),
        ("a part", 20 * FRAME, |op| op == Op::Part(3)),
        ("parts", 200 * FRAME, |op| matches!(op, Op::Part(_))),
        ("complete", 20 * FRAME, |op| op == Op::Complete),
    ];
    for (what, size, hangs) in hangs {
        let store = MemoryStore::with_faults(move |_, op, _| hangs(op).then_some(Fault::Hang));
        let pipeline = backup_pipeline(small(), 1, &store);
        let waited = waited(&pipeline, pipeline.backup_stripe(0, pieces(&data(size, 1), FRAME))).await;
        assert_eq!((waited.source, waited.thread, waited.store), (0, 0, 10), "{what}: {waited:?}");
        assert_idle(&pipeline, &store).await;
    }
}

/// A backup in a store whose reads hang.
async fn unreadable(size: usize) -> (MemoryStore, StripeSummary) {
    let store = MemoryStore::with_faults(|_, op, _| (op == Op::Read).then_some(Fault::Hang));
    let pipeline = backup_pipeline(small(), 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(&data(size, 1), FRAME)).await.unwrap();
    (store, summary)
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_shows_while_it_does() {
    // One read has the whole of the first, and only the tail of the second.
    for size in [FRAME / 4, 200 * FRAME] {
        let (store, summary) = unreadable(size).await;
        let back = restore_pipeline(small(), 1, &store);
        let waited = waited(&back, restore(&back, 0, &summary)).await;
        assert_eq!(waited, Waited { store: 10, ..Waited::default() }, "{size} bytes");
        assert_idle(&back, &store).await;
    }
    let (store, summary) = unreadable(20 * FRAME).await;
    let pipeline =
        Pipeline::backup(small(), 1, Arc::new(store.clone()), SystemClock::shared(), None, Direction::Resume).unwrap();
    let replay = Kept { summary, is_replayed: true };
    let run = pipeline.resume_stripe(0, replay, pieces(&data(20 * FRAME, 1), FRAME), |_first| {});
    let waited = waited(&pipeline, run).await;
    assert_eq!(waited, Waited { store: 10, ..Waited::default() }, "a replay that is compared");
    assert_idle(&pipeline, &store).await;
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_does_not_ask_for_more_shows_while_it_does_not() {
    // All of the first is decompressed before it asks, of the second not.
    for (size, frame) in [(2 * FRAME, 0), (200 * FRAME, 10)] {
        let store = MemoryStore::new();
        let pipeline = backup_pipeline(small(), 1, &store);
        let summary = pipeline.backup_stripe(0, pieces(&data(size, 1), FRAME)).await.unwrap();
        let back = restore_pipeline(small(), 1, &store);
        let mut frames = Box::pin(back.restore_stripe(0, &summary));
        let idle = async {
            let first = frames.next().await.unwrap().unwrap();
            drop(first);
            std::future::pending::<()>().await;
        };
        assert_eq!(waited(&back, idle).await, Waited { source: 10, frame, ..Waited::default() }, "{size} bytes");
        drop(frames);
        assert_idle(&back, &store).await;
        let told = back.progress().source_wait;
        SystemClock::new().sleep(Duration::from_secs(10)).await;
        assert_eq!(back.progress().source_wait, told, "nobody is waited for any more");
    }
}
