//! `verify`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::age;
use super::{Download, Limits, Metrics};
#[cfg(feature = "encryption")]
use crate::keys;

const VERIFY_EXAMPLES: &str = "\
Examples:
  vdstream verify s3://bucket/prod latest --level stored
  vdstream verify /srv/backups latest --level full --sample 5% --since-last=30d

The result is recorded beside the backup, and `list` and `show` tell the last one.";

#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The backup's id, or `latest`
    #[arg(value_name = "ID|latest")]
    pub(crate) id: String,
    /// The series that `latest` looks in
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
    /// How deep to look
    #[arg(long, value_enum, default_value_t = Level::Quick)]
    pub(crate) level: Level,
    /// Read only a part of the segments, drawn at random: `5%`, or a number of segments
    #[arg(long, value_name = "N%|COUNT")]
    pub(crate) sample: Option<String>,
    /// Draw the same sample again
    #[arg(hide_short_help = true, long, value_name = "N", requires = "sample")]
    pub(crate) seed: Option<u64>,
    /// Do not read again what a recorded verification of this level or a deeper one found good, at most AGE (12h, 30d) ago
    ///
    /// It needs a level that reads, `stored` or `full`, and so does `--sample`.
    #[arg(long, value_name = "AGE", num_args = 0..=1, require_equals = true, value_parser = age,
          default_missing_value = "any")]
    pub(crate) since_last: Option<Duration>,
    /// Do not record the result beside the backup
    #[arg(hide_short_help = true, long)]
    pub(crate) no_record: bool,
    #[cfg(feature = "encryption")]
    #[command(flatten)]
    pub(crate) keys: keys::Keys,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) download: Download,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Names and sizes of all objects
    Quick,
    /// The hash of every stored object; needs no decompression
    Stored,
    /// Decompress everything and check the content
    Full,
}
