//! `restore`: from a committed backup to files, pipes or a program.

use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use serde::Serialize;
use vdstream::backup::{Manifest, Restore, RestoreOptions, Store};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::catalog;
use crate::exit::Failure;
use crate::output;
use crate::producer::Program;
use crate::progress::Watch;
use crate::signal::Signals;
use crate::target::Target;

pub(crate) async fn run(args: args::Restore, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let mut program = None;
    let work = work(&args, common, &mut program);
    let outcome = tokio::select! {
        outcome = work => outcome.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
    };
    if outcome.is_err()
        && let Some(program) = &mut program
    {
        tokio::select! {
            () = Program::stop(program) => {}
            never = signals.leave_at_the_next() => match never {},
        }
    }
    outcome
}

async fn work(args: &args::Restore, common: &args::Common, program: &mut Option<Program>) -> Result<()> {
    let store = Store::from_url(&args.url)?;
    let manifest = catalog::find(&store, &args.series, &args.id).await?;
    check_outputs(args, manifest.stripes.len())?;
    let restore = Restore::begin(&store, &manifest, RestoreOptions::default().pipeline(args.limits.pipeline()))?;
    let mut targets = if args.consumer.is_empty() {
        try_join_all(args.output.iter().map(|path| Target::open(path))).await?
    } else {
        let (started, stdin) = Program::consumer(&args.consumer)?;
        *program = Some(started);
        vec![Target::program(format!("`{}`", args.consumer[0].display()), stdin)]
    };
    let watch = Watch::new(common, Some(manifest.raw_bytes()));
    let filled = tokio::select! {
        filled = fill(&restore, &mut targets) => filled,
        never = watch.follow(|| restore.progress()) => match never {},
    };
    watch.end();
    filled?;
    if let Some(program) = program {
        program.success().await?;
    }
    try_join_all(targets.into_iter().map(Target::publish)).await?;
    print(args, common, &manifest)
}

async fn fill(restore: &Restore, targets: &mut [Target]) -> Result<()> {
    let stripes = (0..restore.stripes()).zip(targets);
    try_join_all(stripes.map(|(stripe, target)| async move {
        let written = restore.write_to(stripe, &mut target.bytes).await;
        written.map_err(|error| error.context(format!("cannot restore to {}", target.name)))?;
        target.finish().await
    }))
    .await?;
    Ok(())
}

/// As many outputs as stripes, each a different one.
fn check_outputs(args: &args::Restore, stripes: usize) -> Result<()> {
    let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    if !args.consumer.is_empty() {
        return match stripes {
            1 => Ok(()),
            _ => {
                invalid(format!("the backup has {stripes} stripes, a program can read only one: use --output for each"))
            }
        };
    }
    if args.output.len() != stripes {
        let count = args.output.len();
        return invalid(format!("the backup has {stripes} stripes: give --output {stripes} times, not {count} times"));
    }
    let mut seen: Vec<&Path> = args.output.iter().map(PathBuf::as_path).collect();
    seen.sort_unstable();
    match seen.windows(2).find(|pair| pair[0] == pair[1] && pair[0] != Path::new("/dev/null")) {
        Some(pair) => invalid(format!("two stripes cannot go to the same output {}", pair[0].display())),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Document {
    id: String,
    series: String,
    stripes: usize,
    raw_bytes: u64,
}

fn print(args: &args::Restore, common: &args::Common, manifest: &Manifest) -> Result<()> {
    // Stdout may hold the data itself.
    let is_stdout_taken = args.output.iter().any(|path| path.as_os_str() == "-") || !args.consumer.is_empty();
    if common.json && !is_stdout_taken {
        return output::json(&Document {
            id: manifest.id.to_string(),
            series: manifest.series.as_str().to_owned(),
            stripes: manifest.stripes.len(),
            raw_bytes: manifest.raw_bytes(),
        });
    }
    if !common.quiet {
        output::note(&format!("restored {}, {} verified", manifest.id, output::size(manifest.raw_bytes())));
    }
    Ok(())
}
