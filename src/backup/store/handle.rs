//! `Store`: one place that backups are kept in, and the small requests that backups are made of.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    GetOptions, GetResult, GetResultPayload, MultipartId, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    PutResult,
};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::demand::{Content, Demands};
use super::durable::Durable;
use super::error::convert;
use super::open;
use super::retry::{RetryPolicy, RetryState, Steps};
use super::rules::BucketRules;
use super::sequential::Sequential;
use super::work;
use crate::buffer::SlotMut;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::completion_time;
use crate::sync::Mutex;

/// A place that backup sets are kept in: a bucket, a container or a directory, and a prefix within it.
///
/// Clones share everything. Work that outlives the handle it was started from (the clean-up of a dropped backup) is
/// tracked here; [`Store::wait_idle`] waits for it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    prefix: Path,
    label: String,
    limits: PartLimits,
    demands: Demands,
    /// Payloads are copied for the store, because it may keep them.
    copies: bool,
    /// The store's times are those of this machine's clock.
    shares_clock: bool,
    /// Aborting an upload that is gone is told from aborting one that was there.
    tells_aborted: bool,
    clock: Arc<dyn Clock>,
    policy: RetryPolicy,
    retries: Arc<RetryState>,
    create_only: Arc<OnceCell<bool>>,
    rules: Option<Arc<dyn BucketRules>>,
    /// None where whatever is there is durable.
    durable: Option<Arc<dyn Durable>>,
    tasks: TaskTracker,
    leftovers: Arc<Mutex<Option<Error>>>,
}

/// What a store accepts as parts of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLimits {
    /// The smallest size of a part that is not the last, in bytes.
    pub min_part_bytes: u64,
    /// The most parts of one object.
    pub max_parts: u32,
}

impl PartLimits {
    /// Amazon S3, and what compatible stores commonly keep to: 5 MiB, 10,000 parts.
    pub const S3: Self = Self { min_part_bytes: 5 << 20, max_parts: 10_000 };
    /// Azure Blob Storage: any size, 50,000 blocks.
    pub const AZURE: Self = Self { min_part_bytes: 1, max_parts: 50_000 };
    /// Memory and local disk: any size; the number of parts is bounded only to bound the bookkeeping.
    pub const LOCAL: Self = Self { min_part_bytes: 1, max_parts: 100_000 };
}

/// A small object as it was read.
#[derive(Debug)]
pub(crate) struct Read<'a> {
    pub(crate) bytes: Bytes,
    /// By when it was stored at the latest.
    pub(crate) stored: Timestamp,
    /// For the memory of `bytes`.
    pub(crate) permit: Option<SemaphorePermit<'a>>,
}

impl Store {
    /// Opens the store that `url` names.
    ///
    /// | form | store |
    /// |---|---|
    /// | `s3://BUCKET/PREFIX` | Amazon S3 and compatible stores (feature `aws`), set up from `AWS_*` variables |
    /// | `az://CONTAINER/PREFIX`, `azure://`, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX`, `https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX` | Azure Blob Storage (feature `azure`), `AZURE_*` |
    /// | `gs://BUCKET/PREFIX` | Google Cloud Storage (feature `gcp`), `GOOGLE_*` |
    /// | `file:///PATH` or a plain path, absolute or relative | local disk (feature `fs`) |
    /// | `memory://NAME` | the memory of this process; the same name is the same store until the process ends |
    ///
    /// Credentials come from the environment only, as [`manual::stores`](crate::manual::stores) lists them. Nothing is sent and nothing is created yet: a bucket that does not
    /// exist or a wrong key shows with the first request.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a URL of another form, with credentials in it, or of a store that this build does not
    /// contain; [`ErrorKind::Denied`] if credentials are missing.
    pub fn from_url(url: &str) -> Result<Self> {
        open::open(url)
    }

    /// A store of the caller's own.
    ///
    /// Without its [`MultipartStore`] a part that failed cannot be sent again, and what a crash leaves behind cannot be
    /// found: prefer [`Store::with_multipart`] for stores that have one. Part limits are those of S3.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Self {
        let multipart: Arc<dyn MultipartStore> = Arc::new(Sequential::new(Arc::clone(&objects)));
        Self::with_multipart(objects, multipart, prefix).without_aborted_uploads()
    }

    /// A store of the caller's own, and the same store's multipart interface.
    pub fn with_multipart(
        objects: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
        prefix: impl Into<Path>,
    ) -> Self {
        let label = objects.to_string();
        Self::assemble(objects, multipart, prefix.into(), label, PartLimits::S3, TaskTracker::new())
    }

    /// A new store in the memory of this process.
    pub fn memory() -> Self {
        Self::in_memory(Arc::new(InMemory::new()), Path::default(), "memory://".to_owned())
    }

    pub(super) fn in_memory(memory: Arc<InMemory>, prefix: Path, label: String) -> Self {
        let multipart: Arc<dyn MultipartStore> = Arc::<InMemory>::clone(&memory);
        Self::assemble(memory, multipart, prefix, label, PartLimits::LOCAL, TaskTracker::new())
    }

    pub(super) fn assemble(
        objects: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
        prefix: Path,
        label: String,
        limits: PartLimits,
        tasks: TaskTracker,
    ) -> Self {
        let (seed, _) = Uuid::new_v4().as_u64_pair();
        let inner = Inner {
            objects,
            multipart,
            prefix,
            label,
            limits,
            demands: Demands::default(),
            copies: true,
            shares_clock: false,
            tells_aborted: true,
            clock: SystemClock::shared(),
            policy: RetryPolicy::default(),
            retries: Arc::new(RetryState::new(seed)),
            create_only: Arc::new(OnceCell::new()),
            rules: None,
            durable: None,
            tasks,
            leftovers: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same store on another clock: its waits between attempts, its limits on time, its time stamps.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Clock>) -> Self {
        self.change(|inner| inner.clock = clock)
    }

    /// The same store with other limits on parts; for compatible stores that differ from S3.
    #[must_use]
    pub fn part_limits(self, limits: PartLimits) -> Self {
        self.change(|inner| inner.limits = limits)
    }

    /// The same store, given the payloads themselves and not copies of them.
    ///
    /// A backup's payloads are memory that is used again once a request has ended. A store that keeps what it was given, as
    /// `object_store`'s memory store does, would bring the backup to a halt, so a caller's store gets copies by default.
    /// Stores that send or write what they are given can do without; those opened by URL do.
    #[must_use]
    pub fn lend_payloads(self) -> Self {
        self.change(|inner| inner.copies = false)
    }

    /// The same store, whose segments get this storage class, in the words of the store (`STANDARD_IA`, `NEARLINE`). Manifests and
    /// other documents keep the class of the bucket, because listing backups reads them. A class that has to be thawed before it can be
    /// read, such as `DEEP_ARCHIVE`, makes backups that cannot be restored until somebody has done that. Stores opened from
    /// `s3://` and `gs://` know it; others refuse the first upload.
    #[must_use]
    pub fn storage_class(self, class: impl Into<String>) -> Self {
        self.change(|inner| inner.demands.class = Some(class.into()))
    }

    /// The same store, whose objects all get this tag; repeat it for more. S3 takes ten. Stores opened from `s3://` know tags; others
    /// may refuse the first upload, or ignore them.
    #[must_use]
    pub fn tag(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(|inner| inner.demands.tags.push((key.into(), value.into())))
    }

    /// The same store, whose times are those of this machine's clock, as on local disk.
    pub(crate) fn sharing_clock(self) -> Self {
        self.change(|inner| inner.shares_clock = true)
    }

    pub(crate) fn shares_clock(&self) -> bool {
        self.inner.shares_clock
    }

    #[cfg(any(feature = "aws", feature = "gcp"))]
    pub(super) fn with_demands(self, demands: Demands) -> Self {
        self.change(|inner| inner.demands = demands)
    }

    #[cfg(feature = "aws")]
    pub(super) fn with_rules(self, rules: Arc<dyn BucketRules>) -> Self {
        self.change(|inner| inner.rules = Some(rules))
    }

    #[cfg(feature = "fs")]
    pub(super) fn with_durable(self, durable: Arc<dyn Durable>) -> Self {
        self.change(|inner| inner.durable = Some(durable))
    }

    /// Before an object that was found counts as stored: makes sure that it outlives a crash. An attempt whose failure made us look
    /// may have come to its name and not to its end.
    pub(crate) async fn settle(&self, name: &str) -> Result<()> {
        let Some(durable) = &self.inner.durable else { return Ok(()) };
        let settled = durable.settle(&self.path(name)).await;
        settled.map_err(|error| self.error(&error, "make durable", name))
    }

    /// Each object is given tags.
    pub(crate) fn has_tags(&self) -> bool {
        !self.inner.demands.tags.is_empty()
    }

    /// Each object is encrypted with a key of the store's key service.
    pub(crate) fn has_service_key(&self) -> bool {
        self.inner.demands.service_key
    }

    /// Whether a rule of the bucket ends all unfinished uploads of this store; `None` if this kind of store has no such rules.
    pub(crate) async fn ends_unfinished_uploads(&self) -> Option<Result<bool>> {
        let rules = self.inner.rules.as_ref()?;
        Some(self.retry(|| rules.ends_unfinished_uploads(self.inner.prefix.as_ref())).await)
    }

    /// Whether the store keeps what is deleted as an older version; false where that cannot be known.
    pub(crate) async fn keeps_versions(&self) -> bool {
        match self.ask_versions().await {
            None => false,
            Some(answer) => answer.unwrap_or_else(|error| {
                tracing::debug!(error = %error.report(), "whether the store keeps versions cannot be read");
                false
            }),
        }
    }

    /// The same as the store answers it; `None` if this kind of store cannot be asked.
    pub(crate) async fn ask_versions(&self) -> Option<Result<bool>> {
        let rules = self.inner.rules.as_ref()?;
        Some(self.retry(|| rules.keeps_versions()).await)
    }

    /// The same store, in which an upload that was aborted is gone, or cannot be aborted at all.
    pub(super) fn without_aborted_uploads(self) -> Self {
        self.change(|inner| inner.tells_aborted = false)
    }

    /// Whether the store says of an upload that it is gone, so that one that came back can be told.
    pub(crate) fn tells_aborted_uploads(&self) -> bool {
        self.inner.tells_aborted
    }

    /// A payload as this store may have it.
    pub(crate) fn payload(&self, pieces: impl IntoIterator<Item = Bytes>) -> PutPayload {
        let copies = self.inner.copies;
        pieces.into_iter().map(|piece| if copies { Bytes::copy_from_slice(&piece) } else { piece }).collect()
    }

    fn change(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.inner);
        change(&mut inner);
        Self { inner: Arc::new(inner) }
    }

    /// The store as a URL that is safe to print.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// What the store accepts as parts.
    pub fn limits(&self) -> PartLimits {
        self.inner.limits
    }

    /// True if the store refuses to create an object that exists, as it is asked to.
    ///
    /// Some compatible stores ignore the condition without an error; others do not know it, or it is switched off
    /// (`AWS_CONDITIONAL_PUT=disabled`), and to look first is all that is left, which does not hold against somebody who
    /// writes at the same moment. The first call finds out by writing a small object twice, and removes it; the answer is
    /// remembered while this handle or a clone of it lives. It does not tell whether the store is also atomic when asked
    /// by several at once.
    ///
    /// # Errors
    ///
    /// Those of the requests, by kind; nothing is remembered then.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe in one respect: the small object may stay.
    pub async fn create_only(&self) -> Result<bool> {
        self.inner.create_only.get_or_try_init(|| super::probe::create_only(self)).await.copied()
    }

    /// Waits until nothing of this store runs in the background: clean-ups of dropped backups, writes to local disk.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the work goes on.
    pub async fn wait_idle(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// What clean-ups of backups could not remove, or may have missed: the first such error since the last call. Of a backup
    /// that was dropped, or whose beginning or commit failed, this tells what nothing else does. Call it after
    /// [`Store::wait_idle`].
    pub fn take_leftovers(&self) -> Option<Error> {
        self.inner.leftovers.lock().take()
    }

    pub(crate) fn note_leftovers(&self, error: Error) {
        self.inner.leftovers.lock().get_or_insert(error);
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub(crate) fn time(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.inner.objects
    }

    /// Begins an upload in parts.
    pub(crate) async fn begin_upload(&self, path: &Path) -> object_store::Result<MultipartId> {
        self.inner.multipart.create_multipart_opts(path, self.inner.demands.upload()).await
    }

    /// Completes an upload of `bytes`. The store has as much time to join the parts as whoever uploads waits for it.
    pub(crate) async fn complete_upload(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
        bytes: u64,
    ) -> object_store::Result<PutResult> {
        let time = completion_time(u32::try_from(parts.len()).unwrap_or(u32::MAX), bytes);
        work::with(time, self.inner.multipart.complete_multipart(path, id, parts)).await
    }

    pub(crate) fn multipart(&self) -> &Arc<dyn MultipartStore> {
        &self.inner.multipart
    }

    /// The full path of the object `name`.
    pub(crate) fn path(&self, name: &str) -> Path {
        Path::from_iter(self.inner.prefix.parts().chain(Path::from(name).parts()))
    }

    /// How `name` is shown to people.
    pub(crate) fn show(&self, name: &str) -> String {
        format!("{}/{name}", self.inner.label.trim_end_matches('/'))
    }

    pub(crate) fn error(&self, error: &object_store::Error, action: &str, name: &str) -> Error {
        convert(error, action, &self.show(name))
    }

    pub(crate) async fn retry<T, F: Future<Output = Result<T>>>(&self, attempt: impl FnMut() -> F) -> Result<T> {
        self.inner.retries.run(&self.inner.policy, self.inner.clock.as_ref(), attempt).await
    }

    /// The same for a request that sends `bytes`.
    pub(crate) async fn retry_sending<T, F: Future<Output = Result<T>>>(
        &self,
        bytes: u64,
        attempt: impl FnMut() -> F,
    ) -> Result<T> {
        let policy = self.inner.policy.sending(bytes);
        self.inner.retries.run(&policy, self.inner.clock.as_ref(), attempt).await
    }

    /// A request whose attempts come in steps.
    pub(super) fn steps(&self) -> Steps<'_> {
        self.inner.retries.steps(&self.inner.policy, self.inner.clock.as_ref())
    }

    /// Reads a small object whole, for as long as bytes of it come. `Corrupt` if it is larger than `limit_bytes`; nothing is read then.
    pub(crate) async fn read_small(&self, name: &str, limit_bytes: u64) -> Result<Bytes> {
        let alone = Semaphore::new(1);
        self.read_gated(name, limit_bytes, &alone, limit_bytes).await.map(|read| read.bytes)
    }

    /// The same for several readers that may hold only so much together: before the content is read, a permit is taken for
    /// each begun `unit_bytes` of it. To wait for that takes nothing of the time that the store has.
    pub(crate) async fn read_gated<'a>(
        &self,
        name: &str,
        limit_bytes: u64,
        gate: &'a Semaphore,
        unit_bytes: u64,
    ) -> Result<Read<'a>> {
        let (path, steps) = (self.path(name), self.steps());
        steps
            .run(|| async {
                let asked = self.inner.objects.get_opts(&path, GetOptions::default());
                let result =
                    steps.next(async { asked.await.map_err(|error| self.error(&error, "read", name)) }).await?;
                if result.meta.size > limit_bytes {
                    return Err(Error::new(
                        ErrorKind::Corrupt,
                        format!(
                            "{}, offset {limit_bytes}: expected at most {limit_bytes} bytes, found {}",
                            self.show(name),
                            result.meta.size
                        ),
                    ));
                }
                let (result_size, modified) = (result.meta.size, self.time_of(&result.meta)?);
                let units = u32::try_from(result.meta.size.div_ceil(unit_bytes.max(1))).unwrap_or(u32::MAX);
                // It is private to the readers and never closed.
                let permit = steps.aside(gate.acquire_many(units)).await.ok();
                let content = self.small_body(result, &steps, name, limit_bytes).await?;
                self.check_body(name, result_size, content.len() as u64)?;
                Ok(Read { bytes: content.into(), stored: self.stored_by(modified), permit })
            })
            .await
    }

    /// The content of a small object, a step for each piece that comes.
    async fn small_body(&self, found: GetResult, steps: &Steps<'_>, name: &str, limit_bytes: u64) -> Result<Vec<u8>> {
        let mut content = Vec::with_capacity(usize::try_from(found.meta.size).unwrap_or(0));
        let mut chunks = found.into_stream();
        loop {
            let next = async { chunks.try_next().await.map_err(|error| self.error(&error, "read", name)) };
            let Some(chunk) = steps.next(next).await? else { return Ok(content) };
            // The size was an announcement only.
            if (content.len() + chunk.len()) as u64 > limit_bytes {
                let object = self.show(name);
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("{object}, offset {limit_bytes}: expected at most {limit_bytes} bytes, found more"),
                ));
            }
            content.extend_from_slice(&chunk);
        }
    }

    /// Creates an object that must not exist, in one attempt. `Conflict` if it does.
    pub(crate) async fn create_once(&self, name: &str, payload: Vec<Bytes>, content: Content) -> Result<()> {
        let outcome = match self.put_once(name, &payload, content, PutMode::Create).await {
            // Switched off by the user, or not known to the store. Names are never used twice, so the check is a
            // second line of defence, and looking first is what remains of it.
            Err(object_store::Error::NotImplemented { .. }) => {
                if self.find_size_once(name).await?.is_some() {
                    return Err(Error::new(ErrorKind::Conflict, format!("{} exists already", self.show(name))));
                }
                self.put_once(name, &payload, content, PutMode::Overwrite).await
            }
            outcome => outcome,
        };
        outcome.map_err(|error| self.error(&error, "write", name))
    }

    /// Writes an object as `mode` says, in one attempt, and hands on what the store itself answers.
    pub(super) async fn put_once(
        &self,
        name: &str,
        payload: &[Bytes],
        content: Content,
        mode: PutMode,
    ) -> object_store::Result<()> {
        let (path, options) = (self.path(name), self.inner.demands.put(mode, content));
        self.inner.objects.put_opts(&path, self.payload(payload.iter().cloned()), options).await.map(drop)
    }

    /// Creates a small object, again if the answer is lost. Finding the very same content there is success: it is our
    /// own earlier attempt. `Conflict` if the content is another.
    pub(crate) async fn create(&self, name: &str, content: Bytes) -> Result<()> {
        self.retry_sending(content.len() as u64, || async {
            let conflict = match self.create_once(name, vec![content.clone()], Content::Document).await {
                Err(error) if error.kind() == ErrorKind::Conflict => error,
                outcome => return outcome,
            };
            self.compare(name, &content, conflict).await
        })
        .await
    }

    /// After `conflict`: is what stands under `name` our own `content`?
    pub(crate) async fn compare(&self, name: &str, content: &[u8], conflict: Error) -> Result<()> {
        let found = self.read_back(name, &conflict).await?;
        if found.meta.size != content.len() as u64 {
            return Err(conflict);
        }
        let found = found.bytes().await.map_err(|error| self.error(&error, "read back", name))?;
        self.check_body(name, content.len() as u64, found.len() as u64)?;
        if found == content { self.settle(name).await } else { Err(conflict) }
    }

    /// What stands under `name` after `conflict`.
    async fn read_back(&self, name: &str, conflict: &Error) -> Result<GetResult> {
        let path = self.path(name);
        self.inner.objects.get_opts(&path, GetOptions::default()).await.map_err(|error| match error {
            // Two conditional writes at once: the store refused both. Nobody has the name, so try again.
            object_store::Error::NotFound { .. } => {
                Error::new(ErrorKind::Unavailable, conflict.message().to_owned()).with_source(conflict.clone())
            }
            error => self.error(&error, "read back", name),
        })
    }

    /// A body that ends early tells nothing about the object.
    fn check_body(&self, name: &str, announced: u64, came: u64) -> Result<()> {
        if came == announced {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("cannot read {}: {came} of {announced} bytes came", self.show(name)),
        ))
    }

    /// Creates an object of several pieces as [`Store::create`] does, but in one attempt.
    pub(crate) async fn create_segment(&self, name: &str, payload: Vec<Bytes>) -> Result<()> {
        let conflict = match self.create_once(name, payload.clone(), Content::Data).await {
            Err(error) if error.kind() == ErrorKind::Conflict => error,
            outcome => return outcome,
        };
        let length: u64 = payload.iter().map(|bytes| bytes.len() as u64).sum();
        let found = self.read_back(name, &conflict).await?;
        if found.meta.size != length {
            return Err(conflict);
        }
        let mut ours = blake3::Hasher::new();
        for bytes in &payload {
            ours.update(bytes);
        }
        let mut theirs = blake3::Hasher::new();
        let mut stream = found.into_stream();
        while let Some(bytes) = stream.try_next().await.map_err(|error| self.error(&error, "read back", name))? {
            theirs.update(&bytes);
        }
        self.check_body(name, length, theirs.count())?;
        if ours.finalize() == theirs.finalize() { self.settle(name).await } else { Err(conflict) }
    }

    /// Reads `range` of an object, in one attempt. May return less if the object is shorter.
    pub(crate) async fn read_range(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let path = self.path(name);
        let read = self.inner.objects.get_range(&path, range);
        read.await.map_err(|error| self.error(&error, "read", name))
    }

    /// Reads a range into `target`, in one attempt, without memory of its own for it. Fewer bytes may come.
    pub(crate) async fn read_into(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
        mut target: SlotMut,
    ) -> Result<SlotMut> {
        let path = self.path(name);
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let found = self.inner.objects.get_opts(&path, options).await;
        let found = found.map_err(|error| self.error(&error, "read", name))?;
        match found.payload {
            #[cfg(feature = "fs")]
            GetResultPayload::File(file, _path) => {
                let range = found.range;
                let read = self.tasks().spawn_blocking(move || fill_from(&file, range, target));
                let read = read
                    .await
                    .map_err(|error| Error::new(ErrorKind::Internal, "a read of a file panicked").with_source(error))?;
                read.map_err(|error| Error::from(error).context(format!("cannot read {}", self.show(name))))
            }
            GetResultPayload::Stream(mut chunks) => {
                while let Some(chunk) = chunks.next().await {
                    let chunk = chunk.map_err(|error| self.error(&error, "read", name))?;
                    if target.put(&chunk) < chunk.len() {
                        return Err(Error::new(
                            ErrorKind::Unavailable,
                            format!("{}: more bytes came than were asked for", self.show(name)),
                        ));
                    }
                }
                Ok(target)
            }
        }
    }

    /// The size of an object, or `None` if there is none.
    pub(crate) async fn find_size(&self, name: &str) -> Result<Option<u64>> {
        self.retry(|| self.find_size_once(name)).await
    }

    pub(crate) async fn find_size_once(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path(name);
        match self.inner.objects.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.error(&error, "look up", name)),
        }
    }

    /// When an object was written, by the store's clock.
    pub(crate) async fn modified(&self, name: &str) -> Result<Timestamp> {
        let path = self.path(name);
        let meta = self
            .retry(|| async {
                self.inner.objects.head(&path).await.map_err(|error| self.error(&error, "look up", name))
            })
            .await?;
        self.time_of(&meta)
    }

    /// When the object of `meta` was written, by the store's clock.
    pub(super) fn time_of(&self, meta: &ObjectMeta) -> Result<Timestamp> {
        let time = meta.last_modified;
        let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
        Timestamp::new(time.timestamp(), nanos).map_err(|error| {
            let object = self.show(&self.relative(&meta.location));
            let message = format!("{object}: the store gives a time that cannot be");
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })
    }

    /// By when an object was stored at the latest that the store says was written at `modified`. A store has a clock of its
    /// own that no writer can set; but on local disk a time may be by this machine's clock of a day when it was ahead.
    pub(crate) fn stored_by(&self, modified: Timestamp) -> Timestamp {
        if self.inner.shares_clock { modified.min(self.inner.clock.wall()) } else { modified }
    }

    /// Deletes an object; none there is success.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        self.retry(|| async {
            match self.inner.objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.error(&error, "delete", name)),
            }
        })
        .await
    }

    /// Deletes objects; those that are not there count as deleted.
    pub(crate) async fn delete_all(&self, names: &[String]) -> Result<()> {
        // As many as the largest batch request takes.
        const AT_ONCE: usize = 1000;
        for batch in names.chunks(AT_ONCE) {
            let paths: Vec<Path> = batch.iter().map(|name| self.path(name)).collect();
            self.retry(|| async {
                let locations = futures::stream::iter(paths.clone()).map(Ok).boxed();
                let mut outcomes = self.inner.objects.delete_stream(locations);
                let mut failed = None;
                while let Some(outcome) = outcomes.next().await {
                    match outcome {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                match failed {
                    None => Ok(()),
                    Some(error) => Err(self.error(&error, "delete objects like", &batch[0])),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// The names directly below `directory` that have something below them, sorted; empty if there is no such directory.
    pub(crate) async fn directories(&self, directory: &str) -> Result<Vec<String>> {
        let path = self.path(directory);
        let result = self
            .retry(|| async {
                let prefix = (!path.is_root()).then_some(&path);
                let listing = self.inner.objects.list_with_delimiter(prefix).await;
                listing.map_err(|error| self.error(&error, "list", directory))
            })
            .await?;
        let mut names: Vec<String> =
            result.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn relative(&self, path: &Path) -> String {
        match path.prefix_match(&self.inner.prefix) {
            Some(parts) => Path::from_iter(parts).to_string(),
            None => path.to_string(),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.inner.label)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.label)
    }
}

/// Reads `range` of a file; less if the file ends before.
#[cfg(feature = "fs")]
fn fill_from(file: &std::fs::File, range: std::ops::Range<u64>, mut target: SlotMut) -> std::io::Result<SlotMut> {
    let mut offset = range.start;
    while offset < range.end {
        let spare = target.spare_mut();
        let wanted = spare.len().min(usize::try_from(range.end - offset).unwrap_or(usize::MAX));
        match rustix::io::pread(file, &mut spare[..wanted], offset) {
            Ok(0) => break,
            Ok(count) => {
                target.advance(count);
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(target)
}
