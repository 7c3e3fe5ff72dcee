//! What metrics tell of one backup.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::meter::{self, Counted, Counter, Gauge, Histogram};

/// Counts a backup as active while it lives, and its end when it is dropped, after the last clean-up.
pub(super) struct Meter {
    clock: Arc<dyn Clock>,
    begun: Duration,
    is_committed: AtomicBool,
    committed: Ending,
    aborted: Ending,
    _active: Counted,
}

struct Ending {
    count: Counter,
    time: Histogram,
}

impl Ending {
    fn new(outcome: &'static str) -> Self {
        let labels = [("outcome", outcome)];
        Self {
            count: Counter::new(&meter::ENDED_BACKUPS, &labels),
            time: Histogram::new(&meter::BACKUP_SECONDS, &labels),
        }
    }
}

impl Meter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            begun: clock.now(),
            clock,
            is_committed: AtomicBool::new(false),
            committed: Ending::new("committed"),
            aborted: Ending::new("aborted"),
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
        ending.count.add(1);
        ending.time.record(self.clock.now().saturating_sub(self.begun));
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}
