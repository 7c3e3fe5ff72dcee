//! Dates that cannot be: those of a clock that was ahead when it gave them.
//!
//! A backup and the record of a verification are dated by the machine that made them. What no maker can set is the time at which
//! the store took the object in. Something that is dated later than that was dated by a clock that was ahead, and its date is
//! no evidence of what came before it and what after.

use jiff::{SignedDuration, Timestamp};

/// So far a clock may be ahead of the store's. Amazon and Azure refuse the requests of a machine that is further off.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(15);

/// True if `dated` is later than it can be of something that was stored by `stored` at the latest.
pub(super) fn is_ahead(dated: Timestamp, stored: Timestamp) -> bool {
    dated.duration_since(stored) > TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_ahead_when_the_tolerance_has_passed() {
        let stored = Timestamp::UNIX_EPOCH;
        for (seconds, expected) in [(-1_000_000, false), (0, false), (900, false), (901, true), (1_000_000, true)] {
            assert_eq!(is_ahead(stored + SignedDuration::from_secs(seconds), stored), expected, "{seconds}");
        }
        assert!(is_ahead(Timestamp::MAX, Timestamp::MIN) && !is_ahead(Timestamp::MIN, Timestamp::MAX));
    }
}
