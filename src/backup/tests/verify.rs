//! Damage is found, and its place is told.

use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::ErrorKind;

async fn damaged(change: impl AsyncFn(&InMemory, &[Path])) -> [VerifyReport; 3] {
    let memory = Arc::new(InMemory::new());
    let objects: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&memory);
    let store =
        Store::with_multipart(objects, Arc::<InMemory>::clone(&memory) as _, "").part_limits(store::PartLimits::LOCAL);
    let manifest = back_up(&store, &[noise(1, 3_000_000), noise(2, 700_000)]).await.unwrap().manifest;
    let paths: Vec<Path> = manifest.objects().map(|(_, name, _)| Path::from(name)).collect();
    change(&memory, &paths).await;
    let mut reports = Vec::new();
    for level in [VerifyLevel::Quick, VerifyLevel::Stored, VerifyLevel::Full] {
        let options = VerifyOptions::new(level).pipeline(config());
        reports.push(verify(&store, &manifest, options).await.unwrap());
    }
    let is_damaged = reports.iter().any(|report| !report.is_good());
    assert_eq!(restore(&store, &manifest).await.is_err(), is_damaged);
    reports.try_into().unwrap()
}

async fn bytes(memory: &InMemory, path: &Path) -> Vec<u8> {
    memory.get(path).await.unwrap().bytes().await.unwrap().to_vec()
}

fn found(reports: &[VerifyReport; 3]) -> [Vec<(u16, Option<u32>)>; 3] {
    reports.each_ref().map(|report| {
        assert!(report.damage.iter().all(|damage| damage.error.kind() == ErrorKind::Corrupt));
        report.damage.iter().map(|damage| (damage.stripe.unwrap(), damage.segment)).collect()
    })
}

#[tokio::test]
async fn nothing_is_wrong_with_a_good_backup() {
    let reports = damaged(async |_, _| {}).await;
    assert_eq!(found(&reports), [vec![], vec![], vec![]]);
    assert_eq!(reports[2].raw_bytes, 3_700_000);
    assert!(reports[1].stored_bytes > 3_700_000 && reports[0].stored_bytes == 0);
}

#[tokio::test]
async fn a_missing_or_cut_object_is_found_by_every_level() {
    let reports = damaged(async |memory, paths| memory.delete(&paths[0]).await.unwrap()).await;
    assert_eq!(found(&reports), [vec![(0, Some(0))], vec![(0, Some(0))], vec![(0, Some(0))]]);
    let reports = damaged(async |memory, paths| {
        let mut content = bytes(memory, &paths[1]).await;
        content.pop();
        memory.put(&paths[1], content.into()).await.unwrap();
    })
    .await;
    assert_eq!(found(&reports), [vec![(0, Some(1))], vec![(0, Some(1))], vec![(0, Some(1))]]);
    let message = reports[0].damage[0].error.to_string();
    assert!(message.contains("s00/000001.zst, offset ") && message.contains("expected"), "{message}");
}

#[tokio::test]
async fn changed_and_swapped_objects_are_found_by_reading() {
    let reports = damaged(async |memory, paths| {
        let mut content = bytes(memory, &paths[1]).await;
        content[1000] ^= 1;
        memory.put(&paths[1], content.into()).await.unwrap();
    })
    .await;
    assert_eq!(found(&reports), [vec![], vec![(0, Some(1))], vec![(0, Some(1))]]);
    let reports = damaged(async |memory, paths| {
        let (one, two) = (bytes(memory, &paths[0]).await, bytes(memory, &paths[1]).await);
        memory.put(&paths[0], two.into()).await.unwrap();
        memory.put(&paths[1], one.into()).await.unwrap();
    })
    .await;
    let [_, stored, full] = found(&reports);
    assert_eq!(
        (stored.as_slice(), full.as_slice()),
        (&[(0, Some(0)), (0, Some(1))][..], &[(0, Some(0)), (0, Some(1))][..])
    );
}
