//! `backup --device-set` and `restore --device-set`: the agent of an engine in another process.

use vdstream::backup::{self, Backup, BackupReport, Manifest, Store};
use vdstream::pipeline::Pipeline;
use vdstream::vdi::{Config, ShmHub, ShmOptions, client};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::event::{Direction, Work};
use crate::exit::Failure;
use crate::metrics_file::MetricsFile;
use crate::output;
use crate::page::Attempt;
use crate::progress::Watch;
use crate::restore;
use crate::signal::Signals;

impl args::Devices {
    /// Fails if something of a device set was typed, and no set.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_hub_alone() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "--hub says where a device set is: name the set, with --device-set",
            ));
        }
        Ok(())
    }

    pub(crate) fn hub(&self) -> Result<ShmHub> {
        ShmHub::open(ShmOptions {
            directory: self.hub.clone(),
            users: self.allow_user.clone(),
            groups: self.allow_group.clone(),
        })
    }
}

/// Creates the set and waits until an engine has configured it.
async fn wait_for_engine(
    devices: &args::Devices,
    name: &str,
    count: u32,
    common: &args::Common,
    signals: &mut Signals,
) -> Result<client::DeviceSet, Failure> {
    let hub = devices.hub()?;
    let set = client::DeviceSet::create(&hub, name, Config::pipe(count)).map_err(Error::from)?;
    if !common.quiet {
        let devices = output::plural(count as usize, "device");
        output::note(&format!("waiting for an engine at device set {name} ({devices}) in {}", hub.path().display()));
    }
    let configured = tokio::select! {
        configured = set.configuration(None) => configured.map(|_| ()).map_err(|error| Failure::from(Error::from(error))),
        signal = signals.next() => {
            // An error means that the set has ended already.
            let _ended = set.abort(Error::new(ErrorKind::Aborted, format!("the agent was ended by {}", signal.name())));
            Err(Failure::Signal(signal))
        }
    };
    match configured {
        Ok(()) => Ok(set),
        Err(failure) => {
            close(set, signals).await;
            Err(failure)
        }
    }
}

/// Closes a set that has ended.
async fn close(set: client::DeviceSet, signals: &mut Signals) {
    tokio::select! {
        // The first failure is the one to tell.
        _second = set.close() => {}
        never = signals.put_off("ending in good order first") => match never {},
    }
}

/// Runs `work` on the set. A signal aborts the set, and the work ends by itself, cleaning up.
async fn until_signal<T>(
    set: client::DeviceSet,
    signals: &mut Signals,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    let signal = tokio::select! {
        done = &mut work => return Ok(done?),
        signal = signals.next() => signal,
    };
    // An error means that the set has ended already: then the work's own end is what counts.
    let is_aborted =
        set.abort(Error::new(ErrorKind::Aborted, format!("the agent was ended by {}", signal.name()))).is_ok();
    drop(set);
    let done = tokio::select! {
        done = work => done,
        never = signals.put_off("ending in good order first") => match never {},
    };
    match done {
        Err(_told) if is_aborted => Err(Failure::Signal(signal)),
        done => Ok(done?),
    }
}

/// Shows the progress of `work`.
async fn watched<T>(watch: &Watch<'_, Work>, pipeline: &Pipeline, work: impl Future<Output = T>) -> T {
    let done = tokio::select! {
        done = work => done,
        never = watch.follow(|| pipeline.progress()) => match never {},
    };
    watch.end(pipeline.progress());
    done
}

pub(crate) async fn backup(
    args: &args::Backup,
    common: &args::Common,
    metrics: &MetricsFile,
    attempt: &mut Attempt,
    name: &str,
    begin: impl AsyncFnOnce(&Store, u16) -> Result<Backup>,
    store: &Store,
) -> Result<BackupReport, Failure> {
    let mut signals = Signals::install()?;
    let count = args.device_count;
    let stripes = u16::try_from(count).map_err(|_| Error::new(ErrorKind::Invalid, "more devices than stripes"))?;
    let set = wait_for_engine(&args.devices, name, count, common, &mut signals).await?;
    let mut begun = match signals.unless(begin(store, stripes)).await {
        Ok(begun) => begun,
        Err(failure) => {
            // An error means that the set has ended already.
            let _ended = set.abort(crate::backup::reason(&failure));
            close(set, &mut signals).await;
            // What was begun is removed by the store's own tasks, within seconds.
            signals.until_idle(store).await;
            return Err(failure);
        }
    };
    attempt.begun(&begun);
    begun.set_producer(backup::Producer::new(format!("device set {name}")));
    let told = set.clone();
    let pipeline = begun.pipeline().clone();
    let watch = Watch::new(common, metrics, Work::new(Direction::Backup, &pipeline, args.expect_size));
    let made = watched(&watch, &pipeline, until_signal(told, &mut signals, begun.serve(set))).await;
    attempt.moved(&pipeline.progress(), watch.elapsed(), pipeline.plan().threads);
    made
}

pub(crate) async fn restore(
    args: &args::Restore,
    common: &args::Common,
    metrics: &MetricsFile,
    name: &str,
    store: &Store,
    manifest: &Manifest,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let restore = signals.unless(restore::begin(args, store, manifest)).await?;
    let set = wait_for_engine(&args.devices, name, u32::from(restore.stripes()), common, signals).await?;
    let told = set.clone();
    let pipeline = restore.pipeline().clone();
    let work = Work::new(Direction::Restore, &pipeline, Some(manifest.raw_bytes()));
    let watch = Watch::new(common, metrics, work);
    // What the engine has got stays with it.
    watched(&watch, &pipeline, until_signal(told, signals, restore.serve(set))).await.map_err(Failure::cut)
}
