//! Local disk as an object store: every write is staged, synced, and published under its name in one step.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::publish;
use crate::sync::Mutex;

type Result<T, E = object_store::Error> = std::result::Result<T, E>;

const NAME: &str = "local disk";

/// A directory as a store.
///
/// Reading and listing is `object_store`'s; writing is ours, because the backup needs three things of it: a crash
/// leaves no file that a listing does not show, parts are written side by side at their offsets, and the data is on
/// its way to the disk long before the last part is.
pub(super) struct LocalStore {
    root: PathBuf,
    reads: OnceLock<LocalFileSystem>,
    jobs: TaskTracker,
    uploads: Mutex<HashMap<MultipartId, Arc<Staging>>>,
}

impl LocalStore {
    /// A store in the directory `root`, which is created by the first write. `jobs` tracks the blocking calls.
    pub(super) fn new(root: PathBuf, jobs: TaskTracker) -> Self {
        Self { root, reads: OnceLock::new(), jobs, uploads: Mutex::new(HashMap::new()) }
    }

    fn reads(&self) -> Result<&LocalFileSystem> {
        if let Some(reads) = self.reads.get() {
            return Ok(reads);
        }
        match std::fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = self.root.display().to_string();
                return Err(object_store::Error::NotFound { path, source: "there is no such directory".into() });
            }
            Err(error) => return Err(failed(error)),
        }
        let reads = LocalFileSystem::new_with_prefix(&self.root)?;
        Ok(self.reads.get_or_init(|| reads))
    }

    fn path(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }

    /// Runs a blocking call in a tracked task.
    async fn blocking<T: Send + 'static>(&self, call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        self.jobs.spawn_blocking(call).await?
    }

    fn upload(&self, id: &MultipartId) -> Result<Arc<Staging>> {
        self.uploads.lock().get(id).cloned().ok_or_else(|| object_store::Error::NotFound {
            path: id.clone(),
            source: "this upload was completed, aborted or never started".into(),
        })
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.root.display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local disk at {}", self.root.display())
    }
}

fn failed(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: NAME, source: Box::new(error) }
}

fn unsupported(operation: &str) -> object_store::Error {
    object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: NAME.to_owned() }
}

fn done() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Default::default() }
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return Err(unsupported("update"));
        }
        let (root, destination) = (self.root.clone(), self.path(location));
        let staged = publish::staged_path(&destination, &new_id());
        self.blocking(move || {
            let payload: Vec<Bytes> = payload.into_iter().collect();
            let write = || -> io::Result<()> {
                let file = publish::create_file(&root, &staged)?;
                publish::write_at(&file, &payload, 0)?;
                file.sync_all()?;
                drop(file);
                match opts.mode {
                    PutMode::Overwrite => {
                        std::fs::rename(&staged, &destination)?;
                        publish::sync_parent(&destination)
                    }
                    _ => publish::publish(&staged, &destination),
                }
            };
            write().map_err(|error| {
                // The first error counts; what cannot be removed is an ordinary leftover.
                let _ = std::fs::remove_file(&staged);
                publish::remove_empty_parents(&root, &staged);
                match error.kind() {
                    io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists {
                        path: destination.display().to_string(),
                        source: Box::new(error),
                    },
                    _ => failed(error),
                }
            })?;
            Ok(done())
        })
        .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads by stream; parts go through the multipart store"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads()?.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (root, jobs) = (self.root.clone(), self.jobs.clone());
        const AT_ONCE: usize = 8;
        locations
            .map(move |location| {
                let (root, jobs) = (root.clone(), jobs.clone());
                async move {
                    let location = location?;
                    let path = root.join(location.as_ref());
                    jobs.spawn_blocking(move || {
                        publish::remove(&root, &path).map_err(|error| match error.kind() {
                            io::ErrorKind::NotFound => object_store::Error::NotFound {
                                path: path.display().to_string(),
                                source: Box::new(error),
                            },
                            _ => failed(error),
                        })
                    })
                    .await??;
                    Ok(location)
                }
            })
            .buffered(AT_ONCE)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.reads() {
            Ok(reads) => reads.list(prefix),
            Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.reads()?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

/// One file that parts are written into, each at its offset.
struct Staging {
    file: File,
    staged: PathBuf,
    destination: PathBuf,
    parts: Mutex<Parts>,
    part_seen: Notify,
    /// Held by the part that is written. The file has one lock for all writes: those that wait for it inside the kernel spin, on
    /// cores that have better things to do.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// Lengths of the parts that were seen. All but the last have the same, so two parts tell where each begins.
#[derive(Default)]
struct Parts {
    lengths: BTreeMap<usize, u64>,
}

impl Parts {
    /// The offset of part `index`, once it can be known.
    fn offset(&self, index: usize) -> Option<u64> {
        if index == 0 {
            return Some(0);
        }
        let (last, _) = self.lengths.last_key_value()?;
        let (_, length) = self.lengths.range(..last).next()?;
        Some(length * index as u64)
    }

    /// The total length, if parts `0..count` are all that was seen and lie end to end.
    fn total(&self, count: usize) -> Option<u64> {
        let contiguous = self.lengths.len() == count && self.lengths.keys().copied().eq(0..count);
        let before_last = self.lengths.values().take(count.saturating_sub(1));
        let equal = before_last.clone().all(|length| Some(length) == before_last.clone().next());
        (contiguous && equal).then(|| self.lengths.values().sum())
    }
}

impl Staging {
    /// Records part `index` and waits until its offset is known.
    async fn place(&self, index: usize, length: u64) -> u64 {
        let mut seen = std::pin::pin!(self.part_seen.notified());
        self.parts.lock().lengths.insert(index, length);
        self.part_seen.notify_waiters();
        loop {
            seen.as_mut().enable();
            if let Some(offset) = self.parts.lock().offset(index) {
                return offset;
            }
            seen.as_mut().await;
            seen.set(self.part_seen.notified());
        }
    }
}

#[async_trait]
impl MultipartStore for LocalStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let id = new_id();
        let (root, destination) = (self.root.clone(), self.path(path));
        let staged = publish::staged_path(&destination, &id);
        let staging = self
            .blocking(move || {
                let file = publish::create_file(&root, &staged).map_err(failed)?;
                Ok(Staging {
                    file,
                    staged,
                    destination,
                    parts: Mutex::default(),
                    part_seen: Notify::new(),
                    writing: Arc::default(),
                })
            })
            .await?;
        self.uploads.lock().insert(id.clone(), Arc::new(staging));
        Ok(id)
    }

    async fn put_part(&self, _: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let staging = self.upload(id)?;
        let length = data.content_length() as u64;
        let offset = staging.place(part_idx, length).await;
        let turn = Arc::clone(&staging.writing).lock_owned().await;
        self.blocking(move || {
            // Moved in: a part whose caller left is still being written.
            let _turn = turn;
            let payload: Vec<Bytes> = data.into_iter().collect();
            publish::write_at(&staging.file, &payload, offset).map_err(failed)?;
            publish::start_write_back(&staging.file, offset, length);
            Ok(PartId { content_id: part_idx.to_string() })
        })
        .await
    }

    async fn complete_multipart(&self, _: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let staging = self.upload(id)?;
        let finishing = Arc::clone(&staging);
        self.blocking(move || {
            let expected = finishing.parts.lock().total(parts.len());
            let length = finishing.file.metadata().map_err(failed)?.len();
            if expected != Some(length) {
                return Err(object_store::Error::Generic {
                    store: NAME,
                    source: format!("{} parts of equal length do not make {length} bytes", parts.len()).into(),
                });
            }
            finishing.file.sync_all().map_err(failed)?;
            publish::publish(&finishing.staged, &finishing.destination).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => object_store::Error::AlreadyExists {
                    path: finishing.destination.display().to_string(),
                    source: Box::new(error),
                },
                _ => failed(error),
            })
        })
        .await?;
        self.uploads.lock().remove(id);
        Ok(done())
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        // The upload may be another process's, so the name is made from the id alone; ids are ours and hexadecimal.
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unsupported("aborting an upload that this kind of store did not start"));
        }
        self.uploads.lock().remove(id);
        let root = self.root.clone();
        let staged = publish::staged_path(&self.path(path), id);
        self.blocking(move || match publish::remove(&root, &staged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                publish::remove_empty_parents(&root, &staged);
                Ok(())
            }
            outcome => outcome.map_err(failed),
        })
        .await
    }
}

/// An id that no other upload of this name has.
fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    fn store() -> (tempfile::TempDir, LocalStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = LocalStore::new(directory.path().join("root"), TaskTracker::new());
        (directory, store)
    }

    fn files(store: &LocalStore) -> Vec<String> {
        let mut names = Vec::new();
        let mut open = vec![store.root.clone()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.strip_prefix(&store.root).unwrap().display().to_string());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_put_is_create_only_and_leaves_no_staging_file() {
        let (_directory, store) = store();
        let path = Path::from("a/b/c");
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "one".into(), create()).await.unwrap();
        let again = store.put_opts(&path, "two".into(), create()).await.unwrap_err();
        assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again}");
        assert_eq!(&store.get(&path).await.unwrap().bytes().await.unwrap()[..], b"one");
        assert_eq!(files(&store), ["a", "a/b", "a/b/c"]);
        store.delete(&path).await.unwrap();
        assert_eq!(files(&store), [""; 0], "empty directories go too, the root stays");
    }

    #[tokio::test]
    async fn reading_a_directory_that_is_not_there_says_so() {
        let (_directory, store) = store();
        let error = store.list_with_delimiter(None).await.unwrap_err();
        assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
    }

    #[tokio::test]
    async fn parts_in_any_order_make_one_file() {
        let (_directory, store) = store();
        let path = Path::from("x/y");
        for count in [0usize, 1, 2, 3, 5] {
            let id = store.create_multipart(&path).await.unwrap();
            let part = |index: usize| {
                let length = if index + 1 == count { 3 } else { 10 };
                PutPayload::from(vec![u8::try_from(index).unwrap(); length])
            };
            // All at once, the last first: its offset is known only when another one arrives.
            let parts = (0..count).rev().map(|index| store.put_part(&path, &id, index, part(index)));
            let mut ids = futures::future::try_join_all(parts).await.unwrap();
            ids.reverse();
            assert!(files(&store).iter().all(|name| name != "x/y"), "nothing is visible before the end");
            store.complete_multipart(&path, &id, ids).await.unwrap();
            let expected: Vec<u8> =
                (0..count).flat_map(|index| part(index).into_iter().flatten().collect::<Vec<u8>>()).collect();
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), expected);
            assert_eq!(files(&store), ["x", "x/y"]);
            store.delete(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn completion_never_replaces_and_never_hides_a_missing_part() {
        let (_directory, store) = store();
        let path = Path::from("x");
        let id = store.create_multipart(&path).await.unwrap();
        let first = store.put_part(&path, &id, 0, "aaaa".into()).await.unwrap();
        let third = store.put_part(&path, &id, 2, "bb".into()).await.unwrap();
        assert!(store.complete_multipart(&path, &id, vec![first.clone(), third.clone()]).await.is_err());
        let second = store.put_part(&path, &id, 1, "cccc".into()).await.unwrap();
        store.put(&path, "taken".into()).await.unwrap();
        let error = store.complete_multipart(&path, &id, vec![first, second, third]).await.unwrap_err();
        assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
        store.abort_multipart(&path, &id).await.unwrap();
        store.abort_multipart(&path, &id).await.unwrap();
        assert_eq!(files(&store), ["x"]);
    }

    #[tokio::test]
    async fn another_process_can_abort_an_upload_by_its_id() {
        let (_directory, store) = store();
        let path = Path::from("d/x");
        let id = store.create_multipart(&path).await.unwrap();
        assert_eq!(files(&store), ["d".to_owned(), format!("d/x.partial-{id}")]);
        let other = LocalStore::new(store.root.clone(), TaskTracker::new());
        other.abort_multipart(&path, &id).await.unwrap();
        assert_eq!(files(&store), [""; 0]);
        assert!(other.abort_multipart(&path, &"../../etc".to_owned()).await.is_err());
    }
}
