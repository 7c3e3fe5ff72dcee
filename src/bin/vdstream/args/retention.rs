//! `delete` and `prune`.

use std::time::Duration;

use clap::Args;

use super::value::{span, tag};

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

const PRUNE_EXAMPLES: &str = "\
Examples:
  vdstream prune s3://bucket/prod --keep-last 3 --keep-daily 14
  vdstream prune /srv/backups --keep-within 30d --keep-tag tier=gold --confirm

A backup that any rule wants is kept, so is all that it continues. Only backups that can be restored count: all of \
their objects are there, and no verification has found damage that stands. The data of deleted backups stays until \
`vdstream gc`, for restores that are running.";

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
