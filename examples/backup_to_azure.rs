//! To Azure Blob Storage, giving up half-way first. The URL is the argument, `az://vdstream/examples` without one; credentials from
//! `AZURE_*` variables.

#![allow(clippy::print_stdout, reason = "examples print what they do")]

use tokio::io::AsyncWriteExt as _;
use vdstream::backup::{Backup, BackupOptions, Store, list};
use vdstream::{Error, ErrorKind, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "az://vdstream/examples".to_owned());
    let store = Store::from_url(&url)?;
    let before = list(&store, None).await?.backups.len();

    // Half a backup, given up: nothing of it stays behind.
    let mut backup = Backup::begin(&store, "example", BackupOptions::default()).await?;
    let mut writer = backup.take_writers()?.remove(0);
    writer.write_all(&vec![7; 20 << 20]).await?;
    backup.abort(Error::new(ErrorKind::Aborted, "the night is over")).await?;
    let error = Error::from(writer.shutdown().await.expect_err("the backup was given up"));
    println!("the writer learns why: {}", error.report());
    assert_eq!(list(&store, None).await?.backups.len(), before);

    // A whole one.
    let mut backup = Backup::begin(&store, "example", BackupOptions::default()).await?;
    let mut writer = backup.take_writers()?.remove(0);
    writer.write_all(&vec![7; 20 << 20]).await?;
    writer.shutdown().await?;
    let report = backup.commit().await?;
    assert_eq!(list(&store, None).await?.backups.len(), before + 1);
    println!("{}: {} bytes as {}", report.manifest.id, report.manifest.raw_bytes(), report.manifest.stored_bytes());
    Ok(())
}
