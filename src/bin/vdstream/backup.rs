//! `backup`: from producers to a committed backup.

use serde::Serialize;
use vdstream::backup::{
    self, Backup, BackupId, BackupOptions, BackupReport, ResumeOptions, ResumeWatch, Select, Store,
};
use vdstream::clock::SystemClock;
use vdstream::pipeline::{LevelRange, PipelineConfig};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::catalog;
use crate::event::{Direction, Work};
use crate::exit::Failure;
use crate::feed::Feed;
use crate::metrics_file::MetricsFile;
use crate::output;
use crate::page::{self, Attempt, Facts, PageFile, Story};
use crate::progress::Watch;
use crate::resuming;
use crate::signal::Signals;
use crate::store;

pub(crate) async fn run(args: args::Backup, common: &args::Common, metrics: &MetricsFile) -> Result<(), Failure> {
    let page = match &args.report {
        Some(path) => Some(PageFile::open(path).await?),
        None => None,
    };
    let mut attempt = Attempt::default();
    let made = make(&args, common, metrics, &mut attempt).await;
    match made {
        Ok(report) => {
            let manifest = &report.manifest;
            let url = attempt.url.as_deref().unwrap_or(&args.url);
            let told = print(url, common, &report);
            let story = Story::Committed { manifest, verifications: &[], has_unread: false };
            let drawn = match page {
                Some(page) => page.write(&Facts { url, series: &args.series, story }).await,
                None => Ok(()),
            };
            told.and_then(|()| drawn.map_err(Failure::from))
                .map_err(|failure| failure.after(format!("backup {} is committed", manifest.id)))
        }
        Err(failure) => {
            let failure = match &args.resume {
                Some(id) => failure.resumable(id),
                None => failure,
            };
            attempt.may_be_committed = matches!(&failure, Failure::Error(error) if backup::may_be_committed(error));
            let facts = |why| Facts {
                url: attempt.url.as_deref().unwrap_or("a store that could not be opened"),
                series: &args.series,
                story: Story::Failed { attempt: &attempt, why },
            };
            if let (Some(page), Some(why)) = (page, failure.line())
                && let Err(error) = page.write(&facts(&why)).await
            {
                output::note(&format!("the report could not be written: {}", error.report()));
            }
            Err(failure)
        }
    }
}

/// Makes the backup; `attempt` gets what is known of it if it fails. However it ends, what could not be removed is told.
async fn make(
    args: &args::Backup,
    common: &args::Common,
    metrics: &MetricsFile,
    attempt: &mut Attempt,
) -> Result<BackupReport, Failure> {
    let store = store::open(&args.url)?;
    attempt.url = Some(store::from_anywhere(&args.url, &store));
    let made = Box::pin(carry_out(args, common, metrics, attempt, store.clone())).await;
    match (made, store.take_leftovers()) {
        (made, None) => made,
        (Err(Failure::Signal(signal)), Some(left)) => Err(left.context(format!("ended by {}", signal.name())).into()),
        (made, Some(left)) => {
            output::note(&format!("the clean-up is not complete: {}", left.report()));
            made
        }
    }
}

async fn carry_out(
    args: &args::Backup,
    common: &args::Common,
    metrics: &MetricsFile,
    attempt: &mut Attempt,
    store: Store,
) -> Result<BackupReport, Failure> {
    if args.resume.is_none() && args.download.is_typed() {
        let error =
            "--limit-download is for what --resume reads back; a backup that begins reads nothing: leave it out";
        return Err(Error::new(ErrorKind::Invalid, error).into());
    }
    #[cfg(feature = "shm")]
    args.devices.check()?;
    #[cfg(feature = "shm")]
    if let Some(name) = &args.devices.device_set {
        if args.stdin.is_some() || !args.input.is_empty() || !args.producer.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "--device-set takes the place of other inputs").into());
        }
        let begin = async |store: &Store, stripes: u16| {
            let mut backup = begin(args, common, metrics, store, stripes).await?;
            if args.resume.is_some() {
                // The engine starts again.
                (0..stripes).try_for_each(|stripe| backup.replay(stripe))?;
            }
            Ok::<_, Error>(backup)
        };
        return crate::devices::backup(args, common, metrics, attempt, name, begin, &store).await;
    }
    let mut signals = Signals::install()?;
    let prepared = tokio::select! {
        prepared = prepare(args, common, metrics, &store) => Ok(prepared?),
        signal = signals.next() => Err(signal),
    };
    let (mut backup, mut feed) = match prepared {
        Ok(prepared) => prepared,
        Err(signal) => {
            // What was begun is removed by the store's own tasks, within seconds.
            tokio::select! {
                () = store.wait_idle() => {}
                never = signals.put_off(CLEANING) => match never {},
            }
            return Err(Failure::Signal(signal));
        }
    };
    if args.resume.is_some() && !common.quiet {
        output::note(&format!("{} are stored already", output::size(backup.offsets().iter().sum())));
    }
    attempt.begun(&backup);
    let mut writers = backup.take_writers()?;
    let work = Work::new(Direction::Backup, backup.pipeline(), args.expect_size);
    let watch = Watch::new(common, metrics, work);
    let fed = tokio::select! {
        fed = feed.run(&mut writers) => fed.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
        never = watch.follow(|| backup.progress()) => match never {},
    };
    watch.end(backup.progress());
    attempt.moved(&backup.progress(), watch.elapsed(), backup.pipeline().plan().threads);
    match fed {
        Ok(()) => {
            if let Some(producer) = feed.producer() {
                backup.set_producer(producer);
            }
            // Not interrupted by the first signal: the outcome would be unknown.
            let report = tokio::select! {
                report = backup.commit() => report,
                never = signals.put_off("all data is stored, finishing the commit first") => match never {},
            };
            Ok(report?)
        }
        Err(failure) => {
            // The abort comes first, so that its reason is what the stripes end with; the writers are dropped after it.
            let clean = async {
                // What cannot be removed is with the store too.
                let ((), _leftovers) = tokio::join!(feed.stop(), backup.abort(reason(&failure)));
            };
            tokio::select! {
                () = clean => {}
                never = signals.put_off(CLEANING) => match never {},
            }
            drop(writers);
            Err(failure)
        }
    }
}

const CLEANING: &str = "cleaning up first";

/// Why the work of this process ends, for whoever is at its other side.
pub(crate) fn reason(failure: &Failure) -> Error {
    match failure {
        Failure::Error(error) => error.clone(),
        Failure::Signal(signal)
        | Failure::Halfway(signal)
        | Failure::Resumable { signal, .. }
        | Failure::Cut(signal) => Error::new(ErrorKind::Aborted, format!("ended by {}", signal.name())),
        Failure::Report { .. } | Failure::Pipe => Error::new(ErrorKind::Aborted, "the report was not printed"),
    }
}

/// Opens the sources, then begins the backup, then starts the program: what can fail early does, with the least done.
async fn prepare(
    args: &args::Backup,
    common: &args::Common,
    metrics: &MetricsFile,
    store: &Store,
) -> Result<(Backup, Feed)> {
    let mut feed = Feed::open(args).await?;
    let stripes = u16::try_from(feed.stripes())
        .map_err(|_| Error::new(ErrorKind::Invalid, "more inputs than a backup has stripes"))?;
    let mut backup = begin(args, common, metrics, store, stripes).await?;
    if args.resume.is_some()
        && let Err(error) = feed.rewind(&mut backup).await
    {
        // It can be resumed again; the first error is the answer.
        let _released = backup.abort(error.clone()).await;
        return Err(error);
    }
    if !args.producer.is_empty()
        && let Err(error) = feed.start(args)
    {
        // What cannot be removed is logged; the first error is the answer.
        let _leftovers = backup.abort(error.clone()).await;
        return Err(error);
    }
    Ok((backup, feed))
}

async fn begin(
    args: &args::Backup,
    common: &args::Common,
    metrics: &MetricsFile,
    store: &Store,
    stripes: u16,
) -> Result<Backup> {
    if let Some(id) = &args.resume {
        let watch = ResumeWatch::new();
        return resuming::shown(common, metrics, &watch, resume(args, store, id, stripes, &watch)).await;
    }
    let mut options =
        BackupOptions::default().stripes(stripes).pipeline(pipeline(args)).clean_up_timeout(args.clean_up_timeout);
    for (key, value) in &args.label {
        options = options.label(key, value);
    }
    if let (Some(kind), Some(parent)) = (args.kind, &args.parent) {
        let parent = match parent.parse()? {
            Select::Id(id) => id,
            Select::Latest => catalog::find(store, &args.series, "latest").await?.id,
        };
        options = options.continues(parent, kind);
    }
    if let Some(until) = args.keep_until {
        options = options.keep_until(until.time(SystemClock::shared().wall()));
    }
    #[cfg(feature = "encryption")]
    {
        options = args.readers.add_to(options).await?;
    }
    Backup::begin(store, &args.series, options).await
}

/// Takes an interrupted backup over.
async fn resume(args: &args::Backup, store: &Store, id: &str, stripes: u16, watch: &ResumeWatch) -> Result<Backup> {
    let (id, series) = (id.parse::<BackupId>()?, args.series.parse()?);
    // Asked first, because a backup that is taken over is no longer left alone.
    let intent = backup::intent(store, &series, id).await;
    let intent = intent.map_err(|error| error.context(format!("cannot resume backup {id}")))?;
    if intent.encryption.is_some() {
        return Err(Error::new(ErrorKind::Invalid, "an encrypted backup cannot be resumed: begin a new one"));
    }
    #[cfg(feature = "encryption")]
    if let Some(option) = args.readers.typed() {
        let error = format!("backup {id} was begun without encryption and goes on without it: leave {option} out");
        return Err(Error::new(ErrorKind::Invalid, error));
    }
    let expected = intent.stripes;
    if expected != stripes {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("backup {id} has {expected} stripes, and there are {stripes} inputs: give the same inputs again"),
        ));
    }
    let options = ResumeOptions::default().pipeline(args.download.limit(pipeline(args))).silence(args.silence);
    let options = options.clean_up_timeout(args.clean_up_timeout).watch(watch);
    Backup::resume(store, &args.series, id, options).await
}

fn pipeline(args: &args::Backup) -> PipelineConfig {
    let mut config = args.limits.pipeline();
    match args.level {
        args::ZstdLevel::Fixed(level) => config.level = level,
        args::ZstdLevel::Adaptive => config.adaptive = Some(LevelRange::default()),
    }
    config.upload_bytes_per_second = args.limit_upload;
    if let Some(bytes) = args.segment_size {
        config.segment_bytes = bytes;
    }
    if let Some(bytes) = args.part_size {
        config.part_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config
}

impl args::Download {
    pub(crate) fn limit(&self, config: PipelineConfig) -> PipelineConfig {
        PipelineConfig { download_bytes_per_second: self.limit_download, ..config }
    }
}

impl args::Limits {
    pub(crate) fn pipeline(&self) -> PipelineConfig {
        let mut config = PipelineConfig { memory_limit: self.memory, ..PipelineConfig::default() };
        if let Some(threads) = self.threads {
            config.threads = usize::from(threads);
        }
        if let Some(concurrency) = self.concurrency {
            config.concurrency = usize::from(concurrency);
        }
        config
    }
}

#[derive(Serialize)]
struct Document<'a> {
    id: String,
    series: &'a str,
    stripes: usize,
    segments: usize,
    raw_bytes: u64,
    stored_bytes: u64,
    seconds: f64,
    moved_bytes: u64,
    memory_peak_bytes: u64,
    retries: u64,
}

fn print(url: &str, common: &args::Common, report: &BackupReport) -> Result<(), Failure> {
    let manifest = &report.manifest;
    let document = Document {
        id: manifest.id.to_string(),
        series: manifest.series.as_str(),
        stripes: manifest.stripes.len(),
        segments: manifest.segments(),
        raw_bytes: manifest.raw_bytes(),
        stored_bytes: manifest.stored_bytes(),
        seconds: report.elapsed.as_secs_f64(),
        moved_bytes: report.progress.raw_bytes,
        memory_peak_bytes: report.progress.memory_peak,
        retries: report.progress.retries,
    };
    if common.json {
        return output::json(&document);
    }
    output::line(&document.id)?;
    if !common.quiet {
        // What a process before had stored took none of this time.
        let part = match document.moved_bytes < document.raw_bytes {
            true => format!(", {} of it", output::size(document.moved_bytes)),
            false => String::new(),
        };
        output::note(&format!(
            "backed up {} as {}{part} in {:.1} s",
            output::size(document.raw_bytes),
            output::size(document.stored_bytes),
            document.seconds
        ));
        output::note(&format!("restore with: {}", page::restore_command(url, manifest)));
    }
    Ok(())
}
