//! `completions` and `man`: what is written once, when the tool is installed.

use std::path::PathBuf;

use clap::Args;

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
