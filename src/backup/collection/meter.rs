//! What metrics tell of one collection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::super::meter::Ending;
use super::apply::CollectionReport;
use crate::clock::Clock;
use crate::meter::{self, Counter};

/// Counts what a collection does while it does it, and its end when it is dropped.
pub(super) struct Meter {
    clock: Arc<dyn Clock>,
    begun: Duration,
    outcome: Outcome,
    failed: Ending,
    complete: Ending,
    partial: Ending,
    objects: Growing,
    uploads: Growing,
    refused: Growing,
}

impl Meter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let ending = |outcome| Ending::new(&meter::ENDED_COLLECTIONS, &meter::COLLECT_SECONDS, outcome);
        Self {
            begun: clock.now(),
            clock,
            outcome: Outcome::Failed,
            failed: ending("failed"),
            complete: ending("complete"),
            partial: ending("partial"),
            objects: Growing::new(Counter::new(&meter::REMOVED_OBJECTS, &[])),
            uploads: Growing::new(Counter::new(&meter::ENDED_UPLOADS, &[])),
            refused: Growing::new(Counter::new(&meter::REFUSED_OBJECTS, &[])),
        }
    }

    /// What was done until now.
    pub(super) fn on_progress(&mut self, report: &CollectionReport) {
        self.objects.reach(report.objects);
        self.uploads.reach(report.uploads);
        self.refused.reach(report.refused());
    }

    /// It has come to its end.
    pub(super) fn on_end(&mut self, report: &CollectionReport) {
        let is_complete = report.kept.is_empty() && report.refused() == 0;
        self.outcome = if is_complete { Outcome::Complete } else { Outcome::Partial };
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let ending = match self.outcome {
            Outcome::Failed => &self.failed,
            Outcome::Complete => &self.complete,
            Outcome::Partial => &self.partial,
        };
        ending.count(self.clock.now().saturating_sub(self.begun));
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// It ended with an error, or was dropped.
    Failed,
    /// Everything that was to go is gone.
    Complete,
    /// Something stays that was to go.
    Partial,
}

/// A counter that follows a number.
struct Growing {
    counter: Counter,
    reached: u64,
}

impl Growing {
    fn new(counter: Counter) -> Self {
        Self { counter, reached: 0 }
    }

    fn reach(&mut self, number: u64) {
        self.counter.add(number.saturating_sub(self.reached));
        self.reached = number;
    }
}
