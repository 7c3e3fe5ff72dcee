//! Segments as the pipeline sees them: numbered objects that it writes in parts and reads in ranges.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};

/// Which segment of which stripe; object names are made of it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId {
    /// The stripe, from 0.
    pub stripe: u16,
    /// The segment within the stripe, from 0.
    pub index: u32,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stripe {} segment {}", self.stripe, self.index)
    }
}

/// Where segments are stored. One call is one attempt; the pipeline decides what is tried again.
///
/// Errors of kind `Throttled` and `Unavailable` are tried again, all others end the stripe.
#[async_trait]
pub trait SegmentStore: fmt::Debug + Send + Sync {
    /// The smallest size of a part that is not the last, in bytes.
    fn min_part_bytes(&self) -> u64;

    /// The most parts that one segment may have.
    fn max_parts(&self) -> u32;

    /// What to call a segment in messages: its object, where the store has names for them.
    fn describe(&self, segment: SegmentId) -> String {
        segment.to_string()
    }

    /// Stores a whole segment in one create-only put. May be called again after an error with the same content.
    async fn put(&self, segment: SegmentId, payload: Vec<Bytes>) -> Result<()>;

    /// Starts a segment that is uploaded in parts. On return, a crash leaves enough behind to clean it up.
    async fn begin(&self, segment: SegmentId) -> Result<Box<dyn SegmentUpload>>;

    /// Reads exactly `range` of a segment. A shorter answer is an error of kind `Corrupt`.
    async fn read(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes>;

    /// Reads exactly `range` of a segment into `target`, which is empty and large enough. This is what restores call.
    ///
    /// A store that can fill memory it is given should do so here: this implementation goes through [`SegmentStore::read`],
    /// and a large allocation per read, freed on another thread, leaves a process with much more memory than it uses.
    async fn read_into(&self, segment: SegmentId, range: Range<u64>, mut target: SlotMut) -> Result<SlotMut> {
        let bytes = self.read(segment, range).await?;
        if target.put(&bytes) < bytes.len() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{segment}: {} bytes came, more than asked for", bytes.len()),
            ));
        }
        Ok(target)
    }
}

/// One segment that is being uploaded in parts.
#[async_trait]
pub trait SegmentUpload: fmt::Debug + Send + Sync {
    /// Stores one part; several come at once. Unless the segment is given up, what the first call for a part answers is polled after
    /// that of the part before it; it may be called again, at any time, after an error with the same content.
    async fn put_part(&self, index: u32, payload: Vec<Bytes>) -> Result<()>;

    /// Makes the segment visible as one object of `parts` parts and `bytes` bytes. May be called again after an error.
    async fn complete(&self, parts: u32, bytes: u64) -> Result<()>;

    /// Removes every part and the record of the upload. May be called again after an error.
    async fn abort(&self) -> Result<()>;
}

/// What is known of a stored segment; the manifest keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Its number within the stripe, from 0.
    pub index: u32,
    /// Where its first raw byte stands in the stripe.
    pub raw_offset: u64,
    /// Raw bytes that it holds.
    pub raw_bytes: u64,
    /// Size of the object.
    pub stored_bytes: u64,
    /// Number of data frames.
    pub frames: u32,
    /// Size of the frame index and seek table at its end.
    pub tail_bytes: u64,
    /// BLAKE3 of the raw bytes of this segment. If it is encrypted, a hash of that under a key that only the segment's
    /// readers have, so that it tells others nothing.
    pub raw_hash: blake3::Hash,
    /// BLAKE3 of the object.
    pub stored_hash: blake3::Hash,
    /// What stands in front of the content, if the segment is encrypted.
    pub header: Option<SegmentHeader>,
}

/// The age header of an encrypted segment, with the nonce behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Its size, at most [`MAX_HEADER_BYTES`](super::MAX_HEADER_BYTES).
    pub bytes: u32,
    /// Its BLAKE3, by which damage is told from a wrong key.
    pub hash: blake3::Hash,
}

/// What is known of a stripe once all of it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StripeSummary {
    /// Raw bytes of all segments.
    pub raw_bytes: u64,
    /// Size of all objects.
    pub stored_bytes: u64,
    /// The segments in order.
    pub segments: Vec<SegmentSummary>,
}
