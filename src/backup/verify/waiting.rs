//! What the step that runs now waits for, and has waited for until now.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::pipeline::{Pipeline, Ranges, TimeSum};

/// Who knows it.
#[derive(Debug, Clone)]
pub(super) enum Waiting {
    Hashing(Arc<Waits>),
    Content(Pipeline),
}

/// What the hashing of stored bytes waits for.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ranges: Ranges,
    pub(super) cpu: TimeSum,
}

/// Times of one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    pub(super) store: Duration,
    pub(super) cpu: Duration,
    pub(super) throttled: Duration,
}

impl Waits {
    pub(super) fn new(ranges: Ranges, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ranges, cpu: TimeSum::default() }
    }
}

impl Waiting {
    pub(super) fn waited(&self) -> Waited {
        match self {
            Self::Hashing(waits) => {
                let now = waits.clock.now();
                let Waits { ranges, cpu, .. } = &**waits;
                Waited { store: ranges.busy(now), cpu: cpu.get(now), throttled: ranges.throttled(now) }
            }
            Self::Content(pipeline) => {
                let progress = pipeline.progress();
                let throttled = progress.throttled + progress.limited;
                Waited { store: progress.store_wait, cpu: progress.cpu_wait, throttled }
            }
        }
    }
}
