//! Plans and deletions on stores that fail, and beside all that can happen at the same time.

use std::collections::BTreeSet;

use super::*;
use crate::ErrorKind;
use crate::backup::retention::{DeletionReport, RetentionPlan, RetentionPolicy, apply, plan};
use crate::testing::fault_store::Operation;
use crate::testing::{Fault, FaultStore, Rule};

fn orders() -> Series {
    "orders".parse().unwrap()
}

/// So many backups, oldest first. In the log and the rules of a fault store they are `#0`, `#1` and so on.
async fn made(store: &Store, count: usize) -> Vec<BackupId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(back_up(store, &[Bytes::from_static(b"rows")]).await.unwrap().manifest.id);
    }
    ids
}

async fn keep_one(store: &Store) -> RetentionPlan {
    plan(store, &orders(), &RetentionPolicy::new().keep_last(1)).await.unwrap()
}

async fn listed(store: &Store) -> BTreeSet<BackupId> {
    list(store, None).await.unwrap().backups.iter().map(|backup| backup.id).collect()
}

/// Who is told that everything was deleted looks for no backup that is still there.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_fails_half_way_says_what_it_has_done() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let ids = made(&store, 4).await;
    let plan = keep_one(&store).await;
    // The second of the three that go, newest first.
    let second = |fault| Rule::new(fault).on(Operation::Delete).path("#1/manifest.json");
    faults.add(second(Fault::SlowDown));
    let mut report = DeletionReport::default();
    let error = apply(&store, &plan, &mut report).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert_eq!((&report.deleted, report.in_doubt), (&vec![ids[2]], Some(ids[1])));
    assert!(report.kept.is_empty() && !report.keeps_versions, "{report:?}");
    faults.heal();
    assert_eq!(listed(&store).await, BTreeSet::from([ids[0], ids[1], ids[3]]));

    // It has its effect, and no answer ever comes: then it is in doubt, and is not there any more.
    faults.add(second(Fault::LostAnswer));
    let mut report = DeletionReport::default();
    apply(&store, &plan, &mut report).await.unwrap_err();
    assert_eq!((&report.deleted, report.in_doubt), (&vec![ids[2]], Some(ids[1])), "deleting what is gone is success");
    faults.heal();
    assert_eq!(listed(&store).await, BTreeSet::from([ids[0], ids[3]]));

    let mut report = DeletionReport::default();
    apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!((report.deleted, report.in_doubt), (vec![ids[2], ids[1], ids[0]], None));
    assert_eq!(listed(&store).await, BTreeSet::from([ids[3]]));
}

/// A service that is told to stop drops what it does.
#[tokio::test]
async fn a_deletion_that_is_dropped_half_way_has_said_what_it_has_done() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let ids = made(&store, 3).await;
    let plan = keep_one(&store).await;
    faults.add(Rule::new(Fault::Hang).on(Operation::Delete).path("#0/manifest.json"));
    let mut report = DeletionReport::default();
    {
        let mut deletion = std::pin::pin!(apply(&store, &plan, &mut report));
        while faults.log().iter().all(|request| request.faults.is_empty()) {
            assert!(futures::poll!(&mut deletion).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((report.deleted, report.in_doubt), (vec![ids[1]], Some(ids[0])));
}
