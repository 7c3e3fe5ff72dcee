//! Local disk as an object store: every write is staged, synced, and published under its name in one step.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::durable::Durable;
use super::syncs::Syncs;
use super::tree::{self, Tree};
use super::walk::{Entry, Walk};
use crate::sync::Mutex;

type Result<T, E = object_store::Error> = std::result::Result<T, E>;

const NAME: &str = "local disk";

/// A directory as a store.
///
/// It is ours, because the backup needs four things of it: a crash leaves no file that a listing does not show, parts are written
/// side by side at their offsets, the data is on its way to the disk long before the last part is, and nothing leads out of it.
pub(super) struct LocalStore {
    tree: Tree,
    jobs: TaskTracker,
    uploads: Mutex<HashMap<MultipartId, Arc<Staging>>>,
}

impl LocalStore {
    /// A store in the directory `root`, which is created by the first write. `jobs` tracks the blocking calls.
    pub(super) fn new(root: PathBuf, jobs: TaskTracker) -> Self {
        Self::syncing(root, jobs, Syncs::default())
    }

    pub(super) fn syncing(root: PathBuf, jobs: TaskTracker, syncs: Syncs) -> Self {
        Self { tree: Tree::new(root, syncs), jobs, uploads: Mutex::new(HashMap::new()) }
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
        write!(f, "LocalStore({})", self.tree.root().display())
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local disk at {}", self.tree.root().display())
    }
}

fn failed(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: NAME, source: Box::new(error) }
}

/// The same, where the file may be missing.
fn not_found_or_failed(tree: &Tree, name: &str, error: io::Error) -> object_store::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            object_store::Error::NotFound { path: tree.path(name).display().to_string(), source: Box::new(error) }
        }
        _ => failed(error),
    }
}

/// The same, where the file may be there already.
fn exists_or_failed(tree: &Tree, name: &str, error: io::Error) -> object_store::Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            object_store::Error::AlreadyExists { path: tree.path(name).display().to_string(), source: Box::new(error) }
        }
        _ => failed(error),
    }
}

/// A file whose sync failed. What was written to it may be lost, and a sync that succeeds later tells nothing of it: only the same
/// content in another file will do.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the disk did not take all that was written ({0}), and it is not known what it has; check the disk, and begin anew"
)]
pub(super) struct Lost(String);

fn lost(lost: &Lost) -> object_store::Error {
    object_store::Error::Generic { store: NAME, source: Box::new(lost.clone()) }
}

/// A store that was never written to is not there.
fn check_root(tree: &Tree) -> Result<()> {
    tree.directory("").map(drop).map_err(|error| not_found_or_failed(tree, "", error))
}

/// A file may claim any time, and not every one is representable everywhere.
fn meta(location: Path, size: u64, modified: SystemTime) -> ObjectMeta {
    const MOST: Duration = Duration::from_secs(1 << 41);
    let modified = modified.clamp(UNIX_EPOCH - MOST, UNIX_EPOCH + MOST);
    ObjectMeta { location, last_modified: modified.into(), size, e_tag: None, version: None }
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
        let (tree, name) = (self.tree.clone(), location.to_string());
        let staged = tree::staged(&name, &new_id());
        self.blocking(move || {
            let payload: Vec<Bytes> = payload.into_iter().collect();
            let write = || -> io::Result<()> {
                let file = tree.create(&staged)?;
                tree::write_at(&file, &payload, 0)?;
                tree.sync_file(&file, &staged)?;
                drop(file);
                match opts.mode {
                    PutMode::Overwrite => tree.replace(&staged, &name),
                    _ => tree.publish(&staged, &name),
                }
            };
            write().map_err(|error| {
                // The first error counts; what cannot be removed is an ordinary leftover.
                let _ = tree.remove(&staged);
                exists_or_failed(&tree, &name, error)
            })?;
            Ok(done())
        })
        .await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads by stream; parts go through the multipart store"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (tree, location) = (self.tree.clone(), location.clone());
        self.blocking(move || {
            let name = location.as_ref();
            let opened = tree.open(name).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
            let (file, metadata) = opened.map_err(|error| not_found_or_failed(&tree, name, error))?;
            let path = tree.path(name);
            let meta = meta(location, metadata.len(), metadata.modified().map_err(failed)?);
            options.check_preconditions(&meta)?;
            let range = match options.range {
                None => 0..meta.size,
                Some(range) => {
                    let range = range.as_range(meta.size);
                    range.map_err(|error| object_store::Error::Generic { store: NAME, source: Box::new(error) })?
                }
            };
            let (attributes, extensions) = Default::default();
            Ok(GetResult { payload: GetResultPayload::File(file, path), meta, range, attributes, extensions })
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (tree, jobs) = (self.tree.clone(), self.jobs.clone());
        const AT_ONCE: usize = 8;
        locations
            .map(move |location| {
                let (tree, jobs) = (tree.clone(), jobs.clone());
                async move {
                    let location = location?;
                    let name = location.to_string();
                    jobs.spawn_blocking(move || {
                        tree.remove(&name).map_err(|error| not_found_or_failed(&tree, &name, error))
                    })
                    .await??;
                    Ok(location)
                }
            })
            .buffered(AT_ONCE)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        const AT_ONCE: usize = 1024;
        let (tree, jobs) = (self.tree.clone(), self.jobs.clone());
        let walk = Walk::of(tree.clone(), prefix.map_or("", AsRef::as_ref)).down();
        let pieces = stream::try_unfold(walk, move |mut walk| {
            let (tree, jobs) = (tree.clone(), jobs.clone());
            async move {
                let look = move || {
                    check_root(&tree)?;
                    let entries = walk.some(AT_ONCE).map_err(failed)?;
                    Ok::<_, object_store::Error>((entries, walk))
                };
                let (entries, walk) = jobs.spawn_blocking(look).await??;
                if entries.is_empty() {
                    return Ok::<_, object_store::Error>(None);
                }
                let files = entries.into_iter().filter_map(|entry| match entry {
                    Entry::Directory(_) => None,
                    Entry::File { name, bytes, modified } => {
                        Some(Path::parse(name).map_err(Into::into).map(|path| meta(path, bytes, modified)))
                    }
                });
                Ok(Some((stream::iter(files.collect::<Vec<_>>()), walk)))
            }
        });
        pieces.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let tree = self.tree.clone();
        let mut walk = Walk::of(tree.clone(), prefix.map_or("", AsRef::as_ref));
        self.blocking(move || {
            check_root(&tree)?;
            let (mut common_prefixes, mut objects) = (Vec::new(), Vec::new());
            for entry in walk.some(usize::MAX).map_err(failed)? {
                match entry {
                    Entry::Directory(name) => common_prefixes.push(Path::parse(name)?),
                    Entry::File { name, bytes, modified } => objects.push(meta(Path::parse(name)?, bytes, modified)),
                }
            }
            common_prefixes.sort_unstable();
            Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
        })
        .await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}

/// One file that parts are written into, each at its offset.
struct Staging {
    file: File,
    /// The name that it has until it is complete, and the one that it gets then.
    staged: String,
    name: String,
    parts: Mutex<Parts>,
    part_seen: Notify,
    /// Held by the part that is written. The file has one lock for all writes: those that wait for it inside the kernel spin, on
    /// cores that have better things to do.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The first failure to sync it, after which it is never completed. Held while it is synced: the system tells of lost data
    /// once, and who is told says so before anybody else can sync it and learn nothing.
    lost: Mutex<Option<Lost>>,
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

    /// Syncs the file by `call`, unless that has failed before.
    fn sync(&self, call: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        let mut before = self.lost.lock();
        if before.is_none() {
            *before = call(&self.file).err().map(|error| Lost(error.to_string()));
        }
        before.as_ref().map_or(Ok(()), |before| Err(lost(before)))
    }
}

#[async_trait]
impl MultipartStore for LocalStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let id = new_id();
        let (tree, name) = (self.tree.clone(), path.to_string());
        let staged = tree::staged(&name, &id);
        let staging = self
            .blocking(move || {
                let file = tree.create(&staged).map_err(failed)?;
                Ok(Staging {
                    file,
                    staged,
                    name,
                    parts: Mutex::default(),
                    part_seen: Notify::new(),
                    writing: Arc::default(),
                    lost: Mutex::default(),
                })
            })
            .await?;
        self.uploads.lock().insert(id.clone(), Arc::new(staging));
        Ok(id)
    }

    async fn put_part(&self, _: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let (tree, staging) = (self.tree.clone(), self.upload(id)?);
        let offset = staging.place(part_idx, data.content_length() as u64).await;
        let turn = Arc::clone(&staging.writing).lock_owned().await;
        self.blocking(move || {
            let payload: Vec<Bytes> = data.into_iter().collect();
            tree::write_at(&staging.file, &payload, offset).map_err(failed)?;
            // Moved in: a part whose caller left is still being written. The next one is written while this one is synced.
            drop(turn);
            staging.sync(|file| tree.sync_data(file, &staging.staged))?;
            Ok(PartId { content_id: part_idx.to_string() })
        })
        .await
    }

    async fn complete_multipart(&self, _: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let (tree, finishing) = (self.tree.clone(), self.upload(id)?);
        self.blocking(move || {
            let expected = finishing.parts.lock().total(parts.len());
            let length = finishing.file.metadata().map_err(failed)?.len();
            if expected != Some(length) {
                return Err(object_store::Error::Generic {
                    store: NAME,
                    source: format!("{} parts of equal length do not make {length} bytes", parts.len()).into(),
                });
            }
            let Staging { staged, name, .. } = &*finishing;
            finishing.sync(|file| tree.sync_file(file, staged))?;
            tree.publish(staged, name).map_err(|error| exists_or_failed(&tree, name, error))
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
        let (tree, staged) = (self.tree.clone(), tree::staged(path.as_ref(), id));
        self.blocking(move || match tree.remove(&staged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(failed),
        })
        .await
    }
}

#[async_trait]
impl Durable for LocalStore {
    async fn settle(&self, object: &Path) -> Result<()> {
        let (tree, name) = (self.tree.clone(), object.to_string());
        self.blocking(move || tree.settle(&name).map_err(|error| not_found_or_failed(&tree, &name, error))).await
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
        let root = store.tree.root();
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.strip_prefix(root).unwrap().display().to_string());
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

    #[test]
    fn a_file_may_claim_any_time() {
        for far in [Duration::ZERO, Duration::from_secs(1 << 41), Duration::from_secs(1 << 62)] {
            for time in [UNIX_EPOCH + far, UNIX_EPOCH - far] {
                assert_eq!(meta(Path::from("x"), 1, time).size, 1, "{time:?}");
            }
        }
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
        let other = LocalStore::new(store.tree.root().to_owned(), TaskTracker::new());
        other.abort_multipart(&path, &id).await.unwrap();
        assert_eq!(files(&store), [""; 0]);
        assert!(other.abort_multipart(&path, &"../../etc".to_owned()).await.is_err());
    }
}
