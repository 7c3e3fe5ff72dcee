//! What reads hostile segments, and what must hold of all that it delivers.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::shelf::Shelf;
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::pipeline::{Pipeline, PipelineConfig, SegmentSummary, StripeSummary};

/// The size of every frame but the last, as an index has it.
pub(super) const FRAME_BYTES: u32 = 64 << 10;
pub(super) const FRAME: usize = FRAME_BYTES as usize;
/// The memory limit of the pipelines.
pub(super) const MEMORY: u64 = 8 << 20;
/// The most bytes of one read: a range has at least 256 KiB, and an encrypted one up to two chunks more.
pub(super) const MOST_READ: u64 = (256 << 10) + 2 * (64 << 10) + 6 * 16;

/// What reads hostile segments: pipelines with little memory and small parts, over a store that holds what it is given.
#[derive(Debug)]
pub struct Bench {
    pub(super) shelf: Arc<Shelf>,
    pub(super) plain: Pipeline,
    #[cfg(feature = "encryption")]
    pub(super) opening: Pipeline,
}

impl Bench {
    /// One that can be used as often as one likes, by one caller at a time.
    ///
    /// # Errors
    ///
    /// None: the memory suffices.
    pub fn new() -> Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let config = PipelineConfig {
            memory_limit: MEMORY,
            frame_bytes: FRAME,
            part_bytes: FRAME,
            threads: 1,
            depth: 0,
            ..PipelineConfig::default()
        };
        Ok(Self {
            #[cfg(feature = "encryption")]
            opening: Pipeline::for_encrypted_restore(
                config.clone(),
                1,
                Arc::<Shelf>::clone(&shelf),
                SystemClock::shared(),
                super::sealed::identities()?,
            )?,
            plain: Pipeline::for_restore(config, 1, Arc::<Shelf>::clone(&shelf), SystemClock::shared())?,
            shelf,
        })
    }

    /// Restores these objects as `segments` say. Answers what was delivered before the end or the error.
    pub(super) async fn restore(
        &self,
        pipeline: &Pipeline,
        objects: Vec<Bytes>,
        segments: Vec<SegmentSummary>,
    ) -> (Vec<u8>, Option<Error>) {
        self.shelf.hold(objects);
        let summary = StripeSummary {
            raw_bytes: segments.iter().map(|segment| segment.raw_bytes).sum(),
            stored_bytes: segments.iter().map(|segment| segment.stored_bytes).sum(),
            segments,
        };
        let mut delivered = Vec::new();
        let mut error = None;
        {
            let mut frames = std::pin::pin!(pipeline.restore_stripe(0, &summary));
            while let Some(frame) = frames.next().await {
                assert!(error.is_none(), "something follows an error");
                match frame {
                    Ok(bytes) => delivered.extend_from_slice(&bytes),
                    Err(failed) => error = Some(failed),
                }
            }
        }
        self.is_bounded(pipeline).await;
        (delivered, error)
    }

    /// Nothing runs any more, and nothing was ever larger than it may be.
    pub(super) async fn is_bounded(&self, pipeline: &Pipeline) {
        pipeline.wait_idle().await;
        assert!(pipeline.budget().peak() <= MEMORY, "{} bytes of memory", pipeline.budget().peak());
        let longest = self.shelf.longest();
        assert!(longest <= MOST_READ, "{longest} bytes were asked for at once");
    }
}

/// What must hold of everything that is restored. Answers whether that is all of `content`.
pub(super) fn is_honest(content: &[u8], delivered: &[u8], error: Option<&Error>) -> bool {
    assert!(content.starts_with(delivered), "a wrong byte was delivered");
    assert!(error.is_some() || delivered.len() == content.len(), "an end without an error came too early");
    error.is_none()
}
