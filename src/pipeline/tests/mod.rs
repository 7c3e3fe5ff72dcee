//! The pipeline against a store in memory that can be told to misbehave.

#![expect(clippy::cast_possible_truncation, reason = "test sizes are small")]

#[cfg(feature = "encryption")]
mod encrypted;
mod faults;
mod hostile;
mod limits;
mod round_trip;
mod store;
mod uploads;
mod waits;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};

use self::store::MemoryStore;
use super::{Input, Pipeline, PipelineConfig, StripeSummary};
use crate::clock::SystemClock;
use crate::error::Result;

const KIB: usize = 1 << 10;

/// Small sizes, so that a few hundred KiB meet every boundary.
fn small() -> PipelineConfig {
    PipelineConfig {
        memory_limit: 64 << 20,
        frame_bytes: 64 * KIB,
        part_bytes: 64 * KIB,
        threads: 2,
        concurrency: 3,
        depth: 0,
        ..PipelineConfig::default()
    }
}

/// Bytes that differ at every position and compress by about half.
fn data(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
        out.extend_from_slice(&(out.len() as u64).to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn backup_pipeline(config: PipelineConfig, stripes: u16, store: &MemoryStore) -> Pipeline {
    Pipeline::for_backup(config, stripes, Arc::new(store.clone()), SystemClock::shared()).unwrap()
}

fn restore_pipeline(config: PipelineConfig, stripes: u16, store: &MemoryStore) -> Pipeline {
    Pipeline::for_restore(config, stripes, Arc::new(store.clone()), SystemClock::shared()).unwrap()
}

/// The inputs of a stripe that gives `bytes` in pieces of `piece`.
fn pieces(bytes: &Bytes, piece: usize) -> impl futures::Stream<Item = Result<Input>> + Send + use<> {
    let bytes = bytes.clone();
    let count = bytes.len().div_ceil(piece);
    stream::iter((0..count).map(move |index| {
        let start = index * piece;
        Ok(Input::Data(bytes.slice(start..bytes.len().min(start + piece))))
    }))
}

async fn restore(pipeline: &Pipeline, stripe: u16, summary: &StripeSummary) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut frames = std::pin::pin!(pipeline.restore_stripe(stripe, summary));
    while let Some(frame) = frames.next().await {
        out.extend_from_slice(&frame?);
    }
    Ok(out)
}

/// Nothing is left: no task, no upload, no slot beyond what the workers keep.
async fn assert_idle(pipeline: &Pipeline, store: &MemoryStore) {
    pipeline.wait_idle().await;
    assert_eq!(store.open_uploads(), 0, "uploads left open");
    assert_eq!(pipeline.held_slots(), 0, "slots still held");
}
