//! Plans and deletions on stores that fail, and beside all that can happen at the same time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::collection::{HOUR, bucket, on};
use super::*;
use crate::ErrorKind;
use crate::backup::collection::{CollectionReport, SAFE_GRACE};
use crate::backup::retention::{
    DeletionReport, Descendants, Reason, RetentionPlan, RetentionPolicy, Verdict, apply, plan, plan_deletion,
};
use crate::clock::Clock;
use crate::testing::fault_store::Operation;
use crate::testing::{Bucket, Contents, Fault, FaultStore, RecordingStore, Rule, SimClock};

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

/// The object of the one segment of a backup.
async fn segment(store: &Store, id: BackupId) -> String {
    let manifest = find(store, &orders(), Select::Id(id)).await.unwrap();
    manifest.objects().next().unwrap().1
}

/// What is kept, ignored and removed.
fn verdicts(plan: &RetentionPlan) -> [Vec<BackupId>; 3] {
    let of = |wanted: fn(&Verdict) -> bool| {
        plan.backups.iter().filter(|backup| wanted(&backup.verdict)).map(|backup| backup.id).collect()
    };
    [
        of(|verdict| matches!(verdict, Verdict::Keep { .. })),
        of(|verdict| matches!(verdict, Verdict::Ignore { .. })),
        of(|verdict| *verdict == Verdict::Remove),
    ]
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

/// A policy counted a backup whose segments somebody had deleted by hand, and removed the good ones before it.
#[tokio::test]
async fn a_backup_that_has_lost_something_counts_for_no_rule() {
    let store = Store::memory();
    let ids = made(&store, 5).await;
    assert_eq!(verdicts(&keep_one(&store).await), [ids[4..].to_vec(), vec![], ids[..4].to_vec()]);

    let lost = segment(&store, ids[4]).await;
    store.delete(&lost).await.unwrap();
    let plan = keep_one(&store).await;
    assert_eq!(verdicts(&plan), [vec![ids[3]], vec![ids[4]], ids[..3].to_vec()]);
    let Verdict::Ignore { why } = &plan.backups[4].verdict else { panic!("{plan:?}") };
    assert!(why.contains(&lost) && why.contains("found none"), "{why}");

    // What is kept instead is looked at too: another one is cut, of a third the intent is gone.
    let cut = segment(&store, ids[3]).await;
    let content = store.read_small(&cut, u64::MAX).await.unwrap();
    store.delete(&cut).await.unwrap();
    store.create(&cut, content.slice(1..)).await.unwrap();
    store.delete(&format!("orders/{}/intent.json", ids[2])).await.unwrap();
    let plan = keep_one(&store).await;
    assert_eq!(verdicts(&plan), [vec![ids[1]], ids[2..].to_vec(), vec![ids[0]]]);
    let mut report = DeletionReport::default();
    apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!(report.deleted, ids[..1]);
    let manifest = find(&store, &orders(), Select::Id(ids[1])).await.unwrap();
    assert_eq!(restore(&store, &manifest).await.unwrap(), [Bytes::from_static(b"rows")]);

    // Nothing good is left: then nothing goes.
    store.delete(&segment(&store, ids[1]).await).await.unwrap();
    assert_eq!(verdicts(&keep_one(&store).await), [vec![], ids[1..].to_vec(), vec![]]);
}

#[tokio::test]
async fn a_chain_counts_only_if_all_of_it_is_there() {
    let store = Store::memory();
    let old = made(&store, 2).await;
    let full = made(&store, 1).await[0];
    let mut log = Backup::begin(&store, "orders", options(1).continues(full, Kind::Log)).await.unwrap();
    log.stripe_input(0, complete(&Bytes::from_static(b"more"))).unwrap();
    let log = log.commit().await.unwrap().manifest.id;
    assert_eq!(verdicts(&keep_one(&store).await), [vec![full, log], vec![], old.clone()]);
    store.delete(&segment(&store, full).await).await.unwrap();
    let plan = keep_one(&store).await;
    assert_eq!(verdicts(&plan), [vec![old[1]], vec![full, log], vec![old[0]]]);
    assert_eq!(plan.backups[1].verdict, Verdict::Keep { reasons: vec![Reason::Newest, Reason::Last] });
}

#[tokio::test]
async fn a_plan_lists_each_backup_that_it_keeps_once_and_no_other() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let ids = made(&store, 40).await;
    let asked = async |policy: &RetentionPolicy| {
        faults.forget();
        plan(&store, &orders(), policy).await.unwrap();
        let log = faults.log();
        let count = |operation| log.iter().filter(|request| request.operation == operation).count();
        assert_eq!(log.len(), count(Operation::List) + count(Operation::Get) + count(Operation::Head), "only reads");
        [Operation::List, Operation::Get, Operation::Head].map(count)
    };
    // To list the series takes one listing, and one listing and one read for each backup.
    assert_eq!(asked(&RetentionPolicy::new().keep_last(1)).await, [41 + 1, 40 + 1, 0]);
    assert_eq!(asked(&RetentionPolicy::new().keep_last(7)).await, [41 + 7, 40 + 7, 0]);
    assert_eq!(asked(&RetentionPolicy::new().keep_last(40)).await, [41 + 40, 40 + 40, 0]);
    assert!(faults.most_at_once(Operation::List) <= 32, "{} at once", faults.most_at_once(Operation::List));
    // What a listing lacks is asked for by name, and one more backup is looked at instead.
    store.delete(&segment(&store, ids[39]).await).await.unwrap();
    assert_eq!(asked(&RetentionPolicy::new().keep_last(7)).await, [41 + 8, 40 + 8, 1]);
}

/// A chain of a full backup and two that continue each other, each dated a day before the one that it continues, and a newer backup.
async fn falling_dates(faults: &FaultStore) -> (Store, [BackupId; 4]) {
    let mut ids = Vec::new();
    for days in [10, 9, 8, 11] {
        let clock = SimClock::new();
        clock.advance(days * 24 * HOUR);
        let options = match ids.last() {
            Some(parent) if days < 10 => options(1).continues(*parent, Kind::Log),
            _ => options(1),
        };
        let mut backup = Backup::begin(&faults.store().clock(clock.shared()), "orders", options).await.unwrap();
        backup.stripe_input(0, complete(&Bytes::from_static(b"rows"))).unwrap();
        ids.push(backup.commit().await.unwrap().manifest.id);
    }
    (faults.store(), ids.try_into().unwrap())
}

/// A clock went back between a backup and what continues it. By date the parent went first, and whoever stopped there had a child
/// without its parent.
#[tokio::test]
async fn no_child_outlives_its_parent_though_it_is_dated_before_it() {
    for stopped_at in 0..3 {
        let faults = FaultStore::memory(1);
        let (store, ids) = falling_dates(&faults).await;
        let plan = keep_one(&store).await;
        // `#2` is the last of the chain, which goes first.
        let manifest = format!("#{}/manifest.json", 2 - stopped_at);
        faults.add(Rule::new(Fault::Hang).on(Operation::Delete).path(&manifest));
        let mut report = DeletionReport::default();
        {
            let mut deletion = std::pin::pin!(apply(&store, &plan, &mut report));
            while faults.log().iter().all(|request| request.faults.is_empty()) {
                assert!(futures::poll!(&mut deletion).is_pending());
                tokio::task::yield_now().await;
            }
        }
        faults.heal();
        let left = [&ids[..3 - stopped_at], &ids[3..]].concat();
        assert_eq!(listed(&store).await, left.into_iter().collect(), "stopped at {manifest}");
    }
}

#[tokio::test]
async fn what_cannot_be_deleted_keeps_its_parents_though_they_are_dated_after_it() {
    let faults = FaultStore::memory(1);
    let (store, ids) = falling_dates(&faults).await;
    let plan = keep_one(&store).await;
    faults.add(Rule::new(Fault::Denied).on(Operation::Delete).path("#1/manifest.json"));
    let mut report = DeletionReport::default();
    apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!(report.deleted, [ids[2]]);
    let (kept, why): (Vec<_>, Vec<_>) = report.kept.into_iter().unzip();
    assert_eq!(kept, [ids[1], ids[0]]);
    assert!(why[0].contains("403") && why[1].contains(&ids[1].to_string()), "{why:?}");
    assert_eq!(listed(&store).await, BTreeSet::from([ids[0], ids[1], ids[3]]));
}

/// It was said to stay, and the record of its deletion was taken away; a collection then took its data for that of a backup that had died
/// long ago, and left its readers no time.
#[tokio::test]
async fn a_backup_that_is_gone_although_its_deletion_was_refused_is_deleted_and_its_data_waits_for_its_readers() {
    let (bucket, clock) = bucket(Contents::default());
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket), 1);
    let store = on(&faults, &clock);
    let ids = made(&store, 2).await;
    let manifest = find(&store, &orders(), Select::Id(ids[0])).await.unwrap();
    clock.advance(100 * HOUR);
    let plan = plan_deletion(&store, &orders(), ids[0], Descendants::Refuse).await.unwrap();
    faults.add(Rule::new(Fault::DeniedAfter).on(Operation::Delete).path("#0/manifest.json"));
    let mut report = DeletionReport::default();
    apply(&store, &plan, &mut report).await.unwrap();
    assert_eq!((&report.deleted, report.kept.len(), report.in_doubt), (&vec![ids[0]], 0, None));
    let collection = crate::backup::collection::plan(&store, None, SAFE_GRACE).await.unwrap();
    assert!(collection.removed().next().is_none(), "{collection:?}");
    assert_eq!(restore(&store, &manifest).await.unwrap(), [Bytes::from_static(b"rows")]);
}

/// Whoever may neither delete nor look is told what has happened, and not what came after it.
#[tokio::test]
async fn a_refusal_of_which_nothing_is_known_leaves_a_backup_in_doubt() {
    let faults = FaultStore::memory(1);
    let store = faults.store();
    let ids = made(&store, 2).await;
    let plan = keep_one(&store).await;
    faults.add(Rule::new(Fault::Denied).on(Operation::Delete).path("#0/manifest.json"));
    faults.add(Rule::new(Fault::Conflict).on(Operation::Head).path("#0/manifest.json"));
    let mut report = DeletionReport::default();
    let error = apply(&store, &plan, &mut report).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.report().contains("403"), "{}", error.report());
    assert_eq!((report.deleted, report.kept, report.in_doubt), (vec![], vec![], Some(ids[0])));
}

/// A collection took the records of a deletion that was under way for those of one that did not happen. Then nothing kept a new backup
/// from continuing one whose turn was still to come.
#[tokio::test]
async fn a_deletion_that_takes_longer_than_the_grace_time_looks_again_who_continues_what_goes() {
    let (bucket, clock) = bucket(Contents::default());
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    let (store, mut ids) = (faults.store(), Vec::new());
    for _ in 0..4 {
        ids.extend(made(&store, 1).await);
        clock.advance(HOUR);
    }
    let plan = keep_one(&store).await;
    // The first that goes. The machine sleeps while it is waited for.
    faults.add(Rule::new(Fault::Latency(Duration::from_secs(1))).on(Operation::Delete).path("#2/manifest.json"));
    let mut report = DeletionReport::default();
    let child = {
        let mut deletion = std::pin::pin!(apply(&store, &plan, &mut report));
        while faults.log().iter().all(|request| request.faults.is_empty()) {
            assert!(futures::poll!(&mut deletion).is_pending());
            tokio::task::yield_now().await;
        }
        clock.advance(2 * HOUR);
        let beside = on(&bucket, &clock);
        let due = crate::backup::collection::plan(&beside, None, SAFE_GRACE).await.unwrap();
        let mut collected = CollectionReport::default();
        crate::backup::collection::apply(&beside, &due, &mut collected).await.unwrap();
        let records = collected.singles.iter().filter(|name| name.contains("/deleted/")).count();
        assert_eq!(records, 3, "{collected:?}");
        let mut child = Backup::begin(&beside, "orders", options(1).continues(ids[1], Kind::Log)).await.unwrap();
        child.stripe_input(0, complete(&Bytes::from_static(b"more"))).unwrap();
        deletion.await.unwrap();
        child.commit().await.unwrap().manifest.id
    };
    assert_eq!(report.deleted, [ids[2], ids[0]]);
    assert!(report.kept[0].0 == ids[1] && report.kept[0].1.contains(&child.to_string()), "{report:?}");
    assert_eq!(listed(&store).await, BTreeSet::from([ids[1], ids[3], child]));
    // What went is protected as if it had gone at once, and what stays can be continued.
    let records = |id: BackupId| {
        let directory = format!("orders/{id}/deleted/");
        bucket.contents().objects.keys().filter(|name| name.starts_with(&directory)).count()
    };
    assert_eq!([records(ids[0]), records(ids[1])], [1, 0]);
}

/// A clock on which every wait is over at once, and takes so long.
#[derive(Debug)]
struct Leaping {
    clock: SimClock,
    by: Duration,
}

impl Clock for Leaping {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    fn sleep(&self, _: Duration) -> futures::future::BoxFuture<'static, ()> {
        self.clock.advance(self.by);
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn a_record_is_written_again_only_when_it_is_old() {
    // Four backups go: the turn of the last one comes after three times as long. In between, those that are left are protected again.
    for (seconds, written) in [(0, 4), (600, 4), (601, 4 + 1), (1000, 4 + 2), (2000, 4 + 3 + 2 + 1)] {
        let (bucket, clock) = bucket(Contents::default());
        let slow = Leaping { clock: clock.clone(), by: Duration::from_secs(seconds) };
        let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(Arc::new(slow));
        let store = faults.store().clock(clock.shared());
        made(&store, 5).await;
        let plan = keep_one(&store).await;
        faults.forget();
        faults.add(Rule::new(Fault::Latency(HOUR)).on(Operation::Delete).path("manifest.json"));
        let mut report = DeletionReport::default();
        apply(&store, &plan, &mut report).await.unwrap();
        assert_eq!(report.deleted.len(), 4);
        let puts = faults.log().iter().filter(|request| request.operation == Operation::Put).count();
        assert_eq!(puts, written, "{seconds} s for each");
    }
}

/// It would look like a protection, and be none.
#[tokio::test]
async fn a_protection_that_has_ended_is_refused_and_nothing_is_stored() {
    let (bucket, clock) = bucket(Contents::default());
    let (store, now) = (on(&bucket, &clock), clock.wall());
    let begin = async |until| Backup::begin(&store, "orders", options(1).keep_until(until)).await;
    let moment = Duration::from_nanos(1);
    for until in [Timestamp::MIN, now - moment, now] {
        let error = begin(until).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{until}: {}", error.report());
        assert!(error.to_string().ends_with("give a later time, or none"), "{error}");
        assert_eq!(bucket.contents(), Contents::default());
    }
    for until in [now + moment, Timestamp::MAX] {
        begin(until).await.unwrap().abort(given_up()).await.unwrap();
    }
}

/// The same document as a later major version would write it, as far as this one can tell.
fn of_a_newer_version(bucket: &Bucket, name: &str) {
    bucket.edit(|contents| {
        let object = contents.objects.get_mut(name).unwrap();
        let text = String::from_utf8(object.bytes.to_vec()).unwrap().replacen("\"version\":1", "\"version\":2", 1);
        object.bytes = document::seal(text.as_bytes()).into();
    });
}

/// What cannot be read may be good after all: a newer version has written it, or a bit was wrong on its way.
#[tokio::test]
async fn what_a_backup_that_cannot_be_read_continues_does_not_go() {
    let (bucket, clock) = bucket(Contents::default());
    let store = on(&bucket, &clock);
    let full = made(&store, 1).await[0];
    clock.advance(HOUR);
    let mut log = Backup::begin(&store, "orders", options(1).continues(full, Kind::Log)).await.unwrap();
    log.stripe_input(0, complete(&Bytes::from_static(b"more"))).unwrap();
    let log = log.commit().await.unwrap().manifest.id;
    clock.advance(HOUR);
    let older = made(&store, 1).await[0];
    clock.advance(HOUR);
    let newest = made(&store, 1).await[0];
    assert_eq!(verdicts(&keep_one(&store).await), [vec![newest], vec![], vec![full, log, older]]);

    // One read of its manifest goes wrong.
    let faults = FaultStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone()), 0).clock(clock.shared());
    faults.add(Rule::new(Fault::WrongBytes).on(Operation::Get).path("#1/manifest.json").each(1));
    assert_eq!(verdicts(&keep_one(&faults.store()).await), [vec![full, newest], vec![log], vec![older]]);

    of_a_newer_version(&bucket, &format!("orders/{log}/manifest.json"));
    assert_eq!(verdicts(&keep_one(&store).await), [vec![full, newest], vec![log], vec![older]]);
    let delete = async |id| plan_deletion(&store, &orders(), id, Descendants::Refuse).await;
    assert_eq!(delete(full).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(delete(older).await.unwrap().removed().count(), 1);

    // The intent does not tell it either: any may be its parent, and one that is going stays.
    let plan = keep_one(&store).await;
    of_a_newer_version(&bucket, &format!("orders/{log}/intent.json"));
    assert_eq!(verdicts(&keep_one(&store).await), [vec![full, older, newest], vec![log], vec![]]);
    for id in [full, older, newest] {
        let refused = delete(id).await.unwrap_err();
        assert!(
            refused.report().contains("delete that one first") && refused.report().contains("version"),
            "{refused:?}"
        );
    }
    // As if it had come since the plan was made.
    let since = RetentionPlan { backups: plan.backups.into_iter().filter(|backup| backup.id != log).collect(), ..plan };
    let mut report = DeletionReport::default();
    apply(&store, &since, &mut report).await.unwrap();
    assert!(report.deleted.is_empty() && report.kept[0].0 == older, "{report:?}");
    assert!(bucket.contents().objects.keys().all(|name| !name.contains("/deleted/")), "no record stays");

    apply(&store, &delete(log).await.unwrap(), &mut report).await.unwrap();
    assert_eq!(report.deleted, [log]);
    // It counts as unfinished now, until it was collected.
    assert_eq!(verdicts(&keep_one(&store).await)[2], [] as [BackupId; 0]);
    clock.advance(HOUR);
    let due = crate::backup::collection::plan(&store, None, HOUR).await.unwrap();
    crate::backup::collection::apply(&store, &due, &mut Default::default()).await.unwrap();
    assert_eq!(verdicts(&keep_one(&store).await), [vec![newest], vec![], vec![full, older]]);
}

/// What came of two deletions of a backup and a new one that continues it, all begun in the same millisecond.
struct Race {
    is_parent_there: bool,
    child: Result<BackupId>,
}

/// Runs the three beside each other, in an order that depends on the seed, and checks every bucket that a crash can leave.
async fn race(bucket: Bucket, clock: &SimClock, seed: u64) -> Race {
    let parent = back_up(&on(&bucket, clock), &[Bytes::from_static(b"rows")]).await.unwrap().manifest.id;
    let before = bucket.contents();
    let recording = RecordingStore::new(Arc::new(bucket.clone()), Arc::new(bucket.clone())).interleaved(seed);
    let store = on(&recording, clock);
    let plan = plan_deletion(&store, &orders(), parent, Descendants::Refuse).await.unwrap();
    // Each gets a head start of its own, before the others.
    let start = async |steps: u64| {
        for _ in 0..steps {
            tokio::task::yield_now().await;
        }
    };
    let deletion = async |steps| {
        start(steps).await;
        let mut report = DeletionReport::default();
        apply(&store, &plan, &mut report).await.unwrap();
    };
    let child = async {
        start(seed % 7 * 4).await;
        let mut child = Backup::begin(&store, "orders", options(1).continues(parent, Kind::Log)).await?;
        child.stripe_input(0, complete(&Bytes::from_static(b"more")))?;
        Ok(child.commit().await?.manifest.id)
    };
    let (_, _, child) = tokio::join!(deletion(seed / 7 % 7 * 4), deletion(seed / 49 % 7 * 4), child);
    store.wait_idle().await;

    let (log, at) = (recording.log(), clock.wall());
    let manifest = |id: BackupId| format!("orders/{id}/manifest.json");
    for events in 0..=log.len() {
        for crash in log.crashes(&before, events, at) {
            let objects = crash.contents.objects;
            let others = objects.keys().filter(|name| name.ends_with("manifest.json") && **name != manifest(parent));
            let is_whole = others.count() == 0 || objects.contains_key(&manifest(parent));
            assert!(is_whole, "seed {seed}: a child without its parent: {}", crash.note);
        }
    }
    Race { is_parent_there: bucket.contents().objects.contains_key(&manifest(parent)), child }
}

/// Of two deletions one may give way to the new backup, and takes its record away. If that was the record of the other one too, the new
/// backup does not see that the other one goes on, and stands without its parent.
#[tokio::test]
async fn no_backup_is_committed_without_its_parent_however_deletions_of_one_moment_meet_it() {
    for ignores_create_only in [false, true] {
        let (mut committed, mut refused) = (0, 0);
        for seed in 0..343 {
            let (bucket, clock) = bucket(Contents::default());
            let bucket = if ignores_create_only { bucket.ignoring_create_only() } else { bucket };
            let Race { is_parent_there, child } = race(bucket, &clock, seed).await;
            match child {
                Ok(child) => {
                    committed += 1;
                    assert!(is_parent_there, "seed {seed}: {child} has lost its parent");
                }
                Err(error) => {
                    refused += 1;
                    let is_told = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound);
                    assert!(is_told, "seed {seed}: {}", error.report());
                }
            }
        }
        println!("{committed} committed, {refused} refused");
        assert!(committed > 0 && refused > 0, "{committed} and {refused}: both must be seen");
    }
}
