//! What goes in comes out, over sizes around every boundary, and the stored form is what other tools read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, future, stream};

use super::store::{MemoryStore, Op};
use super::*;
use crate::pipeline::{Ack, SegmentId};

const FRAME: usize = 64 * KIB;

async fn there_and_back(config: &PipelineConfig, bytes: &Bytes, piece: usize) -> (MemoryStore, StripeSummary) {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(config.clone(), 1, &store);
    let summary = pipeline.backup_stripe(0, pieces(bytes, piece)).await.unwrap();
    assert_idle(&pipeline, &store).await;
    assert_eq!(summary.raw_bytes, bytes.len() as u64);
    check_stored(&store, 0, &summary, bytes);
    let back = restore_pipeline(config.clone(), 1, &store);
    assert!(restore(&back, 0, &summary).await.unwrap() == bytes[..], "length {}", bytes.len());
    assert_idle(&back, &store).await;
    let progress = pipeline.progress();
    assert_eq!((progress.raw_bytes, progress.stored_bytes), (summary.raw_bytes, summary.stored_bytes));
    assert_eq!(progress.stripes[0].durable, summary.raw_bytes);
    (store, summary)
}

/// The objects are what the summary says, and plain zstd reads them.
fn check_stored(store: &MemoryStore, stripe: u16, summary: &StripeSummary, bytes: &Bytes) {
    let objects = store.objects(stripe);
    assert_eq!(objects.len(), summary.segments.len());
    for (object, segment) in objects.iter().zip(&summary.segments) {
        let start = segment.raw_offset as usize;
        let raw = &bytes[start..start + segment.raw_bytes as usize];
        assert_eq!(segment.raw_hash, blake3::hash(raw));
        assert_eq!(segment.stored_hash, blake3::hash(object));
        assert_eq!(segment.stored_bytes, object.len() as u64);
    }
    let all = objects.concat();
    if all.is_empty() {
        return;
    }
    let mut plain = Vec::new();
    zstd::stream::copy_decode(&all[..], &mut plain).unwrap();
    assert!(plain == bytes[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_does_not_depend_on_whether_frames_were_copied() {
    let bytes = data(9 * FRAME + 17, 3);
    // One device buffer is too few to lend them; no devices at all means that the memory is somebody else's.
    let lent = PipelineConfig { depth: 0, ..small() };
    let copied = PipelineConfig { depth: 1, transfer_bytes: FRAME, ..small() };
    for piece in [FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 9 * FRAME] {
        let (one, _) = there_and_back(&lent, &bytes, piece).await;
        let (other, _) = there_and_back(&copied, &bytes, piece).await;
        assert!(one.objects(0) == other.objects(0), "pieces of {piece}");
    }
}

/// Memory of a source that says when it is given back.
struct Watched(Bytes, Arc<AtomicUsize>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_whole_frame_stays_where_it_is_until_it_is_compressed() {
    // Its only thread for jobs is somebody else's until the test says so.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
    runtime.block_on(whole_frames(&[(0, true), (2, false), (3, true)]));
}

#[expect(clippy::disallowed_methods, reason = "somebody else's work is not tracked")]
async fn whole_frames(cases: &[(usize, bool)]) {
    for &(depth, is_lent) in cases {
        let store = MemoryStore::new();
        let config = PipelineConfig { depth, transfer_bytes: FRAME, threads: 2, ..small() };
        let pipeline = backup_pipeline(config, 1, &store);
        let given_back = Arc::new(AtomicUsize::new(0));
        let frame = Bytes::from_owner(Watched(data(FRAME, 1), Arc::clone(&given_back)));
        let (free, until_free) = std::sync::mpsc::channel::<()>();
        let taken = tokio::task::spawn_blocking(move || until_free.recv().is_err());
        // The second item is asked for once the first was taken, when no job has run.
        let seen = Arc::clone(&given_back);
        let source = stream::iter([frame]).map(|frame| Ok(Input::Data(frame))).chain(stream::once(async move {
            assert_eq!(seen.load(Ordering::Relaxed), usize::from(!is_lent), "depth {depth}");
            drop(free);
            Ok(Input::Complete(Ack::new(|_durable| {})))
        }));
        pipeline.backup_stripe(0, source).await.unwrap();
        assert_eq!(given_back.load(Ordering::Relaxed), 1);
        assert!(taken.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_boundary_survives() {
    for base in [0, 1, FRAME, 2 * FRAME, 7 * FRAME] {
        for len in [base.saturating_sub(1), base, base + 1] {
            let bytes = data(len, len as u64);
            for piece in [FRAME - 1, FRAME, FRAME + 1, 3 * FRAME] {
                there_and_back(&small(), &bytes, piece).await;
            }
        }
    }
    there_and_back(&small(), &data(2049, 1), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_roll_and_parts_are_constant() {
    let config = PipelineConfig { segment_bytes: 3 * FRAME as u64, ..small() };
    let bytes = data(60 * FRAME + 17, 5);
    let (store, summary) = there_and_back(&config, &bytes, 100_000).await;
    assert!(summary.segments.len() > 4, "{}", summary.segments.len());
    let sizes = store.state.part_sizes.lock().clone();
    for segment in &summary.segments {
        let last = segment.stored_bytes.div_ceil(64 * KIB as u64) as u32 - 1;
        for (_, index, size) in sizes.iter().filter(|(id, _, _)| id.index == segment.index) {
            assert!(*index == last || *size == 64 * KIB, "part {index} of {last} has {size} bytes");
        }
    }
    assert!(store.state.most_in_flight.load(Ordering::SeqCst) <= config.concurrency);
    let (_, again) = there_and_back(&config, &bytes, 4096).await;
    assert_eq!(again, summary, "where segments end does not depend on timing");
}

#[tokio::test]
async fn a_store_with_few_parts_gets_more_segments() {
    let mut store = MemoryStore::new();
    store.max_parts = 16;
    let pipeline = backup_pipeline(small(), 1, &store);
    let bytes = data(80 * FRAME, 9);
    let summary = pipeline.backup_stripe(0, pieces(&bytes, FRAME)).await.unwrap();
    assert!(summary.segments.len() > 1);
    assert!(summary.segments.iter().all(|segment| segment.stored_bytes <= 16 * 64 * KIB as u64));
    store.max_parts = 2;
    let error = Pipeline::for_backup(small(), 1, Arc::new(store), SystemClock::shared()).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid);
}

#[tokio::test]
async fn a_small_stripe_costs_one_put_and_one_read() {
    let (store, summary) = there_and_back(&small(), &data(1024, 3), 1024).await;
    assert_eq!(summary.segments.len(), 1);
    assert_eq!(
        *store.state.log.lock(),
        [(SegmentId { stripe: 0, index: 0 }, Op::Put), (SegmentId { stripe: 0, index: 0 }, Op::Read)]
    );
}

#[tokio::test]
async fn an_empty_stripe_has_no_segments_and_costs_nothing() {
    let (store, summary) = there_and_back(&small(), &Bytes::new(), 1).await;
    assert_eq!(summary, StripeSummary::default());
    assert!(store.state.log.lock().is_empty());
}

#[tokio::test]
async fn a_flush_is_answered_when_everything_before_is_durable() {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(small(), 1, &store);
    let bytes = data(3 * FRAME, 1);
    let answered = Arc::new(AtomicUsize::new(0));
    let ack = |segments: usize| {
        let (store, answered) = (store.clone(), Arc::clone(&answered));
        Ack::new(move |outcome| {
            outcome.unwrap();
            assert_eq!(store.objects(0).len(), segments);
            answered.fetch_add(1, Ordering::SeqCst);
        })
    };
    let inputs = vec![
        Ok(Input::Flush(ack(0))),
        Ok(Input::Data(bytes.slice(..100))),
        Ok(Input::Flush(ack(1))),
        Ok(Input::Flush(ack(1))),
        Ok(Input::Data(bytes.slice(100..))),
        Ok(Input::Complete(ack(2))),
        Err(crate::Error::new(crate::ErrorKind::Internal, "nothing is asked after complete")),
    ];
    let summary = pipeline.backup_stripe(0, stream::iter(inputs)).await.unwrap();
    assert_eq!(answered.load(Ordering::SeqCst), 4);
    assert_eq!(summary.segments.len(), 2);
    let back = restore_pipeline(small(), 1, &store);
    assert!(restore(&back, 0, &summary).await.unwrap() == bytes[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_stripes_share_one_small_limit() {
    let config = PipelineConfig { memory_limit: 16 << 20, concurrency: 2, ..small() };
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(config.clone(), 16, &store);
    let all: Vec<Bytes> = (0..16).map(|stripe| data(20 * FRAME + stripe, stripe as u64)).collect();
    let runs = (0..16_u16).zip(&all).map(|(stripe, bytes)| pipeline.backup_stripe(stripe, pieces(bytes, 10_000)));
    let summaries = future::try_join_all(runs).await.unwrap();
    assert_idle(&pipeline, &store).await;
    assert!(pipeline.budget().peak() <= 16 << 20);
    let objects: BTreeSet<_> = store.state.objects.lock().keys().copied().collect();
    assert_eq!(objects.len(), summaries.iter().map(|summary| summary.segments.len()).sum::<usize>());

    // A consumer that reads its stripes one after the other must not meet what the others hold.
    let back = restore_pipeline(config, 16, &store);
    let mut streams: Vec<_> =
        (0..16_u16).zip(&summaries).map(|(stripe, summary)| Box::pin(back.restore_stripe(stripe, summary))).collect();
    let mut firsts = Vec::new();
    for stream in &mut streams {
        firsts.push(stream.next().await.unwrap().unwrap());
    }
    for ((stream, first), bytes) in streams.iter_mut().zip(firsts).zip(&all) {
        let mut out = first.to_vec();
        drop(first);
        while let Some(frame) = stream.next().await {
            out.extend_from_slice(&frame.unwrap());
        }
        assert!(out == bytes[..]);
    }
    drop(streams);
    assert_idle(&back, &store).await;
    assert!(back.budget().peak() <= 16 << 20);
}

#[tokio::test]
async fn the_smallest_limit_is_enough_beside_stripes_that_stand_still() {
    let store = MemoryStore::new();
    let refused = PipelineConfig { memory_limit: 1, segment_bytes: 5 * FRAME as u64, ..small() };
    let made = Pipeline::for_backup(refused.clone(), 3, Arc::new(store.clone()), SystemClock::shared());
    let least: u64 = made.unwrap_err().message().rsplit(' ').next().unwrap().parse().unwrap();
    let pipeline = backup_pipeline(PipelineConfig { memory_limit: least, ..refused.clone() }, 3, &store);
    // Two producers stop in the middle of a frame and of a part, and keep both.
    let still = |stripe| {
        let source = pieces(&data(3 * FRAME + 7, u64::from(stripe)), FRAME).chain(stream::pending());
        Box::pin(pipeline.backup_stripe(stripe, source))
    };
    let bytes = data(50 * FRAME + 1, 9);
    let still = future::select(still(0), still(1));
    let summary = match future::select(Box::pin(pipeline.backup_stripe(2, pieces(&bytes, FRAME))), still).await {
        future::Either::Left((summary, _still)) => summary.unwrap(),
        future::Either::Right(_) => panic!("a stripe without an end ended"),
    };
    assert_idle(&pipeline, &store).await;
    assert!(pipeline.budget().peak() <= least);

    let made = Pipeline::for_restore(refused.clone(), 1, Arc::new(store.clone()), SystemClock::shared());
    let least: u64 = made.unwrap_err().message().rsplit(' ').next().unwrap().parse().unwrap();
    let back = restore_pipeline(PipelineConfig { memory_limit: least, ..refused }, 1, &store);
    let mut moved = summary.clone();
    let objects = store.objects(2);
    for (segment, object) in moved.segments.iter_mut().zip(objects) {
        store.state.objects.lock().insert(SegmentId { stripe: 0, index: segment.index }, object);
    }
    // A consumer that always keeps one frame while it waits for the next.
    let mut frames = Box::pin(back.restore_stripe(0, &moved));
    let (mut kept, mut out) = (Bytes::new(), Vec::new());
    while let Some(frame) = frames.next().await {
        kept = frame.unwrap();
        out.extend_from_slice(&kept);
    }
    assert!(out == bytes[..] && !kept.is_empty());
}

#[tokio::test]
async fn wrong_uses_are_told_so() {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(small(), 1, &store);
    let none = || stream::iter(Vec::<Result<Input>>::new());
    assert_eq!(pipeline.backup_stripe(1, none()).await.unwrap_err().kind(), crate::ErrorKind::Invalid);
    let mut first = Box::pin(pipeline.backup_stripe(0, stream::pending()));
    assert!(futures::poll!(&mut first).is_pending());
    assert_eq!(pipeline.backup_stripe(0, none()).await.unwrap_err().kind(), crate::ErrorKind::Conflict);
    drop(first);
    pipeline.backup_stripe(0, none()).await.unwrap();
    assert!(restore(&pipeline, 0, &StripeSummary::default()).await.is_err());
    let back = restore_pipeline(small(), 1, &store);
    assert_eq!(back.backup_stripe(0, none()).await.unwrap_err().kind(), crate::ErrorKind::Invalid);
}
