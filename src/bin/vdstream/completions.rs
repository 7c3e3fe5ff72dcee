//! `completions` and `man`: what is generated from the command line itself.

use std::fs;
use std::io;

use clap::CommandFactory as _;
use vdstream::Error;

use crate::args::{self, Cli};
use crate::exit::Failure;
use crate::output;

pub(crate) fn completions(args: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vdstream", &mut script);
    output::line(String::from_utf8_lossy(&script).trim_end())
}

/// One page for the tool, one for each verb and one for each verb of a verb, as section 1 of the manual has them.
pub(crate) fn man(args: &args::Man) -> Result<(), Failure> {
    let failed = |error: io::Error| Error::from(error).context(format!("cannot write to {}", args.directory.display()));
    fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)?;
    Ok(())
}
