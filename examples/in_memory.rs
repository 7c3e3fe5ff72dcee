//! Three stripes become one atomic backup in memory, and come back.

#![allow(clippy::print_stdout, reason = "examples print what they do")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use vdstream::Result;
use vdstream::backup::{Backup, BackupOptions, Restore, RestoreOptions, Select, Store, find};

#[tokio::main]
async fn main() -> Result<()> {
    let store = Store::memory();

    // Each writer is one stripe. They may be fed from tasks of their own.
    let mut backup = Backup::begin(&store, "orders", BackupOptions::default().stripes(3)).await?;
    let mut tasks = JoinSet::new();
    for (number, mut writer) in backup.take_writers()?.into_iter().enumerate() {
        tasks.spawn(async move {
            writer.write_all(&stripe(number)).await?;
            // The end of a stream is not success: only its shutdown is.
            writer.shutdown().await
        });
    }
    while let Some(fed) = tasks.join_next().await {
        fed.expect("no task panics")?;
    }
    let report = backup.commit().await?;
    println!("{}: {} bytes as {}", report.manifest.id, report.manifest.raw_bytes(), report.manifest.stored_bytes());

    // Restore is the reverse: one reader per stripe.
    let manifest = find(&store, &"orders".parse()?, Select::Latest).await?;
    let mut restore = Restore::begin(&store, &manifest, RestoreOptions::default())?;
    for (number, mut reader) in restore.take_readers()?.into_iter().enumerate() {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await?;
        assert_eq!(bytes, stripe(number));
        println!("stripe {number}: {} bytes are back", bytes.len());
    }
    restore.finish().await
}

/// A few megabytes that differ per stripe.
fn stripe(number: usize) -> Vec<u8> {
    (0..3_000_000 + number).map(|index| u8::try_from(index % 251 + number).unwrap_or(0)).collect()
}
