//! What a pipeline has done so far, and what it waited for. Counters only; printing is for others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::plan::Direction;
use super::time_sum::TimeSum;
use super::timeline::{Recorder, Timeline};
use crate::clock::Clock;
use crate::meter::{self, Counter, Histogram, Metric};

/// A snapshot of a pipeline's counters.
///
/// Times are summed over everything that ran at once, so they may pass faster than the clock. What is under way counts up to the
/// snapshot, so a producer or a request that hangs shows while it does. Which stage holds the
/// others up can be read from them: a slow producer shows as `source_wait`, too few cores as `cpu_wait`, a slow store
/// as `store_wait`, a store that asks for less as `throttled`, the caller's own limit as `limited`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Backup: raw bytes taken from the stripes, without those that were stored already when it was resumed. Restore: raw bytes
    /// verified and handed out.
    pub raw_bytes: u64,
    /// Backup: bytes that the store has accepted. Restore: bytes that it has sent.
    pub stored_bytes: u64,
    /// Frames compressed or verified.
    pub frames: u64,
    /// Segments that are durable, or read to their end.
    pub segments: u64,
    /// Requests to the store that succeeded.
    pub requests: u64,
    /// Attempts that failed and were tried again.
    pub retries: u64,
    /// Answers of the store that asked for fewer requests.
    pub throttles: u64,
    /// Requests that may be in flight now; less than configured after the store asked for it.
    pub concurrency: u64,
    /// Time in which stripes waited for their producer (backup), or for their consumer to ask for more (restore).
    pub source_wait: Duration,
    /// Time in which producers (backup) or bytes that were read (restore) waited because no frame was free.
    pub frame_wait: Duration,
    /// Time in which jobs waited for a thread.
    pub cpu_wait: Duration,
    /// Time that threads compressed, decompressed and hashed.
    pub cpu_busy: Duration,
    /// Time in which a stripe could not go on because of the store: no part was free, an upload had not begun or ended, or what
    /// comes next was not read yet.
    pub store_wait: Duration,
    /// Time that requests to the store were in flight.
    pub store_busy: Duration,
    /// Time in which requests paused before another attempt.
    pub throttled: Duration,
    /// Time in which requests waited because of the limit on bytes per second.
    pub limited: Duration,
    /// Backup: the zstd level of the next frame.
    pub level: Option<i32>,
    /// The most memory that was ever held of the limit, in bytes, device buffers not counted.
    pub memory_peak: u64,
    /// Each stripe's position.
    pub stripes: Vec<StripeProgress>,
    /// How much moved when.
    pub timeline: Timeline,
}

/// How far a stripe is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StripeProgress {
    /// Raw bytes taken in (backup) or handed out (restore). Of a backup that was resumed it begins behind what is stored already,
    /// unless the source starts again.
    pub position: u64,
    /// Backup: raw bytes in segments that are durable.
    pub durable: u64,
}

/// The counters behind [`Progress`].
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) raw_bytes: Sum,
    pub(super) stored_bytes: Sum,
    pub(super) frames: Sum,
    pub(super) segments: Sum,
    pub(super) requests: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) throttles: AtomicU64,
    pub(super) source_wait: TimeSum,
    pub(super) frame_wait: TimeSum,
    pub(super) cpu_wait: TimeSum,
    pub(super) cpu_busy: TimeSum,
    pub(super) store_wait: TimeSum,
    pub(super) store_busy: TimeSum,
    pub(super) throttled: TimeSum,
    pub(super) limited: TimeSum,
    pub(super) stripes: Vec<StripeCounters>,
    timeline: Recorder,
}

#[derive(Debug, Default)]
pub(super) struct StripeCounters {
    pub(super) position: AtomicU64,
    pub(super) durable: AtomicU64,
}

impl Counters {
    /// `start` is the time at which the pipeline was made.
    pub(super) fn new(direction: Direction, stripes: usize, start: Duration) -> Self {
        let direction = ("direction", direction.name());
        let sum = |metric: &Metric| Sum { value: AtomicU64::new(0), meter: Counter::new(metric, &[direction]) };
        let time = |metric: &Metric, stage| TimeSum::new(Histogram::new(metric, &[direction, ("stage", stage)]));
        Self {
            raw_bytes: sum(&meter::RAW_BYTES),
            stored_bytes: sum(&meter::STORED_BYTES),
            frames: sum(&meter::FRAMES),
            segments: sum(&meter::SEGMENTS),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            throttles: AtomicU64::new(0),
            source_wait: time(&meter::WAIT_SECONDS, "source"),
            frame_wait: time(&meter::WAIT_SECONDS, "frame"),
            cpu_wait: time(&meter::WAIT_SECONDS, "thread"),
            cpu_busy: time(&meter::BUSY_SECONDS, "thread"),
            store_wait: time(&meter::WAIT_SECONDS, "store"),
            store_busy: time(&meter::BUSY_SECONDS, "store"),
            throttled: time(&meter::WAIT_SECONDS, "pause"),
            limited: time(&meter::WAIT_SECONDS, "limit"),
            stripes: (0..stripes).map(|_| StripeCounters::default()).collect(),
            timeline: Recorder::new(start),
        }
    }

    /// Counts bytes that came from a stripe's producer, or went to its consumer.
    pub(super) fn add_raw(&self, clock: &dyn Clock, stripe: u16, bytes: usize) {
        if let Some(counters) = self.stripes.get(usize::from(stripe)) {
            count(&counters.position, bytes as u64);
        }
        self.raw_bytes.add(bytes as u64);
        self.timeline.raw(clock.now(), bytes as u64);
    }

    /// Counts bytes that the store has accepted or sent.
    pub(super) fn add_stored(&self, clock: &dyn Clock, bytes: u64) {
        self.stored_bytes.add(bytes);
        self.timeline.stored(clock.now(), bytes);
    }

    /// What they are at the time `now`.
    pub(super) fn snapshot(&self, now: Duration) -> Progress {
        let stripes: Vec<StripeProgress> = self
            .stripes
            .iter()
            .map(|stripe| StripeProgress { position: get(&stripe.position), durable: get(&stripe.durable) })
            .collect();
        Progress {
            raw_bytes: self.raw_bytes.get(),
            stored_bytes: self.stored_bytes.get(),
            frames: self.frames.get(),
            segments: self.segments.get(),
            requests: get(&self.requests),
            retries: get(&self.retries),
            throttles: get(&self.throttles),
            concurrency: 0,
            source_wait: self.source_wait.get(now),
            frame_wait: self.frame_wait.get(now),
            cpu_wait: self.cpu_wait.get(now),
            cpu_busy: self.cpu_busy.get(now),
            store_wait: self.store_wait.get(now),
            store_busy: self.store_busy.get(now),
            throttled: self.throttled.get(now),
            limited: self.limited.get(now),
            level: None,
            memory_peak: 0,
            stripes,
            timeline: self.timeline.get(),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A number that only grows, for progress and for metrics.
#[derive(Debug)]
pub(super) struct Sum {
    value: AtomicU64,
    meter: Counter,
}

impl Sum {
    pub(super) fn add(&self, by: u64) {
        count(&self.value, by);
        self.meter.add(by);
    }

    fn get(&self) -> u64 {
        get(&self.value)
    }
}
