//! The backup half of a pipeline: what all stripes share, and the run of one stripe.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::assemble::{Step, assemble};
use super::codec::{Encoder, RawFrame, stored_bound};
use super::config::PipelineConfig;
use super::cpu::{Cpu, Job};
use super::encrypt::{self, Cipher, Recipients, chunk};
use super::index::{MAX_SEGMENT_FRAMES, tail_bytes};
use super::input::Input;
use super::level::Level;
use super::pack::Packer;
use super::plan::MemoryPlan;
use super::progress::Counters;
use super::replay::{Compare, Kept, replay};
use super::request::Requests;
use super::segment::{SegmentStore, StripeSummary};
use super::stop::{Stop, StopOnDrop};
use super::tree::Piece;
use crate::buffer::{BufferPool, MemoryBudget, SlotMut};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// What the stripes of a backup share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn SegmentStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tracker: TaskTracker,
    pub(super) counters: Arc<Counters>,
    pub(super) requests: Requests,
    pub(super) cpu: Cpu,
    pub(super) plan: MemoryPlan,
    pub(super) frames: BufferPool,
    pub(super) parts: BufferPool,
    pub(super) level: Level,
    /// To whom the segments are encrypted, if they are.
    pub(super) recipients: Option<Recipients>,
    /// For replays, if a backup is resumed.
    pub(super) compare: Option<Compare>,
    /// Known stored bytes at which a segment ends.
    pub(super) segment_limit: u64,
    /// Parts are hashed in pieces of the largest power of two that divides a part.
    piece_bytes: usize,
    /// One per thread, so one is here whenever a job runs.
    encoders: Mutex<Vec<Encoder>>,
}

impl Shared {
    pub(super) fn new(
        config: &PipelineConfig,
        plan: MemoryPlan,
        budget: &MemoryBudget,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        tracker: TaskTracker,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let segment_limit = segment_limit(config, &plan, store.max_parts())?;
        let frames = BufferPool::new(budget, plan.frame_slot_bytes(), plan.frame_slots())?;
        let parts = BufferPool::new(budget, plan.part_bytes, plan.part_slots())?;
        let level = Level::new(config, plan.threads, &*clock);
        let is_resumed = plan.replay_bytes > 0;
        let compare = is_resumed.then(|| Compare::new(budget, plan.frame_slot_bytes())).transpose()?;
        let encoders: Result<Vec<Encoder>> = (0..plan.threads)
            .map(|_| {
                let slot =
                    frames.try_acquire().ok_or_else(|| Error::new(ErrorKind::Internal, "a new pool is empty"))?;
                Encoder::new(level.current(), slot)
            })
            .collect();
        Ok(Self {
            requests: Requests::new(
                config,
                plan.parts,
                config.upload_bytes_per_second,
                Arc::clone(&clock),
                Arc::clone(&counters),
            ),
            cpu: Cpu::new(plan.threads, tracker.clone(), Arc::clone(&clock), Arc::clone(&counters)),
            store,
            clock,
            tracker,
            counters,
            plan,
            frames,
            parts,
            level,
            recipients: None,
            compare,
            segment_limit,
            piece_bytes: 1 << plan.part_bytes.trailing_zeros(),
            encoders: Mutex::new(encoders?),
        })
    }

    pub(super) fn encrypted_to(self, recipients: Option<Recipients>) -> Self {
        Self { recipients, ..self }
    }

    /// The header and the cipher of an encrypted segment.
    pub(super) fn begin_file(&self) -> Result<Option<(Vec<u8>, Cipher)>> {
        self.recipients.as_ref().map(Recipients::begin).transpose()
    }

    /// Compresses a frame with the encoder of whichever thread this is.
    pub(super) fn encode(&self, raw: RawFrame) -> Result<SlotMut> {
        let level = self.level.next(&*self.clock, &self.counters);
        let encoder = self.encoders.lock().pop();
        let mut encoder = encoder.ok_or_else(|| Error::new(ErrorKind::Internal, "more jobs than encoders"))?;
        let stored = encoder.encode(raw, level);
        self.encoders.lock().push(encoder);
        stored
    }

    /// Hashes a part at its place in the object.
    pub(super) fn hash_part(&self, index: u32, bytes: &Bytes) -> Job<Vec<Piece>> {
        let start = u64::from(index) * self.plan.part_bytes as u64;
        let (bytes, piece_bytes) = (bytes.clone(), self.piece_bytes);
        self.cpu.start(move || {
            let pieces = bytes.chunks(piece_bytes).enumerate();
            Ok(pieces.map(|(nth, piece)| Piece::new(piece, start + (nth * piece_bytes) as u64)).collect())
        })
    }
}

/// Stored bytes at which the assembler ends a segment, so that it fits into the store's limit of parts even if all frames
/// of the window after that turn out incompressible.
fn segment_limit(config: &PipelineConfig, plan: &MemoryPlan, max_parts: u32) -> Result<u64> {
    let most = u64::from(max_parts) * plan.part_bytes as u64;
    let most = match plan.encryption_bytes {
        0 => most,
        _ => chunk::capacity(most.saturating_sub(u64::from(encrypt::MAX_HEADER_BYTES))),
    };
    let overshoot = (plan.window as u64 + 1) * stored_bound(plan.frame_bytes) as u64 + tail_bytes(MAX_SEGMENT_FRAMES);
    match most.checked_sub(overshoot) {
        Some(limit) if limit > 0 => Ok(limit.min(config.segment_bytes)),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{max_parts} parts of {} bytes do not hold a segment, which can have {overshoot} bytes; \
                 choose larger parts or smaller frames",
                plan.part_bytes
            ),
        )),
    }
}

/// Backs one stripe up, behind what is kept of it. Its first error is told as soon as it is known; the return comes after the clean-up.
pub(super) async fn run<S>(
    shared: &Arc<Shared>,
    stripe: u16,
    kept: Kept,
    source: S,
    on_failure: impl FnOnce(Error) + Send + 'static,
) -> Result<StripeSummary>
where
    S: Stream<Item = Result<Input>>,
{
    let stop = Arc::new(Stop::new(on_failure));
    let _guard = StopOnDrop(Arc::clone(&stop));
    let window = shared.plan.window;
    let (steps_in, mut steps) = mpsc::channel(window + 1);
    let (sizes_in, sizes) = mpsc::channel(window + 1);
    let mut packer = Packer::new(shared, stripe, kept.summary.clone(), Arc::clone(&stop));
    if let Some(counters) = shared.counters.stripes.get(usize::from(stripe)) {
        let kept_bytes = kept.summary.raw_bytes;
        counters.durable.store(kept_bytes, Ordering::Relaxed);
        counters.position.store(if kept.is_replayed { 0 } else { kept_bytes }, Ordering::Relaxed);
    }

    // Whoever holds an acknowledgement when the stripe is stopped, it tells why.
    let source = source.map(|item| match item {
        Ok(Input::Flush(ack)) => Ok(Input::Flush(ack.of(&stop))),
        Ok(Input::Complete(ack)) => Ok(Input::Complete(ack.of(&stop))),
        other => other,
    });
    // Both halves are polled here, side by side, so that neither waits for memory that only the other can free.
    let outcome = {
        let mut pack = pin!(packer.run(&mut steps, sizes_in));
        let mut assemble = pin!(async {
            let mut source = pin!(source);
            let first = replay(shared, stripe, &kept, source.as_mut()).await?;
            assemble(shared, stripe, stream::iter(first.map(Ok)).chain(source), steps_in, sizes).await
        });
        let outcome = tokio::select! {
            biased;
            outcome = &mut pack => outcome,
            Err(error) = &mut assemble => Err(error),
            cause = stop.stopped() => Err(cause),
        };
        // Before the halves go, and what they hold with them.
        outcome.map_err(|error| stop.fail(error))
    };
    let Err(()) = outcome else {
        stop.succeeded();
        return Ok(packer.into_summary());
    };

    let cause = stop.cause();
    packer.abandon(&cause).await;
    steps.close();
    while let Ok(step) = steps.try_recv() {
        if let Step::Flush(ack) | Step::Complete(ack) = step {
            ack.answer(Err(cause.clone()));
        }
    }
    Err(cause)
}
