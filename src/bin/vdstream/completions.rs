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

/// One page for the tool and one for each verb, as section 1 of the manual has them.
pub(crate) fn man(args: &args::Man) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let failed = |error: io::Error| Error::from(error).context(format!("cannot write to {}", args.directory.display()));
    fs::create_dir_all(&args.directory).map_err(failed)?;
    // Each page has its full name in the title, and a subcommand's own name in its synopsis.
    let verbs = command.get_subcommands().filter(|verb| verb.get_name() != "help");
    let pages = verbs.map(|verb| (format!("vdstream-{}", verb.get_name()), verb.clone()));
    for (name, page) in pages.chain([("vdstream".to_owned(), command.clone())]) {
        let mut text = Vec::new();
        clap_mangen::Man::new(page).title(name.clone()).render(&mut text).map_err(failed)?;
        fs::write(args.directory.join(format!("{name}.1")), text).map_err(failed)?;
    }
    Ok(())
}
