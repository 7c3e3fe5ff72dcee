//! A store in memory that does what a test asks: fail before the effect, or lose the answer after it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::super::store::{PartLimits, Store};
use crate::clock::{Clock, SystemClock};
use crate::sync::Mutex;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Pass,
    /// It fails for a passing reason and has no effect.
    Fail,
    /// It has its effect, and the caller sees a passing failure.
    LoseAnswer,
    /// It is refused for good.
    Deny,
    /// It has its effect, and the caller sees a failure that does not pass.
    DenyAfter,
    /// It is sent this much later.
    Hold(Duration),
}

type Rule = Box<dyn Fn(usize, &str, &str) -> Fate + Send + Sync>;

pub(super) struct FaultStore {
    inner: InMemory,
    requests: AtomicUsize,
    rule: Rule,
    clock: Arc<dyn Clock>,
    /// Completions under way, and the most at once.
    completing: Mutex<(usize, usize)>,
    /// Uploads that were begun and neither completed nor aborted.
    open: Mutex<HashSet<MultipartId>>,
}

/// A store whose requests are asked about, by their number, their operation and the object's name.
pub(super) fn store(rule: impl Fn(usize, &str, &str) -> Fate + Send + Sync + 'static) -> (Store, Arc<FaultStore>) {
    let faults = Arc::new(FaultStore {
        inner: InMemory::new(),
        requests: AtomicUsize::new(0),
        rule: Box::new(rule),
        clock: SystemClock::shared(),
        completing: Mutex::default(),
        open: Mutex::default(),
    });
    let objects: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
    let multipart: Arc<dyn MultipartStore> = Arc::<FaultStore>::clone(&faults);
    (Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL), faults)
}

impl FaultStore {
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn most_completions_at_once(&self) -> usize {
        self.completing.lock().1
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.open.lock().len()
    }

    async fn run<T>(&self, operation: &str, path: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let passing = || Error::Generic { store: "test", source: "Server returned non-2xx status code: 500".into() };
        let denied = || Error::PermissionDenied { path: path.to_string(), source: "no".into() };
        match (self.rule)(number, operation, path.as_ref()) {
            Fate::Pass => work.await,
            Fate::Fail => Err(passing()),
            Fate::LoseAnswer => {
                let _lost = work.await;
                Err(passing())
            }
            Fate::Deny => Err(denied()),
            Fate::DenyAfter => {
                let _lost = work.await;
                Err(denied())
            }
            Fate::Hold(time) => {
                self.clock.sleep(time).await;
                work.await
            }
        }
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test://faults")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.run("put", path, self.inner.put_opts(path, payload, opts)).await
    }

    async fn put_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.run("get", path, self.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let path = prefix.cloned().unwrap_or_default();
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match (self.rule)(number, "list", path.as_ref()) {
            Fate::Hold(time) => {
                let (sleep, listed) = (self.clock.sleep(time), self.inner.list(prefix));
                sleep.map(|()| listed).flatten_stream().boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        self.run("list", &path, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for FaultStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let begin = async {
            let id = self.inner.create_multipart(path).await?;
            self.open.lock().insert(id.clone());
            Ok(id)
        };
        self.run("begin", path, begin).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.run("part", path, self.inner.put_part(path, id, index, data)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        {
            let mut completing = self.completing.lock();
            completing.0 += 1;
            completing.1 = completing.1.max(completing.0);
        }
        let complete = async {
            self.open.lock().remove(id);
            self.inner.complete_multipart(path, id, parts).await
        };
        let outcome = self.run("complete", path, complete).await;
        self.completing.lock().0 -= 1;
        outcome
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let abort = async {
            self.open.lock().remove(id);
            self.inner.abort_multipart(path, id).await
        };
        self.run("abort", path, abort).await
    }
}
