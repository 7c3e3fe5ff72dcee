//! Numbers for whoever watches, through the facade of the crate `metrics`. Every name that this crate uses is here.
//!
//! A handle is asked for when its owner is made, and goes to the recorder that is installed then; without one it does
//! nothing. Without the feature `metrics` the types here are empty.

use std::time::Duration;

/// A metric, as the manual's page on observing lists it.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "nobody is told"))]
pub(crate) struct Metric {
    name: &'static str,
    unit: Unit,
    what: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    Count,
    Seconds,
}

const fn metric(name: &'static str, unit: Unit, what: &'static str) -> Metric {
    Metric { name, unit, what }
}

pub(crate) const ACTIVE_BACKUPS: Metric =
    metric("vdstream.backup.active_backups", Unit::Count, "backups that are being made or cleaned up");
pub(crate) const ACTIVE_RESTORES: Metric =
    metric("vdstream.backup.active_restores", Unit::Count, "restores that are open");
pub(crate) const BACKUP_SECONDS: Metric =
    metric("vdstream.backup.duration_seconds", Unit::Seconds, "from the beginning of a backup to its last clean-up");
pub(crate) const ENDED_BACKUPS: Metric =
    metric("vdstream.backup.ended_backups", Unit::Count, "backups that have ended");
pub(crate) const KEPT_BYTES: Metric =
    metric("vdstream.backup.kept_bytes", Unit::Bytes, "stored bytes that resumed backups found whole and kept");
pub(crate) const RESUME_SECONDS: Metric =
    metric("vdstream.backup.resume_seconds", Unit::Seconds, "until a backup that is resumed goes on, or cannot");
pub(crate) const RESUMED_BACKUPS: Metric =
    metric("vdstream.backup.resumed_backups", Unit::Count, "backups that went on, or could not");
pub(crate) const HELD_BYTES: Metric =
    metric("vdstream.buffer.held_bytes", Unit::Bytes, "memory held of all memory limits together");
pub(crate) const SLOTS_IN_USE: Metric =
    metric("vdstream.buffer.slots_in_use", Unit::Count, "slots of pools that are with an owner");
pub(crate) const COLLECT_SECONDS: Metric =
    metric("vdstream.collection.duration_seconds", Unit::Seconds, "collections that have ended");
pub(crate) const ENDED_COLLECTIONS: Metric =
    metric("vdstream.collection.ended_collections", Unit::Count, "collections that have ended");
pub(crate) const ENDED_UPLOADS: Metric =
    metric("vdstream.collection.ended_uploads", Unit::Count, "multipart uploads of dead backups that were ended");
pub(crate) const REFUSED_OBJECTS: Metric =
    metric("vdstream.collection.refused_objects", Unit::Count, "objects that the store does not delete now");
pub(crate) const REMOVED_OBJECTS: Metric =
    metric("vdstream.collection.removed_objects", Unit::Count, "objects that were removed");
pub(crate) const ATTEMPTS: Metric =
    metric("vdstream.pipeline.attempts", Unit::Count, "attempts of requests for segments that have ended");
pub(crate) const BUSY_SECONDS: Metric =
    metric("vdstream.pipeline.busy_seconds", Unit::Seconds, "jobs on threads, and attempts of requests");
pub(crate) const FRAMES: Metric = metric("vdstream.pipeline.frames", Unit::Count, "frames compressed or verified");
pub(crate) const RAW_BYTES: Metric =
    metric("vdstream.pipeline.raw_bytes", Unit::Bytes, "taken in from stripes, or verified and handed out");
pub(crate) const REQUESTS_IN_FLIGHT: Metric =
    metric("vdstream.pipeline.requests_in_flight", Unit::Count, "attempts of requests for segments that run now");
pub(crate) const RETRIES: Metric =
    metric("vdstream.pipeline.retries", Unit::Count, "attempts that failed and are made again");
pub(crate) const SEGMENTS: Metric =
    metric("vdstream.pipeline.segments", Unit::Count, "segments that are durable, or whose index was read");
pub(crate) const STORED_BYTES: Metric =
    metric("vdstream.pipeline.stored_bytes", Unit::Bytes, "accepted by the store, or received from it");
pub(crate) const WAIT_SECONDS: Metric =
    metric("vdstream.pipeline.wait_seconds", Unit::Seconds, "waits of a stage for another");
pub(crate) const SMALL_ATTEMPTS: Metric =
    metric("vdstream.store.attempts", Unit::Count, "attempts of small requests: documents, listings, deletions");
pub(crate) const SMALL_SECONDS: Metric =
    metric("vdstream.store.request_seconds", Unit::Seconds, "attempts of small requests");
pub(crate) const ENDED_VERIFICATIONS: Metric =
    metric("vdstream.verify.ended_verifications", Unit::Count, "verifications that came to an end");
pub(crate) const VERIFY_SECONDS: Metric =
    metric("vdstream.verify.duration_seconds", Unit::Seconds, "verifications that came to an end");

/// Names and values that tell the series of one metric apart.
pub(crate) type Labels<'a> = &'a [(&'static str, &'static str)];

/// A number that only grows.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    #[cfg(feature = "metrics")]
    handle: metrics::Counter,
}

/// A number that goes up and down.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    #[cfg(feature = "metrics")]
    handle: metrics::Gauge,
}

/// Times, each by itself.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    #[cfg(feature = "metrics")]
    handle: metrics::Histogram,
}

/// One that counts while this lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.add(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

#[cfg(not(feature = "metrics"))]
mod off {
    use super::{Counter, Duration, Gauge, Histogram, Labels, Metric};

    impl Counter {
        pub(crate) fn new(_metric: &Metric, _labels: Labels<'_>) -> Self {
            Self {}
        }

        pub(crate) fn add(&self, _by: u64) {}
    }

    impl Gauge {
        pub(crate) fn new(_metric: &Metric, _labels: Labels<'_>) -> Self {
            Self {}
        }

        pub(crate) fn add(&self, _by: u64) {}

        pub(crate) fn sub(&self, _by: u64) {}
    }

    impl Histogram {
        pub(crate) fn new(_metric: &Metric, _labels: Labels<'_>) -> Self {
            Self {}
        }

        pub(crate) fn record(&self, _time: Duration) {}
    }
}

#[cfg(feature = "metrics")]
mod on {
    use super::{Counter, Duration, Gauge, Histogram, Labels, Metric, Unit};

    impl From<Unit> for metrics::Unit {
        fn from(unit: Unit) -> Self {
            match unit {
                Unit::Bytes => Self::Bytes,
                Unit::Count => Self::Count,
                Unit::Seconds => Self::Seconds,
            }
        }
    }

    fn labels(labels: Labels<'_>) -> Vec<metrics::Label> {
        labels.iter().map(|(name, value)| metrics::Label::from_static_parts(name, value)).collect()
    }

    impl Counter {
        pub(crate) fn new(metric: &Metric, by: Labels<'_>) -> Self {
            metrics::describe_counter!(metric.name, metric.unit.into(), metric.what);
            Self { handle: metrics::counter!(metric.name, labels(by)) }
        }

        pub(crate) fn add(&self, by: u64) {
            self.handle.increment(by);
        }
    }

    impl Gauge {
        pub(crate) fn new(metric: &Metric, by: Labels<'_>) -> Self {
            metrics::describe_gauge!(metric.name, metric.unit.into(), metric.what);
            Self { handle: metrics::gauge!(metric.name, labels(by)) }
        }

        pub(crate) fn add(&self, by: u64) {
            self.handle.increment(by as f64);
        }

        pub(crate) fn sub(&self, by: u64) {
            self.handle.decrement(by as f64);
        }
    }

    impl Histogram {
        pub(crate) fn new(metric: &Metric, by: Labels<'_>) -> Self {
            metrics::describe_histogram!(metric.name, metric.unit.into(), metric.what);
            Self { handle: metrics::histogram!(metric.name, labels(by)) }
        }

        pub(crate) fn record(&self, time: Duration) {
            self.handle.record(time.as_secs_f64());
        }
    }
}
