//! `list` and `show`.

use std::path::PathBuf;

use clap::Args;

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
    /// Write a page about it to look at, with charts
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}
