//! A store that counts: small objects are kept in memory, segments are measured and dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Counts every request. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct CountingStore {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: InMemory,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    stored_bytes: AtomicU64,
    keeps_segments: bool,
    uploads: AtomicU64,
    /// Sizes of parts, by how often each came.
    parts: Mutex<BTreeMap<usize, u64>>,
    /// Bytes of the ranges that were read, in order.
    ranges: Mutex<Vec<u64>>,
}

impl CountingStore {
    /// A store that drops the content of segments: it can be given any number of bytes, and segments cannot be read back.
    pub fn dropping() -> Self {
        Self::default()
    }

    /// A store that keeps everything.
    pub fn keeping() -> Self {
        Self { inner: Arc::new(Inner { keeps_segments: true, ..Inner::default() }) }
    }

    /// Requests since the last call, by what they do.
    ///
    /// # Panics
    ///
    /// Never: no panic can happen while the lock is held.
    pub fn take_counts(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.inner.counts.lock().expect("nobody panics with it"))
    }

    /// Bytes of all segments.
    pub fn stored_bytes(&self) -> u64 {
        self.inner.stored_bytes.load(Ordering::Relaxed)
    }

    /// Sizes of parts, and how many there were of each.
    ///
    /// # Panics
    ///
    /// Never: no panic can happen while the lock is held.
    pub fn parts(&self) -> BTreeMap<usize, u64> {
        self.inner.parts.lock().expect("nobody panics with it").clone()
    }

    /// Bytes of the ranges that were read, in the order of the requests.
    ///
    /// # Panics
    ///
    /// Never: no panic can happen while the lock is held.
    pub fn ranges(&self) -> Vec<u64> {
        self.inner.ranges.lock().expect("nobody panics with it").clone()
    }

    fn count(&self, what: &'static str) {
        *self.inner.counts.lock().expect("nobody panics with it").entry(what).or_default() += 1;
    }

    fn is_dropped(&self, location: &Path) -> bool {
        !self.inner.keeps_segments && location.filename().is_some_and(|name| name.contains(".zst"))
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a counting store")
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.count("put");
        if location.filename().is_some_and(|name| name.contains(".zst")) {
            self.inner.stored_bytes.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        }
        let payload = if self.is_dropped(location) { PutPayload::new() } else { payload };
        self.inner.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(object_store::Error::NotImplemented { operation: "streams of parts".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.count(if options.head { "head" } else { "get" });
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.inner.ranges.lock().expect("nobody panics with it").push(range.end - range.start);
        }
        self.inner.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let counted = locations.inspect(move |_location| this.count("delete"));
        self.inner.objects.delete_stream(counted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list");
        self.inner.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count("list");
        self.inner.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count("copy");
        self.inner.objects.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for CountingStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.count("begin upload");
        if self.inner.keeps_segments {
            return self.inner.objects.create_multipart(path).await;
        }
        Ok(self.inner.uploads.fetch_add(1, Ordering::Relaxed).to_string())
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        self.count("put part");
        let size = data.content_length();
        self.inner.stored_bytes.fetch_add(size as u64, Ordering::Relaxed);
        *self.inner.parts.lock().expect("nobody panics with it").entry(size).or_default() += 1;
        if self.inner.keeps_segments {
            return self.inner.objects.put_part(path, id, index, data).await;
        }
        Ok(PartId { content_id: index.to_string() })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.count("complete upload");
        if self.inner.keeps_segments {
            return self.inner.objects.complete_multipart(path, id, parts).await;
        }
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.count("abort upload");
        if self.inner.keeps_segments {
            return self.inner.objects.abort_multipart(path, id).await;
        }
        Ok(())
    }
}
