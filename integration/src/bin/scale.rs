//! The cost of a stream by its length, up to 10 TiB, at a scale of 1 to 64: frames of 64 KiB, parts of 128 KiB, segments of 16 MiB,
//! so that 160 GiB of noise make as many frames, parts and segments as 10 TiB with the defaults.
//!
//! ```text
//! cargo run --release -p integration --bin scale [GIB…]       lengths in GiB; by default 1, 10, 100, 1024 and 10240
//! ```
//!
//! What comes out is the curve of `manual/costs.md`. The store counts and drops what it is given. 10 TiB take some minutes on two cores.

// A program for people who measure.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use integration::counting::CountingStore;
use integration::data::{Entropy, Pattern};
use vdstream::backup::store::PartLimits;
use vdstream::backup::{Backup, BackupOptions, Store};
use vdstream::pipeline::{Ack, Input, PipelineConfig};

/// How many times smaller everything is.
const SCALE: usize = 64;
const GIB: u64 = 1 << 30;

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut lengths = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if lengths.is_empty() {
        lengths = vec![1, 10, 100, 1024, 10_240];
    }
    println!(
        "| length, GiB | segments | parts | parts of a segment | requests | manifest, bytes | memory, bytes | process, MiB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for length in lengths {
        println!("{}", row(length).await?);
    }
    Ok(())
}

async fn row(length: u64) -> Result<String, Error> {
    let wish = PipelineConfig::default();
    let config = PipelineConfig {
        frame_bytes: wish.frame_bytes / SCALE,
        part_bytes: wish.part_bytes / SCALE,
        segment_bytes: wish.segment_bytes / SCALE as u64,
        depth: 0,
        // The same window as with the defaults on two cores.
        threads: 2,
        ..wish
    };
    let counting = CountingStore::dropping();
    let limits = PartLimits { min_part_bytes: 1, max_parts: 10_000 };
    let store = Store::with_multipart(Arc::new(counting.clone()), Arc::new(counting.clone()), "");
    let store = store.part_limits(limits).lend_payloads();
    let mut backup = Backup::begin(&store, "scale", BackupOptions::default().pipeline(config.clone())).await?;
    let piece = Bytes::from(Pattern::new(1, 0, Entropy::Random).bytes(0, config.frame_bytes));
    let pieces = length * GIB / (SCALE * config.frame_bytes) as u64;
    let pieces = stream::iter((0..pieces).map(move |_nth| Ok(Input::Data(piece.clone()))));
    let end = stream::iter([Ok(Input::Complete(Ack::new(|_durable| {})))]);
    backup.stripe_input(0, pieces.chain(end))?;
    let report = backup.commit().await?;
    store.wait_idle().await;

    let segments = report.manifest.segments();
    let parts: u64 = counting.parts().values().sum();
    let mut of_a_segment = BTreeMap::new();
    for segment in report.manifest.stripes.iter().flat_map(|stripe| &stripe.segments) {
        *of_a_segment.entry(segment.stored_bytes.div_ceil(config.part_bytes as u64)).or_insert(0_u64) += 1;
    }
    let of_a_segment: Vec<String> =
        of_a_segment.iter().map(|(parts, segments)| format!("{parts} ({segments} ×)")).collect();
    Ok(format!(
        "| {length} | {segments} | {parts} | {} | {} | {} | {} | {} |",
        of_a_segment.join(", "),
        counting.take_counts().values().sum::<u64>(),
        report.manifest.encode()?.len(),
        report.progress.memory_peak,
        process_peak()?,
    ))
}

/// The most memory that this process ever had.
fn process_peak() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).ok_or("VmHWM without a number")?.parse::<u64>()? >> 10)
}
