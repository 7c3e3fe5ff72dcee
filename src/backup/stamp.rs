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
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (time, tail) = match text.split_once('-') {
            None => (text, None),
            Some((time, tail)) if tail.len() == 16 && tail.bytes().all(|b| b.is_ascii_hexdigit()) => {
                (time, Some(u64::from_str_radix(tail, 16).ok()?))
            }
            Some(_) => return None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_sixteen_hexadecimal_digits() {
        let stamp = Stamp::draw(Timestamp::UNIX_EPOCH);
        assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
        for tail in ["", "1", "+123456789abcdef", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg"] {
            assert_eq!(Stamp::parse(&format!("19700101T000000.000Z-{tail}")), None, "{tail}");
        }
        assert!(Stamp::parse("19700101T000000.000Z-0123456789abcdef").is_some());
    }
}
