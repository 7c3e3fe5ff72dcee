//! Running a shape on a store that records.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::clock::Clock;
use crate::testing::{Bucket, Contents, Effect, Event, Log, Operation, RecordingStore, SimClock};

/// What a shape did.
pub(super) struct Run {
    /// The bucket before it.
    pub(super) before: Contents,
    pub(super) log: Log,
    /// The time of its end, which everything that it wrote has.
    pub(super) at: Timestamp,
    pub(super) clock: SimClock,
    pub(super) backups: Vec<Known>,
    /// What is not committed is also resumed, not only collected.
    pub(super) is_resumed: bool,
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
    bucket: Bucket,
    before: Contents,
    backups: Vec<Known>,
    is_resumed: bool,
}

impl Recorder {
    /// On a bucket that holds `contents`, among them these backups.
    pub(super) fn new(contents: Contents, backups: Vec<Known>, clock: SimClock, seed: u64) -> Self {
        let bucket = Bucket::new(contents.clone(), clock.shared());
        let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone())).interleaved(seed);
        let store = on(&recording, &clock);
        Self { store, clock, recording, bucket, before: contents, backups, is_resumed: false }
    }

    /// The same on a bucket in which parts take longer to arrive than they are waited for after an abort.
    pub(super) fn with_late_parts(self, seed: u64) -> Self {
        let bucket = Bucket::new(self.before.clone(), self.clock.shared()).with_late_parts();
        let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone())).interleaved(seed);
        Self { store: on(&recording, &self.clock), recording, bucket, ..self }
    }

    /// So many events so far.
    pub(super) fn events(&self) -> usize {
        self.recording.log().len()
    }

    /// A backup with this content, one stripe for each. Its input is all there.
    pub(super) async fn begin(&self, content: &[Bytes], options: BackupOptions) -> Backup {
        let mut backup = Backup::begin(&self.store, "orders", options.stripes(stripes(content))).await.unwrap();
        for (stripe, content) in (0..).zip(content) {
            backup.stripe_input(stripe, complete(content)).unwrap();
        }
        backup
    }

    /// The same, to its commit.
    pub(super) async fn make(&self, content: &[Bytes], options: BackupOptions) -> Known {
        let mut backup = self.begin(content, options).await;
        backup.wait_stripes().await.unwrap();
        let (id, asked) = (backup.id(), self.events());
        backup.commit().await.unwrap();
        Known { id, content: content.to_vec(), commit: Some((asked, self.events())), deletion: None }
    }

    pub(super) async fn back_up(&mut self, content: &[Bytes], options: BackupOptions) -> BackupId {
        let known = self.make(content, options).await;
        let id = known.id;
        self.backups.push(known);
        id
    }

    /// A backup that may be seen besides.
    pub(super) fn expect(&mut self, known: Known) {
        self.backups.push(known);
    }

    /// Begins a backup, or goes on with one, in a process of its own that is killed when it has stored a segment of the first stripe, and
    /// has just asked for one of another. Of the first stripe it has `sent` bytes by then, of the others everything. Its requests in
    /// flight are never answered, and may have their effect at any time.
    pub(super) fn killed(
        &mut self,
        resumed: Option<BackupId>,
        content: &[Bytes],
        options: BackupOptions,
        sent: usize,
    ) -> BackupId {
        self.is_resumed = true;
        let segments = |bucket: &Bucket| bucket.contents().objects.keys().filter(|name| name.ends_with(".zst")).count();
        let (recording, bucket, clock) = (self.recording.clone(), self.bucket.clone(), self.clock.clone());
        let process = async move || {
            let store = on(&recording, &clock);
            let (before, asked_before) = (segments(&bucket), asked(&recording));
            let mut backup = match resumed {
                None => Backup::begin(&store, "orders", options.stripes(stripes(content))).await.unwrap(),
                Some(id) => Backup::resume(&store, "orders", id, at_once(&options)).await.unwrap(),
            };
            let offsets = backup.offsets();
            for ((stripe, content), offset) in (0..).zip(content).zip(offsets) {
                let offset = usize::try_from(offset).unwrap();
                if stripe == 0 {
                    let source = pieces(&content.slice(offset..sent)).chain(stream::pending());
                    backup.stripe_input(stripe, source).unwrap();
                    continue;
                }
                let bucket = bucket.clone();
                let gate = stream::once(async move {
                    while segments(&bucket) == before {
                        tokio::task::yield_now().await;
                    }
                    Ok(Input::Data(Bytes::new()))
                });
                backup.stripe_input(stripe, gate.chain(complete(&content.slice(offset..)))).unwrap();
            }
            while segments(&bucket) == before {
                tokio::task::yield_now().await;
            }
            // Nothing more is asked for if all of the other stripe was kept.
            for _ in 0..1000 {
                if asked(&recording) > asked_before {
                    break;
                }
                tokio::task::yield_now().await;
            }
            backup.id()
        };
        // With its runtime all that the process does ends where it stands.
        let run = || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(process());
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    /// Goes on with a backup to its commit. Answers when that was asked for.
    pub(super) async fn finish(&self, mut backup: Backup, content: &[Bytes], replays: bool) -> Result<usize> {
        let offsets = backup.offsets();
        for ((stripe, content), offset) in (0..).zip(content).zip(offsets) {
            let mut rest = content.clone();
            if replays {
                backup.replay(stripe).unwrap();
            } else {
                rest = rest.slice(usize::try_from(offset).unwrap()..);
            }
            backup.stripe_input(stripe, complete(&rest)).unwrap();
        }
        backup.wait_stripes().await?;
        let asked = self.events();
        backup.commit().await.map(|_| asked)
    }

    /// Another process resumes the backup and commits it.
    pub(super) async fn resume(&mut self, id: BackupId, content: &[Bytes], options: BackupOptions, replays: bool) {
        let backup = Backup::resume(&self.store, "orders", id, at_once(&options)).await.unwrap();
        let asked = self.finish(backup, content, replays).await.unwrap();
        let commit = Some((asked, self.events()));
        self.backups.push(Known { id, content: content.to_vec(), commit, deletion: None });
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
        let Self { clock, recording, before, backups, is_resumed, .. } = self;
        Run { before, log: recording.log(), at: clock.wall(), clock, backups, is_resumed }
    }
}

/// How a backup with these options is resumed, however young it is.
pub(super) fn at_once(options: &BackupOptions) -> ResumeOptions {
    ResumeOptions::default().pipeline(options.pipeline.clone()).silence(Duration::ZERO)
}

/// How many segments were to be stored whole so far.
fn asked(recording: &RecordingStore) -> usize {
    let is_segment = |event: &&Event| matches!(event, Event::Began { operation: Operation::Change(Effect::Put { object, .. }) } if object.ends_with(".zst"));
    recording.log().events().iter().filter(is_segment).count()
}

fn stripes(content: &[Bytes]) -> u16 {
    u16::try_from(content.len()).unwrap()
}
