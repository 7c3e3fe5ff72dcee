//! `RecordingStore`: any store, with a log of every request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::log::{Event, Log, Operation, Outcome};
use crate::sync::Mutex;
use crate::testing::bucket::{Effect, copied};

/// Any store with its multipart interface, and a log of what was asked of it: when each request began, when it was answered,
/// and what it changed. Clones share the log.
///
/// Of every prefix of the [`Log`] the buckets can be rebuilt that a crash at that moment could have left. All payloads are
/// kept in memory for that.
///
/// A store in memory answers at once, so that no two requests are ever in flight together;
/// [`RecordingStore::interleaved`] makes them overlap as they do on a network.
#[derive(Clone)]
pub struct RecordingStore {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    events: Arc<Mutex<Vec<Event>>>,
    /// Of the pauses; none without.
    pauses: Option<Arc<AtomicU64>>,
}

impl RecordingStore {
    /// Records what is asked of a store, and of the same store's multipart interface.
    pub fn new(objects: Arc<dyn ObjectStore>, multipart: Arc<dyn MultipartStore>) -> Self {
        Self { objects, multipart, events: Arc::default(), pauses: None }
    }

    /// The same store, each request giving way to other tasks for a while before and after its effect. The same seed gives the
    /// same pauses in the same order.
    #[must_use]
    pub fn interleaved(mut self, seed: u64) -> Self {
        self.pauses = Some(Arc::new(AtomicU64::new(seed)));
        self
    }

    /// What was asked so far.
    pub fn log(&self) -> Log {
        Log::new(self.events.lock().clone())
    }

    async fn pause(&self) {
        const LONGEST: u64 = 6;
        let Some(pauses) = &self.pauses else { return };
        // SplitMix64: only its spread matters.
        let mut z = pauses.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        for _ in 0..(z >> 33) % LONGEST {
            tokio::task::yield_now().await;
        }
    }

    async fn record<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T>>,
        upload: impl FnOnce(&T) -> Option<String>,
    ) -> Result<T> {
        let number = {
            let mut events = self.events.lock();
            let number = events.len();
            events.push(Event::Began { operation });
            number
        };
        self.pause().await;
        let answer = work.await;
        let outcome = match &answer {
            Ok(value) => Outcome::Done { upload: upload(value) },
            Err(
                Error::AlreadyExists { .. }
                | Error::NotFound { .. }
                | Error::Precondition { .. }
                | Error::NotModified { .. }
                | Error::NotSupported { .. }
                | Error::NotImplemented { .. }
                | Error::PermissionDenied { .. }
                | Error::Unauthenticated { .. }
                | Error::InvalidPath { .. },
            ) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        self.events.lock().push(Event::Ended { began: number, outcome });
        self.pause().await;
        answer
    }

    async fn change<T>(&self, effect: Effect, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.record(Operation::Change(effect), work, |_| None).await
    }
}

fn no_upload<T>(_: &T) -> Option<String> {
    None
}

impl fmt::Debug for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingStore({})", self.objects)
    }
}

impl fmt::Display for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for RecordingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = matches!(opts.mode, PutMode::Create);
        let effect = Effect::Put { object: location.to_string(), bytes: copied(&payload), create };
        self.change(effect, self.objects.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented {
            operation: "multipart uploads by stream; parts go through the multipart store".to_owned(),
            implementer: self.to_string(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = Operation::Get { object: location.to_string() };
        self.record(operation, self.objects.get_opts(location, options), no_upload).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // Each object by itself: a store that deletes several in one request may stop after any of them.
        const AT_ONCE: usize = 4;
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                let effect = Effect::Delete { object: location.to_string() };
                this.change(effect, this.objects.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.map(delete).buffered(AT_ONCE).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let operation = Operation::List { prefix: prefix.as_ref().map(Path::to_string).unwrap_or_default() };
            let all = async { Ok(this.objects.list(prefix.as_ref()).collect::<Vec<_>>().await) };
            match this.record(operation, all, no_upload).await {
                Ok(all) => stream::iter(all),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let operation = Operation::List { prefix: prefix.map(Path::to_string).unwrap_or_default() };
        self.record(operation, self.objects.list_with_delimiter(prefix), no_upload).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".to_owned(), implementer: self.to_string() })
    }
}

#[async_trait]
impl MultipartStore for RecordingStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let begin = Operation::Begin { object: path.to_string() };
        self.record(begin, self.multipart.create_multipart(path), |upload| Some(upload.clone())).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let effect = Effect::Part { upload: id.clone(), index: part_idx, bytes: copied(&data) };
        self.change(effect, self.multipart.put_part(path, id, part_idx, data)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let effect = Effect::Complete { upload: id.clone() };
        self.change(effect, self.multipart.complete_multipart(path, id, parts)).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let effect = Effect::Abort { upload: id.clone() };
        self.change(effect, self.multipart.abort_multipart(path, id)).await
    }
}
