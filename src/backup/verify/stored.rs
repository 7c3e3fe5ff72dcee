//! Hashes of the stored objects.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::choice::Segment;
use super::report::{Damage, VerifyReport};
use super::waiting::{Waiting, Waits};
use super::watch::VerifyWatch;
use crate::backup::manifest::Manifest;
use crate::backup::segments::Segments;
use crate::backup::store::Store;
use crate::buffer::{BufferPool, MemoryBudget};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{PipelineConfig, Ranges};

/// Reads and hashes `chosen`; what is damaged goes to the report. All of its memory is free again afterwards.
pub(super) async fn check(
    store: &Store,
    manifest: &Manifest,
    chosen: &[Segment<'_>],
    config: &PipelineConfig,
    watch: &VerifyWatch,
    report: &mut VerifyReport,
) -> Result<()> {
    let largest = chosen.iter().map(|segment| segment.summary.stored_bytes).max().unwrap_or(0);
    let piece_bytes = (config.part_bytes as u64).min(config.memory_limit).min(largest).max(1);
    let at_once = (config.memory_limit / piece_bytes).clamp(1, config.concurrency.max(1) as u64);
    let too_large = |_| Error::new(ErrorKind::Invalid, "part_bytes is larger than the address space");
    let slot_bytes = usize::try_from(piece_bytes).map_err(too_large)?;
    let at_once = usize::try_from(at_once).map_err(too_large)?;
    let pool = BufferPool::new(&MemoryBudget::new(config.memory_limit), slot_bytes, at_once)?;
    let segments = Arc::new(Segments::new(store, manifest.names()));
    let ranges = Ranges::alone(config, segments, Arc::clone(store.time()))?;
    let waits = &Arc::new(Waits::new(ranges, Arc::clone(store.time())));
    let _watched = watch.begin(Waiting::Hashing(Arc::clone(waits)));
    let hasher = &Hasher { store, pool, watch, waits };
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..chosen.len())
        .map(|number| {
            let segment = &chosen[number];
            async move { (segment, hasher.check(segment).await) }
        })
        // Each holds one slot at most, so none waits for another.
        .buffer_unordered(at_once);
    while let Some((segment, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => report.stored_bytes += segment.summary.stored_bytes,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                report.damage.push(Damage::of(segment, error));
                watch.found();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

struct Hasher<'a> {
    store: &'a Store,
    pool: BufferPool,
    watch: &'a VerifyWatch,
    waits: &'a Waits,
}

impl Hasher<'_> {
    /// Reads a segment and compares its hash. What is not read of it because it is damaged need not be read any more.
    async fn check(&self, segment: &Segment<'_>) -> Result<()> {
        let mut read = 0;
        let outcome = self.hash(segment, &mut read).await;
        self.watch.spare(segment.summary.stored_bytes - read);
        let (found, summary) = (outcome?, segment.summary);
        if found == summary.stored_hash {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{}, offset 0 to {}: expected stored hash {}, found {found}",
                self.store.show(&segment.name),
                summary.stored_bytes,
                summary.stored_hash
            ),
        ))
    }

    /// The hash of a segment. `offset` is how far it was read.
    async fn hash(&self, segment: &Segment<'_>, offset: &mut u64) -> Result<blake3::Hash> {
        let Self { store, pool, watch, waits } = self;
        let all = segment.summary.stored_bytes;
        let mut hasher = blake3::Hasher::new();
        while *offset < all {
            let range = *offset..all.min(*offset + pool.slot_bytes() as u64);
            let slot = waits.ranges.read(segment.id, range.clone(), pool).await?;
            // Milliseconds of work for each piece: not on a thread that others wait for.
            let job = store.tasks().spawn_blocking(move || {
                hasher.update(slot.filled());
                hasher
            });
            let hashed = waits.cpu.of(&*waits.clock, job).await;
            hasher = hashed.map_err(|error| Error::new(ErrorKind::Internal, "hashing panicked").with_source(error))?;
            *offset = range.end;
            watch.update(|progress| progress.read_bytes += range.end - range.start);
        }
        Ok(hasher.finalize())
    }
}
