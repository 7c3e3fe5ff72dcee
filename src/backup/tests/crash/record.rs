//! Running a shape on a store that records.

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::clock::Clock;
use crate::testing::{Bucket, Contents, Log, RecordingStore, SimClock};

/// What a shape did.
pub(super) struct Run {
    /// The bucket before it.
    pub(super) before: Contents,
    pub(super) log: Log,
    /// The time of its end, which everything that it wrote has.
    pub(super) at: Timestamp,
    pub(super) clock: SimClock,
    pub(super) backups: Vec<Known>,
}

/// A backup that may be seen.
pub(super) struct Known {
    pub(super) id: BackupId,
    pub(super) content: Vec<Bytes>,
    /// Where in the log its commit was asked for, and where it was answered with success; nothing if that was before the log.
    pub(super) commit: Option<(usize, usize)>,
    /// The same of its deletion.
    pub(super) deletion: Option<(usize, usize)>,
}

impl Known {
    /// True if it may be visible after so many events.
    pub(super) fn may_exist(&self, events: usize) -> bool {
        self.commit.is_none_or(|(asked, _)| events > asked) && self.deletion.is_none_or(|(_, done)| events < done)
    }

    /// True if it must be.
    pub(super) fn must_exist(&self, events: usize) -> bool {
        self.commit.is_none_or(|(_, done)| events >= done) && self.deletion.is_none_or(|(asked, _)| events <= asked)
    }
}

/// A shape that runs.
pub(super) struct Recorder {
    pub(super) store: Store,
    pub(super) clock: SimClock,
    pub(super) recording: RecordingStore,
    before: Contents,
    backups: Vec<Known>,
}

impl Recorder {
    /// On a bucket that holds `contents`, among them these backups.
    pub(super) fn new(contents: Contents, backups: Vec<Known>, clock: SimClock, seed: u64) -> Self {
        let bucket = Bucket::new(contents.clone(), clock.shared());
        let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket)).interleaved(seed);
        Self { store: on(&recording, &clock), clock, recording, before: contents, backups }
    }

    /// So many events so far.
    pub(super) fn events(&self) -> usize {
        self.recording.log().len()
    }

    /// A backup with this content, one stripe for each. Its input is all there.
    pub(super) async fn begin(&self, content: &[Bytes], options: BackupOptions) -> Backup {
        let stripes = u16::try_from(content.len()).unwrap();
        let mut backup = Backup::begin(&self.store, "orders", options.stripes(stripes)).await.unwrap();
        for (stripe, content) in (0..).zip(content) {
            backup.stripe_input(stripe, complete(content)).unwrap();
        }
        backup
    }

    pub(super) async fn back_up(&mut self, content: &[Bytes], options: BackupOptions) -> BackupId {
        let mut backup = self.begin(content, options).await;
        backup.wait_stripes().await.unwrap();
        let (id, asked) = (backup.id(), self.events());
        backup.commit().await.unwrap();
        self.backups.push(Known {
            id,
            content: content.to_vec(),
            commit: Some((asked, self.events())),
            deletion: None,
        });
        id
    }

    /// These were deleted since the log had `asked` events.
    pub(super) fn deleted(&mut self, ids: &[BackupId], asked: usize) {
        let done = self.events();
        for known in self.backups.iter_mut().filter(|known| ids.contains(&known.id)) {
            known.deletion = Some((asked, done));
        }
    }

    pub(super) async fn end(self) -> Run {
        self.store.wait_idle().await;
        let Self { clock, recording, before, backups, .. } = self;
        Run { before, log: recording.log(), at: clock.wall(), clock, backups }
    }
}
