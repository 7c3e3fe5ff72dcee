//! The tail of a segment: our frame index, then the seek table that other tools read. Pure encoding and decoding.
//!
//! The bytes are described in the manual's page on the format.

use std::ops::Range;

use blake3::Hash;
use blake3::hazmat::ChainingValue;

use super::codec::stored_bound;
use super::config::{MAX_FRAME_BYTES, MIN_FRAME_BYTES};
use super::segment::SegmentSummary;
use super::tree;

/// The most data frames of a segment; keeps the index of a segment, and so the memory of a stripe, small.
pub const MAX_SEGMENT_FRAMES: u32 = 4096;

/// One data frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameEntry {
    /// Bytes of the compressed frame.
    pub(super) stored_bytes: u32,
    /// Bytes of its content.
    pub(super) raw_bytes: u32,
    /// BLAKE3 chaining value of its content at its place in the segment; the plain hash if it is the only frame.
    pub(super) hash: ChainingValue,
}

/// All data frames of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentIndex {
    /// Raw bytes of every frame but the last.
    pub(super) frame_bytes: u32,
    pub(super) frames: Vec<FrameEntry>,
}

/// The size of the tail of a segment with `frames` data frames.
pub(super) const fn tail_bytes(frames: u32) -> u64 {
    const FIXED: u64 = SKIPPABLE_HEADER + INDEX_HEADER + SKIPPABLE_HEADER + SEEK_ENTRY + SEEK_FOOTER;
    FIXED + frames as u64 * (INDEX_ENTRY + SEEK_ENTRY)
}

impl SegmentIndex {
    /// BLAKE3 of the raw bytes of the segment.
    pub(super) fn raw_hash(&self) -> Hash {
        let entries: Vec<ChainingValue> = self.frames.iter().map(|frame| frame.hash).collect();
        tree::merge(&entries)
    }

    /// The tail as it is stored.
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.frames.len()).unwrap_or(u32::MAX);
        let index_bytes = u32::try_from(INDEX_HEADER + u64::from(count) * INDEX_ENTRY).unwrap_or(u32::MAX);
        let table_bytes = u32::try_from((u64::from(count) + 1) * SEEK_ENTRY + SEEK_FOOTER).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(usize::try_from(tail_bytes(count)).unwrap_or(0));
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);

        put(&INDEX_SKIPPABLE.to_le_bytes());
        put(&index_bytes.to_le_bytes());
        put(&INDEX_MAGIC);
        put(&INDEX_VERSION.to_le_bytes());
        put(&self.frame_bytes.to_le_bytes());
        put(&count.to_le_bytes());
        for frame in &self.frames {
            put(&frame.stored_bytes.to_le_bytes());
            put(&frame.raw_bytes.to_le_bytes());
            put(&frame.hash);
        }

        put(&SEEK_SKIPPABLE.to_le_bytes());
        put(&table_bytes.to_le_bytes());
        for frame in &self.frames {
            put(&frame.stored_bytes.to_le_bytes());
            put(&frame.raw_bytes.to_le_bytes());
        }
        // The index frame is a frame of the file too; readers find the table by the sum of the sizes.
        put(&(index_bytes + 8).to_le_bytes());
        put(&0_u32.to_le_bytes());
        put(&(count + 1).to_le_bytes());
        put(&[SEEK_DESCRIPTOR]);
        put(&SEEK_MAGIC.to_le_bytes());
        out
    }

    /// Reads the tail of a segment of `stored_bytes`, not encrypted, of which nothing else is known. The summary is what the
    /// tail says, and every byte of the tail agrees with it; the hash of the object is not known yet.
    pub(super) fn survey(tail: &[u8], index: u32, stored_bytes: u64) -> Result<(Self, SegmentSummary), TailError> {
        let frames = frames_at_end(tail)?;
        let entries = tail.get(SEGMENT_ENTRIES..).unwrap_or_default().chunks_exact(ENTRY_BYTES);
        let entries = entries.take(frames as usize).map(|entry| {
            let mut input = Cursor { bytes: entry, at: 0 };
            FrameEntry { stored_bytes: input.u32(), raw_bytes: input.u32(), hash: input.array() }
        });
        let said = Self { frame_bytes: 0, frames: entries.collect() };
        let summary = SegmentSummary {
            index,
            raw_offset: 0,
            raw_bytes: said.frames.iter().map(|frame| u64::from(frame.raw_bytes)).sum(),
            stored_bytes,
            frames,
            tail_bytes: tail_bytes(frames),
            raw_hash: said.raw_hash(),
            stored_hash: Hash::from_bytes([0; 32]),
            header: None,
        };
        let checked = Self::decode(tail, &summary, stored_bytes, |hash| hash)?;
        Ok((checked, summary))
    }

    /// Reads a tail and checks it against everything that the manifest says about the segment.
    ///
    /// On success the frames cover the object and the raw bytes exactly, each within its bounds, and their hashes merge
    /// to the manifest's hash. On failure: what is wrong, and at which byte of the tail.
    ///
    /// `commit` gives what the manifest says of a hash of the content: the hash itself, unless the segment is encrypted.
    /// `content_bytes` is the size of the object without encryption.
    pub(super) fn decode(
        tail: &[u8],
        summary: &SegmentSummary,
        content_bytes: u64,
        commit: impl FnOnce(Hash) -> Hash,
    ) -> Result<Self, TailError> {
        let mut input = Cursor { bytes: tail, at: 0 };
        if summary.frames == 0 || summary.frames > MAX_SEGMENT_FRAMES {
            let expected = format!("1 to {MAX_SEGMENT_FRAMES}");
            return Err(input.error("number of frames in the manifest", expected, summary.frames));
        }
        // The count is bounded above, so this bounds every allocation below.
        let expected_bytes = tail_bytes(summary.frames);
        if tail.len() as u64 != expected_bytes {
            return Err(input.error("size of the tail", expected_bytes, tail.len()));
        }
        let index_bytes = INDEX_HEADER + u64::from(summary.frames) * INDEX_ENTRY;

        input.expect_u32("skippable magic of the index", INDEX_SKIPPABLE)?;
        input.expect_u64("size of the index", index_bytes)?;
        input.expect_array("magic of the index", INDEX_MAGIC)?;
        input.expect_u32("version of the index", INDEX_VERSION)?;
        let frame_bytes = input.u32();
        let size = frame_bytes as usize;
        if !size.is_power_of_two() || !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&size) {
            return Err(input.error_before(4, "frame size", "a power of two from 64 KiB to 64 MiB", frame_bytes));
        }
        input.expect_u32("number of frames", summary.frames)?;

        let mut frames = Vec::with_capacity(summary.frames as usize);
        let (mut stored_sum, mut raw_sum) = (0_u64, 0_u64);
        for index in 0..summary.frames {
            let stored_bytes = input.u32();
            let raw_bytes = input.u32();
            let is_last = index + 1 == summary.frames;
            if raw_bytes == 0 || raw_bytes > frame_bytes || (!is_last && raw_bytes != frame_bytes) {
                return Err(input.error_before(4, "raw size of a frame", frame_bytes, raw_bytes));
            }
            // No encoder makes more of so few bytes; a reader's memory for it is planned by this.
            let bound = stored_bound(raw_bytes as usize);
            if stored_bytes == 0 || stored_bytes as usize > bound {
                return Err(input.error_before(8, "stored size of a frame", format!("1 to {bound}"), stored_bytes));
            }
            let hash = input.array();
            stored_sum += u64::from(stored_bytes);
            raw_sum += u64::from(raw_bytes);
            frames.push(FrameEntry { stored_bytes, raw_bytes, hash });
        }
        let entries = input.at - SEGMENT_ENTRIES;
        if raw_sum != summary.raw_bytes {
            return Err(input.error_before(entries, "sum of the frames' raw sizes", summary.raw_bytes, raw_sum));
        }
        if stored_sum.checked_add(expected_bytes) != Some(content_bytes) {
            let expected = content_bytes.saturating_sub(expected_bytes);
            return Err(input.error_before(entries, "sum of the frames' stored sizes", expected, stored_sum));
        }

        input.expect_u32("skippable magic of the seek table", SEEK_SKIPPABLE)?;
        input.expect_u64("size of the seek table", (u64::from(summary.frames) + 1) * SEEK_ENTRY + SEEK_FOOTER)?;
        for frame in &frames {
            input.expect_u32("stored size in the seek table", frame.stored_bytes)?;
            input.expect_u32("raw size in the seek table", frame.raw_bytes)?;
        }
        input.expect_u64("stored size of the index in the seek table", index_bytes + SKIPPABLE_HEADER)?;
        input.expect_u32("raw size of the index in the seek table", 0)?;
        input.expect_u32("number of frames in the seek table", summary.frames + 1)?;
        input.expect_array("descriptor of the seek table", [SEEK_DESCRIPTOR])?;
        input.expect_u32("magic of the seek table", SEEK_MAGIC)?;

        let index = Self { frame_bytes, frames };
        let found = commit(index.raw_hash());
        if found != summary.raw_hash {
            return Err(TailError {
                range: 0..index_bytes + SKIPPABLE_HEADER,
                what: "hash over the index",
                expected: summary.raw_hash.to_string(),
                found: found.to_string(),
            });
        }
        Ok(index)
    }
}

/// The number of data frames of a segment, by the last bytes of it.
pub(super) fn frames_at_end(end: &[u8]) -> Result<u32, TailError> {
    let start = end.len().saturating_sub(FOOTER_BYTES);
    let mut input = Cursor { bytes: end, at: start };
    // The index is a frame too.
    let frames = input.u32().wrapping_sub(1);
    if !(1..=MAX_SEGMENT_FRAMES).contains(&frames) {
        let expected = format!("1 to {MAX_SEGMENT_FRAMES}");
        return Err(input.error_before(4, "number of data frames in the seek table", expected, frames));
    }
    input.expect_array("descriptor of the seek table", [SEEK_DESCRIPTOR])?;
    input.expect_u32("magic of the seek table", SEEK_MAGIC)?;
    Ok(frames)
}

/// Why a tail was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, found {found}")]
pub(super) struct TailError {
    /// Where in the tail: one of these bytes at least.
    pub(super) range: Range<u64>,
    what: &'static str,
    expected: String,
    found: String,
}

/// Reads fields of a tail whose length was checked before.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next `N` bytes; zeros past the end, which the length check has ruled out.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        if let Some(field) = self.bytes.get(self.at..self.at + N) {
            out.copy_from_slice(field);
        }
        self.at += N;
        out
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn expect_u32(&mut self, what: &'static str, expected: u32) -> Result<(), TailError> {
        self.expect_u64(what, u64::from(expected))
    }

    fn expect_u64(&mut self, what: &'static str, expected: u64) -> Result<(), TailError> {
        let found = u64::from(self.u32());
        if found == expected { Ok(()) } else { Err(self.error_before(4, what, expected, found)) }
    }

    fn expect_array<const N: usize>(&mut self, what: &'static str, expected: [u8; N]) -> Result<(), TailError> {
        let found: [u8; N] = self.array();
        if found == expected {
            return Ok(());
        }
        Err(self.error_before(N, what, format_args!("{expected:02x?}"), format_args!("{found:02x?}")))
    }

    fn error(&self, what: &'static str, expected: impl ToString, found: impl ToString) -> TailError {
        self.error_before(0, what, expected, found)
    }

    fn error_before(
        &self,
        bytes: usize,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> TailError {
        let range = (self.at - bytes) as u64..self.at as u64;
        TailError { range, what, expected: expected.to_string(), found: found.to_string() }
    }
}

/// The skippable frame of our index.
const INDEX_SKIPPABLE: u32 = 0x184D_2A56;
const INDEX_MAGIC: [u8; 4] = *b"VDSI";
const INDEX_VERSION: u32 = 1;
/// Magic, version, frame size, number of frames.
const INDEX_HEADER: u64 = 16;
/// Stored size, raw size, hash.
const INDEX_ENTRY: u64 = 40;

/// The numbers of the public zstd seekable format, version 0.1.0.
const SEEK_SKIPPABLE: u32 = 0x184D_2A5E;
const SEEK_MAGIC: u32 = 0x8F92_EAB1;
/// No checksums in the table: ours are stronger and stand in the index.
const SEEK_DESCRIPTOR: u8 = 0;
const SEEK_ENTRY: u64 = 8;
const SEEK_FOOTER: u64 = 9;
const SKIPPABLE_HEADER: u64 = 8;

/// Where the first entry stands in a tail.
const SEGMENT_ENTRIES: usize = 24;
const ENTRY_BYTES: usize = 40;
/// The last bytes of every segment, which say how many frames it has.
pub(super) const FOOTER_BYTES: usize = 9;
const _: () = assert!(SEGMENT_ENTRIES as u64 == SKIPPABLE_HEADER + INDEX_HEADER && FOOTER_BYTES as u64 == SEEK_FOOTER);
const _: () = assert!(ENTRY_BYTES as u64 == INDEX_ENTRY);
