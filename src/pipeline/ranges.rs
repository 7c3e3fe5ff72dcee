//! Exact ranges of segments, as a restore and a verification read them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::config::PipelineConfig;
use super::fetch::corrupt;
use super::plan::Direction;
use super::progress::Counters;
use super::request::{Operation, Request, Requests};
use super::segment::{SegmentId, SegmentStore};
use crate::buffer::{BufferPool, SlotMut};
use crate::clock::Clock;
use crate::error::Result;

/// Reads of a store that are bounded together, in number and in time: on a slow link fewer go at once, and each has the time that its
/// bytes need.
#[derive(Debug)]
pub(crate) struct Ranges {
    store: Arc<dyn SegmentStore>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    requests: Requests,
}

impl Ranges {
    pub(super) fn new(
        config: &PipelineConfig,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        let (concurrency, rate) = (config.concurrency, config.download_bytes_per_second);
        let requests = Requests::new(config, concurrency, rate, Arc::clone(&clock), Arc::clone(&counters));
        Self { store, clock, counters, requests }
    }

    /// The same outside of a pipeline.
    pub(crate) fn alone(config: &PipelineConfig, store: Arc<dyn SegmentStore>, clock: Arc<dyn Clock>) -> Result<Self> {
        config.check()?;
        let counters = Arc::new(Counters::new(Direction::Restore, 0, clock.now()));
        Ok(Self::new(config, store, clock, counters))
    }

    /// Requests that may be in flight now.
    pub(super) fn concurrency(&self) -> usize {
        self.requests.concurrency()
    }

    /// The time that reads were in flight until `now`, of all together.
    pub(crate) fn busy(&self, now: Duration) -> Duration {
        self.counters.store_busy.get(now)
    }

    /// The time that they waited because of the limit on bytes per second, or paused before another attempt.
    pub(crate) fn throttled(&self, now: Duration) -> Duration {
        self.counters.limited.get(now) + self.counters.throttled.get(now)
    }

    /// Reads exactly `range` of a segment into a slot of `pool`.
    pub(crate) async fn read(&self, id: SegmentId, range: Range<u64>, pool: &BufferPool) -> Result<SlotMut> {
        let size = range.end - range.start;
        let what = format!("read {id}, bytes {} to {}", range.start, range.end);
        // The wait for the slot is part of the attempt: the store may not yet have let go of an earlier one's.
        let attempt = || async { self.store.read_into(id, range.clone(), pool.acquire().await).await };
        let filled = self.requests.run(Request::new(Operation::Read, &what, size), attempt).await?;
        if filled.len() as u64 != size {
            return Err(corrupt(
                &self.store.describe(id),
                range.start,
                format!("expected {size} bytes, found {}", filled.len()),
            ));
        }
        self.counters.add_stored(&*self.clock, size);
        Ok(filled)
    }
}
