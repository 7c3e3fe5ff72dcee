//! The content, as a restore would read it.

use futures::{StreamExt, stream};

use super::choice::Segment;
use super::report::{Damage, VerifyReport};
use super::waiting::Waiting;
use super::watch::{Reading, VerifyWatch};
use crate::backup::manifest::Manifest;
use crate::backup::reader;
use crate::backup::store::Store;
use crate::error::{ErrorKind, Result};
use crate::pipeline::{Identities, Pipeline, PipelineConfig};

/// Decompresses and checks `chosen`; what is damaged goes to the report.
pub(super) async fn check(
    store: &Store,
    manifest: &Manifest,
    chosen: &[Segment<'_>],
    config: PipelineConfig,
    identities: Option<Identities>,
    watch: &VerifyWatch,
    report: &mut VerifyReport,
) -> Result<()> {
    let pipeline = reader::pipeline(store, manifest, config, identities)?;
    let _watched = watch.begin(Waiting::Content(pipeline.clone()));
    let stripes: Vec<_> = chosen.chunk_by(|a, b| a.id.stripe == b.id.stripe).collect();
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..stripes.len())
        .map(|number| stripe(&pipeline, stripes[number], watch))
        // All stripes are planned for; they share the memory.
        .buffer_unordered(manifest.stripes.len().max(1));
    while let Some(outcome) = outcomes.next().await {
        let (raw_bytes, damage) = outcome?;
        report.raw_bytes += raw_bytes;
        report.damage.extend(damage);
    }
    Ok(())
}

/// Some segments of one stripe. After a damaged one it goes on with the next.
async fn stripe(pipeline: &Pipeline, mut segments: &[Segment<'_>], watch: &VerifyWatch) -> Result<(u64, Vec<Damage>)> {
    let (mut raw_bytes, mut damage) = (0, Vec::new());
    while let Some(first) = segments.first() {
        let summaries = segments.iter().map(|segment| segment.summary.clone()).collect();
        let mut frames = std::pin::pin!(pipeline.restore_segments(first.id.stripe, summaries));
        // Everything comes in order, so what was delivered tells which segment failed.
        let mut reading = Reading::new(segments);
        let error = loop {
            match frames.next().await {
                Some(Ok(bytes)) => {
                    let bytes = bytes.len() as u64;
                    raw_bytes += bytes;
                    let stored = reading.add(bytes);
                    watch.update(|progress| {
                        progress.raw_bytes += bytes;
                        progress.read_bytes += stored;
                    });
                }
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        let Some(error) = error else { break };
        let Some((failed, unread)) = reading.broken() else { return Err(error) };
        watch.spare(unread);
        let segment = &segments[failed];
        match error.kind() {
            // `Invalid`: its frames are larger than the manifest says.
            ErrorKind::Corrupt | ErrorKind::Invalid => {
                damage.push(Damage::of(segment, error));
                watch.found();
            }
            _ => return Err(error),
        }
        segments = &segments[failed + 1..];
    }
    Ok((raw_bytes, damage))
}
