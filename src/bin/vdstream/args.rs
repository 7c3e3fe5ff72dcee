//! The command line as types; nothing here does anything.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use vdstream::backup::Kind;

use crate::exit;
#[cfg(feature = "encryption")]
use crate::keys;

/// Streams backups from a program, a pipe or files to object storage, and back.
#[derive(Debug, Parser)]
#[command(name = "vdstream", version, about, max_term_width = 100, after_help = exit::TABLE)]
#[command(arg_required_else_help = true, disable_help_flag = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Print this help
    #[arg(long, short, global = true, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
    /// Print every option, with the variable that sets it
    #[arg(long, global = true, action = clap::ArgAction::HelpLong)]
    help_all: Option<bool>,
    /// Print one JSON document on stdout instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How to show progress on stderr
    #[arg(hide_short_help = true, long, global = true, value_enum, default_value_t = ProgressStyle::Auto, env = "VDSTREAM_PROGRESS")]
    pub(crate) progress: ProgressStyle,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Log more to stderr; repeat for more (VDSTREAM_LOG takes a filter)
    #[arg(hide_short_help = true, long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A bar on a terminal, a line every ten seconds elsewhere
    Auto,
    /// A bar
    Bar,
    /// A line every ten seconds
    Lines,
    /// A JSON object per second and line, for programs
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Back up what a program, a pipe or files deliver
    Backup(Backup),
    /// Bring a backup back
    Restore(Restore),
    /// List the backups of a store, oldest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one backup in detail
    Show(Show),
    /// Check a backup where it is stored
    Verify(Verify),
    /// Delete one backup; shows what it would do unless confirmed
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Delete the backups that no rule keeps; shows the plan unless confirmed
    Prune(Prune),
    /// Try each operation that backups need of a store, and say what is missing
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// A small database engine whose stripes are files: the other side of --device-set
    #[cfg(feature = "shm")]
    Engine(Engine),
}

const BACKUP_EXAMPLES: &str = "\
Examples:
  vdstream backup s3://bucket/prod --series orders -- pg_basebackup -D - -Ft -X fetch
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
    /// A file or FIFO to read; each is one stripe
    #[arg(long, value_name = "PATH", conflicts_with = "producer")]
    pub(crate) input: Vec<PathBuf>,
    /// The series that the backup belongs to
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
    /// A label to keep with the backup; repeat for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// The committed backup of the same series that this one continues
    #[arg(long, value_name = "ID|latest", requires = "kind")]
    pub(crate) parent: Option<String>,
    /// What it contains: everything, or what changed since its parent
    #[arg(
        long,
        value_name = "full|differential|log",
        requires_if("differential", "parent"),
        requires_if("log", "parent")
    )]
    pub(crate) kind: Option<Kind>,
    /// Protect it from `prune` and `delete` until a time, or for a span such as 90d
    #[arg(hide_short_help = true, long, value_name = "TIME|SPAN", value_parser = until)]
    pub(crate) keep_until: Option<Until>,
    /// The raw size to expect, for the time that is left; nothing else depends on it
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size)]
    pub(crate) expect_size: Option<u64>,
    /// zstd level
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-7..=22), env = "VDSTREAM_LEVEL")]
    pub(crate) level: i32,
    /// A stripe rolls to its next segment object at this stored size
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size, env = "VDSTREAM_SEGMENT_SIZE")]
    pub(crate) segment_size: Option<u64>,
    /// The most time that removing an aborted backup may take; what is left then is said
    #[arg(hide_short_help = true, long, value_name = "TIME", default_value = "60s", value_parser = age, env = "VDSTREAM_CLEAN_UP_TIMEOUT")]
    pub(crate) clean_up_timeout: Duration,
    /// Size of one part of a multipart upload
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = size, env = "VDSTREAM_PART_SIZE")]
    pub(crate) part_size: Option<u64>,
    #[cfg(feature = "encryption")]
    #[command(flatten)]
    pub(crate) readers: keys::Readers,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// A program whose stdout is backed up; its exit status decides between commit and abort. It runs in a process group of
    /// its own, away from the terminal, and must wait for what it starts
    #[arg(last = true, value_name = "CMD")]
    pub(crate) producer: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// The most memory that all buffers may take: 512MiB, 2G (K, M, G, T are binary; KB, MB, GB, TB decimal)
    #[arg(hide_short_help = true, long, value_name = "SIZE", default_value = "256MiB", value_parser = size, env = "VDSTREAM_MEMORY")]
    pub(crate) memory: u64,
    /// Compression or decompression jobs at once [default: one per core]
    #[arg(hide_short_help = true, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), env = "VDSTREAM_THREADS")]
    pub(crate) threads: Option<u16>,
    /// Requests to the store at once
    #[arg(hide_short_help = true, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), env = "VDSTREAM_CONCURRENCY")]
    pub(crate) concurrency: Option<u16>,
}

/// The device set that this process shares with another one.
#[cfg(feature = "shm")]
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// The other side is a process that comes to this device set, through shared memory
    #[arg(long, value_name = "NAME")]
    pub(crate) device_set: Option<String>,
    /// Devices of the set that a backup creates: each is one stripe
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) devices: u32,
    /// The directory in which the device sets are [default: vdstream in XDG_RUNTIME_DIR]
    #[arg(hide_short_help = true, long, value_name = "DIR", env = "VDSTREAM_HUB")]
    pub(crate) hub: Option<PathBuf>,
    /// A user, by number, who may be the other side, besides this one; repeat for more
    #[arg(hide_short_help = true, long, value_name = "UID")]
    pub(crate) allow_user: Vec<u32>,
    /// A group, by number, that the other side may run as; repeat for more
    #[arg(hide_short_help = true, long, value_name = "GID")]
    pub(crate) allow_group: Vec<u32>,
}

#[cfg(feature = "shm")]
const ENGINE_EXAMPLES: &str = "\
Examples, each in a terminal beside `vdstream backup URL --device-set nightly --devices 2`
or `vdstream restore URL latest --device-set nightly`:
  vdstream engine backup --device-set nightly --input part1.img --input part2.img
  vdstream engine restore --device-set nightly --output part1.img --output part2.img";

#[cfg(feature = "shm")]
#[derive(Debug, Args)]
#[command(after_help = ENGINE_EXAMPLES)]
pub(crate) struct Engine {
    #[command(subcommand)]
    pub(crate) what: EngineWork,
}

#[cfg(feature = "shm")]
#[derive(Debug, Subcommand)]
pub(crate) enum EngineWork {
    /// Send files to the agent
    Backup {
        /// A file or FIFO to send; one per device
        #[arg(long, value_name = "PATH", required = true)]
        input: Vec<PathBuf>,
        #[command(flatten)]
        options: EngineOptions,
    },
    /// Take what the agent restores
    Restore {
        /// A file, FIFO or device to write, one per device
        #[arg(long, short, value_name = "PATH", required = true)]
        output: Vec<PathBuf>,
        #[command(flatten)]
        options: EngineOptions,
    },
}

#[cfg(feature = "shm")]
#[derive(Debug, Args)]
pub(crate) struct EngineOptions {
    #[command(flatten)]
    pub(crate) devices: Devices,
    /// How long to wait for the agent to create the set
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = age)]
    pub(crate) wait: Duration,
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  vdstream restore s3://bucket/prod latest --series orders --output base.tar
  vdstream restore file:///srv/backups ID --output part1.img --output part2.img
  vdstream restore /srv/backups latest -- tar x -C /tmp/etc

An output file appears under its name only when the whole backup has been verified.";

#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(crate) struct Restore {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The backup's id, or `latest`
    #[arg(value_name = "ID|latest")]
    pub(crate) id: String,
    /// The series that `latest` looks in
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
    /// A file, FIFO or device to write, one per stripe; `-` is stdout
    #[arg(long, short, value_name = "PATH|-", conflicts_with = "consumer")]
    pub(crate) output: Vec<PathBuf>,
    #[cfg(feature = "encryption")]
    #[command(flatten)]
    pub(crate) keys: keys::Keys,
    #[cfg(feature = "shm")]
    #[command(flatten)]
    pub(crate) devices: Devices,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// A program that reads the backup's one stripe from stdin; its exit status decides
    #[arg(last = true, value_name = "CMD")]
    pub(crate) consumer: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream list s3://bucket/prod --series orders --json")]
pub(crate) struct List {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Only this series [default: all]
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream show s3://bucket/prod latest --series orders --json")]
pub(crate) struct Show {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The backup's id, or `latest`
    #[arg(value_name = "ID|latest")]
    pub(crate) id: String,
    /// The series that `latest` looks in
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  vdstream verify s3://bucket/prod latest --level full
  vdstream verify s3://bucket/prod latest --level stored --sample 5% --since-last=30d

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

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream delete s3://bucket/prod ID --series orders --confirm")]
pub(crate) struct Delete {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The backup's id, or `latest`
    #[arg(value_name = "ID|latest")]
    pub(crate) id: String,
    /// The series that it belongs to
    #[arg(long, value_name = "NAME", default_value = "default", env = "VDSTREAM_SERIES")]
    pub(crate) series: String,
    /// Delete the backups that continue it too
    #[arg(long)]
    pub(crate) descendants: bool,
    /// Do it
    #[arg(long)]
    pub(crate) confirm: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream doctor s3://bucket/prod")]
pub(crate) struct Doctor {
    /// The store to try: small objects are written below it and removed
    #[arg(value_name = "URL")]
    pub(crate) url: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream completions bash > /etc/bash_completion.d/vdstream")]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The directory to write them to; it is created if it is not there
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

const PRUNE_EXAMPLES: &str = "\
Examples:
  vdstream prune s3://bucket/prod --keep-last 3 --keep-daily 14 --keep-monthly 12
  vdstream prune /srv/backups --series orders --keep-within 30d --keep-tag tier=gold --confirm

A backup that any rule wants is kept, so is all that it continues. Only backups that can be restored count.
The data of deleted backups stays in the store: this version does not remove it.";

#[derive(Debug, Args)]
#[command(after_help = PRUNE_EXAMPLES)]
pub(crate) struct Prune {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Only this series [default: each for itself]
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,
    /// Keep the newest N
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the newest N hours that have one
    #[arg(long, value_name = "N")]
    pub(crate) keep_hourly: Option<u32>,
    /// The same of N days (UTC)
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<u32>,
    /// The same of N weeks (ISO 8601)
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<u32>,
    /// The same of N months
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<u32>,
    /// The same of N years
    #[arg(long, value_name = "N")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep what is at most this much older than the newest, such as 30d or 12h
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) keep_within: Option<Duration>,
    /// Keep what has this label; repeat for more
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = tag)]
    pub(crate) keep_tag: Vec<(String, Option<String>)>,
    /// Do it
    #[arg(long)]
    pub(crate) confirm: bool,
}

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
fn until(text: &str) -> Result<Until, String> {
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(TimeZone::UTC).ok();
    if let Some(time) = text.parse().ok().or_else(|| date().map(|zoned| zoned.timestamp())) {
        return Ok(Until::Time(time));
    }
    span(text).map(Until::In).map_err(|_| "expected 2027-01-31, 2027-01-31T12:00:00Z or a span such as 90d".to_owned())
}

/// `90s`, `15m`, `12h`, `30d`, `2w`. A day has 24 hours.
fn span(text: &str) -> Result<Duration, String> {
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

fn tag(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        _ if text.is_empty() || text.starts_with('=') => Err("expected KEY or KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
        None => Ok((text.to_owned(), None)),
    }
}

/// `256MiB`, `1G`, `500KB`, `4096`: K, M, G, T and KiB… count in 1024, KB… in 1000.
fn size(text: &str) -> Result<u64, String> {
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
fn age(text: &str) -> Result<Duration, String> {
    if text == "any" { Ok(Duration::MAX) } else { span(text) }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

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
