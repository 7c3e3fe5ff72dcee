//! The command line tool: it parses, calls the library, and prints.

mod args;
mod backup;
mod catalog;
mod completions;
#[cfg(feature = "shm")]
mod devices;
mod doctor;
#[cfg(feature = "shm")]
mod engine;
mod event;
mod exit;
mod feed;
mod gc;
#[cfg(feature = "encryption")]
mod keys;
mod metrics_file;
mod output;
mod page;
mod producer;
mod program;
mod progress;
mod prune;
mod restore;
mod resuming;
mod same;
mod signal;
mod store;
mod target;
mod verify;
mod verifying;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use vdstream::{Error, ErrorKind};

use crate::args::{Cli, Command};
use crate::exit::Failure;
use crate::metrics_file::MetricsFile;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    if let Err(error) = log(cli.common.verbose, cli.common.quiet) {
        return end(&error.into());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return end(&Error::from(error).context("cannot start the runtime").into());
        }
    };
    let outcome = runtime.block_on(run(cli));
    // A read of stdin or of a FIFO may still block a thread; everything that matters has ended.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    }
}

/// Says what is wrong with the command line, or the help that was asked for, and ends.
fn refuse(error: &clap::Error) -> ! {
    #[cfg(feature = "encryption")]
    if let Some(told) = keys::discreet(error, std::env::args_os().skip(1)) {
        clap::Error::raw(error.kind(), format!("{told}\n")).exit();
    }
    error.exit()
}

fn end(failure: &Failure) -> ExitCode {
    if let Some(line) = failure.line() {
        output::note(&line);
    }
    failure.code()
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let common = cli.common;
    match cli.command {
        Command::Backup(args) => {
            let metrics = MetricsFile::begin(args.metrics.metrics_file.as_deref(), "backup", &args.series)?;
            metrics.during(Box::pin(backup::run(*args, &common, &metrics))).await
        }
        Command::Restore(args) => {
            let metrics = MetricsFile::begin(args.metrics.metrics_file.as_deref(), "restore", &args.series)?;
            metrics.during(Box::pin(restore::run(args, &common, &metrics))).await
        }
        Command::List(args) => catalog::list(args, &common).await,
        Command::Show(args) => catalog::show(args, &common).await,
        Command::Verify(args) => {
            let metrics = MetricsFile::begin(args.metrics.metrics_file.as_deref(), "verify", &args.series)?;
            metrics.during(Box::pin(verify::run(args, &common, &metrics))).await
        }
        Command::Doctor(args) => doctor::run(args, &common).await,
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => completions::man(&args),
        Command::Delete(args) => prune::delete(args, &common).await,
        Command::Prune(args) => prune::prune(args, &common).await,
        Command::Gc(args) => Box::pin(gc::run(args, &common)).await,
        #[cfg(feature = "shm")]
        Command::Engine(args) => Box::pin(engine::run(args, &common)).await,
    }
}

/// The variable with what is logged, which counts before the options.
const LOG: &str = "VDSTREAM_LOG";

fn log(verbose: u8, quiet: bool) -> vdstream::Result<()> {
    let default = match (quiet, verbose) {
        (true, _) => "error",
        // The last line says what went wrong; the library's own warnings would say it twice.
        (false, 0) => "error",
        (false, 1) => "warn",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let filter = match std::env::var_os(LOG) {
        None => EnvFilter::new(default),
        Some(text) => {
            let text = text.to_string_lossy();
            EnvFilter::try_new(&text).map_err(|error| {
                let message = format!("{LOG} is `{text}`, and that is no filter, such as vdstream=debug: {error}");
                Error::new(ErrorKind::Invalid, message)
            })?
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
