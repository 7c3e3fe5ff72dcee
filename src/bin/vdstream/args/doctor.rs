//! `doctor`.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vdstream doctor s3://bucket/prod")]
pub(crate) struct Doctor {
    /// The store to try: small objects are written below it and removed
    #[arg(value_name = "URL")]
    pub(crate) url: String,
}
