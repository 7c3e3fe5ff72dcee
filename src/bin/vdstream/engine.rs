//! `engine`: a small database engine whose stripes are files, for pipelines and trials.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use futures::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vdstream::clock::{Clock as _, SystemClock};
use vdstream::stream::{DeviceReader, DeviceWriter};
use vdstream::vdi::{Features, ServerConfig, ShmHub, Status, server};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::exit::Failure;
use crate::feed;
use crate::output;
use crate::producer;
use crate::same;
use crate::signal::Signals;
use crate::target::{Safety, Target};

/// Bytes of one transfer: large enough that what a command costs does not show.
const TRANSFER: u32 = 1 << 20;
/// Commands under way on each device.
const DEPTH: usize = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) async fn run(args: args::Engine, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let (options, media) = match &args.what {
        args::EngineWork::Backup { options, .. } => (options, Features::WRITE_MEDIA),
        args::EngineWork::Restore { options, .. } => (options, Features::READ_MEDIA),
    };
    let Some(name) = options.devices.device_set.as_deref() else {
        return Err(Error::new(ErrorKind::Invalid, "an engine needs --device-set").into());
    };
    let hub = options.devices.hub()?;
    let set = tokio::select! {
        set = find(&hub, name, options.wait) => set?,
        signal = signals.next() => return Err(Failure::Signal(signal)),
    };
    let worked = tokio::select! {
        worked = serve(&set, &args.what, media) => worked.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
    };
    if let Err(failure) = &worked {
        let reason = match failure {
            Failure::Signal(signal)
            | Failure::Halfway(signal)
            | Failure::Resumable { signal, .. }
            | Failure::Cut(signal) => {
                Error::new(ErrorKind::Aborted, format!("the engine was ended by {}", signal.name()))
            }
            Failure::Error(error) => error.clone(),
            Failure::Report { error, .. } => error.clone(),
            Failure::Pipe => Error::new(ErrorKind::Closed, "the engine's output was closed"),
        };
        // An error means that the set has ended already.
        let _ended = set.abort(reason);
    }
    let closed = set.close().await;
    let moved = worked?;
    closed.map_err(Error::from)?;
    if !common.quiet {
        let verb = if media == Features::WRITE_MEDIA { "sent" } else { "received" };
        output::note(&format!("{verb} {} by device set {name}", output::size(moved)));
    }
    Ok(())
}

/// Opens the set, and waits for it if the agent has not created it yet.
async fn find(hub: &ShmHub, name: &str, wait: Duration) -> Result<server::DeviceSet> {
    let clock = SystemClock::new();
    let end = clock.now().saturating_add(wait);
    loop {
        match server::DeviceSet::open(hub, name).await {
            Err(error) if error.status() == Status::Invalid && clock.now() < end => clock.sleep(LOOK_AGAIN).await,
            Err(error) if error.status() == Status::Invalid => {
                let message = format!("{error} in {} after {wait:?}", hub.path().display());
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Fixes the configuration and runs the devices and the completion agent beside each other.
async fn serve(set: &server::DeviceSet, work: &args::EngineWork, media: Features) -> Result<u64> {
    let count = match work {
        args::EngineWork::Backup { input, .. } => input.len(),
        args::EngineWork::Restore { output, .. } => output.len(),
    };
    let devices = set.configuration()?.device_count;
    if devices as usize != count {
        let (has, given) = (output::plural(devices as usize, "device"), output::plural(count, "file"));
        return Err(Error::new(ErrorKind::Invalid, format!("the device set has {has}, {given} are given")));
    }
    let config = ServerConfig {
        features: media | Features::COMPLETE_ENABLED,
        max_transfer_size: TRANSFER,
        ..ServerConfig::default()
    };
    let buffers = DEPTH * count;
    set.begin_configuration(config)?.request_buffers(TRANSFER as usize, 0, buffers)?;
    set.end_configuration().await?;
    let agent = async { Ok(set.completion_agent().await?) };
    let work = async {
        match work {
            args::EngineWork::Backup { input, .. } => send(set, input).await,
            args::EngineWork::Restore { output, .. } => receive(set, output).await,
        }
    };
    let ((), moved) = tokio::try_join!(agent, work)?;
    Ok(moved)
}

async fn send(set: &server::DeviceSet, inputs: &[PathBuf]) -> Result<u64> {
    let sources = producer::inputs(inputs).await?;
    let sent = sources.into_iter().map(|mut source| async move {
        let mut writer = DeviceWriter::new(set, set.open_device()?, DEPTH)?;
        feed::feed(&mut writer, &mut source).await?;
        let bytes = writer.position();
        writer.shutdown().await?;
        Ok::<_, Error>(bytes)
    });
    Ok(try_join_all(sent).await?.into_iter().sum())
}

async fn receive(set: &server::DeviceSet, outputs: &[PathBuf]) -> Result<u64> {
    same::refuse_twice("output", outputs).await?;
    let mut targets = try_join_all(outputs.iter().map(|path| Target::open(path, Safety::Machine))).await?;
    let filled = targets.iter_mut().map(|target| async move {
        let mut reader = DeviceReader::new(set, set.open_device()?, DEPTH)?;
        let mut bytes = 0;
        target.fill(pieces(&mut reader, &mut bytes)).await?;
        target.finish().await?;
        Ok::<_, Error>(bytes)
    });
    let bytes = try_join_all(filled).await?.into_iter().sum();
    try_join_all(targets.into_iter().map(Target::publish)).await?;
    Ok(bytes)
}

/// What `reader` gives, in pieces of one transfer; `total` counts the bytes.
fn pieces<'a>(
    reader: &'a mut DeviceReader,
    total: &'a mut u64,
) -> impl futures::Stream<Item = Result<bytes::Bytes>> + 'a {
    stream::try_unfold((reader, total), |(reader, total)| async move {
        let mut piece = bytes::BytesMut::with_capacity(TRANSFER as usize);
        if reader.read_buf(&mut piece).await? == 0 {
            return Ok(None);
        }
        *total += piece.len() as u64;
        Ok(Some((piece.freeze(), (reader, total))))
    })
}
