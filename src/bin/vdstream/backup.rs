//! `backup`: from producers to a committed backup.

use futures::future::try_join_all;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use vdstream::backup::{Backup, BackupOptions, BackupReport, Producer, Store};
use vdstream::pipeline::PipelineConfig;
use vdstream::stream::DeviceWriter;
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::exit::Failure;
use crate::output;
use crate::producer::{self, Program, Source};
use crate::progress::Watch;
use crate::signal::Signals;

pub(crate) async fn run(args: args::Backup, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = Store::from_url(&args.url)?;
    let prepared = tokio::select! {
        prepared = prepare(&args, &store) => prepared,
        signal = signals.next() => {
            // What was begun is removed by the store's own tasks.
            tokio::select! {
                () = store.wait_idle() => return Err(Failure::Signal(signal)),
                never = signals.leave_at_the_next() => match never {},
            }
        }
    };
    let (mut backup, mut feed) = prepared?;
    let writers = backup.take_writers()?;
    let watch = Watch::new(common, None);
    let fed = tokio::select! {
        fed = feed.run(writers) => fed.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
        never = watch.follow(|| backup.progress()) => match never {},
    };
    watch.end();
    match fed {
        Ok(()) => {
            if let Some(producer) = feed.producer() {
                backup.set_producer(producer);
            }
            // Not interrupted by the first signal: the outcome would be unknown.
            let mut commit = std::pin::pin!(backup.commit());
            let report = tokio::select! {
                report = &mut commit => report?,
                signal = signals.next() => {
                    output::note(&format!("{}: all data is stored, finishing the commit first", signal.name()));
                    tokio::select! {
                        report = &mut commit => report?,
                        never = signals.leave_at_the_next() => match never {},
                    }
                }
            };
            Ok(print(&args, common, &report)?)
        }
        Err(failure) => {
            let clean = async {
                feed.stop().await;
                backup.abort(reason(&failure)).await
            };
            let cleaned = tokio::select! {
                cleaned = clean => cleaned,
                never = signals.leave_at_the_next() => match never {},
            };
            match (failure, cleaned) {
                (Failure::Signal(signal), Ok(())) => Err(Failure::Signal(signal)),
                (Failure::Signal(signal), Err(error)) => {
                    Err(error.context(format!("ended by {}, the clean-up is not complete", signal.name())).into())
                }
                (failure, Err(error)) => {
                    output::note(&format!("the clean-up is not complete: {}", error.report()));
                    Err(failure)
                }
                (failure, Ok(())) => Err(failure),
            }
        }
    }
}

fn reason(failure: &Failure) -> Error {
    match failure {
        Failure::Error(error) => error.clone(),
        Failure::Signal(signal) => Error::new(ErrorKind::Aborted, format!("ended by {}", signal.name())),
    }
}

/// Opens the sources, then begins the backup, then starts the program: what can fail early does, with the least done.
async fn prepare(args: &args::Backup, store: &Store) -> Result<(Backup, Feed)> {
    let mut feed = Feed::open(args).await?;
    let stripes = u16::try_from(feed.sources.len().max(1))
        .map_err(|_| Error::new(ErrorKind::Invalid, "more inputs than a backup has stripes"))?;
    let mut options = BackupOptions::default().stripes(stripes).pipeline(pipeline(args));
    for (key, value) in &args.label {
        options = options.label(key, value);
    }
    let backup = Backup::begin(store, &args.series, options).await?;
    if !args.producer.is_empty()
        && let Err(error) = feed.start(args)
    {
        // What cannot be removed is logged; the first error is the answer.
        let _leftovers = backup.abort(error.clone()).await;
        return Err(error);
    }
    Ok((backup, feed))
}

fn pipeline(args: &args::Backup) -> PipelineConfig {
    let mut config = args.limits.pipeline();
    config.level = args.level;
    if let Some(bytes) = args.segment_size {
        config.segment_bytes = bytes;
    }
    if let Some(bytes) = args.part_size {
        config.part_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config
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

/// What feeds the backup.
struct Feed {
    sources: Vec<Source>,
    program: Option<Program>,
    /// How to call the producer in the manifest.
    name: String,
    exit_status: Option<i32>,
}

impl Feed {
    async fn open(args: &args::Backup) -> Result<Self> {
        let (sources, name) = if !args.producer.is_empty() {
            // Only the program's name: arguments may hold secrets.
            (Vec::new(), args.producer[0].to_string_lossy().into_owned())
        } else if args.stdin.is_some() {
            (vec![producer::stdin().await?], "stdin".to_owned())
        } else if !args.input.is_empty() {
            let names: Vec<String> = args.input.iter().map(|path| path.display().to_string()).collect();
            (producer::inputs(&args.input).await?, names.join(" "))
        } else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "nothing to back up: give `-` for stdin, `--input PATH`, or a program after `--`",
            ));
        };
        Ok(Self { sources, program: None, name, exit_status: None })
    }

    fn start(&mut self, args: &args::Backup) -> Result<()> {
        let (program, stdout) = Program::producer(&args.producer)?;
        self.sources.push(Source { name: format!("`{}`", self.name), bytes: Box::pin(stdout) });
        self.program = Some(program);
        Ok(())
    }

    /// Moves every source into its stripe to the end. The end of a program's output is not success: its exit status is.
    async fn run(&mut self, writers: Vec<DeviceWriter>) -> Result<()> {
        let stripes = writers.into_iter().zip(&mut self.sources);
        let mut writers = try_join_all(stripes.map(|(writer, source)| feed(writer, source))).await?;
        if let Some(program) = &mut self.program {
            self.exit_status = program.success().await?.code();
        }
        try_join_all(writers.iter_mut().map(|writer| writer.shutdown())).await?;
        Ok(())
    }

    fn producer(&self) -> Option<Producer> {
        let producer = Producer::new(self.name.as_str());
        Some(match self.exit_status {
            Some(status) => producer.exit_status(status),
            None => producer,
        })
    }

    async fn stop(&mut self) {
        if let Some(program) = &mut self.program {
            program.stop().await;
        }
    }
}

async fn feed(mut writer: DeviceWriter, source: &mut Source) -> Result<DeviceWriter> {
    match writer.write_from(&mut source.bytes).await {
        Ok(_count) => Ok(writer),
        Err(error) => {
            let is_ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
            let error = Error::from(error);
            Err(if is_ours { error } else { error.context(format!("cannot read {}", source.name)) })
        }
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
    memory_peak_bytes: u64,
    retries: u64,
}

fn print(args: &args::Backup, common: &args::Common, report: &BackupReport) -> Result<()> {
    let manifest = &report.manifest;
    let document = Document {
        id: manifest.id.to_string(),
        series: manifest.series.as_str(),
        stripes: manifest.stripes.len(),
        segments: manifest.segments(),
        raw_bytes: manifest.raw_bytes(),
        stored_bytes: manifest.stored_bytes(),
        seconds: report.elapsed.as_secs_f64(),
        memory_peak_bytes: report.progress.memory_peak,
        retries: report.progress.retries,
    };
    if common.json {
        return output::json(&document);
    }
    output::line(&document.id)?;
    if !common.quiet {
        let series = if args.series == "default" { String::new() } else { format!(" --series {}", args.series) };
        let outputs: String = match document.stripes {
            1 => " --output FILE".to_owned(),
            stripes => (0..stripes).map(|stripe| format!(" --output FILE{stripe}")).collect(),
        };
        output::note(&format!(
            "backed up {} as {} in {:.1} s",
            output::size(document.raw_bytes),
            output::size(document.stored_bytes),
            document.seconds
        ));
        output::note(&format!("restore with: vdstream restore {} {}{series}{outputs}", args.url, document.id));
    }
    Ok(())
}
