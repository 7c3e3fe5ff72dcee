//! A disk on which there is no room left, not even for the small objects that removing writes.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as Outcome,
};

use super::collection::{HOUR, bucket, killed, on};
use super::*;
use crate::ErrorKind;
use crate::backup::collection::{CollectionReport, DEFAULT_GRACE, apply, plan};
use crate::backup::retention::{self, DeletionReport, Descendants, RetentionPolicy};
use crate::clock::Clock;
use crate::sync::Mutex;
use crate::testing::{Bucket, Contents, SimClock, StoredObject};

/// A bucket as a disk of limited size. What is uploaded in parts has room.
#[derive(Debug, Clone)]
struct Disk {
    bucket: Bucket,
    capacity: Arc<Mutex<usize>>,
}

impl Disk {
    /// Full as it is.
    fn full(bucket: &Bucket) -> Self {
        let disk = Self { bucket: bucket.clone(), capacity: Arc::default() };
        *disk.capacity.lock() = disk.used();
        disk
    }

    fn used(&self) -> usize {
        let contents = self.bucket.contents();
        let parts = contents.uploads.values().flat_map(|upload| upload.parts.values());
        contents.objects.values().map(|object| object.bytes.len()).chain(parts.map(Bytes::len)).sum()
    }

    fn local(&self, clock: &SimClock) -> Store {
        on(self, clock).sharing_clock()
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disk")
    }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Outcome<PutResult> {
        if self.used() + payload.content_length() > *self.capacity.lock() {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(object_store::Error::Generic { store: "disk", source: full.into() });
        }
        self.bucket.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Outcome<Box<dyn MultipartUpload>> {
        self.bucket.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Outcome<GetResult> {
        self.bucket.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Outcome<Path>>) -> BoxStream<'static, Outcome<Path>> {
        self.bucket.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Outcome<ObjectMeta>> {
        self.bucket.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Outcome<ListResult> {
        self.bucket.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Outcome<()> {
        self.bucket.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Disk {
    async fn create_multipart(&self, path: &Path) -> Outcome<MultipartId> {
        self.bucket.create_multipart(path).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Outcome<PartId> {
        self.bucket.put_part(path, id, index, data).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Outcome<PutResult> {
        self.bucket.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Outcome<()> {
        self.bucket.abort_multipart(path, id).await
    }
}

/// What a killed backup leaves on local disk: whole segments, a file without its name, and the record of its upload.
async fn killed_on_disk(bucket: &Bucket, clock: &SimClock) -> BackupId {
    let id = killed(bucket, clock).await;
    bucket.edit(|contents| *contents = std::mem::take(contents).on_disk(clock.wall()));
    id
}

fn partials(bucket: &Bucket) -> usize {
    bucket.contents().objects.keys().filter(|name| name.contains(".partial-")).count()
}

async fn collect(store: &Store) -> (Result<()>, CollectionReport) {
    let (plan, mut report) = (plan(store, None, DEFAULT_GRACE).await.unwrap(), CollectionReport::default());
    let outcome = apply(store, &plan, &mut report).await;
    (outcome, report)
}

/// There was no room for the mark, so the gigabytes of a killed backup could not go.
#[tokio::test]
async fn what_a_killed_backup_leaves_on_a_full_disk_goes() {
    let (bucket, clock) = bucket(Contents::default());
    let good = back_up(&on(&bucket, &clock), &[noise(1, 1000)]).await.unwrap().manifest;
    let committed = bucket.contents();
    let id = killed_on_disk(&bucket, &clock).await;
    assert_eq!(partials(&bucket), 1);
    let disk = Disk::full(&bucket);
    let (store, before) = (disk.local(&clock), bucket.contents());
    let (outcome, report) = collect(&store).await;
    outcome.unwrap();
    assert_eq!((report, bucket.contents()), (CollectionReport::default(), before), "nothing before the grace time");

    clock.advance(DEFAULT_GRACE);
    // The time of a store that is elsewhere has to be asked for.
    let (outcome, report) = collect(&on(&disk, &clock)).await;
    assert_eq!((outcome.unwrap_err().kind(), report.objects), (ErrorKind::Exhausted, 0));
    let (outcome, report) = collect(&store).await;
    outcome.unwrap();
    assert_eq!(report.backups, [id]);
    assert_eq!(bucket.contents(), committed);
    assert_eq!(restore(&store, &good).await.unwrap(), [noise(1, 1000)]);
}

#[tokio::test]
async fn nothing_that_lives_goes_to_make_room() {
    let (bucket, clock) = bucket(Contents::default());
    let id = killed_on_disk(&bucket, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let store = Disk::full(&bucket).local(&clock);
    let due = plan(&store, None, DEFAULT_GRACE).await.unwrap();
    for (name, why) in [("s00/000009.zst", "too young"), ("manifest.json", "committed")] {
        let (name, before) = (format!("orders/{id}/{name}"), bucket.contents());
        let object = StoredObject { bytes: Bytes::from_static(b"alive"), modified: clock.wall() };
        bucket.edit(|contents| contents.objects.insert(name, object));
        let (mut report, alive) = (CollectionReport::default(), bucket.contents());
        apply(&store, &due, &mut report).await.unwrap();
        assert!(report.objects == 0 && report.kept[0].why.contains(why), "{report:?}");
        assert_eq!(bucket.contents(), alive);
        bucket.edit(|contents| *contents = before);
    }
}

/// Whole segments may not go without a mark: their writer may wake and commit them. Others make room for it.
#[tokio::test]
async fn a_dead_backup_without_such_files_goes_after_one_that_has_them() {
    let (bucket, clock) = bucket(Contents::default());
    let older = killed_on_disk(&bucket, &clock).await;
    bucket.edit(|contents| contents.objects.retain(|name, _| !name.contains(".partial-")));
    let before = bucket.contents();
    clock.advance(DEFAULT_GRACE);
    let store = Disk::full(&bucket).local(&clock);
    let (outcome, report) = collect(&store).await;
    let error = outcome.unwrap_err();
    assert!(error.kind() == ErrorKind::Exhausted && error.report().contains("no room for the mark"), "{error:?}");
    assert_eq!((report.objects, bucket.contents()), (0, before));

    let younger = killed_on_disk(&bucket, &clock).await;
    clock.advance(DEFAULT_GRACE);
    let (outcome, report) = collect(&Disk::full(&bucket).local(&clock)).await;
    outcome.unwrap();
    assert_eq!(report.backups, [younger, older], "the older one has waited");
    assert_eq!(bucket.contents(), Contents::default());
}

#[tokio::test]
async fn the_data_of_a_deleted_backup_makes_room_for_its_mark() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let manifest = back_up(&store, &[noise(1, 500_000)]).await.unwrap().manifest;
    store.wait_idle().await;
    let deletion = retention::plan_deletion(&store, &manifest.series, manifest.id, Descendants::Refuse).await.unwrap();
    retention::apply(&store, &deletion, &mut DeletionReport::default()).await.unwrap();
    clock.advance(DEFAULT_GRACE);
    let (outcome, report) = collect(&Disk::full(&bucket).local(&clock)).await;
    outcome.unwrap();
    assert_eq!(report.backups, [manifest.id]);
    assert_eq!(bucket.contents(), Contents::default());
}

#[tokio::test]
async fn a_deletion_without_room_for_its_records_deletes_nothing() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    for number in 0..4 {
        back_up(&store, &[noise(number, 1000)]).await.unwrap();
        clock.advance(HOUR);
    }
    store.wait_idle().await;
    let (before, disk) = (bucket.contents(), Disk::full(&bucket));
    // There is room for one of the three records, and then for all.
    for (room, is_enough) in [(0, false), (400, false), (4000, true)] {
        *disk.capacity.lock() = disk.used() + room;
        let store = disk.local(&clock);
        let plan = retention::plan(&store, &latest().0, &RetentionPolicy::new().keep_last(1)).await.unwrap();
        let mut report = DeletionReport::default();
        let outcome = retention::apply(&store, &plan, &mut report).await;
        assert_eq!((outcome.is_ok(), report.deleted.len()), (is_enough, if is_enough { 3 } else { 0 }), "{room}");
        let Err(error) = outcome else { continue };
        assert!(error.kind() == ErrorKind::Exhausted && error.report().contains("`gc` makes some"), "{error:?}");
        assert_eq!(bucket.contents(), before, "{room}: no record stays");
    }
}
