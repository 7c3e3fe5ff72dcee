//! Compressed frames, in order, into parts of constant size; the tail of each segment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::assemble::{Frame, Step};
use super::cpu::joined;
use super::encrypt::seal::{Lay, Part, Sealer};
use super::index::{FrameEntry, SegmentIndex, tail_bytes};
use super::input::Ack;
use super::segment::{SegmentId, SegmentSummary, StripeSummary};
use super::stop::Stop;
use super::tree::Piece;
use super::upload::{Uploaded, Uploader};
use super::writer::Shared;
use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};

/// The in-order half of a stripe. It outlives its own futures, so that its uploads can be waited for after an error.
#[derive(Debug)]
pub(super) struct Packer {
    shared: Arc<Shared>,
    stripe: u16,
    stop: Arc<Stop>,
    open: Option<OpenSegment>,
    /// Segments that are complete here but not yet durable, in order.
    finishing: VecDeque<Finishing>,
    next_index: u32,
    raw_offset: u64,
    summary: StripeSummary,
    /// Who waits for everything so far to be durable.
    ack: Option<Ack>,
}

#[derive(Debug)]
struct OpenSegment {
    uploader: Uploader,
    slot: Option<SlotMut>,
    /// If the segment is encrypted.
    sealer: Option<Sealer>,
    frames: Vec<PackedFrame>,
    raw_bytes: u64,
}

#[derive(Debug)]
struct PackedFrame {
    stored_bytes: u32,
    raw_bytes: u32,
    piece: Piece,
}

#[derive(Debug)]
struct Finishing {
    /// All but what the upload knows.
    summary: SegmentSummary,
    task: JoinHandle<Result<Uploaded>>,
}

impl Packer {
    /// Goes on behind the segments of `kept`.
    pub(super) fn new(shared: &Arc<Shared>, stripe: u16, kept: StripeSummary, stop: Arc<Stop>) -> Self {
        Self {
            shared: Arc::clone(shared),
            stripe,
            stop,
            open: None,
            finishing: VecDeque::new(),
            next_index: u32::try_from(kept.segments.len()).unwrap_or(u32::MAX),
            raw_offset: kept.raw_bytes,
            summary: kept,
            ack: None,
        }
    }

    /// Runs until the stripe is complete and durable.
    pub(super) async fn run(&mut self, steps: &mut mpsc::Receiver<Step>, sizes: mpsc::Sender<u32>) -> Result<()> {
        while let Some(step) = steps.recv().await {
            match step {
                Step::Frame(mut job) => {
                    let frame = job.wait().await?;
                    let stored = u32::try_from(frame.stored.len()).unwrap_or(u32::MAX);
                    // The assembler takes one before each frame beyond the window, so there is room; it may be gone.
                    let _ = sizes.try_send(stored);
                    self.frame(frame, stored).await?;
                }
                Step::End => self.end_segment().await?,
                Step::Flush(ack) | Step::Complete(ack) => {
                    // Kept where the first cause can be told to it, if the stripe is stopped meanwhile.
                    self.ack = Some(ack);
                    self.settle(0).await?;
                    if let Some(ack) = self.ack.take() {
                        ack.answer(Ok(()));
                    }
                }
            }
        }
        self.settle(0).await
    }

    /// Waits until none of the uploads runs any more. The stripe must have been stopped.
    pub(super) async fn abandon(&mut self, cause: &Error) {
        if let Some(open) = self.open.take() {
            open.uploader.abandon().await;
        }
        for finishing in self.finishing.drain(..) {
            // Its error is in the stripe's `Stop` already.
            let _ended = finishing.task.await;
        }
        if let Some(ack) = self.ack.take() {
            ack.answer(Err(cause.clone()));
        }
    }

    pub(super) fn into_summary(self) -> StripeSummary {
        self.summary
    }

    async fn frame(&mut self, frame: Frame, stored_bytes: u32) -> Result<()> {
        if self.open.is_none() {
            let (segment, header) = self.begin_segment().await?;
            self.open.insert(segment).put(&self.shared, &header).await?;
        }
        // The segment stays in its place while we wait: if this future is dropped, `abandon` must find it.
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        open.raw_bytes += u64::from(frame.raw_bytes);
        open.frames.push(PackedFrame { stored_bytes, raw_bytes: frame.raw_bytes, piece: frame.piece });
        open.write(&self.shared, frame.stored.filled()).await
    }

    /// The next segment, and what stands in front of its content.
    async fn begin_segment(&mut self) -> Result<(OpenSegment, Vec<u8>)> {
        let segment = SegmentId { stripe: self.stripe, index: self.next_index };
        self.next_index = self
            .next_index
            .checked_add(1)
            .ok_or_else(|| Error::new(ErrorKind::Exhausted, "the stripe has too many segments"))?;
        let (mut sealer, mut header) = (None, Vec::new());
        if self.shared.recipients.is_some() {
            let shared = Arc::clone(&self.shared);
            // Some milliseconds when there are many recipients.
            let begun = self.shared.cpu.start(move || shared.begin_file()).wait().await?;
            if let Some((bytes, cipher)) = begun {
                sealer = Some(Sealer::new(&bytes, cipher));
                header = bytes;
            }
        }
        let uploader = Uploader::start(&self.shared, segment, Arc::clone(&self.stop));
        Ok((OpenSegment { uploader, slot: None, sealer, frames: Vec::new(), raw_bytes: 0 }, header))
    }

    async fn end_segment(&mut self) -> Result<()> {
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let count = open.frames.len();
        let entries = open.frames.iter().map(|frame| FrameEntry {
            stored_bytes: frame.stored_bytes,
            raw_bytes: frame.raw_bytes,
            hash: frame.piece.entry(count),
        });
        let index = SegmentIndex {
            frame_bytes: u32::try_from(self.shared.plan.frame_bytes).unwrap_or(u32::MAX),
            frames: entries.collect(),
        };
        let frames = u32::try_from(count).unwrap_or(u32::MAX);
        let summary = SegmentSummary {
            index: self.next_index - 1,
            raw_offset: self.raw_offset,
            raw_bytes: open.raw_bytes,
            stored_bytes: 0,
            frames,
            tail_bytes: tail_bytes(frames),
            raw_hash: open.sealer.as_ref().map_or_else(|| index.raw_hash(), |sealer| sealer.commit(index.raw_hash())),
            stored_hash: blake3::Hash::from_bytes([0; 32]),
            header: open.sealer.as_ref().map(Sealer::header),
        };
        self.raw_offset += open.raw_bytes;
        open.write(&self.shared, &index.encode()).await?;
        let rest = open.rest(&self.shared).await?;
        open.uploader.last(&self.shared, rest).await?;
        if let Some(open) = self.open.take() {
            self.finishing.push_back(Finishing { summary, task: open.uploader.into_task() });
        }
        self.settle(MAX_FINISHING).await
    }

    /// Waits until no more than `left` segments are on their way.
    async fn settle(&mut self, left: usize) -> Result<()> {
        while self.finishing.len() > left {
            let Some(front) = self.finishing.front_mut() else { break };
            let uploaded = self.shared.counters.store_wait.of(&*self.shared.clock, &mut front.task).await;
            let Some(mut done) = self.finishing.pop_front() else { break };
            let uploaded = uploaded.map_err(joined)??;
            done.summary.stored_bytes = uploaded.stored_bytes;
            done.summary.stored_hash = uploaded.stored_hash;
            self.summary.raw_bytes += done.summary.raw_bytes;
            self.summary.stored_bytes += done.summary.stored_bytes;
            self.shared.counters.segments.add(1);
            if let Some(counters) = self.shared.counters.stripes.get(usize::from(self.stripe)) {
                counters.durable.store(self.summary.raw_bytes, Ordering::Relaxed);
            }
            self.summary.segments.push(done.summary);
        }
        Ok(())
    }
}

impl OpenSegment {
    /// Appends content: as it is, or encrypted.
    async fn write(&mut self, shared: &Shared, mut bytes: &[u8]) -> Result<()> {
        if self.sealer.is_none() {
            return self.put(shared, bytes).await;
        }
        while !bytes.is_empty() {
            let slot = match &mut self.slot {
                Some(slot) => slot,
                empty @ None => empty.insert(part(shared).await),
            };
            let Some(sealer) = &mut self.sealer else { break };
            match sealer.lay(slot, bytes)? {
                Lay::Taken(count) => bytes = &bytes[count..],
                Lay::Write => self.put_spill(shared).await?,
                Lay::Full => self.send(shared).await?,
            }
        }
        Ok(())
    }

    /// Appends stored bytes; sends a part off when it is full and more follows, so that the last part is never empty and a
    /// segment of one part needs no multipart upload.
    async fn put(&mut self, shared: &Shared, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let slot = match &mut self.slot {
                Some(slot) if slot.is_full() => {
                    self.send(shared).await?;
                    continue;
                }
                Some(slot) => slot,
                empty @ None => empty.insert(part(shared).await),
            };
            bytes = &bytes[slot.put(bytes)..];
        }
        Ok(())
    }

    async fn put_spill(&mut self, shared: &Shared) -> Result<()> {
        let Some(spill) = self.sealer.as_mut().map(Sealer::take_spill) else { return Ok(()) };
        self.put(shared, &spill).await?;
        if let Some(sealer) = &mut self.sealer {
            sealer.put_back(spill);
        }
        Ok(())
    }

    /// Sends the part off.
    async fn send(&mut self, shared: &Shared) -> Result<()> {
        let part = self.take_part();
        self.uploader.part(shared, part).await
    }

    /// The last part.
    async fn rest(&mut self, shared: &Shared) -> Result<Part> {
        if let Some(sealer) = &mut self.sealer
            && sealer.finish(self.slot.as_mut())?
        {
            self.put_spill(shared).await?;
        }
        Ok(self.take_part())
    }

    fn take_part(&mut self) -> Part {
        let slot = self.slot.take();
        match &mut self.sealer {
            Some(sealer) => sealer.part(slot),
            None => Part::plain(slot),
        }
    }
}

async fn part(shared: &Shared) -> SlotMut {
    shared.counters.store_wait.of(&*shared.clock, shared.parts.acquire()).await
}

/// Segments of a stripe that may wait for their last parts while the next one is already filled.
const MAX_FINISHING: usize = 4;
