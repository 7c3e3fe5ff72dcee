//! For tests and fuzzers: segments made by hand, true ones and others that say what they are told to.

use blake3::hazmat::ChainingValue;

use super::index::{FrameEntry, SegmentIndex};
use super::segment::SegmentSummary;
use super::tree::Piece;
use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "encryption")]
use super::encrypt::Identities;
#[cfg(feature = "encryption")]
use super::encrypt::chunk::{CHUNK_BYTES, TAG_BYTES};
#[cfg(feature = "encryption")]
use super::segment::SegmentHeader;

/// What an index says of a frame: stored bytes, raw bytes, hash.
pub(crate) type Frame = (u32, u32, ChainingValue);

/// `content` in frames of `frame_bytes`, as an index has them, and the frames themselves one after the other.
pub(crate) fn frames(frame_bytes: usize, content: &[u8]) -> Result<(Vec<Frame>, Vec<u8>)> {
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    let count = content.len().div_ceil(frame_bytes);
    let mut offset = 0;
    for raw in content.chunks(frame_bytes) {
        let stored = zstd::bulk::compress(raw, 3)
            .map_err(|error| Error::new(ErrorKind::Internal, "cannot compress").with_source(error))?;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        entries.push((length(&stored), length(raw), Piece::new(raw, offset).entry(count)));
        data.extend_from_slice(&stored);
        offset += raw.len() as u64;
    }
    Ok((entries, data))
}

/// A segment of `data`, with an index that says whatever `frames` says, and a summary that believes it.
pub(crate) fn forge(frame_bytes: u32, frames: &[Frame], data: &[u8]) -> (Vec<u8>, SegmentSummary) {
    let entry = |&(stored_bytes, raw_bytes, hash): &Frame| FrameEntry { stored_bytes, raw_bytes, hash };
    let index = SegmentIndex { frame_bytes, frames: frames.iter().map(entry).collect() };
    let tail = index.encode();
    let object = [data, &tail].concat();
    let summary = SegmentSummary {
        index: 0,
        raw_offset: 0,
        raw_bytes: index.frames.iter().map(|frame| u64::from(frame.raw_bytes)).sum(),
        stored_bytes: object.len() as u64,
        frames: u32::try_from(index.frames.len()).unwrap_or(u32::MAX),
        tail_bytes: tail.len() as u64,
        raw_hash: index.raw_hash(),
        stored_hash: blake3::hash(&object),
        header: None,
    };
    (object, summary)
}

/// Decodes a tail; on success the number of frames that it describes.
pub(crate) fn check_tail(tail: &[u8], summary: &SegmentSummary) -> Result<usize, String> {
    SegmentIndex::decode(tail, summary, summary.stored_bytes, |hash| hash)
        .map(|index| index.frames.len())
        .map_err(|error| error.to_string())
}

/// Decodes the tail of a segment of `stored_bytes` of which nothing else is known; on success what it says.
pub(crate) fn survey_tail(tail: &[u8], stored_bytes: u64) -> Result<SegmentSummary, String> {
    SegmentIndex::survey(tail, 0, stored_bytes).map(|(_, summary)| summary).map_err(|error| error.to_string())
}

/// `content` behind an age header that one of `identities` opens, its nonce at its end, and what a summary says of that: `segment` is
/// the summary of the content without encryption.
#[cfg(feature = "encryption")]
pub(crate) fn seal(
    identities: &Identities,
    header: &[u8],
    content: &[u8],
    segment: &SegmentSummary,
) -> Result<(Vec<u8>, SegmentSummary)> {
    let cipher = identities.open(header)?;
    let mut object = header.to_vec();
    let count = content.len().div_ceil(CHUNK_BYTES) as u64;
    for (number, chunk) in (0..).zip(content.chunks(CHUNK_BYTES)) {
        let start = object.len();
        object.extend_from_slice(chunk);
        object.resize(object.len() + TAG_BYTES, 0);
        cipher.seal(number, number + 1 == count, &mut object[start..])?;
    }
    let bytes = u32::try_from(header.len()).unwrap_or(u32::MAX);
    let summary = SegmentSummary {
        stored_bytes: object.len() as u64,
        raw_hash: cipher.commit(segment.raw_hash),
        stored_hash: blake3::hash(&object),
        header: Some(SegmentHeader { bytes, hash: blake3::hash(header) }),
        ..segment.clone()
    };
    Ok((object, summary))
}
