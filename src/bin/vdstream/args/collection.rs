//! `gc`.

use std::time::Duration;

use clap::Args;

use super::value::span;

const GC_EXAMPLES: &str = "\
Examples:
  vdstream gc s3://bucket/prod
  vdstream gc /srv/backups --series orders --grace 3d --confirm

What goes has shown no sign of life for the grace time: backups that never came to their end, with their multipart \
uploads, and the data of deleted ones. Nothing of a committed backup is touched. A grace time below 1h is right only \
while nothing else uses the store. What the store has locked is left for later.";

#[derive(Debug, Args)]
#[command(after_help = GC_EXAMPLES)]
pub(crate) struct Gc {
    /// Where the backups are
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// Only this series [default: all of the store]
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,
    /// The age from which on a leftover goes, such as 12h or 3d
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "24h")]
    pub(crate) grace: Duration,
    /// Do it
    #[arg(long)]
    pub(crate) confirm: bool,
}
