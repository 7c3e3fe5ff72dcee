//! How the making of a backup went: told to people who look at it later. No reader of the data needs it.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::document::{bounded, corrupt};
use crate::error::Result;
use crate::pipeline::{Progress, Timeline};

/// How the making of a backup went, as its manifest keeps it.
///
/// Its size does not depend on the size of the backup: some 300 bytes, and up to 1 KB more for what moved when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Course {
    /// Time from the beginning until all data was durable. As everything here, it is of the process that committed: of a backup that
    /// was resumed, the time and the bytes since then.
    pub millis: u64,
    /// Threads that compressed.
    pub threads: u64,
    /// Time in which stripes waited for their producer. As all that follow, summed over everything that ran at once.
    pub source_wait_millis: u64,
    /// Time in which jobs waited for a thread.
    pub cpu_wait_millis: u64,
    /// Time that threads compressed and hashed.
    pub cpu_busy_millis: u64,
    /// Time in which compressed frames waited because no part was free.
    pub store_wait_millis: u64,
    /// Time that requests to the store were in flight.
    pub store_busy_millis: u64,
    /// Time in which requests paused before another attempt.
    pub throttled_millis: u64,
    /// Time in which requests waited because of the caller's limit on bytes per second.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub limited_millis: u64,
    /// Requests to the store that succeeded.
    pub requests: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// The most memory that was held of the limit, device buffers not counted.
    pub memory_peak_bytes: u64,
    /// The length of each span of time that `raw_bytes` and `stored_bytes` tell about.
    pub span_millis: u64,
    /// Raw bytes taken in, by span.
    #[serde(deserialize_with = "spans")]
    pub raw_bytes: Vec<u64>,
    /// Bytes that the store accepted, by span. As many as `raw_bytes`.
    #[serde(deserialize_with = "spans")]
    pub stored_bytes: Vec<u64>,
}

impl Course {
    /// What a pipeline with so many threads has done, and how long that took.
    pub fn new(progress: &Progress, elapsed: Duration, threads: usize) -> Self {
        let Timeline { span, moved } = &progress.timeline;
        Self {
            millis: millis(elapsed),
            threads: threads as u64,
            source_wait_millis: millis(progress.source_wait),
            cpu_wait_millis: millis(progress.cpu_wait),
            cpu_busy_millis: millis(progress.cpu_busy),
            store_wait_millis: millis(progress.store_wait),
            store_busy_millis: millis(progress.store_busy),
            throttled_millis: millis(progress.throttled),
            limited_millis: millis(progress.limited),
            requests: progress.requests,
            retries: progress.retries,
            memory_peak_bytes: progress.memory_peak,
            span_millis: millis(*span),
            raw_bytes: moved.iter().map(|moved| moved.raw_bytes).collect(),
            stored_bytes: moved.iter().map(|moved| moved.stored_bytes).collect(),
        }
    }

    /// Checks that it can be drawn.
    pub(super) fn check(&self, object: &str) -> Result<()> {
        let spans = self.raw_bytes.len();
        if spans > MAX_SPANS || self.span_millis == 0 {
            let found = format!("{spans} of {} ms", self.span_millis);
            return Err(corrupt(object, "spans of the course", format!("at most {MAX_SPANS}"), found));
        }
        if self.stored_bytes.len() != spans {
            return Err(corrupt(object, "spans of the course", spans, self.stored_bytes.len()));
        }
        Ok(())
    }
}

/// What readers accept: room for writers that keep more than [`Timeline::MAX_SPANS`].
const MAX_SPANS: usize = 1000;

fn spans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    bounded(deserializer, "spans", MAX_SPANS, |_| 1)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Moved;

    fn course(spans: usize, bytes: u64) -> Course {
        let mut progress =
            Progress { raw_bytes: bytes, memory_peak: 1 << 28, requests: bytes >> 20, ..Progress::default() };
        progress.timeline.moved = vec![Moved { raw_bytes: bytes, stored_bytes: bytes }; spans];
        Course::new(&progress, Duration::from_secs(bytes >> 20), 64)
    }

    /// The numbers of the manual's page on the report.
    #[test]
    fn its_size_does_not_grow_with_the_stream() {
        let size = |spans, bytes| serde_json::to_vec(&course(spans, bytes)).unwrap().len();
        assert!(size(0, 0) <= 300, "{} bytes", size(0, 0));
        // A span of a TiB: 40 TiB in all.
        let most = size(Timeline::MAX_SPANS, 1 << 40);
        assert!(most <= 1500, "{most} bytes");
    }

    #[test]
    fn a_backup_without_a_limit_says_nothing_of_one_and_one_of_an_earlier_version_is_read() {
        let unlimited = course(1, 1);
        let text = serde_json::to_string(&unlimited).unwrap();
        assert!(!text.contains("limited_millis"), "{text}");
        assert_eq!(serde_json::from_str::<Course>(&text).unwrap(), unlimited);
        let limited = Course { limited_millis: 7, ..unlimited };
        let text = serde_json::to_string(&limited).unwrap();
        assert_eq!(serde_json::from_str::<Course>(&text).unwrap(), limited);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let good = course(3, 1);
        good.check("x").unwrap();
        let changes: [fn(&mut Course); 3] = [
            |course| course.span_millis = 0,
            |course| course.stored_bytes.truncate(2),
            |course| {
                course.raw_bytes = vec![0; MAX_SPANS + 1];
                course.stored_bytes = vec![0; MAX_SPANS + 1];
            },
        ];
        for change in changes {
            let mut course = good.clone();
            change(&mut course);
            course.check("x").unwrap_err();
        }
    }
}
