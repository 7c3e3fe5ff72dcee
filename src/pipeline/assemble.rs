//! Device data to full frames; decides where segments end.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;

use super::codec::RawFrame;
use super::cpu::Job;
use super::index::MAX_SEGMENT_FRAMES;
use super::input::{Ack, Input};
use super::tree::Piece;
use super::writer::Shared;
use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};

/// A frame after the CPU work.
#[derive(Debug)]
pub(super) struct Frame {
    /// The compressed bytes.
    pub(super) stored: SlotMut,
    pub(super) raw_bytes: u32,
    pub(super) piece: Piece,
}

/// What the assembler tells the packer, in order.
#[derive(Debug)]
pub(super) enum Step {
    /// The next frame of the current segment.
    Frame(Job<Frame>),
    /// The current segment ends, if it has any frame.
    End,
    /// Answer when everything before is durable.
    Flush(Ack),
    /// The same, and nothing follows.
    Complete(Ack),
}

/// Runs until the source ends or says that it is complete.
pub(super) async fn assemble<S>(
    shared: &Arc<Shared>,
    stripe: u16,
    source: S,
    steps: mpsc::Sender<Step>,
    sizes: mpsc::Receiver<u32>,
) -> Result<()>
where
    S: Stream<Item = Result<Input>>,
{
    let mut source = pin!(source);
    let mut assembler = Assembler { shared, stripe, steps, sizes, frame: None, roll: Roll::new(shared) };
    loop {
        match shared.counters.source_wait.of(&*shared.clock, source.next()).await {
            None => return assembler.end().await,
            Some(Err(error)) => return Err(error),
            Some(Ok(Input::Data(bytes))) => assembler.data(bytes).await?,
            Some(Ok(Input::Flush(ack))) => {
                assembler.end().await?;
                assembler.send(Step::Flush(ack)).await?;
            }
            Some(Ok(Input::Complete(ack))) => {
                assembler.end().await?;
                return assembler.send(Step::Complete(ack)).await;
            }
        }
    }
}

struct Assembler<'a> {
    shared: &'a Arc<Shared>,
    stripe: u16,
    steps: mpsc::Sender<Step>,
    /// The stored sizes of the frames, in order, as the packer learns them.
    sizes: mpsc::Receiver<u32>,
    frame: Option<SlotMut>,
    roll: Roll,
}

impl Assembler<'_> {
    async fn data(&mut self, mut bytes: Bytes) -> Result<()> {
        let shared = self.shared;
        let frame_bytes = shared.plan.frame_bytes;
        while !bytes.is_empty() {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => shared.counters.frame_wait.of(&*shared.clock, shared.frames.acquire()).await,
            };
            if frame.is_empty() && bytes.len() >= frame_bytes && shared.plan.lends() {
                // A whole frame in one piece: compressed from where it is.
                self.count(frame_bytes);
                let content = bytes.split_to(frame_bytes);
                self.dispatch(RawFrame::Lent { content, target: frame }).await?;
                continue;
            }
            let room = frame_bytes - frame.len();
            let taken = frame.put(&bytes[..bytes.len().min(room)]);
            bytes.advance(taken);
            self.count(taken);
            if frame.len() == frame_bytes {
                self.dispatch(RawFrame::Collected(frame)).await?;
            } else {
                self.frame = Some(frame);
            }
        }
        Ok(())
    }

    /// Counts bytes that were taken from the source.
    fn count(&self, bytes: usize) {
        self.shared.counters.add_raw(&*self.shared.clock, self.stripe, bytes);
    }

    /// Ends the frame and the segment, so that all of it can become durable.
    async fn end(&mut self) -> Result<()> {
        if let Some(frame) = self.frame.take() {
            self.dispatch(RawFrame::Collected(frame)).await?;
        }
        self.end_segment().await
    }

    async fn dispatch(&mut self, raw: RawFrame) -> Result<()> {
        // Waiting for the oldest frame of the window keeps the number in flight bounded.
        if self.roll.is_window_full() {
            let stored = self.sizes.recv().await.ok_or_else(packer_gone)?;
            self.roll.on_stored(stored);
        }
        let offset = self.roll.on_dispatch();
        let shared = Arc::clone(self.shared);
        let job = self.shared.cpu.start(move || compress(&shared, raw, offset));
        self.send(Step::Frame(job)).await?;
        if self.roll.is_segment_full() {
            self.end_segment().await?;
        }
        Ok(())
    }

    async fn end_segment(&mut self) -> Result<()> {
        self.roll.on_segment_end();
        self.send(Step::End).await
    }

    async fn send(&mut self, step: Step) -> Result<()> {
        self.steps.send(step).await.map_err(|_refused| packer_gone())
    }
}

/// The CPU work on a frame: hash it while it is warm, then compress it.
fn compress(shared: &Shared, raw: RawFrame, offset: u64) -> Result<Frame> {
    let raw_bytes =
        u32::try_from(raw.content().len()).map_err(|_| Error::new(ErrorKind::Internal, "frame over 4 GiB"))?;
    let piece = Piece::new(raw.content(), offset);
    let stored = shared.encode(raw)?;
    shared.counters.frames.add(1);
    Ok(Frame { stored, raw_bytes, piece })
}

/// Decides after which frame a segment ends. Pure.
///
/// A frame's hash depends on its place in its segment, so the place must be known before the frame is compressed, when
/// the stored sizes of the frames in flight are not known. The decision therefore looks only at frames that left the
/// window; it is the same in every run, whatever the threads do.
#[derive(Debug)]
struct Roll {
    window: u64,
    frame_bytes: u64,
    /// Known stored bytes that end a segment.
    limit: u64,
    /// Frames dispatched, and those of them whose stored size is known.
    dispatched: u64,
    known: u64,
    /// The first frame of the current segment.
    first: u64,
    /// Known stored bytes of the current segment.
    stored: u64,
}

impl Roll {
    fn new(shared: &Shared) -> Self {
        Self {
            window: shared.plan.window as u64,
            frame_bytes: shared.plan.frame_bytes as u64,
            limit: shared.segment_limit,
            dispatched: 0,
            known: 0,
            first: 0,
            stored: 0,
        }
    }

    fn is_window_full(&self) -> bool {
        self.dispatched - self.known >= self.window
    }

    fn on_stored(&mut self, stored: u32) {
        if self.known >= self.first {
            self.stored += u64::from(stored);
        }
        self.known += 1;
    }

    /// Counts a frame; returns its raw offset within the segment.
    fn on_dispatch(&mut self) -> u64 {
        let offset = (self.dispatched - self.first) * self.frame_bytes;
        self.dispatched += 1;
        offset
    }

    fn is_segment_full(&self) -> bool {
        self.stored >= self.limit || self.dispatched - self.first >= u64::from(MAX_SEGMENT_FRAMES)
    }

    fn on_segment_end(&mut self) {
        self.first = self.dispatched;
        self.stored = 0;
    }
}

/// The packer's own error is reported instead; this one is never seen.
fn packer_gone() -> Error {
    Error::new(ErrorKind::Aborted, "the stripe stopped")
}
