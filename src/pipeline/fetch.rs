//! Segments to ranges of whole frames: reads the indexes, then reads ahead, within bounds.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use blake3::hazmat::ChainingValue;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::Instrument as _;

use super::cpu::Job;
use super::encrypt::open::View;
use super::encrypt::{MAX_HEADER_BYTES, chunk};
use super::index::{MAX_SEGMENT_FRAMES, SegmentIndex, tail_bytes};
use super::reader::Shared;
use super::segment::{SegmentId, SegmentSummary, StripeSummary};
use crate::buffer::{BufferPool, SlotMut};
use crate::error::{Error, ErrorKind, Result};

/// Some whole frames in order, and the bytes that hold them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) frames: Vec<StoredFrame>,
}

/// One frame as it was read, not yet verified.
#[derive(Debug)]
pub(super) struct StoredFrame {
    pub(super) segment: SegmentId,
    /// Where it stands in the object.
    pub(super) range: Range<u64>,
    /// Where its content stands in the segment.
    pub(super) raw_offset: u64,
    pub(super) raw_bytes: usize,
    pub(super) hash: ChainingValue,
    /// Data frames of the segment.
    pub(super) siblings: usize,
    /// A view of its range, whose memory is free again after the last frame of it was decoded.
    pub(super) stored: Bytes,
    /// After `stored`, so that the slot is back before the place is.
    _place: Arc<OwnedSemaphorePermit>,
}

/// Reads a stripe ahead of its consumer; ends early when the consumer is gone.
#[derive(Debug)]
pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) stripe: u16,
    /// As many places as `ranges` has slots, taken in the order in which the ranges are needed. A range keeps its place
    /// when its read fails and its slot goes back, so a later range cannot take what the first one needs.
    pub(super) places: Arc<Semaphore>,
    /// Memory for the ranges; only a range with a place may wait for it.
    pub(super) ranges: BufferPool,
    pub(super) batches: mpsc::Sender<Job<Batch>>,
}

impl Fetcher {
    pub(super) async fn run(self, segments: Vec<SegmentSummary>) -> Result<()> {
        let mut ramp = Ramp::new(self.shared.plan.range_bytes() as u64);
        for segment in segments {
            let id = SegmentId { stripe: self.stripe, index: segment.index };
            check_segment(id, &segment)?;
            let span = tracing::debug_span!("segment", segment = segment.index);
            let goes_on = if segment.stored_bytes <= self.shared.plan.range_bytes() as u64 {
                self.whole(id, segment).instrument(span).await?
            } else {
                self.ranges(id, segment, &mut ramp).instrument(span).await?
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// A small segment: one read has everything. Answers false if the consumer is gone.
    async fn whole(&self, id: SegmentId, segment: SegmentSummary) -> Result<bool> {
        let place = self.place().await?;
        let (shared, pool) = (Arc::clone(&self.shared), self.ranges.clone());
        let read = async move {
            let slot = shared.ranges.read(id, 0..segment.stored_bytes, &pool).await?;
            let header_bytes = header_bytes(&segment);
            let header = Bytes::copy_from_slice(slot.filled().get(..header_bytes).unwrap_or_default());
            let view = shared.view(id, &segment, header).await?;
            let bytes = shared.open(id, &view, 0..view.content_bytes(), header_bytes, slot).await?;
            let data_bytes = length(view.content_bytes() - segment.tail_bytes)?;
            let index = decode(&shared, id, &segment, &view, &bytes.slice(data_bytes..))?;
            let frames = layout(&index, id).into_iter();
            Ok(Batch { frames: frames.map(|slice| slice.cut(&view, &bytes, 0, &place)).collect() })
        };
        let job = self.shared.cpu.spawn(read.in_current_span());
        Ok(self.batches.send(job).await.is_ok())
    }

    /// A large segment: its tail first, then ranges of whole frames.
    async fn ranges(&self, id: SegmentId, segment: SegmentSummary, ramp: &mut Ramp) -> Result<bool> {
        let place = self.place().await?;
        let shared = &self.shared;
        let ends = async {
            let view = shared.read_view(id, &segment, &self.ranges).await?;
            let tail = view.content_bytes() - segment.tail_bytes..view.content_bytes();
            let tail = shared.read_content(id, &view, tail, &self.ranges).await?;
            Ok::<_, Error>((view, tail))
        };
        // Nothing of the segment can be asked for before.
        let (view, tail) = shared.counters.store_wait.of(&*shared.clock, ends).await?;
        let index = decode(&self.shared, id, &segment, &view, &tail)?;
        drop((tail, place));
        let mut frames = layout(&index, id).into_iter().peekable();
        while let Some(first) = frames.next() {
            let range_bytes = ramp.next();
            let start = first.range.start;
            let mut end = first.range.end;
            let mut slices = vec![first];
            while let Some(next) = frames.next_if(|next| next.range.end - start <= range_bytes) {
                end = next.range.end;
                slices.push(next);
            }
            let place = self.place().await?;
            let (shared, pool, view) = (Arc::clone(&self.shared), self.ranges.clone(), view.clone());
            let read = async move {
                let bytes = shared.read_content(id, &view, start..end, &pool).await?;
                let frames = slices.into_iter();
                Ok(Batch { frames: frames.map(|slice| slice.cut(&view, &bytes, start, &place)).collect() })
            };
            let job = self.shared.cpu.spawn(read.in_current_span());
            if self.batches.send(job).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn place(&self) -> Result<Arc<OwnedSemaphorePermit>> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        // The semaphore is private and never closed.
        place.map(Arc::new).map_err(|_closed| Error::new(ErrorKind::Internal, "the places are closed"))
    }
}

impl Shared {
    /// How the content of a segment is found in its object: for an encrypted one, reads its header.
    async fn read_view(&self, id: SegmentId, segment: &SegmentSummary, pool: &BufferPool) -> Result<View> {
        let header = match header_bytes(segment) {
            0 => Bytes::new(),
            bytes => self.ranges.read(id, 0..bytes as u64, pool).await?.freeze().into_bytes(),
        };
        self.view(id, segment, header).await
    }

    async fn view(&self, id: SegmentId, segment: &SegmentSummary, header: Bytes) -> Result<View> {
        let Some(expected) = segment.header else { return Ok(View::plain(segment)) };
        let object = self.store.describe(id);
        let Some(identities) = self.identities.clone() else {
            return Err(Error::new(ErrorKind::Locked, format!("{object} is encrypted, and no key was given")));
        };
        let found = blake3::hash(&header);
        if found != expected.hash {
            let expected = expected.hash;
            return Err(corrupt_within(
                &object,
                0..header.len() as u64,
                format!("wrong hash of the age header: expected {expected}, found {found}"),
            ));
        }
        // Some milliseconds with an RSA key.
        let cipher = self.cpu.run(move || identities.open(&header)).await?;
        let cipher = cipher.map_err(|error| error.context(format!("cannot decrypt {object}")))?;
        View::sealed(segment, cipher)
            .ok_or_else(|| corrupt(&object, 0, format!("{} bytes are no age file", segment.stored_bytes)))
    }

    /// Reads exactly `range` of the content of a segment, decrypted.
    async fn read_content(&self, id: SegmentId, view: &View, range: Range<u64>, pool: &BufferPool) -> Result<Bytes> {
        let slot = self.ranges.read(id, view.window(&range), pool).await?;
        self.open(id, view, range, 0, slot).await
    }

    /// The content at `range`, from what was read for it and stands in `slot` from `at` on.
    async fn open(&self, id: SegmentId, view: &View, range: Range<u64>, at: usize, mut slot: SlotMut) -> Result<Bytes> {
        if !view.is_sealed() {
            return Ok(slot.freeze().into_bytes());
        }
        let view = view.clone();
        let opened = self.cpu.run(move || (view.open(&range, at, &mut slot), slot)).await?;
        match opened {
            (Ok(found), slot) => Ok(slot.freeze().into_bytes().slice(found)),
            (Err(place), _) => Err(corrupt_within(
                &self.store.describe(id),
                place,
                "expected a chunk that its key opens, found a damaged one",
            )),
        }
    }
}

/// How long the ranges of a stripe are: short at first, because nothing of a range can be delivered before all of it is here.
#[derive(Debug)]
struct Ramp {
    next: u64,
    most: u64,
}

impl Ramp {
    /// The first range has an eighth of `most`, each further one is twice as long, up to `most`.
    fn new(most: u64) -> Self {
        Self { next: most / 8, most }
    }

    /// The bytes of the next range, which has at least one frame whatever they are.
    fn next(&mut self) -> u64 {
        let bytes = self.next;
        self.next = (2 * bytes).min(self.most);
        bytes
    }
}

/// Where a frame stands.
#[derive(Debug)]
struct Slice {
    segment: SegmentId,
    range: Range<u64>,
    raw_offset: u64,
    raw_bytes: usize,
    hash: ChainingValue,
    siblings: usize,
}

impl Slice {
    /// The frame within `bytes`, which start at `start` of the content. The index was checked, so it is inside.
    fn cut(self, view: &View, bytes: &Bytes, start: u64, place: &Arc<OwnedSemaphorePermit>) -> StoredFrame {
        let within = usize::try_from(self.range.start - start).unwrap_or(usize::MAX)
            ..usize::try_from(self.range.end - start).unwrap_or(usize::MAX);
        let stored = if within.end <= bytes.len() { bytes.slice(within) } else { Bytes::new() };
        StoredFrame {
            segment: self.segment,
            range: view.place(self.range.start)..view.place(self.range.end),
            raw_offset: self.raw_offset,
            raw_bytes: self.raw_bytes,
            hash: self.hash,
            siblings: self.siblings,
            stored,
            _place: Arc::clone(place),
        }
    }
}

fn layout(index: &SegmentIndex, segment: SegmentId) -> Vec<Slice> {
    let (mut offset, mut raw_offset) = (0_u64, 0_u64);
    let place = |frame: &super::index::FrameEntry| {
        let slice = Slice {
            segment,
            range: offset..offset + u64::from(frame.stored_bytes),
            raw_offset,
            raw_bytes: frame.raw_bytes as usize,
            hash: frame.hash,
            siblings: index.frames.len(),
        };
        offset = slice.range.end;
        raw_offset += u64::from(frame.raw_bytes);
        slice
    };
    index.frames.iter().map(place).collect()
}

fn decode(shared: &Shared, id: SegmentId, segment: &SegmentSummary, view: &View, tail: &[u8]) -> Result<SegmentIndex> {
    let content_bytes = view.content_bytes();
    let index = SegmentIndex::decode(tail, segment, content_bytes, |hash| view.commit(hash)).map_err(|error| {
        let place = |at: u64| view.place((content_bytes - segment.tail_bytes).saturating_add(at));
        let range = place(error.range.start)..place(error.range.end);
        corrupt_within(&shared.store.describe(id), range, error.to_string())
    })?;
    let most = shared.plan.frame_bytes;
    if index.frames.iter().any(|frame| frame.raw_bytes as usize > most) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{id} has frames of {} bytes, this restore was set up for at most {most}", index.frame_bytes),
        ));
    }
    shared.counters.segments.add(1);
    Ok(index)
}

/// Checks that the segments follow each other without gaps and that no number can lead to a large allocation.
pub(super) fn check_summary(stripe: u16, summary: &StripeSummary) -> Result<()> {
    let (mut raw_bytes, mut stored_bytes) = (0_u64, 0_u64);
    for (expected, segment) in summary.segments.iter().enumerate() {
        let id = SegmentId { stripe, index: segment.index };
        if u64::from(segment.index) != expected as u64 {
            return Err(wrong(id, "index", expected as u64, u64::from(segment.index)));
        }
        if segment.raw_offset != raw_bytes {
            return Err(wrong(id, "raw offset", raw_bytes, segment.raw_offset));
        }
        check_segment(id, segment)?;
        raw_bytes = raw_bytes.saturating_add(segment.raw_bytes);
        stored_bytes = stored_bytes.saturating_add(segment.stored_bytes);
    }
    if (raw_bytes, stored_bytes) == (summary.raw_bytes, summary.stored_bytes) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "stripe {stripe}: its summary says {} raw and {} stored bytes, its segments sum up to {raw_bytes} and {stored_bytes}",
            summary.raw_bytes, summary.stored_bytes
        ),
    ))
}

/// Checks that no number of a segment can lead to a large allocation.
fn check_segment(id: SegmentId, segment: &SegmentSummary) -> Result<()> {
    if segment.frames == 0 || segment.frames > MAX_SEGMENT_FRAMES {
        return Err(wrong(id, "number of frames, at most", u64::from(MAX_SEGMENT_FRAMES), u64::from(segment.frames)));
    }
    if segment.tail_bytes != tail_bytes(segment.frames) {
        return Err(wrong(id, "tail size", tail_bytes(segment.frames), segment.tail_bytes));
    }
    let content_bytes = match segment.header {
        None => segment.stored_bytes,
        Some(header) if header.bytes == 0 || header.bytes > MAX_HEADER_BYTES => {
            return Err(wrong(id, "header size, at most", u64::from(MAX_HEADER_BYTES), u64::from(header.bytes)));
        }
        // 0 if no age file has this size.
        Some(header) => {
            let payload = segment.stored_bytes.checked_sub(u64::from(header.bytes));
            payload.and_then(chunk::content_bytes).unwrap_or(0)
        }
    };
    if content_bytes <= segment.tail_bytes {
        return Err(wrong(id, "stored size, more than", segment.tail_bytes, segment.stored_bytes));
    }
    Ok(())
}

fn wrong(id: SegmentId, what: &str, expected: u64, found: u64) -> Error {
    corrupt(&id.to_string(), 0, format!("its summary has a wrong {what}: expected {expected}, found {found}"))
}

/// An error that says where the stored bytes are not what was written.
pub(super) fn corrupt(object: &str, offset: u64, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{object}, offset {offset}: {what}"))
}

/// The same of some bytes, of which it is not known which are others.
pub(super) fn corrupt_within(object: &str, range: Range<u64>, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{object}, offset {} to {}: {what}", range.start, range.end))
}

fn header_bytes(segment: &SegmentSummary) -> usize {
    segment.header.map_or(0, |header| header.bytes as usize)
}

fn length(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).map_err(|_| Error::new(ErrorKind::Invalid, "a segment is larger than the address space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_to_their_full_length_and_stay_there() {
        let mut ramp = Ramp::new(8 << 20);
        assert_eq!([(); 6].map(|()| ramp.next() >> 20), [1, 2, 4, 8, 8, 8]);
    }
}
