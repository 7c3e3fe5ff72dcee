//! What a backup costs in requests, bytes and memory: the numbers of the page `manual/costs.md`, which must not grow.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use integration::counting::CountingStore;
use integration::tool;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use vdstream::backup::collection::{self, CollectionReport};
use vdstream::backup::retention::{self, DeletionReport, RetentionPolicy};
use vdstream::backup::store::PartLimits;
use vdstream::backup::{
    Backup, BackupOptions, BackupReport, Manifest, Restore, RestoreOptions, ResumeOptions, Select, Store, VerifyLevel,
    VerifyOptions,
};
use vdstream::pipeline::{Ack, Input, PipelineConfig};
use vdstream::{Error, ErrorKind};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

type Counts = BTreeMap<&'static str, u64>;

fn store(counting: &CountingStore) -> Store {
    let (objects, multipart) = (Arc::new(counting.clone()), Arc::new(counting.clone()));
    Store::with_multipart(objects, multipart, "").part_limits(PartLimits::S3)
}

/// Bytes that no compressor makes smaller.
fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

/// A backup of `stripes` stripes of `raw_bytes` noise each, the same frame again and again.
async fn back_up(store: &Store, config: PipelineConfig, stripes: u16, raw_bytes: u64) -> BackupReport {
    let options = BackupOptions::default().stripes(stripes).pipeline(config.clone());
    let mut backup = Backup::begin(store, "costs", options).await.unwrap();
    let piece = noise(config.frame_bytes);
    for stripe in 0..stripes {
        let piece = piece.clone();
        let size = piece.len() as u64;
        let pieces = (0..raw_bytes.div_ceil(size)).map(move |nth| {
            let len = usize::try_from((raw_bytes - nth * size).min(size)).unwrap();
            Ok(Input::Data(piece.slice(..len)))
        });
        let end = stream::iter([Ok(Input::Complete(Ack::new(|_durable| {})))]);
        backup.stripe_input(stripe, stream::iter(pieces).chain(end)).unwrap();
    }
    let report = backup.commit().await.unwrap();
    store.wait_idle().await;
    report
}

/// The documented requests of a backup whose segments have these sizes.
fn documented(segments: &[u64], part_bytes: u64) -> Counts {
    let mut counts = Counts::from([("put", 2)]);
    for stored in segments {
        if *stored <= part_bytes {
            *counts.entry("put").or_default() += 1;
            continue;
        }
        for (what, count) in [
            ("put", 1),
            ("begin upload", 1),
            ("put part", stored.div_ceil(part_bytes)),
            ("complete upload", 1),
            ("delete", 1),
        ] {
            *counts.entry(what).or_default() += count;
        }
    }
    counts
}

fn segments(manifest: &Manifest) -> Vec<u64> {
    manifest.stripes.iter().flat_map(|stripe| &stripe.segments).map(|segment| segment.stored_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_backup_costs_three_requests_and_its_restore_three() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    let report = back_up(&store, PipelineConfig::default(), 1, KIB).await;
    assert_eq!(counting.take_counts(), Counts::from([("put", 3)]));
    assert!(counting.stored_bytes() < KIB + 200, "{} bytes for 1 KiB", counting.stored_bytes());

    let found = vdstream::backup::find(&store, &report.manifest.series, Select::Latest).await.unwrap();
    assert_eq!(counting.take_counts(), Counts::from([("get", 1), ("list", 1)]));
    let restore = Restore::begin(&store, &found, RestoreOptions::default()).unwrap();
    let pieces: Vec<Bytes> = restore.stripe(0).try_collect().await.unwrap();
    assert_eq!(pieces.concat().len() as u64, KIB);
    assert_eq!(counting.take_counts(), Counts::from([("get", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_by_size_are_what_the_manual_says() {
    // As the page says: on two cores.
    let config = PipelineConfig { threads: 2, ..PipelineConfig::default() };
    for (size, requests, manifest_kb) in
        [(0, 2, 1.0), (KIB, 3, 1.3), (7 * MIB, 3, 1.4), (9 * MIB, 8, 1.4), (100 * MIB, 19, 1.6), (GIB, 135, 2.6)]
    {
        let counting = CountingStore::dropping();
        let report = back_up(&store(&counting).lend_payloads(), config.clone(), 1, size).await;
        let counts = counting.take_counts();
        assert_eq!(counts, documented(&segments(&report.manifest), 8 * MIB), "{size} bytes");
        assert_eq!(counts.values().sum::<u64>(), requests, "{size} bytes");
        let bytes = report.manifest.encode().unwrap().len();
        println!("{size}: {bytes} bytes of manifest, {} of buffers", report.progress.memory_peak);
        assert!(bytes as f64 <= manifest_kb * 1e3, "{bytes} bytes of manifest for {size}");
        assert!(
            report.progress.memory_peak <= 121 * MIB,
            "{} bytes of buffers for {size}",
            report.progress.memory_peak
        );
        says(&format!("| {} | {requests} | {manifest_kb} KB |", readable(size)));
    }
    says("at most the plan, 121 MiB on two cores");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_costs_a_claim_a_list_and_a_delete_of_each_object() {
    for segments in [1, 5] {
        let counting = CountingStore::keeping();
        let store = store(&counting);
        let mut backup = Backup::begin(&store, "costs", BackupOptions::default()).await.unwrap();
        let (pieces, source) = futures::channel::mpsc::unbounded();
        backup.stripe_input(0, source).unwrap();
        for _ in 0..segments {
            let (told, durable) = futures::channel::oneshot::channel();
            pieces.unbounded_send(Ok(Input::Data(noise(1024)))).unwrap();
            pieces.unbounded_send(Ok(Input::Flush(Ack::new(|outcome| told.send(outcome).unwrap())))).unwrap();
            durable.await.unwrap().unwrap();
        }
        assert_eq!(counting.take_counts(), Counts::from([("put", 1 + segments)]));
        backup.abort(Error::new(ErrorKind::Aborted, "enough")).await.unwrap();
        store.wait_idle().await;
        // The intent, the claim and the segments go.
        assert_eq!(counting.take_counts(), Counts::from([("put", 1), ("list", 1), ("delete", segments + 2)]));
    }
    says("| abort | 1 put of a claim, 1 list, the aborts, and 1 delete per object |");
}

/// A backup of one segment whose process ended before its manifest.
async fn interrupted(counting: &CountingStore) -> Manifest {
    let store = store(counting);
    let manifest = back_up(&store, PipelineConfig::default(), 1, KIB).await.manifest;
    counting.delete(&Path::from(format!("costs/{}/manifest.json", manifest.id))).await.unwrap();
    counting.take_counts();
    manifest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_backup_asks_for_what_the_manual_says() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    let id = interrupted(&counting).await.id;
    let options = ResumeOptions::default().silence(Duration::ZERO);
    let mut backup = Backup::resume(&store, "costs", id, options).await.unwrap();
    assert_eq!(backup.offsets(), [KIB]);
    // The intent, the end of the segment and its content.
    assert_eq!(counting.take_counts(), Counts::from([("list", 3), ("get", 3), ("put", 4), ("delete", 1)]));
    let end = stream::iter([Ok(Input::Complete(Ack::new(|_durable| {})))]);
    backup.stripe_input(0, end).unwrap();
    backup.commit().await.unwrap();
    store.wait_idle().await;
    assert_eq!(counting.take_counts(), Counts::from([("put", 1), ("list", 4), ("head", 1)]));
    says("| resume | 3 lists, 4 puts and 1 delete, 1 get of the intent");
    says("per kept segment 1 get of its end and the requests of its restore; 2 lists more at the commit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_asks_for_what_the_manual_says() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    interrupted(&counting).await;
    for _ in 0..3 {
        back_up(&store, PipelineConfig::default(), 1, KIB).await;
    }
    counting.take_counts();
    let plan = collection::plan(&store, Some(&"costs".parse().unwrap()), Duration::ZERO).await.unwrap();
    assert_eq!(counting.take_counts(), Counts::from([("list", 1 + 4), ("get", 4)]));
    let mut report = CollectionReport::default();
    collection::apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!(report.objects, 3);
    let expected = Counts::from([("put", 2), ("get", 1), ("head", 1), ("list", 5), ("delete", 3 + 1)]);
    assert_eq!(counting.take_counts(), expected);
    says(
        "| `gc` | 1 list per series, and 1 list and 1 get per backup; to remove one that was not committed, 2 puts, 1 get, 1 head, 5 lists or more",
    );
}

fn says(words: &str) {
    assert!(manual().contains(words), "costs.md does not say: {words}");
}

fn readable(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes.is_multiple_of(GIB) => format!("{} GiB", bytes / GIB),
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / KIB),
    }
}

fn manual() -> String {
    std::fs::read_to_string(tool::repository().join("src/manual/costs.md")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_a_restore_are_frames_and_one_more_per_segment() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    let report = back_up(&store, PipelineConfig::default(), 1, 100 * MIB).await;
    counting.take_counts();
    let restore = Restore::begin(&store, &report.manifest, RestoreOptions::default()).unwrap();
    let mut pieces = std::pin::pin!(restore.stripe(0));
    let mut raw_bytes = 0;
    while let Some(piece) = pieces.next().await {
        raw_bytes += piece.unwrap().len() as u64;
    }
    assert_eq!(raw_bytes, 100 * MIB);
    // A range holds whole frames: of 4 MiB of noise, one fits.
    assert_eq!(counting.take_counts(), Counts::from([("get", 1 + 25)]));
}

#[tokio::test]
async fn the_first_ranges_of_a_restore_are_short() {
    let counting = CountingStore::keeping();
    let store = store(&counting).part_limits(PartLimits { min_part_bytes: 1, max_parts: 10_000 });
    let config = PipelineConfig { frame_bytes: 64 << 10, part_bytes: 2 << 20, ..PipelineConfig::default() };
    let report = back_up(&store, config.clone(), 1, 8 * MIB).await;
    counting.take_counts();
    let options = RestoreOptions::default().pipeline(config);
    let restore = Restore::begin(&store, &report.manifest, options).unwrap();
    let raw_bytes = restore.stripe(0).try_fold(0, async |sum, piece| Ok(sum + piece.len() as u64)).await.unwrap();
    assert_eq!(raw_bytes, 8 * MIB);
    // Frames are a little larger than 64 KiB here, so that 1, 3, 7 and 15 of them fit into 1/8, 1/4, 1/2 and 1 MiB. The tail is read first.
    let lengths = counting.ranges();
    let frames = |range: &u64| range / (64 * KIB);
    assert_eq!(lengths[1..].iter().map(frames).collect::<Vec<_>>(), [1, 3, 7, 15, 15, 15, 15, 15, 15, 15, 12]);
    assert_eq!(counting.take_counts(), Counts::from([("get", 12)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_costs_two_requests_per_backup_and_one_per_series() {
    const BACKUPS: u64 = 10_000;
    let counting = CountingStore::dropping();
    let store = store(&counting);
    let mut manifest = back_up(&store, PipelineConfig::default(), 1, KIB).await.manifest;
    let first = manifest.id.to_string();
    for nth in 1..BACKUPS {
        let id = format!("{}{nth:012x}", &first[..first.len() - 12]);
        manifest.id = id.parse().unwrap();
        let path = Path::from(format!("costs/{id}/manifest.json"));
        counting.put(&path, manifest.encode().unwrap().into()).await.unwrap();
    }
    counting.take_counts();
    let listing = vdstream::backup::list(&store, Some(&manifest.series)).await.unwrap();
    assert_eq!((listing.backups.len() as u64, listing.damaged.len()), (BACKUPS, 0));
    assert_eq!(counting.take_counts(), Counts::from([("get", BACKUPS), ("list", 1 + BACKUPS)]));
    vdstream::backup::find(&store, &manifest.series, Select::Latest).await.unwrap();
    assert_eq!(counting.take_counts(), Counts::from([("get", 1), ("list", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_a_backup_was_verified_a_list_reads_one_record() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    let manifest = back_up(&store, PipelineConfig::default(), 1, KIB).await.manifest;
    let policy = RetentionPolicy::new().keep_last(1);
    for nth in 0..4 {
        counting.take_counts();
        let quick = VerifyOptions::new(VerifyLevel::Quick);
        assert!(vdstream::backup::verify(&store, &manifest, quick).await.unwrap().record.is_some());
        // One listing is the verification, the rest is the record.
        let mut expected = Counts::from([("head", 1), ("list", 1 + 1), ("put", 1)]);
        expected.extend((nth > 0).then_some(("get", 1)));
        assert_eq!(counting.take_counts(), expected, "verification {nth}");
        let listing = vdstream::backup::list(&store, Some(&manifest.series)).await.unwrap();
        assert!(listing.backups[0].verified.is_some());
        assert_eq!(counting.take_counts(), Counts::from([("get", 2), ("list", 2)]), "list {nth}");
        vdstream::backup::standing(&store, &manifest).await.unwrap();
        assert_eq!(counting.take_counts(), Counts::from([("get", 1), ("list", 1)]), "show {nth}");
        retention::plan(&store, &manifest.series, &policy).await.unwrap();
        assert_eq!(counting.take_counts(), Counts::from([("get", 2 + 1), ("list", 2 + 1)]), "prune {nth}");
    }
    says("1 get more if it was verified");
    says("| the record of a verification | 1 list, 1 head and 1 put; 1 get if it was verified before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prune_looks_at_what_it_keeps_once() {
    let counting = CountingStore::keeping();
    let store = store(&counting);
    let mut series = None;
    for _ in 0..5 {
        series = Some(back_up(&store, PipelineConfig::default(), 1, KIB).await.manifest.series);
    }
    counting.take_counts();
    let plan = retention::plan(&store, &series.unwrap(), &RetentionPolicy::new().keep_last(2)).await.unwrap();
    assert_eq!(counting.take_counts(), Counts::from([("get", 5 + 2), ("list", 1 + 5 + 2)]));
    let mut report = DeletionReport::default();
    retention::apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!(report.deleted.len(), 3);
    assert_eq!(counting.take_counts(), Counts::from([("put", 3), ("list", 1), ("delete", 3)]));
    says("| `prune` | what `list` asks, and 1 list and 1 get for each backup that it keeps");
}

/// 10 TiB that cannot be compressed are 10,240 segments of 1 GiB. Here every segment is as small as it can be, so that a test can
/// have as many of them; what is counted does not depend on the scale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tebibytes_are_more_segments_of_the_same_and_no_more_memory() {
    let config = PipelineConfig {
        memory_limit: 64 << 20,
        depth: 0,
        frame_bytes: 64 << 10,
        part_bytes: 128 << 10,
        segment_bytes: 1,
        threads: 2,
        ..PipelineConfig::default()
    };
    let mut curve = Vec::new();
    for segments_wanted in [1024, 10_240] {
        let counting = CountingStore::dropping();
        let any_parts = PartLimits { min_part_bytes: 1, max_parts: 10_000 };
        let store = store(&counting).part_limits(any_parts).lend_payloads();
        // A segment ends a reorder window of 4 frames after the one that was enough.
        let report = back_up(&store, config.clone(), 1, segments_wanted * 5 * 64 * KIB).await;
        let sizes = segments(&report.manifest);
        assert!(sizes.len() as u64 >= segments_wanted, "{} segments", sizes.len());
        let (last, full) = sizes.split_last().unwrap();
        assert!(full.iter().all(|size| *size == full[0]) && *last <= full[0], "segments differ in size");
        assert_eq!(counting.take_counts(), documented(&sizes, 128 * KIB));
        // Parts are of one size, but for the last of each segment.
        let parts = counting.parts();
        assert_eq!(parts.keys().last(), Some(&(128 << 10)));
        assert!(parts.len() <= 3, "{parts:?}");
        assert_eq!(counting.stored_bytes(), report.manifest.stored_bytes());
        let manifest_bytes = report.manifest.encode().unwrap().len() as u64;
        assert!(manifest_bytes < 1000 + 400 * sizes.len() as u64, "{manifest_bytes} bytes of manifest");
        let head = counting.head(&Path::from(format!("costs/{}/manifest.json", report.manifest.id))).await.unwrap();
        assert_eq!(head.size, manifest_bytes);
        curve.push((sizes.len() as u64, manifest_bytes, report.progress.memory_peak));
    }
    let [(few, small, peak), (many, large, same)] = curve[..] else { unreachable!("two runs") };
    assert!(same <= 64 << 20 && same <= peak + (peak / 20), "memory grew from {peak} to {same}");
    // Linear: as many times larger as there are more segments.
    let (per_few, per_many) = (small as f64 / few as f64, large as f64 / many as f64);
    assert!((per_few / per_many - 1.0).abs() < 0.05, "{per_few} and {per_many} bytes per segment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_stripes_share_one_memory_number() {
    let any_parts = PartLimits { min_part_bytes: 1, max_parts: 10_000 };
    for (stripes, size) in [(64, 4 * MIB), (64, 16 * MIB), (1, MIB)] {
        let counting = CountingStore::dropping();
        let report =
            back_up(&store(&counting).part_limits(any_parts).lend_payloads(), PipelineConfig::default(), stripes, size)
                .await;
        assert_eq!(report.manifest.stripes.len(), usize::from(stripes));
        assert_eq!(report.manifest.raw_bytes(), u64::from(stripes) * size);
        assert!(report.progress.memory_peak <= 256 * MIB, "{} bytes", report.progress.memory_peak);
        let begun_or_put = counting.take_counts();
        assert!(begun_or_put.values().sum::<u64>() <= 2 + u64::from(stripes) * (4 + size.div_ceil(MIB) + 1));
    }
}

/// On S3 a part has at least 5 MiB, and each stripe fills one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_stripes_on_s3_say_what_they_need() {
    let counting = CountingStore::dropping();
    let store = store(&counting).lend_payloads();
    let config = PipelineConfig { threads: 2, ..PipelineConfig::default() };
    let options = BackupOptions::default().stripes(64).pipeline(config.clone());
    let error = Backup::begin(&store, "costs", options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(counting.take_counts(), Counts::new());
    let needed: u64 = error.message().rsplit(' ').next().unwrap().parse().unwrap();
    println!("{} MiB", needed as f64 / MIB as f64);
    let limit = needed.div_ceil(MIB);
    says(&format!("64 stripes on S3 need a limit of {limit} MiB"));
    let report = back_up(&store, PipelineConfig { memory_limit: limit * MIB, ..config }, 64, 16 * MIB).await;
    assert!(report.progress.memory_peak <= limit * MIB, "{} bytes", report.progress.memory_peak);
}
