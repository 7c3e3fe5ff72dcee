//! The command line tool: it parses, calls the library, and prints.

mod args;
mod exit;
mod output;
mod producer;
mod signal;

fn main() {}
