//! The segments of one backup as the pipeline writes and reads them, and what becomes of them at its end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::multipart::PartId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::claim::{Claim, Purpose};
use super::collection::uploads::{self, Ending};
use super::intent::UploadRecord;
use super::manifest::{MAX_SEGMENTS, Manifest};
use super::names::{MAX_STRIPE_SEGMENTS, Names, ObjectName};
use super::signs::Signs;
use super::store::{NAMES_AT_ONCE, Seen, Store, may_have_worked};
use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{SegmentId, SegmentStore, SegmentUpload};
use crate::sync::Mutex;

/// The objects of one backup.
///
/// Everything that makes or publishes an object runs in a tracked task, so that dropping the call does not lose its
/// outcome: [`Segments::remove_all`] waits for these tasks, and no object can appear after it has looked.
#[derive(Clone)]
pub(super) struct Segments {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    names: Names,
    /// When this process began or resumed the backup, by the clock that only goes on.
    started: Duration,
    /// Segments that were stored before.
    kept: usize,
    tasks: TaskTracker,
    /// Ends what hangs: nobody waits any longer.
    abandoned: CancellationToken,
    /// Uploads that are neither complete nor aborted.
    open: Mutex<HashMap<u64, Arc<Upload>>>,
    next_upload: AtomicUsize,
    /// How many records of uploads of each segment were written.
    attempts: Mutex<HashMap<SegmentId, u32>>,
    /// Segments that an object may exist of.
    begun: Mutex<BTreeSet<SegmentId>>,
    signs: Signs,
}

impl Segments {
    pub(super) fn new(store: &Store, names: Names) -> Self {
        Self::resumed(store, names, 0)
    }

    /// Those of a backup of which `kept` segments are stored already. The names tell whose claim it is.
    pub(super) fn resumed(store: &Store, names: Names, kept: usize) -> Self {
        let tasks = TaskTracker::new();
        tasks.close();
        Self {
            shared: Arc::new(Shared {
                store: store.clone(),
                names,
                started: store.time().now(),
                kept,
                tasks,
                abandoned: CancellationToken::new(),
                open: Mutex::default(),
                next_upload: AtomicUsize::new(0),
                attempts: Mutex::default(),
                begun: Mutex::default(),
                signs: Signs::new(Arc::clone(store.time())),
            }),
        }
    }

    /// True if a collection may have taken the backup for dead, now or before.
    pub(super) fn was_silent(&self) -> bool {
        self.shared.signs.was_silent()
    }

    /// A part of `upload` was stored, which a store does not show to others. Gives a sign of life beside the parts, if there was none for a
    /// while: another record of the upload.
    fn show_life(&self, upload: &Upload) {
        let shared = &self.shared;
        if !shared.signs.is_due() {
            return;
        }
        let (this, segment, id) = (self.clone(), upload.segment, upload.id.clone());
        let abandoned = shared.abandoned.clone();
        shared.tasks.spawn(async move {
            let given = abandoned.run_until_cancelled(this.give_sign(segment, id)).await;
            if let Some(Err(error)) = given {
                tracing::warn!(error = %error.report(), "a sign of life could not be given, or the one before stays");
            }
        });
    }

    /// The sign stays until the next one is there, whatever becomes of the upload meanwhile: a collection must not see an older one.
    async fn give_sign(&self, segment: SegmentId, upload: String) -> Result<()> {
        let (store, signs) = (&self.shared.store, &self.shared.signs);
        let dated = signs.now();
        let (name, record) = self.record(segment, upload);
        let old = match store.create(&name, record.encode()?.into()).await {
            Ok(()) => {
                signs.note(dated);
                signs.replace(name)
            }
            Err(error) => {
                // It may be there.
                let _cause_is_told = store.delete(&name).await;
                return Err(error);
            }
        };
        match old {
            Some(old) => store.delete(&old).await,
            None => Ok(()),
        }
    }

    /// After the end of the backup: removes what was only a sign of life.
    pub(super) async fn end_signs(&self) -> Result<()> {
        match self.shared.signs.take() {
            Some(name) => self.shared.store.delete(&name).await,
            None => Ok(()),
        }
    }

    /// The next record of an upload of a segment, and its name.
    fn record(&self, segment: SegmentId, upload: String) -> (String, UploadRecord) {
        let shared = &self.shared;
        let attempt = {
            let mut attempts = shared.attempts.lock();
            let attempt = attempts.entry(segment).or_insert(0);
            *attempt += 1;
            *attempt - 1
        };
        let (created, is_encrypted) = (shared.store.time().wall(), shared.names.is_encrypted());
        let (id, claim) = (shared.names.id(), shared.names.writers().of(segment));
        (shared.names.upload(segment, attempt), UploadRecord { id, segment, claim, is_encrypted, upload, created })
    }

    /// How long ago this process began or resumed the backup; less, if its machine has slept since.
    pub(super) fn running(&self) -> Duration {
        self.shared.store.time().now().saturating_sub(self.shared.started)
    }

    /// Runs `work` to its end even if the caller is dropped.
    async fn tracked<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let abandoned = self.shared.abandoned.clone();
        let task = self.shared.tasks.spawn(async move {
            let outcome = abandoned.run_until_cancelled(work).await;
            outcome.unwrap_or_else(|| Err(Error::new(ErrorKind::Aborted, "the request was given up")))
        });
        task.await
            .map_err(|error| Error::new(ErrorKind::Internal, "a task of the store panicked").with_source(error))?
    }

    /// Ends every task at once; the effect of a request in flight is unknown then.
    pub(super) async fn abandon(&self) {
        self.shared.abandoned.cancel();
        self.shared.tasks.wait().await;
        // An upload holds what it is listed in: one that stays listed would keep both, and the store, for ever.
        let _open = std::mem::take(&mut *self.shared.open.lock());
    }

    /// Counts a segment that is about to be stored, unless there are too many.
    fn count(&self, segment: SegmentId) -> Result<()> {
        let mut begun = self.shared.begun.lock();
        begun.insert(segment);
        if self.shared.kept + begun.len() <= MAX_SEGMENTS && segment.index < MAX_STRIPE_SEGMENTS {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Exhausted,
            format!("a backup has at most {MAX_SEGMENTS} segments, and this one needs more: use larger segments"),
        ))
    }

    /// Before the commit: waits for what still runs, and ends uploads that nobody knows of any more, because the answer to
    /// their beginning came too late.
    pub(super) async fn settle(&self) {
        let shared = &self.shared;
        shared.tasks.wait().await;
        let open: Vec<Arc<Upload>> = shared.open.lock().drain().map(|(_, upload)| upload).collect();
        for upload in open {
            match upload.give_up().await {
                Ok(Ending::Gone) => {}
                Ok(Ending::Doubtful) => tracing::info!(object = upload.name, "the record of an upload stays"),
                Err(error) => tracing::warn!(error = %error.report(), "an upload that is not used stays"),
            }
        }
    }

    /// Ends the backup without a commit. Nothing else may write when this is called.
    ///
    /// The process that began it removes every trace: running uploads, segments, records, and the intent at the end. One that
    /// has resumed it ends its running uploads, and leaves what is stored: another process may still commit that, and anybody
    /// may resume it. If a manifest is found, the backup exists and nothing is removed.
    pub(super) async fn remove_all(&self, is_begun: bool) -> Result<()> {
        let shared = &self.shared;
        shared.tasks.wait().await;
        let open: Vec<Arc<Upload>> = shared.open.lock().drain().map(|(_, upload)| upload).collect();
        let mut first = Ok(());
        let mut records = BTreeSet::new();
        for upload in open {
            let ended = match shared.store.retry(|| upload.give_up()).await {
                Ok(Ending::Gone) => continue,
                Ok(Ending::Doubtful) => Err(uploads::doubtful(&shared.store, &upload.name)),
                Err(error) => Err(error),
            };
            // It is what a collection finds the upload by.
            records.insert(upload.record_name.clone());
            first = first.and(ended);
        }
        first = first.and(self.end_signs().await);
        match shared.names.writers().next() {
            0 => self.remove(is_begun, &records, first).await,
            claim => first.and(release(&shared.store, &shared.names, claim).await),
        }
    }

    /// Removes everything, if that is still for the process that began the backup to do.
    /// These records stay.
    async fn remove(&self, is_begun: bool, records: &BTreeSet<String>, mut first: Result<()>) -> Result<()> {
        let shared = &self.shared;
        // From here on nobody can resume it, and who has already is the owner of what is stored. Without an intent there is
        // nothing to resume.
        let mark = Claim::new(&shared.store, &shared.names, FIRST_CLAIM, Purpose::Remove);
        if is_begun {
            match mark.write(&shared.store, &shared.names).await {
                Err(taken) if taken.kind() == ErrorKind::Conflict => {
                    tracing::info!(id = %shared.names.id(), "another process has resumed the backup; nothing is removed");
                    return first;
                }
                outcome => outcome?,
            }
        }
        let directory = shared.names.directory();
        let own = Own { names: &shared.names, records };
        let found = match shared.store.fold(&directory, |found: &mut Found, seen| own.see(found, seen)).await {
            Ok(found) => found,
            Err(error) => return first.and(Err(error)),
        };
        // Another process has resumed and committed it, and somebody has deleted that: it stays for its readers.
        if found.is_deleted {
            return first;
        }
        if found.is_complete {
            let manifest = shared.store.show(&shared.names.manifest());
            let message = format!("{manifest} exists: the backup is complete and stays");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        // Most listings are complete; what is known to have been written is deleted all the same.
        let mut names = found.names;
        names.extend(shared.begun.lock().iter().map(|segment| shared.names.segment(*segment)));
        if shared.names.is_encrypted() {
            names.insert(shared.names.of(&ObjectName::Identity));
        }
        let names: Vec<String> = names.into_iter().collect();
        first = first.and(shared.store.delete_all(&names).await);
        if found.has_more {
            first = first.and(shared.store.delete_below(&directory, |name| own.goes(name)).await);
        }
        // As long as something is left, the intent is what finds it.
        first?;
        shared.store.delete(&shared.names.intent()).await?;
        // At the very end, so that whoever comes finds no intent, or that it is being removed.
        match is_begun {
            true => shared.store.delete(&shared.names.of(&ObjectName::Claim(FIRST_CLAIM))).await,
            false => Ok(()),
        }
    }

    /// After the commit of a backup that was resumed: removes what processes that were taken over from have left.
    ///
    /// The manifest is there, so theirs cannot come any more, and what it does not name belongs to nobody.
    pub(super) async fn tidy(&self, manifest: &Manifest) -> Result<()> {
        let shared = &self.shared;
        let named: HashSet<String> = manifest.objects().map(|(_, name, _)| name).collect();
        let outcome = end_uploads(&shared.store, &shared.names, |_| true).await;
        let is_left = |name: &str| match shared.names.parse(name) {
            Some(ObjectName::Partial) => true,
            Some(parsed) => parsed.as_segment().is_some() && !named.contains(name),
            None => false,
        };
        outcome.and(shared.store.delete_below(&shared.names.directory(), is_left).await)
    }
}

/// What belongs to the process that began a backup, and goes with it.
struct Own<'a> {
    names: &'a Names,
    /// Records of uploads that stay.
    records: &'a BTreeSet<String>,
}

/// What a listing tells of it.
#[derive(Default)]
struct Found {
    is_complete: bool,
    is_deleted: bool,
    /// Some that go, and whether there are more.
    names: BTreeSet<String>,
    has_more: bool,
}

impl Own<'_> {
    fn goes(&self, name: &str) -> bool {
        match self.names.parse(name) {
            Some(
                ObjectName::Manifest
                | ObjectName::Deleted(_)
                | ObjectName::Intent
                | ObjectName::Claim(_)
                | ObjectName::Resumed { .. },
            )
            | None => false,
            Some(ObjectName::Upload { .. }) => !self.records.contains(name),
            Some(_) => true,
        }
    }

    fn see(&self, found: &mut Found, seen: Seen) {
        match self.names.parse(&seen.name) {
            Some(ObjectName::Manifest) => found.is_complete = true,
            Some(ObjectName::Deleted(_)) => found.is_deleted = true,
            Some(_) if !self.goes(&seen.name) => {}
            Some(_) if found.names.len() >= NAMES_AT_ONCE => found.has_more = true,
            Some(_) => drop(found.names.insert(seen.name)),
            None => tracing::warn!(object = seen.name, "an object that is not ours stays"),
        }
    }
}

/// Tells that the owner of `claim` has ended in good order.
pub(super) async fn release(store: &Store, names: &Names, claim: u32) -> Result<()> {
    match Claim::new(store, names, claim + 1, Purpose::Release).write(store, names).await {
        // Somebody else has taken it over already.
        Err(taken) if taken.kind() == ErrorKind::Conflict => Ok(()),
        outcome => outcome,
    }
}

/// Ends the recorded uploads that are `wanted`, whoever began them, and removes their records. Where a part may still arrive that
/// the process before has sent, the record stays for a collection.
pub(super) async fn end_uploads(store: &Store, names: &Names, wanted: impl Fn(u32) -> bool) -> Result<()> {
    let is_wanted = |name: &str| matches!(names.parse(name), Some(ObjectName::Upload { claim, .. }) if wanted(claim));
    let directory = format!("{}/uploads", names.directory());
    let mut records = store.some_of(&directory, MOST_RECORDS + 1, is_wanted).await?;
    if records.len() > MOST_RECORDS {
        let message = format!(
            "{} has more than {MOST_RECORDS} records of running uploads; no backup has so many",
            store.show(&names.directory())
        );
        return Err(Error::new(ErrorKind::Exhausted, message));
    }
    records.sort_unstable();
    let mut gone = records.clone();
    for refused in uploads::abort_for_good(store, names, &records).await? {
        // Nobody can say more now.
        if refused.error.kind() != ErrorKind::Unavailable {
            return Err(refused.error);
        }
        tracing::info!(error = %refused.error.report(), "the record of an upload stays");
        gone.retain(|record| *record != refused.name);
    }
    store.delete_all(&gone).await
}

/// Records of running uploads that are read of one backup. A process has no more of them than requests at once, and leaves those of
/// its last moment.
const MOST_RECORDS: usize = NAMES_AT_ONCE;

/// The claim that stands against every later one.
const FIRST_CLAIM: u32 = 1;

impl fmt::Debug for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segments").field("names", &self.shared.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl SegmentStore for Segments {
    fn min_part_bytes(&self) -> u64 {
        self.shared.store.limits().min_part_bytes
    }

    fn max_parts(&self) -> u32 {
        self.shared.store.limits().max_parts
    }

    fn describe(&self, segment: SegmentId) -> String {
        self.shared.store.show(&self.shared.names.segment(segment))
    }

    async fn put(&self, segment: SegmentId, payload: Vec<Bytes>) -> Result<()> {
        self.count(segment)?;
        let (store, name) = (self.shared.store.clone(), self.shared.names.segment(segment));
        let begun = self.shared.signs.now();
        self.tracked(async move { store.create_segment(&name, payload).await }).await?;
        self.shared.signs.note(begun);
        Ok(())
    }

    async fn begin(&self, segment: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        self.count(segment)?;
        let this = self.clone();
        self.tracked(async move { this.start(segment).await }).await
    }

    async fn read(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes> {
        let name = self.shared.names.segment(segment);
        match self.shared.store.read_range(&name, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Ok(bytes) => Err(self.short(&name, range, came(bytes.len())).await),
            Err(error) => Err(self.short(&name, range, error).await),
        }
    }

    async fn read_into(&self, segment: SegmentId, range: Range<u64>, target: SlotMut) -> Result<SlotMut> {
        let name = self.shared.names.segment(segment);
        match self.shared.store.read_into(&name, range.clone(), target).await {
            Ok(filled) if filled.len() as u64 == range.end - range.start => Ok(filled),
            Ok(filled) => Err(self.short(&name, range, came(filled.len())).await),
            Err(error) => Err(self.short(&name, range, error).await),
        }
    }
}

fn came(count: usize) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{count} bytes came"))
}

impl Segments {
    /// A read failed or fell short: looks whether the object is what it should be.
    async fn short(&self, name: &str, range: Range<u64>, error: Error) -> Error {
        let store = &self.shared.store;
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Invalid | ErrorKind::NotFound) {
            return error;
        }
        // Stores say in many ways that an object is shorter than asked for; its size says it in one.
        match store.find_size_once(name).await {
            Ok(None) => missing(&store.show(name)),
            Ok(Some(size)) if size < range.end => Error::new(
                ErrorKind::Corrupt,
                format!("{}, offset {size}: expected at least {} bytes, found {size}", store.show(name), range.end),
            ),
            _ => error,
        }
    }
}

/// An object that a manifest names is not there.
pub(super) fn missing(object: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{object}, offset 0: expected an object, found none"))
}

impl Segments {
    /// Starts an upload and records it. The record comes after the upload's id is known and before its first part:
    /// what a crash between the two leaves is an upload without parts.
    async fn start(&self, segment: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        let shared = &self.shared;
        let name = shared.names.segment(segment);
        let path = shared.store.path(&name);
        let begun = self.shared.signs.now();
        let id = shared.store.begin_upload(&path).await;
        let id = id.map_err(|error| shared.store.error(&error, "begin the upload of", &name))?;
        let (record_name, record) = self.record(segment, id.clone());
        let key = shared.next_upload.fetch_add(1, Ordering::Relaxed) as u64;
        let upload = Arc::new(Upload {
            segments: self.clone(),
            key,
            segment,
            name,
            record_name,
            id,
            parts: Mutex::default(),
            is_in_doubt: AtomicBool::new(false),
            completing: AtomicBool::new(false),
            finishing: tokio::sync::Mutex::new(()),
        });
        shared.open.lock().insert(key, Arc::clone(&upload));
        if let Err(error) = shared.store.create(&upload.record_name, record.encode()?.into()).await {
            // It stays in the list of open uploads if this fails too.
            let _ = upload.give_up().await;
            return Err(error);
        }
        // The record is a sign now, and the object later: Amazon dates it by the beginning of its upload, a local disk by the last
        // part. So its completion is none.
        self.shared.signs.note(begun);
        Ok(Box::new(Handle(upload)))
    }
}

/// One upload in parts.
struct Upload {
    segments: Segments,
    key: u64,
    segment: SegmentId,
    name: String,
    record_name: String,
    /// The store's id of the upload.
    id: String,
    parts: Mutex<BTreeMap<u32, PartId>>,
    /// A part was sent and not answered: it may arrive at any time, also after the upload was aborted.
    is_in_doubt: AtomicBool,
    /// A completion was sent, and its answer may have been lost.
    completing: AtomicBool,
    /// Held by the attempt that completes.
    finishing: tokio::sync::Mutex<()>,
}

impl Upload {
    fn store(&self) -> &Store {
        &self.segments.shared.store
    }

    async fn complete(&self, count: u32, bytes: u64) -> Result<()> {
        let store = self.store();
        // An attempt that nobody waits for any more still runs; the next one looks only after it has ended.
        let _one_at_a_time = self.finishing.lock().await;
        // The name was never used before, so an object of this size under it is this upload's.
        if self.completing.swap(true, Ordering::AcqRel) && store.find_size_once(&self.name).await? == Some(bytes) {
            store.settle(&self.name).await?;
            self.forget();
            return Ok(());
        }
        let parts: Vec<PartId> = {
            let parts = self.parts.lock();
            if parts.len() != count as usize || !parts.keys().copied().eq(0..count) {
                return Err(Error::new(
                    ErrorKind::Internal,
                    format!("{} was to be completed with {count} parts, {} are stored", self.name, parts.len()),
                ));
            }
            parts.values().cloned().collect()
        };
        let path = store.path(&self.name);
        let done = store.complete_upload(&path, &self.id, parts, bytes).await;
        if let Err(error) = done {
            let error = store.error(&error, "complete", &self.name);
            // The answer of a completion can be lost below us too; then a repetition finds no upload.
            if store.find_size_once(&self.name).await.ok().flatten() != Some(bytes) {
                return Err(error);
            }
            store.settle(&self.name).await?;
        }
        self.forget();
        Ok(())
    }

    /// After the end of the upload: removes its record.
    fn forget(&self) {
        let shared = &self.segments.shared;
        shared.open.lock().remove(&self.key);
        let (store, record_name) = (shared.store.clone(), self.record_name.clone());
        // Beside the upload, because the segment is safe without this; a record that stays is removed by a later collection.
        let abandoned = shared.abandoned.clone();
        shared.tasks.spawn(async move {
            if let Some(Err(error)) = abandoned.run_until_cancelled(store.delete(&record_name)).await {
                tracing::warn!(error = %error.report(), "the record of a finished upload stays");
            }
        });
    }

    /// Ends the upload at the store, and removes its record if the upload is gone for good.
    async fn give_up(&self) -> Result<Ending> {
        // An object that is there, because a completion went through whose answer was lost, is removed with the others: it
        // may belong to another process by now.
        let store = self.store();
        let ending = match self.is_in_doubt.load(Ordering::Acquire) {
            true => uploads::end_for_good(store, &self.name, &self.id).await?,
            false => uploads::end(store, &self.name, &self.id).await.map(|()| Ending::Gone)?,
        };
        if ending == Ending::Gone {
            store.delete(&self.record_name).await?;
            self.segments.shared.open.lock().remove(&self.key);
        }
        Ok(ending)
    }
}

/// The pipeline's hold on an upload.
struct Handle(Arc<Upload>);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("name", &self.0.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl SegmentUpload for Handle {
    async fn put_part(&self, index: u32, payload: Vec<Bytes>) -> Result<()> {
        let upload = &self.0;
        let store = upload.store();
        let path = store.path(&upload.name);
        // Dropped here, nobody hears of it any more.
        let unanswered = OnDrop(&upload.is_in_doubt);
        let part = store.multipart().put_part(&path, &upload.id, index as usize, store.payload(payload)).await;
        let part = part.map_err(|error| store.error(&error, &format!("write part {index} of"), &upload.name));
        if !matches!(&part, Err(error) if may_have_worked(error)) {
            std::mem::forget(unanswered);
        }
        upload.parts.lock().insert(index, part?);
        upload.segments.show_life(upload);
        Ok(())
    }

    async fn complete(&self, parts: u32, bytes: u64) -> Result<()> {
        let upload = Arc::clone(&self.0);
        self.0.segments.tracked(async move { upload.complete(parts, bytes).await }).await
    }

    async fn abort(&self) -> Result<()> {
        let upload = Arc::clone(&self.0);
        // What cannot be ended for good is still in the list, and its record stays.
        self.0.segments.tracked(async move { upload.give_up().await.map(drop) }).await
    }
}

/// Sets a flag.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
