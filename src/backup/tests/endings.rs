//! Every ending but commit leaves nothing: no object, no task, no upload, no directory.

use futures::FutureExt;

use super::*;
use crate::ErrorKind;

/// A stripe that sends a lot and then never ends.
fn endless() -> impl futures::Stream<Item = Result<Input>> + Send + 'static {
    pieces(&noise(9, 6_000_000)).chain(stream::pending())
}

/// A backup with one stripe done and one that hangs in the middle of a segment.
async fn half_done(store: &Store) -> Backup {
    let mut backup = Backup::begin(store, "orders", options(2)).await.unwrap();
    backup.stripe_input(0, complete(&noise(1, 500_000))).unwrap();
    backup.stripe_input(1, endless()).unwrap();
    for wait in 0.. {
        assert!(wait < 50_000_000, "{:?}", backup.progress());
        if names(store).await.iter().any(|name| name.contains("/s01/")) {
            break;
        }
        tokio::task::yield_now().await;
    }
    backup
}

async fn leaves_nothing(store: &Store) {
    store.wait_idle().await;
    assert_eq!(names(store).await, [""; 0]);
    assert_eq!(list(store, None).await.unwrap().backups, []);
}

#[tokio::test]
async fn abort_removes_everything() {
    let store = Store::memory();
    let backup = half_done(&store).await;
    assert!(names(&store).await.len() > 1);
    backup.abort(given_up()).await.unwrap();
    leaves_nothing(&store).await;
}

#[tokio::test]
async fn drop_removes_everything_in_the_background() {
    let store = Store::memory();
    drop(half_done(&store).await);
    leaves_nothing(&store).await;
}

#[cfg(feature = "fs")]
#[tokio::test]
async fn on_disk_not_even_a_directory_stays() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("store");
    let store = Store::from_url(root.to_str().unwrap()).unwrap();
    half_done(&store).await.abort(given_up()).await.unwrap();
    drop(half_done(&store).await);
    leaves_nothing(&store).await;
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
}

#[tokio::test]
async fn the_end_of_a_stripe_is_not_success() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "orders", options(2)).await.unwrap();
    backup.stripe_input(0, complete(&noise(1, 500_000))).unwrap();
    backup.stripe_input(1, pieces(&noise(2, 500_000))).unwrap();
    let error = backup.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert!(error.to_string().contains("stripe 1"), "{error}");
    leaves_nothing(&store).await;
}

#[tokio::test]
async fn the_first_failure_stops_the_others_and_is_reported() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "orders", options(3)).await.unwrap();
    let (answer, answered) = tokio::sync::oneshot::channel();
    let flush = Input::Flush(Ack::new(move |outcome| answer.send(outcome).unwrap()));
    backup.stripe_input(0, stream::iter([Ok(Input::Data(noise(0, 10))), Ok(flush)]).chain(stream::pending())).unwrap();
    answered.await.unwrap().unwrap();
    let (answer, answered) = tokio::sync::oneshot::channel();
    let pending = Input::Flush(Ack::new(move |outcome| answer.send(outcome).unwrap()));
    // A flush that is never reached by its own stripe's data is answered with the cause.
    backup.stripe_input(1, stream::iter([Ok(pending)]).chain(endless())).unwrap();
    answered.await.unwrap().unwrap();
    let disk = Error::new(ErrorKind::Exhausted, "the producer's disk is full");
    backup.stripe_input(2, pieces(&noise(2, 300_000)).chain(stream::iter([Err(disk)]))).unwrap();
    let error = backup.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.report().contains("disk is full"), "{}", error.report());
    leaves_nothing(&store).await;
}

#[tokio::test]
async fn a_stripe_without_input_and_a_wrong_number_are_refused() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "orders", options(2)).await.unwrap();
    assert_eq!(backup.stripe_input(2, complete(&Bytes::new())).unwrap_err().kind(), ErrorKind::Invalid);
    backup.stripe_input(0, complete(&Bytes::new())).unwrap();
    assert_eq!(backup.stripe_input(0, complete(&Bytes::new())).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(backup.commit().await.unwrap_err().kind(), ErrorKind::Invalid);
    for (series, stripes) in [("..", 1), ("orders", 0), ("orders", 65)] {
        let error = Backup::begin(&store, series, options(stripes)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    leaves_nothing(&store).await;
}

#[tokio::test]
async fn begin_and_commit_can_be_dropped_anywhere() {
    let store = Store::memory();
    let (series, which) = latest();
    for polls in 0..40 {
        let mut begin = Box::pin(Backup::begin(&store, "orders", options(1)));
        let mut backup = None;
        for _ in 0..polls.min(2) {
            match begin.as_mut().now_or_never() {
                Some(begun) => {
                    backup = Some(begun.unwrap());
                    break;
                }
                None => tokio::task::yield_now().await,
            }
        }
        drop(begin);
        if let Some(mut backup) = backup {
            backup.stripe_input(0, complete(&noise(4, 400_000))).unwrap();
            let mut commit = Box::pin(backup.commit());
            for _ in 0..polls {
                if commit.as_mut().now_or_never().is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        store.wait_idle().await;
        match find(&store, &series, which).await {
            Ok(manifest) => assert_eq!(restore(&store, &manifest).await.unwrap(), [noise(4, 400_000)]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
        let listing = list(&store, None).await.unwrap();
        assert_eq!((listing.uncommitted.len(), listing.damaged.len()), (0, 0), "dropped after {polls} polls");
    }
}
