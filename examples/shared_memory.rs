//! An engine and a backup agent in two processes: `cargo run --example shared_memory --features shm`.
//!
//! The example starts itself a second time as the engine. The agent creates the device set and backs up what comes; the engine
//! writes two streams. Neither sees the other's memory, but for the buffers that they share.

#![allow(clippy::print_stdout, reason = "examples print what they do")]

use std::process::Command;

use tokio::io::AsyncWriteExt as _;
use vdstream::backup::{Backup, BackupOptions, Restore, RestoreOptions, Store};
use vdstream::stream::DeviceWriter;
use vdstream::vdi::{Config, ServerConfig, ShmHub, ShmOptions, client, server};

const SET: &str = "example";

#[tokio::main]
async fn main() -> vdstream::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match arguments.next() {
        Some(directory) => engine(&hub(directory.into())?).await,
        None => {
            let directory = std::env::temp_dir().join(format!("vdstream-example-{}", std::process::id()));
            let outcome = agent(&hub(directory.clone())?, &directory).await;
            std::fs::remove_dir(&directory)?;
            outcome
        }
    }
}

/// A directory that only this user can enter. Without the option it is `vdstream` in `$XDG_RUNTIME_DIR`.
fn hub(directory: std::path::PathBuf) -> vdstream::Result<ShmHub> {
    ShmHub::open(ShmOptions { directory: Some(directory), ..ShmOptions::default() })
}

async fn agent(hub: &ShmHub, directory: &std::path::Path) -> vdstream::Result<()> {
    let set = client::DeviceSet::create(hub, SET, Config::pipe(2))?;
    let mut engine = Command::new(std::env::current_exe()?).arg(directory).spawn()?;

    let store = Store::memory();
    let backup = Backup::begin(&store, "orders", BackupOptions::default().stripes(2)).await?;
    // Runs both devices to their end, then commits. If the engine dies, this says so and there is no backup.
    let report = backup.serve(set).await?;
    engine.wait()?;

    println!("backup {} of {} bytes", report.manifest.id, report.manifest.raw_bytes());
    let restore = Restore::begin(&store, &report.manifest, RestoreOptions::default())?;
    let mut first = Vec::new();
    restore.write_to(0, &mut first).await?;
    assert!(first.starts_with(b"stripe 0, page 0\n"));
    Ok(())
}

async fn engine(hub: &ShmHub) -> vdstream::Result<()> {
    let set = server::DeviceSet::open(hub, SET).await?;
    set.begin_configuration(ServerConfig::default())?.request_buffers(65_536, 0, 8)?.end_configuration().await?;
    let agent = async { Ok(set.completion_agent().await?) };
    let writing = async {
        for stripe in 0..2 {
            let mut writer = DeviceWriter::new(&set, set.open_device()?, 4)?;
            for page in 0..10_000 {
                writer.write_all(format!("stripe {stripe}, page {page}\n").as_bytes()).await?;
            }
            writer.shutdown().await?;
        }
        Ok::<_, vdstream::Error>(())
    };
    tokio::try_join!(agent, writing)?;
    Ok(set.close().await?)
}
