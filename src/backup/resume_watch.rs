//! How far the look at what is stored of a backup that is resumed is, for whoever watches it.

use std::sync::Arc;

use crate::sync::Mutex;

/// How much of what is stored of a backup that is resumed was read back and checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResumeProgress {
    /// Stored bytes of the segments to read. `None` until it is known which segments those are. Becomes less when one turns out to be
    /// damaged, because the rest of it and what follows it in its stripe need not be read.
    pub total_bytes: Option<u64>,
    /// So much of that was read and checked. All of it at the end.
    pub read_bytes: u64,
}

/// Asks a backup that is resumed how far the look at what is stored of it is, before [`Backup::resume`](super::Backup::resume)
/// returns.
///
/// Give it to one by [`ResumeOptions::watch`](super::ResumeOptions::watch) and keep a clone: clones see the same. It stays what it was
/// last when the look has ended, or was given up.
#[derive(Debug, Clone, Default)]
pub struct ResumeWatch {
    progress: Arc<Mutex<ResumeProgress>>,
}

impl ResumeWatch {
    /// One of a look that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was read so far.
    pub fn progress(&self) -> ResumeProgress {
        *self.progress.lock()
    }

    /// It is known what to read; nothing of it was.
    pub(super) fn begin(&self, total: u64) {
        *self.progress.lock() = ResumeProgress { total_bytes: Some(total), read_bytes: 0 };
    }

    /// So much more was read.
    pub(super) fn read(&self, bytes: u64) {
        self.progress.lock().read_bytes += bytes;
    }

    /// So much need not be read after all.
    pub(super) fn spare(&self, bytes: u64) {
        let mut progress = self.progress.lock();
        progress.total_bytes = progress.total_bytes.map(|total| total.saturating_sub(bytes));
    }
}
