//! The command line tool as scripts meet it: exit codes, documents, signals, and what each failure leaves behind.

// Signals and servers live in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod exit_codes;
mod failures;
mod limits;
mod pipes;
mod programs;
mod progress;
mod resume;
mod signals;
mod support;
mod transfers;
mod verify;

use integration::tool::vdstream_command;

#[test]
fn help_shows_the_exit_codes_and_an_example_of_each_verb() {
    let help = vdstream_command().arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes:"));
    for verb in ["backup", "restore", "list", "show", "verify", "gc"] {
        let help = vdstream_command().args([verb, "--help"]).output().unwrap();
        assert!(String::from_utf8(help.stdout).unwrap().contains("Example"), "{verb}");
    }
}
