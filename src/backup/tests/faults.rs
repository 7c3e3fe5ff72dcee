//! Requests that fail and answers that are lost.

use super::fault_store::{Fate, store};
use super::*;
use crate::ErrorKind;

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
    let (clean, faults) = store(|_, _, _| Fate::Pass);
    back_up(&clean, &contents()).await.unwrap();
    let requests = faults.requests();
    assert!(requests > 10, "{requests}");
    for fate in [Fate::Fail, Fate::LoseAnswer] {
        for bad in 0..requests {
            let (store, _) = store(move |number, _, _| if number == bad { fate } else { Fate::Pass });
            let report = back_up(&store, &contents()).await;
            assert!(report.is_ok(), "request {bad} {fate:?}: {report:?}");
            is_good(&store).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_lost_once_is_survived() {
    let seen = crate::sync::Mutex::new(std::collections::HashSet::new());
    let (store, _) = store(move |_, operation, path| {
        let first = seen.lock().insert((operation.to_owned(), path.to_owned()));
        if first && operation != "get" { Fate::LoseAnswer } else { Fate::Pass }
    });
    back_up(&store, &contents()).await.unwrap();
    is_good(&store).await;
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_refused_leaves_nothing() {
    let (store, _) = store(
        |_, operation, path| {
            if operation == "put" && path.ends_with("manifest.json") { Fate::Deny } else { Fate::Pass }
        },
    );
    let error = back_up(&store, &contents()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(names(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_in_doubt_is_never_taken_for_absent() {
    // The store answers nothing about the manifest, for ever.
    let (store, _) = store(|_, operation, path| match path.ends_with("manifest.json") {
        true if operation == "put" => Fate::Fail,
        _ => Fate::Pass,
    });
    let error = back_up(&store, &contents()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("not known"), "{error}");
    assert!(names(&store).await.len() > 2, "a write that is still on its way must find its segments");
}

#[tokio::test(start_paused = true)]
async fn a_manifest_whose_answers_are_all_lost_is_found() {
    let (store, _) = store(|_, operation, path| match path.ends_with("manifest.json") {
        true if operation == "put" => Fate::LoseAnswer,
        _ => Fate::Pass,
    });
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
    assert_eq!(backup.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(names(&store).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_fails_with_its_own_error_and_the_intent_is_what_is_left() {
    let (store, _) = store(|_, operation, _| if operation == "complete" { Fate::Deny } else { Fate::Pass });
    let error = back_up(&store, &contents()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(names(&store).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_probe_tells_stores_that_ignore_the_condition() {
    assert!(Store::memory().create_only().await.unwrap());
    let store = Store::memory();
    store.create_only().await.unwrap();
    assert_eq!(names(&store).await, [""; 0]);
}
