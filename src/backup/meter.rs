//! What metrics tell of one backup, and of its resumption.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::meter::{self, Counted, Counter, Gauge, Histogram, Metric};

/// Counts a backup as active while it lives, and its end when it is dropped, after the last clean-up.
pub(super) struct Meter {
    clock: Arc<dyn Clock>,
    begun: Duration,
    is_committed: AtomicBool,
    committed: Ending,
    aborted: Ending,
    _active: Counted,
}

/// One way in which something can end: how often it did, and how long it took then.
#[derive(Debug)]
pub(super) struct Ending {
    count: Counter,
    time: Histogram,
}

impl Ending {
    pub(super) fn new(count: &Metric, time: &Metric, outcome: &'static str) -> Self {
        let labels = [("outcome", outcome)];
        Self { count: Counter::new(count, &labels), time: Histogram::new(time, &labels) }
    }

    pub(super) fn count(&self, time: Duration) {
        self.count.add(1);
        self.time.record(time);
    }
}

impl Meter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            begun: clock.now(),
            clock,
            is_committed: AtomicBool::new(false),
            committed: Ending::new(&meter::ENDED_BACKUPS, &meter::BACKUP_SECONDS, "committed"),
            aborted: Ending::new(&meter::ENDED_BACKUPS, &meter::BACKUP_SECONDS, "aborted"),
            _active: Counted::new(&Gauge::new(&meter::ACTIVE_BACKUPS, &[])),
        }
    }

    /// The manifest is there.
    pub(super) fn on_commit(&self) {
        self.is_committed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let ending = if self.is_committed.load(Ordering::Relaxed) { &self.committed } else { &self.aborted };
        ending.count(self.clock.now().saturating_sub(self.begun));
    }
}

/// Counts that a backup is resumed, and how that ends.
#[derive(Debug)]
pub(super) struct ResumeMeter {
    clock: Arc<dyn Clock>,
    begun: Duration,
    resumed: Ending,
    failed: Ending,
    kept: Counter,
}

impl ResumeMeter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            begun: clock.now(),
            clock,
            resumed: Ending::new(&meter::RESUMED_BACKUPS, &meter::RESUME_SECONDS, "resumed"),
            failed: Ending::new(&meter::RESUMED_BACKUPS, &meter::RESUME_SECONDS, "failed"),
            kept: Counter::new(&meter::KEPT_BYTES, &[]),
        }
    }

    /// It goes on behind so many stored bytes.
    pub(super) fn on_resumed(self, kept: u64) {
        self.kept.add(kept);
        self.resumed.count(self.clock.now().saturating_sub(self.begun));
    }

    pub(super) fn on_failure(self) {
        self.failed.count(self.clock.now().saturating_sub(self.begun));
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}
