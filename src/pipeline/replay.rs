//! A producer that starts again: what is stored already is compared with what it sends, and not stored again.
//!
//! Frames are compared by their hashes, which the index of their segment holds. Where that is not enough, the frame is
//! read back and compared byte by byte: to say where a replay differs, and to answer a flush in the middle of a frame.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio::sync::Mutex;

use super::codec::Decoder;
use super::fetch::{corrupt, corrupt_within};
use super::index::SegmentIndex;
use super::input::Input;
use super::plan::REPLAY_SLOTS;
use super::request::{Operation, Request};
use super::segment::{SegmentId, SegmentSummary, StripeSummary};
use super::tree::Piece;
use super::writer::Shared;
use crate::buffer::{BufferPool, MemoryBudget, SlotMut};
use crate::error::{Error, ErrorKind, Result};

/// What is stored of a stripe before it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// The segments, from the first on.
    pub(crate) summary: StripeSummary,
    /// The source starts at the beginning of the stripe, and not behind what is stored.
    pub(crate) is_replayed: bool,
}

/// The memory for one stored frame and its content. Who waits for it holds nothing that its holder needs.
#[derive(Debug)]
pub(super) struct Compare {
    pool: BufferPool,
    /// Held by the stripe that compares.
    one: Mutex<()>,
}

impl Compare {
    pub(super) fn new(budget: &MemoryBudget, slot_bytes: usize) -> Result<Self> {
        Ok(Self { pool: BufferPool::new(budget, slot_bytes, REPLAY_SLOTS)?, one: Mutex::default() })
    }
}

/// Takes from `source` what is stored already. Answers the first input that is not.
pub(super) async fn replay<S>(
    shared: &Arc<Shared>,
    stripe: u16,
    kept: &Kept,
    mut source: Pin<&mut S>,
) -> Result<Option<Input>>
where
    S: Stream<Item = Result<Input>>,
{
    let end = kept.summary.raw_bytes;
    if !kept.is_replayed || end == 0 {
        return Ok(None);
    }
    let mut replay =
        Replay { shared, stripe, segments: &kept.summary.segments, segment: None, frame: None, position: 0 };
    loop {
        match shared.counters.source_wait.of(&*shared.clock, source.next()).await {
            Some(Ok(Input::Data(mut bytes))) => {
                replay.data(&mut bytes).await?;
                if replay.position == end {
                    return Ok((!bytes.is_empty()).then_some(Input::Data(bytes)));
                }
            }
            Some(Ok(Input::Flush(ack))) => {
                let compared = replay.flush().await;
                ack.answer(compared.clone());
                compared?;
            }
            Some(Ok(Input::Complete(ack))) => {
                let error = replay.ended(end);
                ack.answer(Err(error.clone()));
                return Err(error);
            }
            None => return Err(replay.ended(end)),
            Some(Err(error)) => return Err(error),
        }
    }
}

struct Replay<'a> {
    shared: &'a Arc<Shared>,
    stripe: u16,
    /// Segments that the replay has not reached.
    segments: &'a [SegmentSummary],
    segment: Option<Open>,
    /// The replayed content of the frame that `segment` is at, so far.
    frame: Option<SlotMut>,
    /// Bytes of the stripe that were taken.
    position: u64,
}

/// The segment that the replay is in.
struct Open {
    id: SegmentId,
    index: SegmentIndex,
    /// The frame within it, and where that frame stands in the segment, raw and stored.
    frame: usize,
    raw_offset: u64,
    stored_offset: u64,
    /// Where the segment stands in the stripe.
    start: u64,
}

impl Replay<'_> {
    /// Takes bytes until they are used up, or all that is stored was compared.
    async fn data(&mut self, bytes: &mut Bytes) -> Result<()> {
        while !bytes.is_empty() {
            if self.segment.is_none() && !self.open().await? {
                return Ok(());
            }
            let Some(open) = &self.segment else { return Ok(()) };
            let wanted = open.raw_bytes();
            let shared = self.shared;
            let frame = match &mut self.frame {
                Some(frame) => frame,
                empty @ None => {
                    let slot = shared.counters.frame_wait.of(&*shared.clock, shared.frames.acquire()).await;
                    empty.insert(slot)
                }
            };
            let room = wanted.saturating_sub(frame.len());
            let taken = frame.put(&bytes[..bytes.len().min(room)]);
            bytes.advance(taken);
            self.position += taken as u64;
            shared.counters.add_raw(&*shared.clock, self.stripe, taken);
            if frame.len() == wanted {
                self.compare().await?;
            }
        }
        Ok(())
    }

    /// Reads the index of the next segment; false if there is none.
    async fn open(&mut self) -> Result<bool> {
        let Some((summary, rest)) = self.segments.split_first() else { return Ok(false) };
        self.segments = rest;
        let id = SegmentId { stripe: self.stripe, index: summary.index };
        let start = summary.stored_bytes - summary.tail_bytes;
        let what = format!("read the index of {id}");
        let request = Request::new(Operation::Read, &what, summary.tail_bytes);
        let read = || self.shared.store.read(id, start..summary.stored_bytes);
        let Shared { counters, clock, requests, .. } = &**self.shared;
        let tail = counters.store_wait.of(&**clock, requests.run(request, read)).await?;
        let index = SegmentIndex::decode(&tail, summary, summary.stored_bytes, |hash| hash);
        let index = index.map_err(|error| {
            let range = start + error.range.start..start + error.range.end;
            corrupt_within(&self.shared.store.describe(id), range, error.to_string())
        })?;
        let start = summary.raw_offset;
        self.segment = Some(Open { id, index, frame: 0, raw_offset: 0, stored_offset: 0, start });
        Ok(true)
    }

    /// The frame is full: compares it by its hash.
    async fn compare(&mut self) -> Result<()> {
        let (Some(frame), Some(open)) = (self.frame.take(), &mut self.segment) else { return Ok(()) };
        let (offset, count) = (open.raw_offset, open.index.frames.len());
        let hash = move || Ok((Piece::new(frame.filled(), offset).entry(count), frame));
        let (found, frame) = self.shared.cpu.start(hash).wait().await?;
        if Some(found) != open.index.frames.get(open.frame).map(|entry| entry.hash) {
            return match open.differs_at(self.shared, frame).await? {
                Some(at) => Err(differs(self.stripe, open.start + open.raw_offset + at)),
                // The same bytes have another hash than when they were stored and surveyed.
                None => Err(corrupt(
                    &self.shared.store.describe(open.id),
                    open.stored_offset,
                    "expected a frame with the hash in the index, found another",
                )),
            };
        }
        if !open.next() {
            self.segment = None;
        }
        Ok(())
    }

    /// Makes sure that everything that was taken is stored.
    async fn flush(&mut self) -> Result<()> {
        let (Some(frame), Some(open)) = (self.frame.take(), &self.segment) else { return Ok(()) };
        let at = open.start + open.raw_offset;
        let (differs_at, frame) = open.compare_bytes(self.shared, frame).await?;
        self.frame = Some(frame);
        differs_at.map_or(Ok(()), |offset| Err(differs(self.stripe, at + offset)))
    }

    fn ended(&self, end: u64) -> Error {
        Error::new(
            ErrorKind::Invalid,
            format!(
                "stripe {}, offset {}: the replay differs from what is stored: it ends here, and {end} bytes are stored",
                self.stripe, self.position
            ),
        )
    }
}

impl Open {
    /// Raw bytes of the frame.
    fn raw_bytes(&self) -> usize {
        self.index.frames.get(self.frame).map_or(0, |entry| entry.raw_bytes as usize)
    }

    /// Goes to the next frame; false if there is none.
    fn next(&mut self) -> bool {
        if let Some(entry) = self.index.frames.get(self.frame) {
            self.raw_offset += u64::from(entry.raw_bytes);
            self.stored_offset += u64::from(entry.stored_bytes);
        }
        self.frame += 1;
        self.frame < self.index.frames.len()
    }

    async fn differs_at(&self, shared: &Arc<Shared>, replayed: SlotMut) -> Result<Option<u64>> {
        Ok(self.compare_bytes(shared, replayed).await?.0)
    }

    /// Reads the frame back and compares it with the beginning of it, `replayed`: where the first difference is.
    async fn compare_bytes(&self, shared: &Arc<Shared>, replayed: SlotMut) -> Result<(Option<u64>, SlotMut)> {
        let internal = |what| Error::new(ErrorKind::Internal, what);
        let compare = shared.compare.as_ref().ok_or_else(|| internal("no memory to compare was planned"))?;
        let entry = *self.index.frames.get(self.frame).ok_or_else(|| internal("no such frame"))?;
        let _alone = compare.one.lock().await;
        let range = self.stored_offset..self.stored_offset + u64::from(entry.stored_bytes);
        let what = format!("read {}, bytes {} to {}", self.id, range.start, range.end);
        let read = || async { shared.store.read_into(self.id, range.clone(), compare.pool.acquire().await).await };
        let request = Request::new(Operation::Read, &what, u64::from(entry.stored_bytes));
        let stored = shared.counters.store_wait.of(&*shared.clock, shared.requests.run(request, read)).await?;
        let mut content = compare.pool.acquire().await;
        let compared = shared.cpu.start(move || {
            Decoder::new()?
                .decode(stored.filled(), entry.raw_bytes as usize, &mut content)
                .map_err(|what| Error::new(ErrorKind::Corrupt, what))?;
            let differs = content.filled().iter().zip(replayed.filled()).position(|(stored, new)| stored != new);
            Ok((differs.map(|at| at as u64), replayed))
        });
        let mut compared = compared;
        compared.wait().await.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => corrupt(&shared.store.describe(self.id), self.stored_offset, error.message()),
            _ => error,
        })
    }
}

fn differs(stripe: u16, offset: u64) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("stripe {stripe}, offset {offset}: the replay differs from what is stored; start a new backup"),
    )
}
