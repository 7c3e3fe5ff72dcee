//! The restore half of a pipeline: what all stripes share, and the run of one stripe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument as _, Span};

use super::codec::Decoder;
use super::config::PipelineConfig;
use super::cpu::{Cpu, Job, gone};
use super::encrypt::Identities;
use super::fetch::{Batch, Fetcher, StoredFrame, corrupt_within};
use super::plan::MemoryPlan;
use super::progress::Counters;
use super::ranges::Ranges;
use super::segment::{SegmentStore, SegmentSummary};
use super::tree::Piece;
use crate::buffer::{BufferPool, MemoryBudget, SlotMut};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// What the stripes of a restore share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn SegmentStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) counters: Arc<Counters>,
    pub(super) ranges: Ranges,
    pub(super) cpu: Cpu,
    pub(super) plan: MemoryPlan,
    /// What opens encrypted segments.
    pub(super) identities: Option<Identities>,
    /// A consumer may read its stripes in any order, so no stripe may hold what another one needs.
    stripes: Vec<StripePools>,
    /// One per thread, so one is here whenever a job runs.
    decoders: Mutex<Vec<Decoder>>,
}

/// The memory of one stripe.
#[derive(Debug, Clone)]
pub(super) struct StripePools {
    pub(super) ranges: BufferPool,
    pub(super) frames: BufferPool,
}

impl Shared {
    pub(super) fn new(
        config: &PipelineConfig,
        plan: MemoryPlan,
        budget: &MemoryBudget,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        tracker: tokio_util::task::TaskTracker,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let pools = || {
            Ok(StripePools {
                ranges: BufferPool::new(budget, plan.range_slot_bytes(), plan.parts)?,
                frames: BufferPool::new(budget, plan.frame_bytes, plan.window)?,
            })
        };
        let stripes: Result<Vec<StripePools>> = (0..plan.stripes).map(|_| pools()).collect();
        let decoders: Result<Vec<Decoder>> = (0..plan.threads).map(|_| Decoder::new()).collect();
        Ok(Self {
            ranges: Ranges::new(config, Arc::clone(&store), Arc::clone(&clock), Arc::clone(&counters)),
            cpu: Cpu::new(plan.threads, tracker, Arc::clone(&clock), Arc::clone(&counters)),
            store,
            clock,
            counters,
            plan,
            identities: None,
            stripes: stripes?,
            decoders: Mutex::new(decoders?),
        })
    }

    pub(super) fn opened_by(self, identities: Option<Identities>) -> Self {
        Self { identities, ..self }
    }

    #[cfg(test)]
    pub(super) fn held_slots(&self) -> usize {
        self.stripes.iter().map(|pools| pools.ranges.stats().held + pools.frames.stats().held).sum()
    }

    /// Decompresses and verifies a frame; nothing of it is seen by anybody before.
    fn verify(&self, frame: &StoredFrame, mut slot: SlotMut) -> Result<Bytes> {
        self.decode(frame, &mut slot)?;
        Ok(slot.freeze().into_bytes())
    }

    /// The same into a slot that the caller keeps, and that is empty.
    pub(super) fn decode(&self, frame: &StoredFrame, slot: &mut SlotMut) -> Result<()> {
        let at = |what: String| corrupt_within(&self.store.describe(frame.segment), frame.range.clone(), what);
        let decoder = self.decoders.lock().pop();
        let mut decoder = decoder.ok_or_else(|| Error::new(ErrorKind::Internal, "more jobs than decoders"))?;
        let decoded = decoder.decode(&frame.stored, frame.raw_bytes, slot);
        self.decoders.lock().push(decoder);
        decoded.map_err(|what| {
            at(format!("expected a frame of {} raw bytes, found a damaged one: {what}", frame.raw_bytes))
        })?;
        let found = Piece::new(slot.filled(), frame.raw_offset).entry(frame.siblings);
        if found != frame.hash {
            let (expected, found) = (blake3::Hash::from_bytes(frame.hash), blake3::Hash::from_bytes(found));
            return Err(at(format!("wrong hash of the frame's content: expected {expected}, found {found}")));
        }
        self.counters.frames.add(1);
        Ok(())
    }

    pub(super) fn pools(&self, stripe: u16) -> Result<StripePools> {
        let pools = self.stripes.get(usize::from(stripe)).cloned();
        pools.ok_or_else(|| Error::new(ErrorKind::Internal, "no pool for the stripe"))
    }
}

/// Reads one stripe back. Nothing happens before the stream is polled; dropping it ends the read-ahead.
pub(super) fn run(
    shared: Arc<Shared>,
    stripe: u16,
    segments: Vec<SegmentSummary>,
    span: Span,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::once(async move {
        match start(&shared, stripe, segments, span) {
            Ok(frames) => deliver(shared, stripe, frames).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }
    })
    .flatten()
}

pub(super) type Frames = mpsc::Receiver<Result<Next>>;

/// What follows in a stripe. Its end is said: a sender that is gone may have been lost on the way.
#[derive(Debug)]
pub(super) enum Next {
    Frame(Job<Bytes>),
    End,
}

/// Starts the two tasks of a stripe: one reads ahead, one hands frames to the threads, in order.
fn start(shared: &Arc<Shared>, stripe: u16, segments: Vec<SegmentSummary>, span: Span) -> Result<Frames> {
    if shared.plan.encryption_bytes == 0 && segments.iter().any(|segment| segment.header.is_some()) {
        return Err(Error::new(ErrorKind::Locked, "the stripe is encrypted, and the restore was set up without a key"));
    }
    let pools = shared.pools(stripe)?;
    let (batches_in, batches) = mpsc::channel(shared.plan.parts);
    // As many as there are slots, and the end.
    let (frames_in, frames) = mpsc::channel(shared.plan.window + 1);
    let fetcher = Fetcher {
        shared: Arc::clone(shared),
        stripe,
        places: Arc::new(Semaphore::new(shared.plan.parts)),
        ranges: pools.ranges,
        batches: batches_in,
    };
    // Dropping the job ends the read-ahead; the task below owns it.
    let fetch = shared.cpu.spawn(fetcher.run(segments).instrument(span));
    shared.cpu.spawn_free(dispatch(Arc::clone(shared), pools.frames, fetch, batches, frames_in));
    Ok(frames)
}

/// Takes slots in the order of the frames, so the first frame that the consumer waits for has one before any later.
async fn dispatch(
    shared: Arc<Shared>,
    pool: BufferPool,
    mut fetch: Job<()>,
    mut batches: mpsc::Receiver<Job<Batch>>,
    frames: mpsc::Sender<Result<Next>>,
) {
    let work = async {
        while let Some(mut batch) = batches.recv().await {
            let batch = shared.counters.store_wait.of(&*shared.clock, batch.wait()).await?;
            for frame in batch.frames {
                let slot = shared.counters.frame_wait.of(&*shared.clock, pool.acquire()).await;
                let worker = Arc::clone(&shared);
                let job = shared.cpu.start(move || worker.verify(&frame, slot));
                if frames.send(Ok(Next::Frame(job))).await.is_err() {
                    return Ok(Next::End);
                }
            }
        }
        fetch.wait().await.map(|()| Next::End)
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = frames.closed() => return,
    };
    // If the consumer is gone, nobody wants to know.
    let _ = frames.send(outcome).await;
}

/// Frames in order, as they are verified; ends after the first error.
pub(super) fn deliver(
    shared: Arc<Shared>,
    stripe: u16,
    frames: Frames,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    stream::unfold(Some((frames, None)), move |state| {
        let shared = Arc::clone(&shared);
        async move {
            let (mut frames, away): (Frames, Option<Away>) = state?;
            // The consumer asks for more.
            drop(away);
            let outcome = match frames.recv().await {
                Some(Ok(Next::Frame(mut job))) => job.wait().await,
                Some(Ok(Next::End)) => return None,
                Some(Err(error)) => Err(error),
                None => Err(gone()),
            };
            match outcome {
                Ok(bytes) => {
                    shared.counters.add_raw(&*shared.clock, stripe, bytes.len());
                    let away = Some(Away::new(shared));
                    Some((Ok(bytes), Some((frames, away))))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    })
}

/// The time in which the consumer is busy with a frame and asks for none.
struct Away {
    shared: Arc<Shared>,
    begun: Duration,
}

impl Away {
    fn new(shared: Arc<Shared>) -> Self {
        let begun = shared.clock.now();
        shared.counters.source_wait.start(begun);
        Self { shared, begun }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.shared.counters.source_wait.end(self.begun, self.shared.clock.now());
    }
}
