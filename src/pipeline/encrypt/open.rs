//! From a range of an encrypted object to a range of its content.

use std::ops::Range;
use std::sync::Arc;

use blake3::Hash;

use super::Cipher;
use super::chunk::{self, SEALED_BYTES, TAG_BYTES, Window};
use crate::buffer::SlotMut;
use crate::pipeline::segment::SegmentSummary;

/// How the content of a segment is found in its object.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct View {
    sealed: Option<Sealed>,
    /// Bytes of the content: frames and tail.
    content_bytes: u64,
}

#[derive(Debug, Clone)]
struct Sealed {
    cipher: Arc<Cipher>,
    header_bytes: u64,
}

impl View {
    /// Of a segment that is stored as it is.
    pub(in crate::pipeline) fn plain(segment: &SegmentSummary) -> Self {
        Self { sealed: None, content_bytes: segment.stored_bytes }
    }

    /// Of an encrypted segment; `None` if no such file has its size.
    pub(in crate::pipeline) fn sealed(segment: &SegmentSummary, cipher: Cipher) -> Option<Self> {
        let header_bytes = u64::from(segment.header?.bytes);
        let content_bytes = chunk::content_bytes(segment.stored_bytes.checked_sub(header_bytes)?)?;
        Some(Self { sealed: Some(Sealed { cipher: Arc::new(cipher), header_bytes }), content_bytes })
    }

    pub(in crate::pipeline) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// What the summary of the segment says of a content with this hash.
    pub(in crate::pipeline) fn commit(&self, content: Hash) -> Hash {
        self.sealed.as_ref().map_or(content, |sealed| sealed.cipher.commit(content))
    }

    /// Where a byte of the content stands in the object.
    pub(in crate::pipeline) fn place(&self, offset: u64) -> u64 {
        self.sealed.as_ref().map_or(offset, |sealed| sealed.header_bytes + chunk::place(offset))
    }

    /// What must be read to have `range` of the content.
    pub(in crate::pipeline) fn window(&self, range: &Range<u64>) -> Range<u64> {
        match &self.sealed {
            None => range.clone(),
            Some(sealed) => {
                let payload = Window::new(range, self.content_bytes).payload;
                payload.start + sealed.header_bytes..payload.end + sealed.header_bytes
            }
        }
    }

    pub(in crate::pipeline) fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Opens what was read for `range`, in place, from `at` of the slot on.
    ///
    /// Answers where in the slot the range is then, or, for damage, where in the object the chunk is that is not what was
    /// written. Nothing of a slot with damage may be used.
    pub(in crate::pipeline) fn open(
        &self,
        range: &Range<u64>,
        at: usize,
        slot: &mut SlotMut,
    ) -> Result<Range<usize>, Range<u64>> {
        let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let Some(sealed) = &self.sealed else { return Ok(at..at.saturating_add(len)) };
        let window = Window::new(range, self.content_bytes);
        let bytes = slot.filled_mut().get_mut(at..).unwrap_or_default();
        let count = bytes.len().div_ceil(SEALED_BYTES);
        let place = |chunk: Range<usize>| {
            let offset = sealed.header_bytes + window.payload.start;
            offset + chunk.start as u64..offset + chunk.end as u64
        };
        let mut end = 0;
        for nth in 0..count {
            let start = nth * SEALED_BYTES;
            let stop = bytes.len().min(start + SEALED_BYTES);
            let is_last = window.is_last && nth + 1 == count;
            if !sealed.cipher.open(window.first + nth as u64, is_last, &mut bytes[start..stop]) {
                return Err(place(start..stop));
            }
            // Over the tag of the chunk before.
            let content = start..stop - TAG_BYTES;
            let next = end + content.len();
            bytes.copy_within(content, end);
            end = next;
        }
        let found = at + window.skip..at.saturating_add(window.skip).saturating_add(len);
        if found.end > at + end { Err(place(0..bytes.len())) } else { Ok(found) }
    }
}
