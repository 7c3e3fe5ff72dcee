//! A small database engine as the server of a device set, and an agent that backs it up.

#![allow(clippy::print_stdout, reason = "examples print what they do")]
#![allow(clippy::disallowed_methods, reason = "an engine spawns where it likes")]

use std::collections::VecDeque;

use vdstream::backup::{Backup, BackupOptions, Store};
use vdstream::vdi::server::{Command, CommandFuture, Device, DeviceSet, SendError};
use vdstream::vdi::{Config, LocalHub, ServerConfig, client};
use vdstream::{Error, ErrorKind, Result};

const PAGE: usize = 8192;
const TRANSFER: u32 = 1 << 20;
const DEVICES: u16 = 2;
const DEPTH: u16 = 4;

#[tokio::main]
async fn main() -> Result<()> {
    let hub = LocalHub::new();
    let store = Store::memory();

    // The agent creates the set, because it decides how many devices there are; then it serves the engine.
    let set = client::DeviceSet::create(&hub, "nightly", Config::pipe(DEVICES.into()))?;
    let options = BackupOptions::default().stripes(DEVICES);
    let backup = Backup::begin(&store, "pages", options).await?;
    let agent = async { backup.serve(set).await };

    let (report, engine) = tokio::join!(agent, engine(&hub));
    engine?;
    let manifest = report?.manifest;
    assert_eq!(manifest.raw_bytes(), u64::from(DEVICES) * 500 * PAGE as u64);
    println!("{}: {} bytes in {} stripes", manifest.id, manifest.raw_bytes(), manifest.stripes.len());
    Ok(())
}

/// Everything an engine does for one backup.
async fn engine(hub: &LocalHub) -> Result<()> {
    let set = DeviceSet::open(hub, "nightly").await?;
    let config = ServerConfig {
        block_size: 4096,
        max_transfer_size: TRANSFER,
        max_io_depth: DEPTH.into(),
        ..ServerConfig::default()
    };
    set.begin_configuration(config)?.request_buffers(TRANSFER as usize, 0, usize::from(DEPTH * DEVICES))?;
    set.end_configuration().await?;
    let agent = tokio::spawn(set.completion_agent());

    let devices = (0..DEVICES).map(|_| set.open_device()).collect::<Result<Vec<_>, _>>()?;
    let (first, second) = tokio::join!(write_pages(&set, &devices[0]), write_pages(&set, &devices[1]));
    first.and(second)?;

    set.close().await?;
    agent.await.expect("the agent does not panic")?;
    Ok(())
}

/// Sends 500 pages with several writes in flight, then asks for durability, then closes the device.
async fn write_pages(set: &DeviceSet, device: &Device) -> Result<()> {
    let mut in_flight: VecDeque<CommandFuture> = VecDeque::new();
    let mut free = Vec::new();
    for _ in 0..DEPTH {
        free.push(set.allocate_buffer(TRANSFER as usize, 0)?);
    }
    let mut pages = 0..500_usize;
    while !pages.is_empty() || !in_flight.is_empty() {
        if let Some(mut buffer) = if pages.is_empty() { None } else { free.pop() } {
            let count = pages.len().min(TRANSFER as usize / PAGE);
            for (slot, page) in buffer.chunks_mut(PAGE).zip(pages.by_ref().take(count)) {
                slot.fill(u8::try_from(page % 256).unwrap_or(0));
            }
            in_flight.push_back(device.send(Command::write(buffer, count * PAGE)).map_err(SendError::into_error)?);
        } else if let Some(oldest) = in_flight.pop_front() {
            let completion = oldest.await;
            if !completion.is_success() {
                return Err(completion.reason.unwrap_or_else(|| Error::new(ErrorKind::Aborted, "a write failed")));
            }
            free.extend(completion.buffer);
        }
    }
    // Answered only when everything before it is stored. An engine may truncate its log after that.
    let flushed = device.send(Command::complete()).map_err(SendError::into_error)?.await;
    if !flushed.is_success() {
        return Err(flushed.reason.unwrap_or_else(|| Error::new(ErrorKind::Aborted, "the backup was not completed")));
    }
    device.close()?;
    Ok(())
}
