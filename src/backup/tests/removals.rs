//! Every kind of fault at every operation, against what removes and what goes on: collection, deletion by rules and by name,
//! resuming. Whatever happens, a backup is absent or whole, nothing that is to stay is touched, an error is clear, and the same
//! command again comes to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::collection::{bucket, killed, on};
use super::scenarios::{FAULTS, How, is_clear, rule};
use super::*;
use crate::ErrorKind;
use crate::backup::collection::{self, DEFAULT_GRACE};
use crate::backup::retention::{self, DeletionReport, Descendants, RetentionPolicy};
use crate::backup::store::PartLimits;
use crate::clock::SystemClock;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, StoredObject};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Command {
    Collect,
    Prune,
    Delete,
    Resume,
}

/// What there is before: two committed backups, a deleted one, and one whose process has died. All of it is long ago.
struct Before {
    contents: Contents,
    older: BackupId,
    newer: BackupId,
    dead: BackupId,
    content: BTreeMap<BackupId, Bytes>,
}

async fn before() -> Before {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let mut content = BTreeMap::new();
    let mut ids = Vec::new();
    for number in 0..3 {
        let bytes = noise(number, 100_000);
        let id = back_up(&store, std::slice::from_ref(&bytes)).await.unwrap().manifest.id;
        content.insert(id, bytes);
        ids.push(id);
        clock.advance(super::collection::HOUR);
    }
    let series = latest().0;
    let plan = retention::plan_deletion(&store, &series, ids[0], Descendants::Refuse).await.unwrap();
    retention::apply(&store, &plan, &mut DeletionReport::default()).await.unwrap();
    let dead = killed(&bucket, &clock).await;
    content.insert(dead, noise(7, 800_000));
    store.wait_idle().await;
    Before { contents: bucket.contents(), older: ids[1], newer: ids[2], dead, content }
}

impl Before {
    /// What goes is told by `report`.
    async fn run(&self, command: Command, store: &Store, silence: Duration, report: &mut DeletionReport) -> Result<()> {
        let series = latest().0;
        match command {
            Command::Collect => {
                let plan = collection::plan(store, None, DEFAULT_GRACE).await?;
                collection::apply(store, &plan, &mut collection::CollectionReport::default()).await?;
            }
            Command::Prune => {
                let plan = retention::plan(store, &series, &RetentionPolicy::new().keep_last(1)).await?;
                retention::apply(store, &plan, report).await?;
            }
            Command::Delete => {
                let plan = retention::plan_deletion(store, &series, self.older, Descendants::Refuse).await?;
                retention::apply(store, &plan, report).await?;
            }
            Command::Resume => {
                let options = ResumeOptions::default().pipeline(config()).silence(silence);
                let mut backup = Backup::resume(store, "orders", self.dead, options).await?;
                backup.replay(0)?;
                backup.stripe_input(0, complete(&self.content[&self.dead]))?;
                backup.commit().await?;
            }
        }
        Ok(())
    }

    /// What must be visible whatever becomes of the command, and what may be.
    fn visible(&self, command: Command) -> (BTreeSet<BackupId>, BTreeSet<BackupId>) {
        let both = BTreeSet::from([self.older, self.newer]);
        match command {
            Command::Collect => (both.clone(), both),
            Command::Prune | Command::Delete => (BTreeSet::from([self.newer]), both),
            Command::Resume => (both.clone(), both.into_iter().chain([self.dead]).collect()),
        }
    }

    /// What is visible when the command has come to its end.
    fn done(&self, command: Command) -> BTreeSet<BackupId> {
        let (least, most) = self.visible(command);
        if command == Command::Resume { most } else { least }
    }
}

fn plain(bucket: &Bucket) -> Store {
    Store::with_multipart(Arc::new(bucket.clone()), Arc::new(bucket.clone()), "").part_limits(PartLimits::LOCAL)
}

/// The backups that are visible, each of them whole. One whose objects were seen before is not read again.
async fn whole(
    bucket: &Bucket,
    before: &Before,
    seen: &mut BTreeMap<BackupId, BTreeMap<String, StoredObject>>,
    at: &str,
) -> BTreeSet<BackupId> {
    let store = plain(bucket);
    let listing = list(&store, None).await.unwrap();
    assert!(listing.damaged.is_empty(), "{at}: {:?}", listing.damaged);
    for summary in &listing.backups {
        let manifest = find(&store, &summary.series, Select::Id(summary.id)).await.unwrap();
        let names = manifest.names();
        let stored = bucket.contents().objects;
        let objects: BTreeMap<String, StoredObject> = manifest
            .objects()
            .map(|(_, name, _)| name)
            .chain([names.intent(), names.manifest()])
            .map(|name| {
                let object = stored.get(&name).unwrap_or_else(|| panic!("{at}: {name} is not there"));
                (name.clone(), object.clone())
            })
            .collect();
        if seen.get(&summary.id) != Some(&objects) {
            let options = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).record(false);
            let report = verify(&store, &manifest, options).await.unwrap();
            assert!(report.is_good(), "{at}: {report:?}");
            assert!(restore(&store, &manifest).await.unwrap() == [before.content[&summary.id].clone()], "{at}");
            seen.insert(summary.id, objects);
        }
    }
    listing.backups.iter().map(|summary| summary.id).collect()
}

/// What the report of a deletion says is what is visible: of what may go, only what was deleted is gone, or what is in doubt.
fn is_told(
    report: &DeletionReport,
    visible: &BTreeSet<BackupId>,
    least: &BTreeSet<BackupId>,
    most: &BTreeSet<BackupId>,
    at: &str,
) {
    let kept: Vec<BackupId> = report.kept.iter().map(|(id, _)| *id).collect();
    let named = report.deleted.iter().chain(&kept).chain(&report.in_doubt);
    assert!(named.clone().collect::<BTreeSet<_>>().len() == named.count(), "{at}: named twice: {report:?}");
    assert!(kept.iter().all(|id| visible.contains(id)), "{at}: kept and gone: {report:?}");
    assert!(report.deleted.iter().all(|id| !visible.contains(id)), "{at}: deleted and there: {report:?}");
    for id in most.difference(least).filter(|id| !report.deleted.contains(id) && report.in_doubt != Some(**id)) {
        assert!(visible.contains(id), "{at}: {id} is gone, and nothing is said of it: {report:?}");
    }
}

/// The command on stores with each of the faults, and once more without.
async fn meet_every_fault(command: Command, hows: &[How]) {
    let before = before().await;
    let mut seen = BTreeMap::new();
    let mut outcomes: BTreeMap<(How, &str), usize> = BTreeMap::new();
    let (least, most) = before.visible(command);
    for operation in Operation::ALL {
        for fault in FAULTS.iter().copied() {
            for how in hows.iter().copied() {
                let at = format!("{command:?}: {operation:?} {} {how:?}", fault.0);
                let bucket = Bucket::new(before.contents.clone(), SystemClock::shared());
                let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 3);
                let faults = faults.rule(rule(fault.0, operation, how));
                let store = faults.store();
                let mut report = DeletionReport::default();
                let outcome = before.run(command, &store, Duration::from_secs(300), &mut report).await;
                store.wait_idle().await;
                let visible = whole(&bucket, &before, &mut seen, &at).await;
                assert!(visible.is_superset(&least) && visible.is_subset(&most), "{at}: {visible:?}");
                if matches!(command, Command::Prune | Command::Delete) {
                    is_told(&report, &visible, &least, &most, &at);
                    assert!(outcome.is_err() || report.in_doubt.is_none(), "{at}: {report:?}");
                }
                let word = match &outcome {
                    Ok(()) => "done",
                    // A stale listing shows neither the backup nor its intent: it is as if it were not there, or were being removed.
                    Err(error) if matches!(fault.0, Fault::StaleList(_)) => {
                        assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict), "{at}: {error:?}");
                        "error"
                    }
                    Err(error) => {
                        is_clear(error, fault, &at);
                        "error"
                    }
                };
                *outcomes.entry((how, word)).or_default() += 1;

                // Once more, when everything works again.
                faults.heal();
                match before.run(command, &plain(&bucket), Duration::ZERO, &mut DeletionReport::default()).await {
                    Ok(()) => {}
                    // The first time it was done, and no answer came.
                    Err(error) if command == Command::Delete && error.kind() == ErrorKind::NotFound => {}
                    Err(error) if command == Command::Resume && error.report().contains("complete already") => {}
                    Err(error) => panic!("{at}: not the second time either: {}", error.report()),
                }
                assert_eq!(whole(&bucket, &before, &mut seen, &at).await, before.done(command), "{at}");
                if command == Command::Collect {
                    let contents = bucket.contents();
                    let beside = contents.objects.keys().filter(|name| {
                        let is_of = |id: &BackupId| name.starts_with(&format!("orders/{id}/"));
                        !most.iter().any(is_of) && !name.starts_with(".vdstream/")
                    });
                    assert_eq!(beside.collect::<Vec<_>>(), [""; 0], "{at}: something is left");
                    assert!(contents.uploads.values().all(|upload| upload.parts.is_empty()), "{at}: uploads are left");
                }
            }
        }
    }
    println!("{command:?}: {outcomes:?} of {} scenarios", outcomes.values().sum::<usize>());
}

#[tokio::test(start_paused = true)]
async fn a_collection_meets_every_fault_at_every_operation() {
    meet_every_fault(Command::Collect, &[How::Once, How::Always]).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_by_rules_meets_every_fault_at_every_operation() {
    meet_every_fault(Command::Prune, &[How::Once, How::Always]).await;
}

#[tokio::test(start_paused = true)]
async fn a_deletion_by_name_meets_every_fault_at_every_operation() {
    meet_every_fault(Command::Delete, &[How::Once, How::Always]).await;
}

#[tokio::test(start_paused = true)]
async fn resuming_meets_every_fault_that_passes_at_every_operation() {
    meet_every_fault(Command::Resume, &[How::Once]).await;
}

#[tokio::test(start_paused = true)]
async fn resuming_meets_every_fault_that_stays_at_every_operation() {
    meet_every_fault(Command::Resume, &[How::Always]).await;
}
