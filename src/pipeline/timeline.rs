//! How much moved when: two numbers for each span of time, and never more than a few dozen spans.

use std::time::Duration;

use crate::sync::Mutex;

/// How many bytes moved in each span of time since the pipeline was made.
///
/// All spans have the same length. When a stream goes on for more than [`Timeline::MAX_SPANS`] of them, two become one, so a
/// stream of any length takes a few hundred bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeline {
    /// The length of a span: 100 ms, doubled as often as was necessary.
    pub span: Duration,
    /// The spans, from the first to the last in which something moved.
    pub moved: Vec<Moved>,
}

/// What moved in one span of a [`Timeline`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Backup: raw bytes taken from the stripes. Restore: raw bytes handed out.
    pub raw_bytes: u64,
    /// Backup: bytes that the store accepted. Restore: bytes that it sent.
    pub stored_bytes: u64,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { span: FIRST_SPAN, moved: Vec::new() }
    }
}

/// Fine enough for a backup that takes a second.
const FIRST_SPAN: Duration = Duration::from_millis(100);

impl Timeline {
    /// The most spans that there are at any time.
    pub const MAX_SPANS: usize = 40;

    fn add(&mut self, at: Duration, by: Moved) {
        let mut nth = at.as_nanos() / self.span.as_nanos();
        while nth >= Self::MAX_SPANS as u128 {
            self.halve();
            nth /= 2;
        }
        // Below MAX_SPANS now.
        let nth = usize::try_from(nth).unwrap_or(Self::MAX_SPANS - 1);
        if self.moved.len() <= nth {
            self.moved.resize(nth + 1, Moved::default());
        }
        self.moved[nth].add(by);
    }

    fn halve(&mut self) {
        self.span *= 2;
        self.moved =
            self.moved.chunks(2).map(|pair| pair.iter().fold(Moved::default(), |sum, by| sum.and(*by))).collect();
    }
}

impl Moved {
    fn add(&mut self, by: Self) {
        *self = self.and(by);
    }

    const fn and(self, other: Self) -> Self {
        Self {
            raw_bytes: self.raw_bytes.saturating_add(other.raw_bytes),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
        }
    }
}

/// The [`Timeline`] that a running pipeline writes.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    start: Duration,
    timeline: Mutex<Timeline>,
}

impl Recorder {
    pub(super) fn new(start: Duration) -> Self {
        Self { start, timeline: Mutex::default() }
    }

    pub(super) fn raw(&self, now: Duration, bytes: u64) {
        self.add(now, Moved { raw_bytes: bytes, stored_bytes: 0 });
    }

    pub(super) fn stored(&self, now: Duration, bytes: u64) {
        self.add(now, Moved { raw_bytes: 0, stored_bytes: bytes });
    }

    fn add(&self, now: Duration, by: Moved) {
        self.timeline.lock().add(now.saturating_sub(self.start), by);
    }

    pub(super) fn get(&self) -> Timeline {
        self.timeline.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(timeline: &Timeline) -> Moved {
        timeline.moved.iter().fold(Moved::default(), |sum, by| sum.and(*by))
    }

    #[test]
    fn what_moves_is_counted_in_the_span_of_its_time() {
        let recorder = Recorder::new(Duration::from_secs(5));
        let at = |millis: u64| Duration::from_millis(5000 + millis);
        for (millis, bytes) in [(0, 1), (99, 2), (100, 4), (3999, 8)] {
            recorder.raw(at(millis), bytes);
        }
        recorder.stored(at(100), 16);
        // Time before the start is the start.
        recorder.stored(Duration::ZERO, 32);
        let timeline = recorder.get();
        assert_eq!((timeline.span, timeline.moved.len()), (Duration::from_millis(100), Timeline::MAX_SPANS));
        assert_eq!(timeline.moved[0], Moved { raw_bytes: 3, stored_bytes: 32 });
        assert_eq!(timeline.moved[1], Moved { raw_bytes: 4, stored_bytes: 16 });
        assert_eq!(timeline.moved[39], Moved { raw_bytes: 8, stored_bytes: 0 });
    }

    #[test]
    fn any_length_of_time_has_a_few_spans_and_loses_nothing() {
        let recorder = Recorder::new(Duration::ZERO);
        for (nth, second) in [0, 3, 4, 5, 60, 3600, 86_400, 86_401].into_iter().enumerate() {
            recorder.raw(Duration::from_secs(second), 1 << nth);
            recorder.stored(Duration::from_secs(second), 1);
            let timeline = recorder.get();
            assert!(timeline.moved.len() <= Timeline::MAX_SPANS, "{} spans", timeline.moved.len());
            let (at, last) =
                (Duration::from_secs(second), timeline.span * u32::try_from(timeline.moved.len() - 1).unwrap());
            assert!(last <= at && at < last + timeline.span, "{second} {timeline:?}");
            assert_eq!(total(&timeline), Moved { raw_bytes: (2 << nth) - 1, stored_bytes: nth as u64 + 1 });
        }
        // At least half of them are in use.
        assert!(recorder.get().moved.len() >= Timeline::MAX_SPANS / 2);
        recorder.raw(Duration::MAX, 1);
        assert!(recorder.get().moved.len() <= Timeline::MAX_SPANS);
        assert_eq!(total(&recorder.get()).raw_bytes, 256);
    }
}
