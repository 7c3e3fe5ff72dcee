//! Hashes of the stored objects.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::choice::Segment;
use super::report::{Damage, VerifyReport};
use crate::backup::manifest::Manifest;
use crate::backup::segments::Segments;
use crate::backup::store::Store;
use crate::buffer::{BufferPool, MemoryBudget};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Pace, PipelineConfig, SegmentStore as _};

/// Reads and hashes `chosen`; what is damaged goes to the report. All of its memory is free again afterwards.
pub(super) async fn check(
    store: &Store,
    manifest: &Manifest,
    chosen: &[Segment<'_>],
    config: &PipelineConfig,
    report: &mut VerifyReport,
) -> Result<()> {
    let largest = chosen.iter().map(|segment| segment.summary.stored_bytes).max().unwrap_or(0);
    let piece_bytes = (config.part_bytes as u64).min(config.memory_limit).min(largest).max(1);
    let at_once = (config.memory_limit / piece_bytes).clamp(1, config.concurrency.max(1) as u64);
    let too_large = |_| Error::new(ErrorKind::Invalid, "part_bytes is larger than the address space");
    let slot_bytes = usize::try_from(piece_bytes).map_err(too_large)?;
    let at_once = usize::try_from(at_once).map_err(too_large)?;
    let pool = BufferPool::new(&MemoryBudget::new(config.memory_limit), slot_bytes, at_once)?;
    let segments = &Segments::new(store, manifest.names());
    let pace = &Pace::alone(config.download_bytes_per_second, Arc::clone(store.time()));
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..chosen.len())
        .map(|number| {
            let segment = &chosen[number];
            let pool = pool.clone();
            async move { (segment, hash(store, segments, segment, pace, &pool).await) }
        })
        // Each holds one slot at most, so none waits for another.
        .buffer_unordered(at_once);
    while let Some((segment, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => report.stored_bytes += segment.summary.stored_bytes,
            Err(error) if error.kind() == ErrorKind::Corrupt => report.damage.push(Damage::of(segment, error)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn hash(store: &Store, segments: &Segments, segment: &Segment<'_>, pace: &Pace, pool: &BufferPool) -> Result<()> {
    let summary = segment.summary;
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < summary.stored_bytes {
        let end = summary.stored_bytes.min(offset + pool.slot_bytes() as u64);
        // The wait for the slot is part of the attempt: an attempt that was given up may still have the earlier one.
        let attempt = || async { segments.read_into(segment.id, offset..end, pool.acquire().await).await };
        pace.wait(end - offset).await;
        let slot = store.retry(attempt).await?;
        offset = end;
        // Milliseconds of work for each piece: not on a thread that others wait for.
        let job = store.tasks().spawn_blocking(move || {
            hasher.update(slot.filled());
            hasher
        });
        hasher = job.await.map_err(|error| Error::new(ErrorKind::Internal, "hashing panicked").with_source(error))?;
    }
    let found = hasher.finalize();
    if found == summary.stored_hash {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "{}, offset 0 to {}: expected stored hash {}, found {found}",
            store.show(&segment.name),
            summary.stored_bytes,
            summary.stored_hash
        ),
    ))
}
