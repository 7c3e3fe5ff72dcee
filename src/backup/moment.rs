//! Moments by both clocks of this machine: neither a machine that sleeps nor a calendar that is set hides that time has passed.

use std::time::Duration;

use jiff::Timestamp;

use crate::clock::Clock;

/// A moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// By the calendar, which a machine that sleeps does not lose, and which may be set back.
    calendar: Timestamp,
    /// By the clock that only goes on, which may stand still while the machine sleeps.
    monotonic: Duration,
}

impl Moment {
    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self { calendar: clock.wall(), monotonic: clock.now() }
    }

    /// True if more than `limit` has passed since `earlier`, or if that is not known.
    pub(super) fn is_long_after(self, earlier: Self, limit: Duration) -> bool {
        let passed = Duration::try_from(self.calendar.duration_since(earlier.calendar));
        // A calendar that went back by more than has passed tells nothing; by less, it hides some of it.
        !passed.is_ok_and(|passed| passed <= limit) || self.monotonic.saturating_sub(earlier.monotonic) > limit
    }

    /// The later of the two.
    pub(super) fn max(self, other: Self) -> Self {
        if other.monotonic >= self.monotonic { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// So many seconds after a beginning, by each clock.
    fn at(calendar: i64, monotonic: u64) -> Moment {
        Moment {
            calendar: Timestamp::from_second(1_000_000 + calendar).unwrap(),
            monotonic: Duration::from_secs(monotonic),
        }
    }

    #[test]
    fn one_clock_is_enough_to_see_that_time_has_passed() {
        for (calendar, monotonic, is_long) in [
            (0, 0, false),
            (60, 60, false),
            (61, 60, true),
            (60, 61, true),
            (-1, 0, true),
            (3600, 1, true),
            (1, 3600, true),
        ] {
            assert_eq!(at(calendar, monotonic).is_long_after(at(0, 0), LIMIT), is_long, "{calendar} and {monotonic}");
        }
    }

    #[test]
    fn of_two_moments_the_clock_that_only_goes_on_tells_the_later() {
        for (one, other) in [(at(0, 1), at(9, 0)), (at(9, 1), at(0, 0))] {
            assert_eq!(one.max(other).monotonic, one.monotonic);
            assert_eq!(other.max(one).calendar, one.calendar);
        }
    }
}
