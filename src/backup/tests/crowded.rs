//! Directories with more objects than are held at once: what belongs to nobody goes all the same, or it is said what is wrong.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::backup::store::{NAMES_AT_ONCE, PartLimits};
use crate::clock::Clock as _;
use crate::testing::{Bucket, Contents, SimClock, StoredObject};

const CROWD: usize = NAMES_AT_ONCE + 2000;

fn on(bucket: &Bucket) -> Store {
    let (objects, multipart) = (Arc::new(bucket.clone()), Arc::new(bucket.clone()));
    Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL)
}

/// Adds many objects below the directory of a backup.
fn crowd(bucket: &Bucket, id: BackupId, name: impl Fn(usize) -> String) {
    let object = StoredObject { bytes: Bytes::from_static(b"x"), modified: SimClock::new().wall() };
    bucket.edit(|contents| {
        let names = (0..CROWD).map(|number| format!("orders/{id}/{}", name(number)));
        contents.objects.extend(names.map(|name| (name, object.clone())));
    });
}

/// A backup that was begun by a process that has died.
async fn begun() -> (Bucket, Store, BackupId) {
    let bucket = Bucket::new(Contents::default(), SimClock::new().shared());
    let store = on(&bucket);
    let backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    let id = backup.id();
    let frozen = Bucket::new(bucket.contents(), SimClock::new().shared());
    backup.abort(given_up()).await.unwrap();
    let store = on(&frozen);
    (frozen, store, id)
}

async fn resume(store: &Store, id: BackupId) -> Result<Backup> {
    let options = ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
    Backup::resume(store, "orders", id, options).await
}

#[tokio::test(start_paused = true)]
async fn an_abort_removes_all_of_a_crowd() {
    let bucket = Bucket::new(Contents::default(), SimClock::new().shared());
    let store = on(&bucket);
    let backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    crowd(&bucket, backup.id(), |number| format!("s00/{number:06}.zst"));
    backup.abort(given_up()).await.unwrap();
    assert_eq!(names(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_others_have_left_goes_after_the_commit_of_a_resumed_backup() {
    let (bucket, store, id) = begun().await;
    crowd(&bucket, id, |number| format!("s63/{number:06}.zst"));
    let mut backup = resume(&store, id).await.unwrap();
    backup.stripe_input(0, complete(&noise(1, 100_000))).unwrap();
    backup.commit().await.unwrap();
    store.wait_idle().await;
    let left = names(&store).await.into_iter().filter(|name| name.contains("/s63/")).count();
    assert_eq!(left, 0);
}

#[tokio::test(start_paused = true)]
async fn more_records_of_uploads_than_there_can_be_are_not_read() {
    let (bucket, store, id) = begun().await;
    crowd(&bucket, id, |number| format!("uploads/s00-{number:06}.json"));
    let before = bucket.contents().objects.len();
    let error = resume(&store, id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
    assert!(error.report().contains("records of running uploads"), "{}", error.report());
    assert!(bucket.contents().objects.len() >= before, "something was removed");
}
