//! The rules of retention.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};

/// A unit of time of which the newest backup is kept, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// An hour.
    Hourly,
    /// A day.
    Daily,
    /// A week of ISO 8601, from Monday.
    Weekly,
    /// A month.
    Monthly,
    /// A year.
    Yearly,
}

impl Rule {
    const ALL: [Self; 5] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// Its name in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The period that `time` falls into; times of one period have one name, and another period has another.
    pub(super) fn period(self, time: Timestamp) -> String {
        let time = time.to_zoned(TimeZone::UTC);
        match self {
            Self::Hourly => time.strftime("%Y-%m-%dT%H").to_string(),
            Self::Daily => time.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => time.strftime("%G-W%V").to_string(),
            Self::Monthly => time.strftime("%Y-%m").to_string(),
            Self::Yearly => time.strftime("%Y").to_string(),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Which backups of a series to keep. A backup that any rule wants is kept; rules count only backups that can be restored: all of
/// their objects are there when the plan is made, and no verification has found damage that stands.
///
/// Without a rule there is no plan: what nobody asked to keep would all go. Whatever the rules, the newest backup that can be
/// restored is kept, so are those with a `keep_until` in the future, those that a running backup continues, those that are dated
/// later than they were stored, because the clock of their machine was ahead, and all parents of what is kept. Rules do not
/// count a backup that is dated so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct RetentionPolicy {
    pub(super) last: u32,
    periods: [u32; 5],
    pub(super) within: Option<Duration>,
    pub(super) labels: Vec<(String, Option<String>)>,
}

impl RetentionPolicy {
    /// No rule yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the newest `count` backups.
    pub fn keep_last(mut self, count: u32) -> Self {
        self.last = count;
        self
    }

    /// Keeps the newest backup of each of the newest `count` periods that have one.
    pub fn keep(mut self, rule: Rule, count: u32) -> Self {
        self.periods[rule as usize] = count;
        self
    }

    /// Keeps what is at most this much older than the newest backup that can be restored. Counting from that one, and not
    /// from now, a series that has come to a stop does not fade away.
    pub fn keep_within(mut self, age: Duration) -> Self {
        self.within = Some(age);
        self
    }

    /// Keeps what has this label, with this value if one is given. Repeat it for more labels.
    pub fn keep_label(mut self, key: impl Into<String>, value: Option<String>) -> Self {
        self.labels.push((key.into(), value));
        self
    }

    /// The periods to keep, with their counts, shortest first.
    pub(super) fn periods(&self) -> impl Iterator<Item = (Rule, u32)> {
        Rule::ALL.into_iter().zip(self.periods)
    }

    pub(super) fn check(&self) -> Result<()> {
        let asks = self.last > 0 || self.within.is_some() || !self.labels.is_empty();
        if asks || self.periods.iter().any(|&count| count > 0) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, "no rule says what to keep; name at least one, such as the last 7"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_end_where_the_calendar_says() {
        let period = |rule: Rule, time: &str| rule.period(time.parse().unwrap());
        assert_eq!(period(Rule::Hourly, "2026-01-01T00:59:59.999Z"), "2026-01-01T00");
        assert_eq!(period(Rule::Daily, "2026-02-28T23:59:59Z"), "2026-02-28");
        assert_eq!(period(Rule::Monthly, "2026-02-28T23:59:59Z"), "2026-02");
        // The first days of a year may belong to the last week of the year before, and the other way round.
        assert_eq!(period(Rule::Weekly, "2027-01-03T12:00:00Z"), "2026-W53");
        assert_eq!(period(Rule::Weekly, "2024-12-30T00:00:00Z"), "2025-W01");
        assert_eq!(period(Rule::Yearly, "2024-12-30T00:00:00Z"), "2024");
        assert_eq!(period(Rule::Daily, "2026-06-01T01:30:00+02:00"), "2026-05-31", "days are those of UTC");
    }

    #[test]
    fn a_policy_without_a_rule_is_refused() {
        assert_eq!(RetentionPolicy::new().check().unwrap_err().kind(), ErrorKind::Invalid);
        let none = RetentionPolicy::new().keep_last(0).keep(Rule::Daily, 0);
        assert_eq!(none.check().unwrap_err().kind(), ErrorKind::Invalid);
        for policy in [
            RetentionPolicy::new().keep_last(1),
            RetentionPolicy::new().keep(Rule::Yearly, 1),
            RetentionPolicy::new().keep_within(Duration::ZERO),
            RetentionPolicy::new().keep_label("a", None),
        ] {
            policy.check().unwrap();
        }
    }
}
