//! `restore`: from a committed backup to files, pipes or a program.

use std::path::PathBuf;

use futures::future::try_join_all;
use serde::Serialize;
use vdstream::backup::{Manifest, Restore, RestoreOptions, Store};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::catalog;
use crate::event::{Direction, Work};
use crate::exit::Failure;
use crate::metrics_file::MetricsFile;
use crate::output;
use crate::program::Program;
use crate::progress::Watch;
use crate::same;
use crate::signal::Signals;
use crate::store;
use crate::target::{self, Safety, Target};

pub(crate) async fn run(mut args: args::Restore, common: &args::Common, metrics: &MetricsFile) -> Result<(), Failure> {
    #[cfg(feature = "shm")]
    args.devices.check()?;
    #[cfg(feature = "shm")]
    if let Some(name) = &args.devices.device_set {
        if !args.output.is_empty() || !args.consumer.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "--device-set takes the place of other outputs").into());
        }
        let mut signals = Signals::install()?;
        let store = store::open(&args.url)?;
        let manifest = signals.unless(catalog::find(&store, &args.series, &args.id)).await?;
        crate::devices::restore(&args, common, metrics, name, &store, &manifest, &mut signals).await?;
        return print(&args, common, &manifest)
            .map_err(|failure| failure.after(format!("backup {} is restored", manifest.id)));
    }
    let mut signals = Signals::install()?;
    let Prepared { manifest, restore, mut targets, mut program } = tokio::select! {
        prepared = prepare(&mut args) => prepared?,
        signal = signals.next() => return Err(Failure::Signal(signal)),
    };
    let is_direct = targets.iter().any(Target::is_direct);
    let work = Work::new(Direction::Restore, restore.pipeline(), Some(manifest.raw_bytes()));
    let watch = Watch::new(common, metrics, work);
    let filled = tokio::select! {
        filled = fill(&restore, &mut targets) => filled.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
        never = watch.follow(|| restore.progress()) => match never {},
    };
    watch.end(restore.progress());
    let taken = tokio::select! {
        // The first cause of a failure is there already.
        biased;
        taken = take(&args, &manifest, filled, program.as_mut()) => taken,
        signal = signals.next() => Err(Failure::Signal(signal)),
    };
    let ended = match taken {
        Ok(Taken::All) => {
            // Not interrupted by the first signal: some files would be replaced, and others not.
            let published = tokio::select! {
                published = try_join_all(targets.drain(..).map(Target::publish)) => published,
                never = signals.put_off("all data is restored, giving the files their names first") => match never {},
            };
            match published {
                Ok(_) => print(&args, common, &manifest)
                    .map_err(|failure| failure.after(format!("backup {} is restored", manifest.id))),
                Err(error) => Err(error.into()),
            }
        }
        Ok(Taken::Enough) => Ok(()),
        Err(failure) if is_direct => Err(failure.cut()),
        Err(failure) => Err(failure),
    };
    if ended.is_err()
        && let Some(program) = &mut program
    {
        // The targets hold its stdin open meanwhile.
        tokio::select! {
            () = program.stop() => {}
            never = signals.put_off("ending the program first") => match never {},
        }
    }
    drop(targets);
    ended
}

/// A restore before its first byte.
struct Prepared {
    manifest: Manifest,
    restore: Restore,
    targets: Vec<Target>,
    program: Option<Program>,
}

/// From here on, each of the outputs that is stdout is called `-`.
async fn prepare(args: &mut args::Restore) -> Result<Prepared> {
    let store: Store = store::open(&args.url)?;
    let manifest = catalog::find(&store, &args.series, &args.id).await?;
    check_outputs(args, manifest.stripes.len()).await?;
    for path in &mut args.output {
        if same::is_stdout(path).await {
            *path = "-".into();
        }
    }
    let restore = begin(args, &store, &manifest).await?;
    if args.consumer.is_empty() {
        let safety = if args.no_sync { Safety::Process } else { Safety::Machine };
        let targets = try_join_all(args.output.iter().map(|path| Target::open(path, safety))).await?;
        return Ok(Prepared { manifest, restore, targets, program: None });
    }
    // Nothing is awaited after this, so that nobody lets go of a program that has just begun.
    let (program, stdin) = Program::consumer(&args.consumer)?;
    let targets = vec![Target::program(format!("`{}`", args.consumer[0].display()), stdin)];
    Ok(Prepared { manifest, restore, targets, program: Some(program) })
}

/// How much of the data its reader has taken.
enum Taken {
    All,
    /// A program that has ended well wanted no more.
    Enough,
}

/// Whether the targets have got all, or as much as they wanted. A failure is handed on.
async fn take(
    args: &args::Restore,
    manifest: &Manifest,
    filled: Result<(), Failure>,
    program: Option<&mut Program>,
) -> Result<Taken, Failure> {
    match (filled, program) {
        (Ok(()), Some(program)) => {
            program.success().await?;
            Ok(Taken::All)
        }
        (Ok(()), None) => Ok(Taken::All),
        (Err(Failure::Error(error)), Some(program)) if target::is_left(&error) => {
            // It reads no more: what it has to say about that is its exit status.
            program.success().await?;
            let (name, all) = (args.consumer[0].display(), output::size(manifest.raw_bytes()));
            output::note(&format!("`{name}` ended well and did not want all of the {all}; the rest was not verified"));
            Ok(Taken::Enough)
        }
        (Err(Failure::Error(error)), None)
            if target::is_left(&error) && args.output.iter().any(|path| is_stdout(path)) =>
        {
            Err(Failure::Pipe)
        }
        (Err(failure), _) => Err(failure),
    }
}

pub(crate) async fn begin(args: &args::Restore, store: &Store, manifest: &Manifest) -> Result<Restore> {
    #[cfg_attr(not(feature = "encryption"), expect(unused_mut, reason = "only encryption adds to it"))]
    let mut options = RestoreOptions::default().pipeline(args.download.limit(args.limits.pipeline()));
    #[cfg(feature = "encryption")]
    if let Some(identities) = args.keys.open(store, manifest).await? {
        options = options.identities(identities);
    }
    Restore::begin(store, manifest, options)
}

/// As `prepare` leaves it.
fn is_stdout(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

async fn fill(restore: &Restore, targets: &mut [Target]) -> Result<()> {
    let stripes = (0..restore.stripes()).zip(&restore.manifest().stripes).zip(targets);
    try_join_all(stripes.map(|((stripe, summary), target)| async move {
        target.reserve(summary.raw_bytes).await?;
        let written = target.fill(restore.stripe(stripe)).await;
        written.map_err(|error| error.context(format!("cannot restore to {}", target.name)))?;
        target.finish().await
    }))
    .await?;
    Ok(())
}

/// As many outputs as stripes, each a different one.
async fn check_outputs(args: &args::Restore, stripes: usize) -> Result<()> {
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
        let (has, times) = (output::plural(stripes, "stripe"), output::plural(stripes, "time"));
        return invalid(format!("the backup has {has}: give --output {times}, not {}", output::plural(count, "time")));
    }
    if args.output.iter().filter(|path| is_stdout(path)).count() > 1 {
        return invalid("output - is given twice: each stripe needs its own".to_owned());
    }
    let path = |path: &PathBuf| if is_stdout(path) { PathBuf::from("/dev/stdout") } else { path.clone() };
    let paths: Vec<PathBuf> = args.output.iter().map(path).collect();
    same::refuse_twice("output", &paths).await
}

#[derive(Serialize)]
struct Document {
    id: String,
    series: String,
    stripes: usize,
    raw_bytes: u64,
}

fn print(args: &args::Restore, common: &args::Common, manifest: &Manifest) -> Result<(), Failure> {
    // Stdout may hold the data itself.
    let is_stdout_taken = args.output.iter().any(|path| is_stdout(path)) || !args.consumer.is_empty();
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
