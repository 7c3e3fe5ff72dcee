//! Whole backups on stores in memory and on disk, with stores that fail.

mod collection;
mod crash;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod credentials;
mod crowded;
mod damage;
mod devices;
mod endings;
mod faults;
#[cfg(feature = "fs")]
mod fixture;
mod full;
mod hostile;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod joined;
mod late;
#[cfg(feature = "fs")]
mod links;
mod removals;
mod resume;
mod retention;
mod round_trip;
mod scenarios;
mod slow;
#[cfg(feature = "fs")]
mod syncs;
mod verify;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::*;
use crate::error::{Error, Result};
use crate::pipeline::{Ack, Input, PipelineConfig};

/// Small pieces, so that little data makes many parts and segments.
fn config() -> PipelineConfig {
    PipelineConfig {
        memory_limit: 64 << 20,
        transfer_bytes: 64 << 10,
        frame_bytes: 64 << 10,
        part_bytes: 64 << 10,
        segment_bytes: 300_000,
        threads: 1,
        ..PipelineConfig::default()
    }
}

fn options(stripes: u16) -> BackupOptions {
    BackupOptions::default().stripes(stripes).pipeline(config())
}

/// Bytes that do not compress and differ from place to place.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// The content of a stripe as its producer sends it, ended as complete.
fn complete(content: &Bytes) -> impl futures::Stream<Item = Result<Input>> + Send + 'static + use<> {
    pieces(content).chain(stream::iter([Ok(Input::Complete(Ack::new(|_| {})))]))
}

fn pieces(content: &Bytes) -> impl futures::Stream<Item = Result<Input>> + Send + 'static + use<> {
    let pieces: Vec<Bytes> = content.chunks(50_000).map(Bytes::copy_from_slice).collect();
    stream::iter(pieces.into_iter().map(|piece| Ok(Input::Data(piece))))
}

async fn back_up(store: &Store, contents: &[Bytes]) -> Result<BackupReport> {
    let mut backup = Backup::begin(store, "orders", options(u16::try_from(contents.len()).unwrap())).await?;
    for (stripe, content) in (0..).zip(contents) {
        backup.stripe_input(stripe, complete(content))?;
    }
    backup.commit().await
}

async fn restore(store: &Store, manifest: &Manifest) -> Result<Vec<Bytes>> {
    let restore = Restore::begin(store, manifest, RestoreOptions::default().pipeline(config()))?;
    let mut contents = Vec::new();
    for stripe in 0..restore.stripes() {
        // Copied piece by piece: each is memory of the pipeline, and only a few exist.
        let content = restore.stripe(stripe).try_fold(Vec::new(), async |mut content, piece| {
            content.extend_from_slice(&piece);
            Ok(content)
        });
        contents.push(content.await?.into());
    }
    Ok(contents)
}

fn latest() -> (Series, Select) {
    ("orders".parse().unwrap(), Select::Latest)
}

async fn names(store: &Store) -> Vec<String> {
    store.list("").await.unwrap().into_iter().map(|object| object.name).collect()
}

fn given_up() -> Error {
    Error::new(crate::ErrorKind::Aborted, "the test gives up")
}
