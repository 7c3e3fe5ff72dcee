//! Values of options, from text.

use std::ffi::OsStr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time, or a span from the start of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Time(Timestamp),
    In(Duration),
}

impl Until {
    /// The time that is meant, if the command started `now`.
    pub(crate) fn time(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::In(span) => {
                let span = jiff::SignedDuration::try_from(span).unwrap_or(jiff::SignedDuration::MAX);
                now.checked_add(span).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// `2027-01-31`, `2027-01-31T12:00:00Z`, `90d`. A date is its first moment in UTC.
pub(super) fn until(text: &str) -> Result<Until, String> {
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(TimeZone::UTC).ok();
    if let Some(time) = text.parse().ok().or_else(|| date().map(|zoned| zoned.timestamp())) {
        return Ok(Until::Time(time));
    }
    span(text).map(Until::In).map_err(|_| "expected 2027-01-31, 2027-01-31T12:00:00Z or a span such as 90d".to_owned())
}

/// `90s`, `15m`, `12h`, `30d`, `2w`. A day has 24 hours.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number with a unit, such as 12h or 30d".to_owned())?;
    let factor: u64 = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        other => return Err(format!("unknown unit `{other}`: use s, m, h, d or w")),
    };
    number.checked_mul(factor).map(Duration::from_secs).ok_or_else(|| "too large".to_owned())
}

pub(super) fn tag(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        _ if text.is_empty() || text.starts_with('=') => Err("expected KEY or KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((text.to_owned(), None)),
    }
}

/// How hard zstd tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZstdLevel {
    Fixed(i32),
    Adaptive,
}

pub(super) fn level(text: &str) -> Result<ZstdLevel, String> {
    if text == "adaptive" {
        return Ok(ZstdLevel::Adaptive);
    }
    let level = text.parse().ok().filter(|level| (-7..=22).contains(level));
    level.map(ZstdLevel::Fixed).ok_or_else(|| "expected a number from -7 to 22, or adaptive".to_owned())
}

/// Bytes per second, as a size.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 10;
    match size(text.strip_suffix("/s").unwrap_or(text))? {
        rate @ LEAST.. => Ok(rate),
        _ => Err("expected at least 1KiB per second".to_owned()),
    }
}

/// `256MiB`, `1G`, `500KB`, `4096`: K, M, G, T and KiB… count in 1024, KB… in 1000.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number with a unit, such as 256MiB".to_owned())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("unknown unit `{other}`: use KiB, MiB, GiB or TiB")),
    };
    number.checked_mul(factor).ok_or_else(|| "too large".to_owned())
}

/// `90s`, `30m`, `12h`, `30d`, `4w`, or `any`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    if text == "any" { Ok(Duration::MAX) } else { span(text) }
}

/// Whether an option's `value` was typed. What its `variable` says, as `read` reads it, is for every command, also where it means nothing.
pub(crate) fn is_typed<T: PartialEq>(value: &T, variable: &str, read: impl FnOnce(&OsStr) -> Option<T>) -> bool {
    std::env::var_os(variable).and_then(|text| read(&text)).as_ref() != Some(value)
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_with_their_units() {
        for (text, seconds) in [("0s", 0), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800)] {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(age("any"), Ok(Duration::MAX));
        for text in ["", "d", "-1d", "1.5h", "30", "1y", "99999999999999999w"] {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_spans_and_tags_are_read() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)]
        {
            assert_eq!(span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "d", "1", "-1d", "1.5h", "1y", "99999999999999w"] {
            assert!(span(text).is_err(), "{text}");
        }
        let day = Until::Time("2027-01-31T00:00:00Z".parse().unwrap());
        assert_eq!(until("2027-01-31"), Ok(day));
        assert_eq!(until("2027-01-31T01:00:00+01:00"), Ok(day));
        assert_eq!(until("2d"), Ok(Until::In(Duration::from_secs(172_800))));
        assert!(until("tomorrow").is_err() && until("2027-02-30").is_err());
        assert_eq!(tag("a"), Ok(("a".to_owned(), None)));
        assert_eq!(tag("a=b=c"), Ok(("a".to_owned(), Some("b=c".to_owned()))));
        assert!(tag("").is_err() && tag("=b").is_err());
    }

    #[test]
    fn levels_and_rates_are_read_within_their_bounds() {
        for (text, value) in [("-7", -7), ("0", 0), ("22", 22)] {
            assert_eq!(level(text), Ok(ZstdLevel::Fixed(value)), "{text}");
        }
        assert_eq!(level("adaptive"), Ok(ZstdLevel::Adaptive));
        for text in ["", "-8", "23", "auto", "Adaptive", "1.5"] {
            assert!(level(text).is_err(), "{text}");
        }
        for (text, value) in [("1KiB", 1024), ("10MiB", 10 << 20), ("10MiB/s", 10 << 20), ("5MB", 5_000_000)] {
            assert_eq!(rate(text), Ok(value), "{text}");
        }
        for text in ["", "0", "1023", "10MiB/m", "-1"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("256MiB", 256 << 20), ("1g", 1 << 30), ("3 KB", 3000), ("8T", 8 << 40)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5G", "1 parsec", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
