//! Small backups: sizes around every boundary, made and read back.

use std::future;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use vdstream::backup::{Backup, BackupOptions, Manifest, Restore, RestoreOptions, Store};
use vdstream::pipeline::{Ack, Input, PipelineConfig};
use vdstream::{Error, Result};

use crate::data::Pattern;

/// Raw bytes of a frame; the smallest that is allowed.
pub const FRAME: usize = 64 << 10;

/// Bytes of a part.
pub const PART: usize = 128 << 10;

/// Stored bytes after which a segment ends.
pub const SEGMENT: usize = 512 << 10;

/// Bytes of one device buffer.
pub const TRANSFER: usize = 64 << 10;

/// Lengths of a stripe around every boundary that there is.
pub const SIZES: [usize; 15] = [
    0,
    1,
    FRAME - 1,
    FRAME,
    FRAME + 1,
    PART - 1,
    PART,
    PART + 1,
    SEGMENT - 1,
    SEGMENT,
    SEGMENT + 1,
    2 * SEGMENT - 1,
    2 * SEGMENT,
    2 * SEGMENT + 1,
    3 * SEGMENT + FRAME + 7,
];

/// A pipeline in which a megabyte passes every boundary.
pub fn config() -> PipelineConfig {
    PipelineConfig {
        transfer_bytes: TRANSFER,
        depth: 2,
        frame_bytes: FRAME,
        part_bytes: PART,
        segment_bytes: SEGMENT as u64,
        threads: 2,
        concurrency: 4,
        ..PipelineConfig::default()
    }
}

/// Options with that pipeline.
pub fn options(stripes: u16) -> BackupOptions {
    BackupOptions::default().stripes(stripes).pipeline(config())
}

/// The first `len` bytes of the pattern, in pieces of a size that divides nothing.
pub fn pieces(pattern: Pattern, len: usize) -> impl Stream<Item = Result<Input>> + Send + 'static {
    const PIECE: usize = 10_007;
    stream::iter((0..len).step_by(PIECE)).map(move |offset| {
        let bytes = pattern.bytes(offset as u64, PIECE.min(len - offset));
        Ok(Input::Data(Bytes::from(bytes)))
    })
}

/// The same, and then the true end.
pub fn whole(pattern: Pattern, len: usize) -> impl Stream<Item = Result<Input>> + Send + 'static {
    pieces(pattern, len).chain(stream::once(future::ready(Ok(Input::Complete(Ack::new(|_durable| {}))))))
}

/// Makes a backup with one stripe for each pattern and length, and commits it.
///
/// # Errors
///
/// Those of the library.
///
/// # Panics
///
/// When there are more stripes than a backup can have.
pub async fn back_up(store: &Store, series: &str, stripes: &[(Pattern, usize)]) -> Result<Manifest> {
    let count = u16::try_from(stripes.len()).expect("few stripes");
    let mut backup = Backup::begin(store, series, options(count)).await?;
    for (stripe, (pattern, len)) in (0..).zip(stripes) {
        backup.stripe_input(stripe, whole(*pattern, *len))?;
    }
    Ok(backup.commit().await?.manifest)
}

/// Reads every stripe back, all at once.
///
/// # Errors
///
/// Those of the library.
pub async fn restore(store: &Store, manifest: &Manifest) -> Result<Vec<Vec<u8>>> {
    let restore = Restore::begin(store, manifest, RestoreOptions::default().pipeline(config()))?;
    let stripes = (0..restore.stripes()).map(|stripe| {
        let frames = restore.stripe(stripe);
        frames.try_fold(Vec::new(), |mut all, bytes| {
            all.extend_from_slice(&bytes);
            future::ready(Ok::<_, Error>(all))
        })
    });
    futures::future::try_join_all(stripes).await
}
