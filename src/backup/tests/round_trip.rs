use std::sync::Arc;

use super::*;

async fn check(store: &Store) {
    let contents = [noise(1, 3_000_000), Bytes::new(), noise(2, 1), Bytes::from(vec![7; 400_000])];
    let report = back_up(store, &contents).await.unwrap();
    assert_eq!(report.manifest.raw_bytes(), 3_400_001);
    assert!(report.manifest.stripes[0].segments.len() > 1, "segments roll");

    let (series, which) = latest();
    let manifest = find(store, &series, which).await.unwrap();
    assert_eq!(manifest, report.manifest);
    let mut listed = list(store, None).await.unwrap().backups;
    let committed = listed[0].committed.take().unwrap();
    assert!(committed.duration_since(manifest.finished).abs() < jiff::SignedDuration::from_mins(5), "{committed}");
    assert_eq!(listed, [BackupSummary::from(&manifest)]);
    assert_eq!(restore(store, &manifest).await.unwrap(), contents);

    let mut expected: Vec<String> = manifest.objects().map(|(_, name, _)| name).collect();
    expected.extend([manifest.names().manifest(), manifest.names().intent()]);
    expected.sort();
    assert_eq!(names(store).await, expected, "no record, no staging file, nothing else");
    let began = intent(store, &series, manifest.id).await.unwrap();
    assert_eq!((began.stripes, began.created), (4, manifest.created));
    for level in [VerifyLevel::Quick, VerifyLevel::Stored, VerifyLevel::Full] {
        let report = verify(store, &manifest, VerifyOptions::new(level).pipeline(config())).await.unwrap();
        assert!(report.is_good(), "{report:?}");
    }
}

#[tokio::test]
async fn what_was_backed_up_comes_back_from_memory() {
    check(&Store::memory()).await;
}

#[cfg(feature = "fs")]
#[tokio::test]
async fn what_was_backed_up_comes_back_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not yet there");
    check(&Store::from_url(path.to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn what_was_backed_up_comes_back_from_a_store_without_a_multipart_interface() {
    let memory: Arc<dyn object_store::ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let store = Store::new(Arc::clone(&memory), "a/b").part_limits(store::PartLimits::LOCAL);
    check(&store).await;
    assert!(names(&Store::new(memory, "a")).await.iter().all(|name| name.starts_with("b/orders/")));
}

#[tokio::test]
async fn a_reader_is_a_stripe() {
    let store = Store::memory();
    for length in [0, 1, 65_535, 65_536, 65_537, 400_000] {
        let content = noise(3, length);
        let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
        backup.stripe_reader(0, std::io::Cursor::new(content.clone())).unwrap();
        let report = backup.commit().await.unwrap();
        assert_eq!(restore(&store, &report.manifest).await.unwrap(), [content]);
    }
}

#[tokio::test]
async fn what_is_noted_is_in_the_manifest() {
    let store = Store::memory();
    let first = back_up(&store, &[Bytes::new()]).await.unwrap().manifest;
    let noted = options(1).label("a", "b").continues(first.id, Kind::Differential).host(None);
    let mut backup = Backup::begin(&store, "orders", noted).await.unwrap();
    backup.stripe_input(0, complete(&Bytes::new())).unwrap();
    backup.set_producer(Producer::new("tar").exit_status(0));
    let manifest = backup.commit().await.unwrap().manifest;
    let found = find(&store, &"orders".parse().unwrap(), Select::Id(manifest.id)).await.unwrap();
    assert_eq!((found.parent, found.host.as_deref(), found.labels["a"].as_str()), (Some(first.id), None, "b"));
    assert_eq!(found.producer.unwrap().exit_status, Some(0));
}
