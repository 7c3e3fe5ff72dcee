//! Segments that nobody has a summary of: reads each once, and learns all that a manifest says of it.
//!
//! The tail says where the frames are, and what their contents hash to. That the frames are what it says is seen by
//! decompressing every one of them, so that damage which happened since does not become part of a manifest as if it were meant.

use std::sync::Arc;

use blake3::Hasher;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument as _, Span};

use super::fetch::{Batch, Fetcher, corrupt, corrupt_within};
use super::index::{FOOTER_BYTES, SegmentIndex, frames_at_end, tail_bytes};
use super::reader::Shared;
use super::segment::{SegmentId, SegmentSummary};
use crate::buffer::SlotMut;
use crate::error::Result;

/// Bytes at the end of a segment that are read first: the whole tail, if there are at most 680 frames.
const FIRST_READ: u64 = 32 << 10;

/// Reads a segment of `stored_bytes` to its end. `Corrupt` if it is not a whole, undamaged segment. `on_read` gets the number of bytes
/// more that were checked, by and by.
pub(super) async fn survey(
    shared: &Arc<Shared>,
    id: SegmentId,
    stored_bytes: u64,
    mut on_read: impl FnMut(u64) + Send,
) -> Result<SegmentSummary> {
    let span = tracing::debug_span!("segment", segment = id.index);
    let (tail, mut summary) = tail(shared, id, stored_bytes).instrument(span).await?;
    let pools = shared.pools(id.stripe)?;
    let (batches_in, mut batches) = mpsc::channel(shared.plan.parts);
    let fetcher = Fetcher {
        shared: Arc::clone(shared),
        stripe: id.stripe,
        places: Arc::new(Semaphore::new(shared.plan.parts)),
        ranges: pools.ranges,
        batches: batches_in,
    };
    // Dropping the job ends the read-ahead.
    let mut fetch = shared.cpu.spawn(fetcher.run(vec![summary.clone()]).instrument(Span::current()));
    let mut stored = Hasher::new();
    let mut slot = pools.frames.acquire().await;
    while let Some(mut batch) = batches.recv().await {
        let batch = batch.wait().await?;
        let bytes: usize = batch.frames.iter().map(|frame| frame.stored.len()).sum();
        let worker = Arc::clone(shared);
        (stored, slot) = shared.cpu.start(move || worker.examine(stored, &batch, slot)).wait().await?;
        on_read(bytes as u64);
    }
    fetch.wait().await?;
    stored.update(&tail);
    on_read(tail.len() as u64);
    summary.stored_hash = stored.finalize();
    Ok(summary)
}

/// Reads the tail of a segment, and what it says.
async fn tail(shared: &Arc<Shared>, id: SegmentId, stored_bytes: u64) -> Result<(Vec<u8>, SegmentSummary)> {
    let pools = shared.pools(id.stripe)?;
    let at = |offset: u64, what: String| corrupt(&shared.store.describe(id), offset, what);
    if stored_bytes <= tail_bytes(1) {
        return Err(at(stored_bytes, format!("expected more than {} bytes in all", tail_bytes(1))));
    }
    let first = stored_bytes.saturating_sub(FIRST_READ);
    let mut end = shared.ranges.read(id, first..stored_bytes, &pools.ranges).await?;
    let found = frames_at_end(end.filled());
    let frames = found.map_err(|error| at(stored_bytes - FOOTER_BYTES as u64, error.to_string()))?;
    let tail_start = stored_bytes.saturating_sub(tail_bytes(frames));
    if tail_start < first {
        drop(end);
        end = shared.ranges.read(id, tail_start..stored_bytes, &pools.ranges).await?;
    }
    let within = usize::try_from(tail_start.saturating_sub(first)).unwrap_or(0);
    let tail = end.filled().get(if tail_start < first { 0 } else { within }..).unwrap_or_default();
    let (_, summary) = SegmentIndex::survey(tail, id.index, stored_bytes).map_err(|error| {
        let range = tail_start + error.range.start..tail_start + error.range.end;
        corrupt_within(&shared.store.describe(id), range, error.to_string())
    })?;
    Ok((tail.to_vec(), summary))
}

impl Shared {
    /// Adds the stored bytes of some frames to the hash of their object, and checks the content of each.
    fn examine(&self, mut stored: Hasher, batch: &Batch, mut slot: SlotMut) -> Result<(Hasher, SlotMut)> {
        for frame in &batch.frames {
            stored.update(&frame.stored);
            slot.clear();
            self.decode(frame, &mut slot)?;
        }
        Ok((stored, slot))
    }
}
