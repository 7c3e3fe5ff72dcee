//! List, verify, and restore, on local disk.

#![allow(clippy::print_stdout, reason = "examples print what they do")]

use tokio::io::AsyncWriteExt as _;
use vdstream::Result;
use vdstream::backup::{
    Backup, BackupOptions, Restore, RestoreOptions, Select, Store, VerifyLevel, VerifyOptions, find, list, verify,
};

#[tokio::main]
async fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("vdstream-example-{}", std::process::id()));
    let outcome = work(&directory).await;
    std::fs::remove_dir_all(&directory)?;
    outcome
}

async fn work(directory: &std::path::Path) -> Result<()> {
    let store = Store::from_url(&directory.to_string_lossy())?;
    let text = b"to be or not to be, that is the question\n".repeat(100_000);
    for _ in 0..2 {
        let mut backup = Backup::begin(&store, "plays", BackupOptions::default()).await?;
        let mut writer = backup.take_writers()?.remove(0);
        writer.write_all(&text).await?;
        writer.shutdown().await?;
        backup.commit().await?;
    }

    for found in list(&store, None).await?.backups {
        println!("{} {}: {} bytes as {}", found.series.as_str(), found.id, found.raw_bytes, found.stored_bytes);
    }

    let manifest = find(&store, &"plays".parse()?, Select::Latest).await?;
    let report = verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Full)).await?;
    assert!(report.is_good());
    println!("{} is good: {} bytes decompressed and checked", manifest.id, report.raw_bytes);

    let mut target = Vec::new();
    let restore = Restore::begin(&store, &manifest, RestoreOptions::default())?;
    restore.write_to(0, &mut target).await?;
    assert!(target == text);
    println!("restored {} bytes", target.len());
    Ok(())
}
