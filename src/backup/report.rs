//! What a finished backup was like.

use std::time::Duration;

use super::manifest::Manifest;
use super::session::Session;
use crate::pipeline::Progress;

/// A committed backup, and what it took.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackupReport {
    /// What was committed.
    pub manifest: Manifest,
    /// From its beginning, or from where it was resumed, to its commit.
    pub elapsed: Duration,
    /// The pipeline's counters at the end: where time was spent, the peak of memory.
    pub progress: Progress,
}

impl BackupReport {
    pub(super) fn new(session: &Session, manifest: Manifest, started: Duration) -> Self {
        let elapsed = session.store.time().now().saturating_sub(started);
        Self { manifest, elapsed, progress: session.pipeline.progress() }
    }
}
