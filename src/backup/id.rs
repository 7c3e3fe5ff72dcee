//! Ids of backups: unique, sortable by time, never used twice.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::{NoContext, Uuid, Variant, Version};

use crate::error::{Error, ErrorKind, Result};

/// The id of a backup: a UUID of version 7. Ids sort by the time at which they were made, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(Uuid);

impl BackupId {
    /// A new id of time `now`; 74 of its bits are random.
    pub fn generate(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)))
    }

    /// The time at which it was made, to the millisecond.
    pub fn time(self) -> Timestamp {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |time| time.to_unix());
        let seconds = i64::try_from(seconds).unwrap_or(0);
        Timestamp::new(seconds, i32::try_from(nanos).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Its 16 bytes, as the formats store it.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl FromStr for BackupId {
    type Err = Error;

    /// Parses the one form that [`Display`](fmt::Display) prints: lower case, with hyphens.
    fn from_str(text: &str) -> Result<Self> {
        let id = Uuid::try_parse(text).ok().filter(|id| {
            id.get_version() == Some(Version::SortRand)
                && id.get_variant() == Variant::RFC4122
                && id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        });
        id.map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "not the id of a backup: expected a lower-case UUID of version 7, or `latest`",
            )
        })
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_tell_it() {
        let times = [0, 1, 1_700_000_000_000, 1_700_000_000_001, 253_402_207_200_000];
        let ids = times.map(|time| BackupId::generate(Timestamp::from_millisecond(time).unwrap()));
        assert!(ids.is_sorted());
        assert_eq!(ids.map(|id| id.time().as_millisecond()), times);
        let mut names = ids.map(|id| id.to_string());
        names.sort();
        assert_eq!(names, ids.map(|id| id.to_string()), "names sort as ids do");
    }

    #[test]
    fn only_the_printed_form_is_an_id() {
        let id = BackupId::generate(Timestamp::UNIX_EPOCH);
        let text = id.to_string();
        assert_eq!(text.parse::<BackupId>().unwrap(), id);
        let v4 = Uuid::from_u128(0x1234_5678_9abc_4def_8012_3456_789a_bcde).to_string();
        let others = [
            text.replace('-', ""),
            format!("{{{text}}}"),
            format!("{text} "),
            String::new(),
            v4,
            text.replace("-7", "-4"),
        ];
        for other in others {
            assert!(other.parse::<BackupId>().is_err(), "{other}");
        }
        let upper = text.to_uppercase();
        assert!(upper == text || upper.parse::<BackupId>().is_err());
    }
}
