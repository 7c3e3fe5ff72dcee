//! Times within names, and what keeps two things of the same moment apart.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

/// When something began, with a random tail: two that begin within the same millisecond have different names, also on a store that
/// ignores create-only writes, and each may remove its own without asking for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    time: Timestamp,
    /// Names may be without one.
    tail: Option<u64>,
}

impl Stamp {
    /// One of its own for whoever asks.
    pub(crate) fn draw(time: Timestamp) -> Self {
        let (tail, _) = Uuid::new_v4().as_u64_pair();
        Self { time, tail: Some(tail) }
    }

    /// What `text` says, if it may be one: `20260102T030405.678Z`, or with `-` and 16 hexadecimal digits after it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (time, tail) = match text.split_once('-') {
            None => (text, None),
            Some((time, tail)) => (time, Some(u64::from_str_radix(tail, 16).ok()?)),
        };
        Some(Self { time: self::time(time)?, tail })
    }
}

/// Without a tail.
#[cfg(test)]
impl From<Timestamp> for Stamp {
    fn from(time: Timestamp) -> Self {
        Self { time, tail: None }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", basic(self.time))?;
        self.tail.map_or(Ok(()), |tail| write!(f, "-{tail:016x}"))
    }
}

/// The basic format of ISO 8601, in milliseconds: a colon would be encoded on some stores.
pub(super) fn basic(time: Timestamp) -> impl fmt::Display {
    time.strftime("%Y%m%dT%H%M%S%.3fZ")
}

/// The time that `text` says in that format.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%.fZ", text).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}
