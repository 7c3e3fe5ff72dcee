//! What a repository made to harm takes of memory: every allocation of this process is counted.

#![allow(clippy::print_stdout, clippy::unwrap_used)]
#![allow(unsafe_code, reason = "a global allocator is unsafe; this one hands everything on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tempfile::TempDir;
use vdstream::ErrorKind;
use vdstream::backup::{
    Backup, BackupOptions, Kind, MAX_MANIFEST_BYTES, Manifest, ResumeOptions, Store, VerifyLevel, VerifyOptions, list,
    standing, verifications, verify,
};
use vdstream::pipeline::PipelineConfig;
use vdstream::testing::decoder::{Document, sealed};

const MIB: usize = 1 << 20;

/// The bytes that are allocated now, and the most that were since somebody asked.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// Growing counts as a new allocation beside the old one, as it can be.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came, and its answer goes back as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: whoever calls this keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer is from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that `work` held at once, beside what was held before.
async fn peak<T>(work: impl Future<Output = T>) -> (usize, T) {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let value = work.await;
    (PEAK.load(Ordering::Relaxed) - before, value)
}

/// What a valid manifest is made hostile with, so that it has nearly the largest size.
struct Hostile {
    valid: String,
    room: usize,
}

impl Hostile {
    fn new() -> Self {
        let valid = String::from_utf8(Document::Manifest.valid().unwrap().remove(1)).unwrap();
        let room = usize::try_from(MAX_MANIFEST_BYTES).unwrap() - valid.len() - 1000;
        Self { valid, room }
    }

    fn many(&self, piece: &str) -> String {
        piece.repeat(self.room / piece.len())
    }

    /// A course with these numbers in front of one more, and what stands behind it.
    fn course(raw: &str, stored: &str) -> String {
        let numbers = [
            "millis",
            "threads",
            "source_wait_millis",
            "cpu_wait_millis",
            "cpu_busy_millis",
            "store_wait_millis",
            "store_busy_millis",
            "throttled_millis",
            "requests",
            "retries",
            "memory_peak_bytes",
            "span_millis",
        ];
        let numbers: String = numbers.map(|name| format!("\"{name}\":1,")).concat();
        format!("\"course\":{{{numbers}\"raw_bytes\":[{raw}0],\"stored_bytes\":[{stored}0]}},\"stripes\":[")
    }

    /// A text whose escapes make the decoder put it together in memory of its own, which grows by doubling: here at the last moment.
    fn escaped(&self) -> String {
        let half = "x".repeat(self.room / 2 - 10);
        format!("{half}\\n{half}\\n\\n")
    }

    /// Lists a store with the manifest in which `to` stands for `from`, and answers whether it is a backup.
    async fn list(&self, what: &str, from: &str, to: String) -> bool {
        const BOUND: usize = 272 * MIB;
        assert!(self.valid.contains(from), "{what}");
        let manifest = sealed(self.valid.replacen(from, &to, 1).as_bytes());
        drop(to);
        assert!(manifest.len() > 60 * MIB && manifest.len() as u64 <= MAX_MANIFEST_BYTES, "{what}: {}", manifest.len());
        let work = TempDir::new().unwrap();
        let directory = work.path().join("store/default/018bcfe5-687b-7000-8000-000000000001");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("manifest.json"), &manifest).unwrap();
        drop(manifest);
        let store = Store::from_url(&format!("file://{}", work.path().join("store").display())).unwrap();
        let (listed, listing) = peak(list(&store, None)).await;
        println!("{what}: {} MiB", listed / MIB);
        assert!(listed > 60 * MIB, "{what}: nothing was counted");
        assert!(listed <= BOUND, "{what}: {} MiB", listed / MIB);
        let listing = listing.unwrap();
        assert_eq!(listing.backups.len() + listing.damaged.len(), 1, "{what}");
        assert!(listing.damaged.iter().all(|damaged| damaged.error.kind() == ErrorKind::Corrupt), "{what}");
        listing.damaged.is_empty()
    }
}

/// `0,` is two bytes of a manifest and eight in memory: it once took several times what is promised.
#[tokio::test]
async fn a_hostile_manifest_takes_272_mebibytes_at_most() {
    let hostile = Hostile::new();
    let course = Hostile::course(&hostile.many("0,"), "");
    assert!(!hostile.list("spans", "\"stripes\":[", course).await);
}

#[tokio::test]
async fn so_does_one_of_many_segments() {
    let hostile = Hostile::new();
    let segment = "{\"object\":\"\",\"raw_offset\":0,\"raw_bytes\":0,\"stored_bytes\":0,\"frames\":0,\"tail_bytes\":0,\
                   \"raw_hash\":\"\",\"stored_hash\":\"\"},";
    let segments = format!("\"segments\":[{}", hostile.many(segment));
    assert!(!hostile.list("segments", "\"segments\":[", segments).await);
}

#[tokio::test]
async fn so_does_one_of_long_texts() {
    let hostile = Hostile::new();
    let text = hostile.escaped();
    // It is what it says: large and harmless.
    assert!(hostile.list("a text", "\"tool\":\"", format!("\"tool\":\"{text}")).await);
    assert!(hostile.list("a name", "\"tool\":\"", format!("\"{text}\":0,\"tool\":\"")).await);
}

/// What a list keeps of a backup has a bound of its own: it once kept the host of each, however long.
#[tokio::test]
async fn a_list_keeps_little_of_many_large_manifests() {
    let room = Hostile::new().room;
    let work = TempDir::new().unwrap();
    let mut manifest = Manifest::decode(&Document::Manifest.valid().unwrap()[1], "x").unwrap();
    let store = Store::from_url(&format!("file://{}", work.path().join("store").display())).unwrap();
    let mut peaks = Vec::new();
    for number in 1..=6 {
        manifest.id = format!("018bcfe5-687b-7000-8000-00000000000{number}").parse().unwrap();
        let valid = String::from_utf8(manifest.encode().unwrap()).unwrap();
        let host = format!("\"host\":\"{}", "x".repeat(room));
        let document = sealed(valid.replacen("\"host\":\"", &host, 1).as_bytes());
        let directory = work.path().join(format!("store/{}/{}", manifest.series, manifest.id));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("manifest.json"), document).unwrap();
        drop((valid, host));
        if number == 1 || number == 6 {
            let (held, listing) = peak(list(&store, None)).await;
            let listing = listing.unwrap();
            assert_eq!((listing.backups.len(), listing.damaged.len()), (0, number), "{listing:?}");
            assert!(listing.damaged.iter().all(|damaged| damaged.error.report().contains("host and labels")));
            println!("{} MiB to list {number}", held / MIB);
            peaks.push(held);
        }
    }
    assert!(peaks[0] > 60 * MIB && peaks[1] < 2 * peaks[0], "{peaks:?}");
}

/// A store whose listings show many objects more below each backup, made while they are asked for.
#[derive(Debug, Default)]
struct Crowded {
    objects: InMemory,
    /// Among them, where they are asked for, records that the backup is being deleted.
    is_deleted: AtomicBool,
}

/// Records of verifications, segments of other processes, segments that no manifest names.
const STRAYS: usize = 200_000;

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a crowded store")
    }
}

#[async_trait]
impl ObjectStore for Crowded {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let directory = prefix.map(ToString::to_string).unwrap_or_default();
        // Of the parts that a backup's directory has only those that were asked for.
        let (backup, below) = match directory.strip_suffix("/verified") {
            Some(backup) => (backup.to_owned(), "verified"),
            None => (directory.clone(), ""),
        };
        let is_backup = backup.split('/').count() == 2;
        let is_deleted = directory.ends_with("/deleted") && self.is_deleted.load(Ordering::Relaxed);
        let deleted = (0..if is_deleted { STRAYS } else { 0 }).map(move |number| ObjectMeta {
            location: Path::from(format!("{directory}/20260101T{number:06}.000Z.json")),
            last_modified: std::time::UNIX_EPOCH.into(),
            size: 1,
            e_tag: None,
            version: None,
        });
        let strays = (0..if is_backup { STRAYS } else { 0 }).filter_map(move |number| {
            let name = match number % 3 {
                0 => format!(
                    "verified/2020{:02}{:02}T{:06}.{:03}Z.json",
                    number / 28 % 12 + 1,
                    number % 28 + 1,
                    101_010,
                    number % 1000
                ),
                1 => format!("s{:02}/{:06}-c{:02}.zst", number % 64, number / 64, number % 90 + 1),
                _ => format!("s00/{number:06}.zst"),
            };
            name.starts_with(below).then(|| ObjectMeta {
                location: Path::from(format!("{backup}/{name}")),
                last_modified: std::time::UNIX_EPOCH.into(),
                size: 1,
                e_tag: None,
                version: None,
            })
        });
        self.objects.list(prefix).chain(stream::iter(strays.chain(deleted).map(Ok))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn many_objects_beside_a_backup_take_little_memory() {
    let crowded = Arc::new(Crowded::default());
    let store = Store::new(Arc::<Crowded>::clone(&crowded) as _, "");
    let mut backup = Backup::begin(&store, "orders", BackupOptions::default()).await.unwrap();
    backup.stripe_reader(0, std::io::Cursor::new(b"rows".to_vec())).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    store.wait_idle().await;
    let quick = || VerifyOptions::new(VerifyLevel::Quick).record(false);
    let (verified, report) = peak(verify(&store, &manifest, quick())).await;
    assert!(report.unwrap().is_good());
    let (listed, listing) = peak(list(&store, None)).await;
    assert_eq!(listing.unwrap().backups.len(), 1);
    println!("{} KiB to verify, {} KiB to list", verified >> 10, listed >> 10);
    assert!(verified < 6 * MIB && listed < 6 * MIB, "{verified} and {listed} bytes");
    // Their names stand for nothing: reading them fails, and harms nothing.
    let (records, found) = peak(verifications(&store, &manifest)).await;
    assert!(found.unwrap().is_empty() && records < 6 * MIB, "{records} bytes");

    // What resumes needs to know more, and has a bound too.
    let name = format!("orders/{}/manifest.json", manifest.id);
    crowded.objects.delete(&Path::from(name)).await.unwrap();
    let pipeline = PipelineConfig { memory_limit: 64 << 20, ..PipelineConfig::default() };
    let options = ResumeOptions::default().silence(std::time::Duration::ZERO).pipeline(pipeline);
    let (resumed, outcome) = peak(Backup::resume(&store, "orders", manifest.id, options)).await;
    println!("{} MiB to look for what can be kept", resumed / MIB);
    assert!(resumed < 128 * MIB, "{resumed} bytes");
    match outcome {
        Ok(backup) => drop(backup.abort(vdstream::Error::new(ErrorKind::Aborted, "enough")).await),
        Err(error) => println!("{}", error.report()),
    }
    let left: Vec<ObjectMeta> = crowded.objects.list(None).try_collect().await.unwrap();
    assert!(!left.is_empty());
}

/// A backup with so many records of verifications, which are all `document`.
async fn recorded(document: &[u8], count: usize) -> (Store, Manifest) {
    let objects = Arc::new(InMemory::new());
    let manifest = Manifest::decode(&Document::Manifest.valid().unwrap()[1], "x").unwrap();
    for number in 0..count {
        let name = format!("{}/{}/verified/20200101T000000.{number:03}Z.json", manifest.series, manifest.id);
        objects.put(&Path::from(name), document.to_vec().into()).await.unwrap();
    }
    (Store::new(objects, ""), manifest)
}

/// A valid record in which `to` stands for `from`.
fn record(changes: &[(&str, String)]) -> Vec<u8> {
    let mut text = String::from_utf8(Document::Verification.valid().unwrap().remove(1)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    let record = sealed(text.as_bytes());
    assert!(record.len() <= MIB, "{}", record.len());
    record
}

/// A finding without words is 25 bytes of a record and twice that in memory.
#[tokio::test]
async fn records_of_many_findings_take_little_memory() {
    const FINDINGS: usize = 40_000;
    let findings = "{\"object\":\"\",\"error\":\"\"},".repeat(FINDINGS);
    let record = record(&[
        ("\"damage\":[", format!("\"damage\":[{findings}")),
        ("\"findings\":2", format!("\"findings\":{}", FINDINGS + 1)),
    ]);
    let (store, manifest) = recorded(&record, 20).await;
    let (held, found) = peak(verifications(&store, &manifest)).await;
    println!("{} KiB for all records", held >> 10);
    assert!(held < 8 * MIB, "{held} bytes");
    assert_eq!(found.unwrap(), []);
    assert!(standing(&store, &manifest).await.unwrap().has_unread);
    let (held, report) = peak(verify(&store, &manifest, stored())).await;
    println!("{} KiB to verify", held >> 10);
    assert!(held < 24 * MIB, "{held} bytes");
    let records = report.unwrap().damage.into_iter().filter(|damage| damage.object.contains("/verified/"));
    assert_eq!(records.count(), 20, "each is one that nobody writes");
}

fn stored() -> VerifyOptions {
    let pipeline = PipelineConfig { memory_limit: 64 << 20, ..PipelineConfig::default() };
    VerifyOptions::new(VerifyLevel::Stored).since_last(std::time::Duration::MAX).pipeline(pipeline).record(false)
}

#[tokio::test]
async fn so_do_records_of_long_texts() {
    let record = record(&[("\"tool\":\"", format!("\"tool\":\"{}", "x".repeat(MIB - 2000)))]);
    let (store, manifest) = recorded(&record, 100).await;
    let (held, report) = peak(verify(&store, &manifest, stored())).await;
    println!("{} KiB to verify", held >> 10);
    assert!(held < 40 * MIB, "{held} bytes");
    assert!(report.unwrap().damage.iter().all(|damage| !damage.object.contains("/verified/")));
    let (held, found) = peak(verifications(&store, &manifest)).await;
    println!("{} MiB for all records", held / MIB);
    assert!(held < 70 * MIB, "{held} bytes");
    assert!((60..=64).contains(&found.unwrap().len()), "the newest are answered");
}

/// It once held all that its directory showed.
#[tokio::test]
async fn giving_up_among_many_objects_takes_little_memory() {
    let crowded = Arc::new(Crowded::default());
    let store = Store::new(Arc::<Crowded>::clone(&crowded) as _, "");
    let backup = Backup::begin(&store, "orders", BackupOptions::default()).await.unwrap();
    let (held, outcome) = peak(backup.abort(vdstream::Error::new(ErrorKind::Aborted, "enough"))).await;
    println!("{} KiB to give up", held >> 10);
    assert!(held < 6 * MIB, "{held} bytes");
    // They are shown whatever is deleted.
    let error = outcome.unwrap_err();
    assert!(error.report().contains("is listed although it was deleted"), "{}", error.report());
}

#[tokio::test]
async fn many_records_of_a_deletion_are_one() {
    let crowded = Arc::new(Crowded::default());
    let store = Store::new(Arc::<Crowded>::clone(&crowded) as _, "");
    let mut backup = Backup::begin(&store, "orders", BackupOptions::default()).await.unwrap();
    backup.stripe_reader(0, std::io::Cursor::new(b"rows".to_vec())).unwrap();
    let parent = backup.commit().await.unwrap().manifest.id;
    let options = BackupOptions::default().continues(parent, Kind::Log);
    // Most of that is the memory of a stripe.
    let (plain, begun) = peak(Backup::begin(&store, "orders", options.clone())).await;
    println!("{} KiB to begin", plain >> 10);
    drop(begun);
    store.wait_idle().await;
    crowded.is_deleted.store(true, Ordering::Relaxed);
    let (held, outcome) = peak(Backup::begin(&store, "orders", options)).await;
    println!("{} KiB to look for a parent", held >> 10);
    assert!(held < plain + 6 * MIB, "{held} bytes");
    let error = outcome.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.report().contains("being deleted"), "{}", error.report());
}
