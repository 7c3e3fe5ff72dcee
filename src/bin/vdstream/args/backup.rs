//! `backup`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vdstream::backup::Kind;

#[cfg(feature = "shm")]
use super::Devices;
use super::value::{Until, ZstdLevel, age, label, level, rate, size, span, until};
use super::{Download, Limits, Metrics};
#[cfg(feature = "encryption")]
use crate::keys;

const BACKUP_EXAMPLES: &str = "\
Examples:
  vdstream backup s3://bucket/prod -- pg_basebackup -D - -Ft -X fetch
  vdstream backup file:///srv/backups --input part1.img --input part2.img
  tar c /etc | vdstream backup /srv/backups -";

#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(crate) struct Backup {
    /// Where to: file:///path, a plain path, s3://bucket/prefix, az://container/prefix, gs://bucket/prefix
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// `-` reads one stripe from stdin
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["input", "producer"])]
    pub(crate) stdin: Option<String>,
    #[cfg(feature = "shm")]
    #[command(flatten)]
    pub(crate) devices: Devices,
    /// Devices of the set, one stripe each
    #[cfg(feature = "shm")]
    #[arg(long = "devices", value_name = "N", default_value_t = 1, requires = "device_set",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) device_count: u32,
    /// A file or FIFO to read; each is one stripe
    #[arg(long, value_name = "PATH", conflicts_with = "producer")]
    pub(crate) input: Vec<PathBuf>,
    /// The series that the backup belongs to
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
    /// Go on with this interrupted backup
    ///
    /// Files and sources that can are read on from where it came to, others are compared with what is stored.
    #[arg(long, value_name = "ID", conflicts_with_all = ["label", "parent", "kind", "keep_until"])]
    pub(crate) resume: Option<String>,
    /// Resume it only if nothing was stored of it for this long
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "5m", value_parser = span, requires = "resume")]
    pub(crate) silence: Duration,
    /// A label to keep with the backup; repeat for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// The backup of its series that this one continues
    #[arg(long, value_name = "ID|latest", requires = "kind")]
    pub(crate) parent: Option<String>,
    /// What it contains: full, differential or log
    ///
    /// Everything, or what changed since its parent, which the last two need.
    #[arg(long, value_name = "KIND", requires_if("differential", "parent"), requires_if("log", "parent"))]
    pub(crate) kind: Option<Kind>,
    /// Protect it from `prune` and `delete` until a time to come, or for a span such as 90d
    #[arg(hide_short_help = true, long, value_name = "TIME|SPAN", value_parser = until)]
    pub(crate) keep_until: Option<Until>,
    /// The raw size to expect, for the time that is left; nothing else depends on it
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size)]
    pub(crate) expect_size: Option<u64>,
    /// zstd level, -7 to 22, or `adaptive`
    ///
    /// `adaptive` is as high as costs no time.
    #[arg(long, value_name = "N|adaptive", default_value = "3", allow_negative_numbers = true,
          value_parser = level, env = "VDSTREAM_LEVEL")]
    pub(crate) level: ZstdLevel,
    /// The most to send per second, over all stripes
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = rate, env = "VDSTREAM_LIMIT_UPLOAD")]
    pub(crate) limit_upload: Option<u64>,
    /// A stripe rolls to its next segment object at this stored size
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size, env = "VDSTREAM_SEGMENT_SIZE")]
    pub(crate) segment_size: Option<u64>,
    /// The most time that removing an aborted backup may take; what is left then is for `vdstream gc`
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "60s", value_parser = age, env = "VDSTREAM_CLEAN_UP_TIMEOUT")]
    pub(crate) clean_up_timeout: Duration,
    /// Size of one part of a multipart upload
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size, env = "VDSTREAM_PART_SIZE")]
    pub(crate) part_size: Option<u64>,
    /// Write a page about it, with charts
    ///
    /// Also about a backup that fails.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    #[cfg(feature = "encryption")]
    #[command(flatten)]
    pub(crate) readers: keys::Readers,
    #[command(flatten)]
    pub(crate) limits: Limits,
    // For what `--resume` reads back.
    #[command(flatten)]
    pub(crate) download: Download,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
    /// A program whose stdout is backed up; its exit status decides between commit and abort
    ///
    /// It runs in a process group of its own, away from the terminal, and must wait for what it starts.
    #[arg(last = true, value_name = "CMD")]
    pub(crate) producer: Vec<OsString>,
}
