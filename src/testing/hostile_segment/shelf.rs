//! The objects of one stripe, whatever they are.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{SegmentId, SegmentStore, SegmentUpload};
use crate::sync::Mutex;

/// A store of segments that can only be read.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    objects: Mutex<Vec<Bytes>>,
    longest: AtomicU64,
}

impl Shelf {
    /// From now on these are the segments.
    pub(super) fn hold(&self, objects: Vec<Bytes>) {
        *self.objects.lock() = objects;
    }

    /// The most bytes that were asked for at once.
    pub(super) fn longest(&self) -> u64 {
        self.longest.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl SegmentStore for Shelf {
    fn min_part_bytes(&self) -> u64 {
        1
    }

    fn max_parts(&self) -> u32 {
        1
    }

    async fn put(&self, _: SegmentId, _: Vec<Bytes>) -> Result<()> {
        Err(read_only())
    }

    async fn begin(&self, _: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        Err(read_only())
    }

    async fn read(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes> {
        self.longest.fetch_max(range.end - range.start, Ordering::Relaxed);
        let object = self.objects.lock().get(segment.index as usize).cloned().unwrap_or_default();
        let within = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let (start, end) = (within(range.start), within(range.end));
        if end > object.len() {
            return Err(Error::new(ErrorKind::Corrupt, format!("{segment} ends before")));
        }
        Ok(object.slice(start..end))
    }
}

fn read_only() -> Error {
    Error::new(ErrorKind::Invalid, "it can only be read")
}
