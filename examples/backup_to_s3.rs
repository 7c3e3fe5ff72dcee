//! Several stripes to S3, with progress. The URL is the argument, `s3://vdstream/examples` without one; credentials from `AWS_*` variables.

#![allow(clippy::print_stdout, reason = "examples print what they do")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use vdstream::Result;
use vdstream::backup::{Backup, BackupOptions, Store};
use vdstream::pipeline::PipelineConfig;

const STRIPES: u16 = 4;
const STRIPE_BYTES: u64 = 48 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "s3://vdstream/examples".to_owned());
    let store = Store::from_url(&url)?;
    let config = PipelineConfig { memory_limit: 192 << 20, level: 1, ..PipelineConfig::default() };
    let options = BackupOptions::default().stripes(STRIPES).pipeline(config).label("made-by", "example");
    let mut backup = Backup::begin(&store, "example", options).await?;

    let mut tasks = JoinSet::new();
    for mut writer in backup.take_writers()? {
        tasks.spawn(async move {
            // Any `AsyncRead` will do; this one repeats a byte.
            let mut source = tokio::io::repeat(b'x').take(STRIPE_BYTES);
            writer.write_from(&mut source).await?;
            writer.shutdown().await
        });
    }
    while let Some(fed) = tasks.join_next().await {
        fed.expect("no task panics")?;
        let progress = backup.progress();
        println!("{} bytes in, {} bytes stored", progress.raw_bytes, progress.stored_bytes);
    }
    let report = backup.commit().await?;
    println!("{} in {:.1} s", report.manifest.id, report.elapsed.as_secs_f64());
    Ok(())
}
