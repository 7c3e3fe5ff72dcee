//! Where a byte of the content stands in an age file. Pure arithmetic.
//!
//! The payload of the file is the content in chunks of 64 KiB, the last one shorter or as long, each followed by a tag.

use std::ops::Range;

/// Bytes of the content in each chunk but the last.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that each chunk is longer when it is sealed.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of each chunk but the last in the file.
pub(crate) const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

const CHUNK: u64 = CHUNK_BYTES as u64;
const SEALED: u64 = SEALED_BYTES as u64;
const TAG: u64 = TAG_BYTES as u64;

/// Bytes of the content in a payload of `payload` bytes; `None` if no payload of ours has that size.
pub(crate) fn content_bytes(payload: u64) -> Option<u64> {
    let chunks = payload.div_ceil(SEALED);
    let last = payload.checked_sub(chunks.checked_sub(1)? * SEALED)?;
    (last > TAG).then(|| payload - chunks * TAG)
}

/// Bytes of the payload that holds `content` bytes of content, if that is a 64-bit number.
#[cfg(test)]
pub(crate) fn payload_bytes(content: u64) -> Option<u64> {
    content.checked_add(content.div_ceil(CHUNK).checked_mul(TAG)?)
}

/// The most bytes of content in `payload` bytes.
pub(crate) fn capacity(payload: u64) -> u64 {
    let rest = payload % SEALED;
    payload / SEALED * CHUNK + rest.saturating_sub(TAG)
}

/// The chunks around a range of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    /// Number of the first chunk.
    pub(crate) first: u64,
    /// Where the chunks stand in the payload.
    pub(crate) payload: Range<u64>,
    /// Bytes of the first chunk before the range.
    pub(crate) skip: usize,
    /// The last of them is the last of the file.
    pub(crate) is_last: bool,
}

impl Window {
    /// The chunks that hold `range` of a content of `content` bytes. The range is not empty and inside.
    pub(crate) fn new(range: &Range<u64>, content: u64) -> Self {
        let first = range.start / CHUNK;
        let end = range.end.div_ceil(CHUNK);
        let is_last = end >= content.div_ceil(CHUNK);
        let payload_end = if is_last { content + end * TAG } else { end * SEALED };
        Self {
            first,
            payload: first * SEALED..payload_end,
            skip: usize::try_from(range.start % CHUNK).unwrap_or(0),
            is_last,
        }
    }
}

/// The most bytes of a window around `content` bytes of content.
pub(crate) fn largest_window(content: usize) -> usize {
    // Anywhere in the file, it touches one chunk more than it fills, and one more when it fills none.
    (content / CHUNK_BYTES + 2) * SEALED_BYTES
}

/// Where a byte of the content stands in the payload.
pub(crate) fn place(content_offset: u64) -> u64 {
    content_offset / CHUNK * SEALED + content_offset % CHUNK
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u64; 11] =
        [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK, 1 << 30, (1 << 40) + 7];

    #[test]
    fn sizes_go_there_and_back_at_every_edge() {
        for content in EDGES {
            let payload = payload_bytes(content).unwrap();
            assert_eq!(content_bytes(payload), Some(content), "{content}");
            assert_eq!(capacity(payload), content);
        }
        assert_eq!(payload_bytes(u64::MAX), None);
    }

    #[test]
    fn sizes_that_no_file_has_are_refused() {
        for payload in [0, 1, TAG - 1, TAG, SEALED + 1, SEALED + TAG, 2 * SEALED + TAG] {
            assert_eq!(content_bytes(payload), None, "{payload}");
        }
        assert!(content_bytes(u64::MAX).is_none_or(|content| content < u64::MAX));
    }

    #[test]
    fn a_window_holds_its_range_and_no_chunk_more() {
        for content in EDGES {
            let edges = EDGES.iter().flat_map(|edge| [edge - 1, *edge]).filter(|edge| *edge <= content);
            let edges: Vec<u64> = edges.collect();
            for start in &edges {
                for end in edges.iter().filter(|end| *end > start) {
                    let window = Window::new(&(*start..*end), content);
                    let (from, to) = (place(*start), place(end - 1));
                    assert!(window.payload.start <= from && to < window.payload.end, "{start}..{end} of {content}");
                    assert_eq!(window.payload.start + window.skip as u64, from);
                    assert!(from - window.payload.start < CHUNK && window.payload.end - to <= SEALED);
                    assert_eq!(window.payload.start, window.first * SEALED);
                    assert_eq!(window.is_last, window.payload.end == payload_bytes(content).unwrap());
                    let most = largest_window(usize::try_from(end - start).unwrap());
                    assert!(window.payload.end - window.payload.start <= most as u64);
                }
            }
        }
    }
}
