//! `restore`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "shm")]
use super::Devices;
use super::{Download, Limits, Metrics};
#[cfg(feature = "encryption")]
use crate::keys;

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
    /// Do not wait until the output is on the disk: faster, but a crash of the machine may take it
    #[arg(long, requires = "output")]
    pub(crate) no_sync: bool,
    #[cfg(feature = "encryption")]
    #[command(flatten)]
    pub(crate) keys: keys::Keys,
    #[cfg(feature = "shm")]
    #[command(flatten)]
    pub(crate) devices: Devices,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) download: Download,
    #[command(flatten)]
    pub(crate) metrics: Metrics,
    /// A program that reads the backup's one stripe from stdin; its exit status decides
    #[arg(last = true, value_name = "CMD")]
    pub(crate) consumer: Vec<OsString>,
}
