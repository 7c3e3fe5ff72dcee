//! A store in memory that does what a test asks: fail before the effect, or lose the answer after it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::super::store::{PartLimits, Store};

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
}

type Rule = Box<dyn Fn(usize, &str, &str) -> Fate + Send + Sync>;

pub(super) struct FaultStore {
    inner: InMemory,
    requests: AtomicUsize,
    rule: Rule,
}

/// A store whose requests are asked about, by their number, their operation and the object's name.
pub(super) fn store(rule: impl Fn(usize, &str, &str) -> Fate + Send + Sync + 'static) -> (Store, Arc<FaultStore>) {
    let faults = Arc::new(FaultStore { inner: InMemory::new(), requests: AtomicUsize::new(0), rule: Box::new(rule) });
    let objects: Arc<dyn ObjectStore> = Arc::<FaultStore>::clone(&faults);
    let multipart: Arc<dyn MultipartStore> = Arc::<FaultStore>::clone(&faults);
    (Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL), faults)
}

impl FaultStore {
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    async fn run<T>(&self, operation: &str, path: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let passing = || Error::Generic { store: "test", source: "Server returned non-2xx status code: 500".into() };
        match (self.rule)(number, operation, path.as_ref()) {
            Fate::Pass => work.await,
            Fate::Fail => Err(passing()),
            Fate::LoseAnswer => {
                let _lost = work.await;
                Err(passing())
            }
            Fate::Deny => Err(Error::PermissionDenied { path: path.to_string(), source: "no".into() }),
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
        self.inner.list(prefix)
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
        self.run("begin", path, self.inner.create_multipart(path)).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.run("part", path, self.inner.put_part(path, id, index, data)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.run("complete", path, self.inner.complete_multipart(path, id, parts)).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.run("abort", path, self.inner.abort_multipart(path, id)).await
    }
}
