//! Requests that fail and answers that are lost.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::clock::SystemClock;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, Rule};

fn contents() -> [Bytes; 2] {
    [noise(1, 500_000), noise(2, 100)]
}

async fn is_good(store: &Store) {
    let (series, which) = latest();
    let manifest = find(store, &series, which).await.unwrap();
    assert_eq!(restore(store, &manifest).await.unwrap(), contents());
    let left: Vec<String> = names(store).await.into_iter().filter(|name| name.contains("uploads")).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_backup_survives_any_one_fault() {
    let clean = FaultStore::memory(0);
    back_up(&clean.store(), &contents()).await.unwrap();
    let requests = clean.log();
    assert!(requests.len() > 10, "{}", requests.len());
    for fault in [Fault::Internal, Fault::LostAnswer] {
        for request in &requests {
            let rule =
                Rule::new(fault).on(request.operation).path(request.path.as_str()).after(request.before).times(1);
            let faults = FaultStore::memory(0).rule(rule);
            let report = back_up(&faults.store(), &contents()).await;
            assert!(report.is_ok(), "{request} {fault}: {report:?}");
            assert!(faults.log().iter().any(|request| request.faults == [fault]), "{request} {fault} did not happen");
            is_good(&faults.store()).await;
        }
    }
    println!("{} single faults", 2 * requests.len());
}

/// An attempt whose answer is not waited for any more may still be on its way when the next one comes.
#[tokio::test(start_paused = true)]
async fn a_write_that_met_another_attempt_at_itself_is_made_again() {
    for object in ["intent.json", "s01/000000.zst", "manifest.json"] {
        let faults = FaultStore::memory(0).rule(Rule::new(Fault::Conflict).on(Operation::Put).path(object).times(1));
        let report = back_up(&faults.store(), &contents()).await;
        assert!(report.is_ok(), "{object}: {report:?}");
        assert!(faults.log().iter().any(|request| request.faults == [Fault::Conflict]), "{object}: it did not happen");
        is_good(&faults.store()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_lost_once_is_survived() {
    let faults = FaultStore::memory(0);
    for operation in Operation::ALL.into_iter().filter(|operation| *operation != Operation::Get) {
        faults.add(Rule::new(Fault::LostAnswer).on(operation).each(1));
    }
    let store = faults.store();
    back_up(&store, &contents()).await.unwrap();
    is_good(&store).await;
}

/// Of each object, some requests are answered and then none. With the times that everyone has.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_silent_for_good_ends_a_backup_within_the_stated_time() {
    let mut longest = Duration::ZERO;
    for before in 0..8 {
        let faults = FaultStore::memory(0).rule(Rule::new(Fault::Hang).after(before));
        let clock = SystemClock::shared();
        let start = clock.now();
        let outcome = back_up(&faults.store(), &contents()).await;
        let took = clock.now() - start;
        // What comes after the manifest is not needed.
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{before}: {}", error.report());
        }
        longest = longest.max(took);
    }
    assert!(longest <= Duration::from_secs(19 * 60), "{longest:?}");
}

fn manifest_put(fault: Fault) -> FaultStore {
    FaultStore::memory(0).rule(Rule::new(fault).on(Operation::Put).path("manifest.json"))
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_refused_leaves_nothing() {
    for (fault, kind) in [
        (Fault::Denied, ErrorKind::Denied),
        (Fault::SlowDown, ErrorKind::Throttled),
        (Fault::TooManyRequests, ErrorKind::Throttled),
    ] {
        let store = manifest_put(fault).store();
        let error = back_up(&store, &contents()).await.unwrap_err();
        assert!(error.kind() == kind && !may_be_committed(&error), "{}", error.report());
        assert_eq!(names(&store).await, [""; 0], "{fault}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_in_doubt_is_never_taken_for_absent() {
    // For ever: no answer about the manifest, or one that is not the store's.
    for fault in [Fault::Internal, Fault::ServiceUnavailable] {
        let store = manifest_put(fault).store();
        let error = back_up(&store, &contents()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault}");
        assert!(error.to_string().contains("not known"), "{error}");
        assert!(may_be_committed(&error) && may_be_committed(&error.clone().context("a layer above")), "{error}");
        assert_eq!(error.report().matches("not known").count(), 1, "{}", error.report());
        assert!(names(&store).await.len() > 2, "{fault}: a write that is still on its way must find its segments");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_whose_answers_are_all_lost_is_found() {
    let store = manifest_put(Fault::LostAnswer).store();
    back_up(&store, &contents()).await.unwrap();
    is_good(&store).await;
}

#[tokio::test(start_paused = true)]
async fn another_manifest_in_our_place_is_a_conflict_and_nothing_is_removed() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    backup.stripe_input(0, complete(&noise(1, 500_000))).unwrap();
    backup.wait_stripes().await.unwrap();
    let name = format!("orders/{}/manifest.json", backup.id());
    store.create(&name, "theirs".into()).await.unwrap();
    let before = names(&store).await;
    let error = backup.commit().await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && may_be_committed(&error), "{}", error.report());
    assert_eq!(names(&store).await, before);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_refused_fails_with_the_stores_own_error_and_leaves_nothing() {
    let store = FaultStore::memory(0).rule(Rule::new(Fault::Denied).on(Operation::Complete)).store();
    let error = back_up(&store, &contents()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(names(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_probe_tells_stores_that_ignore_the_condition_or_do_not_know_it() {
    let bucket = || Bucket::new(Contents::default(), SystemClock::shared());
    let cases = [(bucket(), true), (bucket().ignoring_create_only(), false), (bucket().without_create_only(), false)];
    for (bucket, is_kept) in cases {
        let store = Store::with_multipart(Arc::new(bucket.clone()), Arc::new(bucket), "");
        assert_eq!(store.create_only().await.unwrap(), is_kept);
        assert_eq!(names(&store).await, [""; 0]);
    }
    // An answer that is lost changes nothing.
    for operation in [Operation::Put, Operation::Delete] {
        let store = FaultStore::memory(0).rule(Rule::new(Fault::LostAnswer).on(operation).each(1)).store();
        assert!(store.create_only().await.unwrap(), "{operation:?}");
        assert_eq!(names(&store).await, [""; 0]);
    }
}
