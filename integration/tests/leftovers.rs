//! A backup that does not come to its end leaves nothing: no object, no multipart upload, whichever way it ends.

// Helpers of tests fail as loudly as tests; uploads on real servers take real time.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::sample::{self, SEGMENT};
use integration::server::Kind;
use vdstream::backup::{self, Backup, Store};
use vdstream::{Error, ErrorKind};

/// Enough for whole segments and one that is half sent, whatever frames wait for their turn.
const LEN: usize = 4 * SEGMENT + SEGMENT / 2;

async fn places() -> [Place; 3] {
    let servers = futures::future::join(Place::server(Kind::Garage), Place::server(Kind::Azurite)).await;
    [Place::disk(), servers.0, servers.1]
}

fn pattern(seed: u64, stripe: u16) -> Pattern {
    Pattern::new(seed, stripe, Entropy::Random)
}

/// A backup of three stripes that have sent a lot and then say nothing more.
async fn stalled(place: &Place, store: &Store) -> Backup {
    let seed = data::seed();
    let mut backup = Backup::begin(store, "stalled", sample::options(3)).await.unwrap();
    for stripe in 0..3 {
        let source = sample::pieces(pattern(seed, stripe), LEN).chain(stream::pending());
        backup.stripe_input(stripe, source).unwrap();
    }
    let limit = Instant::now() + Duration::from_secs(60);
    // Then there is something to leave behind: whole segments, and the record of an upload that goes on.
    loop {
        let names = place.objects().await;
        let segments = names.iter().filter(|name| name.ends_with(".zst")).count();
        if segments >= 3 && names.iter().any(|name| name.contains("/uploads/")) {
            break;
        }
        assert!(Instant::now() < limit, "too little arrives in {place:?}: {names:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    backup
}

async fn assert_nothing_left(place: &Place, store: &Store) {
    place.assert_empty().await;
    let listing = backup::list(store, None).await.unwrap();
    assert!(listing.backups.is_empty() && listing.damaged.is_empty() && listing.uncommitted.is_empty(), "{listing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_leaves_nothing() {
    for place in places().await {
        let store = place.backups();
        let backup = stalled(&place, &store).await;
        backup.abort(Error::new(ErrorKind::Aborted, "the test says so")).await.unwrap();
        assert_nothing_left(&place, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_backup_leaves_nothing() {
    for place in places().await {
        let store = place.backups();
        drop(stalled(&place, &store).await);
        store.wait_idle().await;
        assert_nothing_left(&place, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_producer_leaves_nothing_and_is_what_the_caller_hears() {
    for place in places().await {
        let store = place.backups();
        let seed = data::seed();
        let mut backup = Backup::begin(&store, "failing", sample::options(3)).await.unwrap();
        backup.stripe_input(0, sample::whole(pattern(seed, 0), LEN)).unwrap();
        let failure = Err(Error::new(ErrorKind::Internal, "the disk of the database is gone"));
        let failing = sample::pieces(pattern(seed, 1), LEN).chain(stream::iter([failure]));
        backup.stripe_input(1, failing).unwrap();
        backup.stripe_input(2, sample::pieces(pattern(seed, 2), LEN).chain(stream::pending())).unwrap();
        let error = backup.commit().await.expect_err("a stripe failed");
        assert!(chain(&error).contains("the disk of the database is gone"), "{place:?}: {}", chain(&error));
        assert_nothing_left(&place, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stripe_that_just_ends_is_no_backup() {
    for place in places().await {
        let store = place.backups();
        let seed = data::seed();
        let mut backup = Backup::begin(&store, "truncated", sample::options(1)).await.unwrap();
        backup.stripe_input(0, sample::pieces(pattern(seed, 0), LEN)).unwrap();
        backup.commit().await.expect_err("the end of a stream is not success");
        assert_nothing_left(&place, &store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stripe_without_input_is_no_backup() {
    for place in places().await {
        let store = place.backups();
        let mut backup = Backup::begin(&store, "forgotten", sample::options(2)).await.unwrap();
        backup.stripe_input(1, sample::whole(pattern(data::seed(), 1), LEN)).unwrap();
        let error = backup.commit().await.expect_err("stripe 0 was forgotten");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
        assert_nothing_left(&place, &store).await;
    }
}

/// The error and its sources in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
