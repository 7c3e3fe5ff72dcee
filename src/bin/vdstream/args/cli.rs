//! The whole command line: its verbs, and the options of all of them.

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "shm")]
use super::Engine;
use super::{Backup, Completions, Delete, Doctor, Gc, List, Man, Prune, Restore, Show, Verify};
use crate::exit;

/// Streams backups from a program, a pipe or files to object storage, and back.
#[derive(Debug, Parser)]
#[command(name = "vdstream", version, max_term_width = 100, after_help = exit::TABLE)]
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
    /// Print all options, with their variables
    #[arg(long, global = true, action = clap::ArgAction::HelpLong)]
    help_all: Option<bool>,
    /// Print one JSON document on stdout, not text
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
    Backup(Box<Backup>),
    /// Bring a backup back
    Restore(Restore),
    /// List the backups of a store, oldest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one backup in detail
    Show(Show),
    /// Check a backup where it is stored
    Verify(Verify),
    /// Delete one backup; a dry run unless confirmed
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Delete the backups that no rule keeps; a dry run unless confirmed
    Prune(Prune),
    /// Remove what dead backups left; a dry run unless confirmed
    Gc(Gc),
    /// Try all that backups need of a store, and say what is missing
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
    /// A small database engine of files: the other side of --device-set
    #[cfg(feature = "shm")]
    Engine(Engine),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
