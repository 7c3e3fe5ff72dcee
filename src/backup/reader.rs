//! `Restore`: a backup set that is being read back.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use tokio::task::JoinHandle;
use tracing::Span;

use super::encryption;
use super::manifest::Manifest;
use super::options::RestoreOptions;
use super::segments::Segments;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::meter::{self, Counted, Gauge};
use crate::pipeline::{Identities, Pipeline, Progress};

/// A backup set that is being read back, stripe by stripe or all at once.
///
/// Every byte is verified before it is handed out.
#[derive(Debug)]
pub struct Restore {
    pub(super) store: Store,
    /// What feeds the readers that were taken.
    pub(super) feeds: Vec<JoinHandle<Result<()>>>,
    manifest: Manifest,
    pipeline: Pipeline,
    /// What everything of the restore is traced in.
    span: Span,
    _active: Counted,
}

impl Restore {
    /// Plans the restore of a backup that [`find`](super::find) has found.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if the memory limit does not suffice for its stripes and frames; the message names one that does.
    /// [`ErrorKind::Locked`] if the backup is encrypted and no key was given. That a key is the wrong one is known when the
    /// first segment is read.
    pub fn begin(store: &Store, manifest: &Manifest, options: RestoreOptions) -> Result<Self> {
        let pipeline = pipeline(store, manifest, options.pipeline, options.identities)?;
        let span = tracing::info_span!("restore", series = %manifest.series, id = %manifest.id);
        let active = Counted::new(&Gauge::new(&meter::ACTIVE_RESTORES, &[]));
        Ok(Self {
            store: store.clone(),
            feeds: Vec::new(),
            manifest: manifest.clone(),
            pipeline,
            span,
            _active: active,
        })
    }

    /// What is restored.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u16 {
        u16::try_from(self.manifest.stripes.len()).unwrap_or(u16::MAX)
    }

    /// The pipeline: its memory plan, its budget, its progress.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// What was done so far.
    pub fn progress(&self) -> Progress {
        self.pipeline.progress()
    }

    /// The raw bytes of `stripe` in order. An error is the last item; no wrong byte comes before it.
    ///
    /// Drop each piece soon: it is memory of the pipeline. Dropping the stream ends the reading.
    pub fn stripe(&self, stripe: u16) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        match self.manifest.stripes.get(usize::from(stripe)) {
            Some(summary) => self.span.in_scope(|| self.pipeline.restore_stripe(stripe, summary)).left_stream(),
            None => {
                let count = self.manifest.stripes.len();
                let error = Error::new(ErrorKind::Invalid, format!("there is no stripe {stripe}, only {count} from 0"));
                stream::iter([Err(error)]).right_stream()
            }
        }
    }

    /// Writes all of `stripe` to `target` and flushes it; returns the number of bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if the stored data is damaged, those of the store, and those of `target`.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: some bytes were written.
    pub async fn write_to<W: AsyncWrite + Unpin>(&self, stripe: u16, target: &mut W) -> Result<u64> {
        let mut frames = std::pin::pin!(self.stripe(stripe));
        let mut count = 0;
        while let Some(bytes) = frames.next().await {
            let bytes = bytes?;
            let written = target.write_all(&bytes).await;
            written
                .map_err(|error| Error::from(error).context(format!("cannot write the output of stripe {stripe}")))?;
            count += bytes.len() as u64;
        }
        let flushed = target.flush().await;
        flushed.map_err(|error| Error::from(error).context(format!("cannot write the output of stripe {stripe}")))?;
        Ok(count)
    }
}

/// The pipeline that reads `manifest`.
pub(super) fn pipeline(
    store: &Store,
    manifest: &Manifest,
    mut config: crate::pipeline::PipelineConfig,
    identities: Option<Identities>,
) -> Result<Pipeline> {
    encryption::check_key(manifest, identities.as_ref())?;
    // Bounded by the check of the manifest.
    config.frame_bytes = usize::try_from(manifest.frame_bytes).unwrap_or(usize::MAX);
    let stripes = u16::try_from(manifest.stripes.len()).unwrap_or(u16::MAX);
    let segments = Segments::new(store, manifest.names());
    let is_encrypted = manifest.encryption.is_some();
    Pipeline::restore(config, stripes, Arc::new(segments), Arc::clone(store.time()), is_encrypted, identities)
}
