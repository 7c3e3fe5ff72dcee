//! How deep to look, and at how much.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::watch::VerifyWatch;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Identities, PipelineConfig};

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Every object is there and has its size: one listing.
    Quick,
    /// Every object has its hash: everything is read, nothing is decompressed.
    Stored,
    /// `Stored`, and the content is decompressed and has its hash: everything is read twice.
    Full,
}

impl VerifyLevel {
    /// The level's name, as [`FromStr`] reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Stored => "stored",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VerifyLevel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Quick, Self::Stored, Self::Full];
        all.into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "not a level of verification: use quick, stored or full"))
    }
}

/// How many of the segments to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleSize {
    /// So many of a hundred, above 0 and at most 100; at least one segment.
    Percent(f64),
    /// So many, at least 1; all of them if there are fewer.
    Count(u64),
}

impl FromStr for SampleSize {
    type Err = Error;

    /// `10%`, `0.5%` or a number of segments.
    fn from_str(text: &str) -> Result<Self> {
        let size = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Self::Percent),
            None => text.parse().ok().map(Self::Count),
        };
        size.filter(Self::is_valid).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                "not the size of a sample: use a number of segments, or a percentage up to 100%",
            )
        })
    }
}

impl SampleSize {
    fn is_valid(&self) -> bool {
        match *self {
            Self::Percent(percent) => percent > 0.0 && percent <= 100.0,
            Self::Count(count) => count > 0,
        }
    }

    /// How many that is, of `total`.
    pub(super) fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(total),
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a number of segments is small and a share of it is not negative"
            )]
            Self::Percent(percent) => ((total as f64 * percent / 100.0).ceil() as usize).min(total),
        }
    }
}

/// Which part of the segments to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// How many.
    pub size: SampleSize,
    /// Decides which: the same seed chooses the same segments of the same backup.
    pub seed: u64,
}

/// How to verify.
#[derive(Debug, Clone)]
#[must_use]
pub struct VerifyOptions {
    pub(super) level: VerifyLevel,
    pub(super) pipeline: PipelineConfig,
    pub(super) sample: Option<Sample>,
    pub(super) since_last: Option<Duration>,
    pub(super) is_recorded: bool,
    pub(super) identities: Option<Identities>,
    pub(super) watch: VerifyWatch,
}

impl VerifyOptions {
    /// All of it at `level`, with the pipeline's defaults; the result is recorded.
    pub fn new(level: VerifyLevel) -> Self {
        Self {
            level,
            pipeline: PipelineConfig::default(),
            sample: None,
            since_last: None,
            is_recorded: true,
            identities: None,
            watch: VerifyWatch::new(),
        }
    }

    /// Memory limit, concurrency, threads: see [`PipelineConfig`]. Hashing stored bytes holds `concurrency` times
    /// `part_bytes`, but no more than the memory limit; this memory is free again before content is decompressed.
    pub fn pipeline(mut self, config: PipelineConfig) -> Self {
        self.pipeline = config;
        self
    }

    /// Reads only a part of the segments; names and sizes of all are checked nevertheless. Not for
    /// [`VerifyLevel::Quick`], which reads none.
    pub fn sample(mut self, sample: Sample) -> Self {
        self.sample = Some(sample);
        self
    }

    /// Does not read again what an earlier verification has read: segments that a record of this very backup, of this
    /// level or a deeper one and not older than `max_age`, found good, and of which none since has found damage. [`Duration::MAX`]
    /// is any age. Names and sizes of all are checked nevertheless. A sample is taken from what is left, so samples add up. Not for
    /// [`VerifyLevel::Quick`], which reads none.
    pub fn since_last(mut self, max_age: Duration) -> Self {
        self.since_last = Some(max_age);
        self
    }

    /// Whether the result is recorded beside the backup; by default it is, in one small object for each verification.
    pub fn record(mut self, is_recorded: bool) -> Self {
        self.is_recorded = is_recorded;
        self
    }

    /// Tells `watch` how far the verification is.
    pub fn watch(mut self, watch: &VerifyWatch) -> Self {
        self.watch = watch.clone();
        self
    }

    /// What opens the segments of an encrypted backup; only [`VerifyLevel::Full`] needs it.
    #[cfg(feature = "encryption")]
    pub fn identities(mut self, identities: Identities) -> Self {
        self.identities = Some(identities);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.sample {
            Some(_) if self.level == VerifyLevel::Quick => Err(Error::new(
                ErrorKind::Invalid,
                "level quick reads no segments, so there is nothing to sample: use level stored or full",
            )),
            Some(sample) if !sample.size.is_valid() => {
                Err(Error::new(ErrorKind::Invalid, "a sample is at least 1 segment, or above 0 and up to 100 percent"))
            }
            _ if self.since_last.is_some() && self.level == VerifyLevel::Quick => Err(Error::new(
                ErrorKind::Invalid,
                "level quick reads no segments, so there is nothing to leave out: use level stored or full",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_parsed_and_counted_at_their_bounds() {
        for (text, total, count) in [
            ("1", 0, 0),
            ("1", 1, 1),
            ("5", 4, 4),
            ("4", 5, 4),
            ("100%", 7, 7),
            ("0.001%", 7, 1),
            ("50%", 7, 4),
            ("10%", 0, 0),
            ("18446744073709551615", 3, 3),
        ] {
            assert_eq!(text.parse::<SampleSize>().unwrap().of(total), count, "{text} of {total}");
        }
        for text in ["", "0", "-1", "0%", "-5%", "101%", "NaN%", "inf%", "%", "ten", "1.5"] {
            assert_eq!(text.parse::<SampleSize>().unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
    }
}
