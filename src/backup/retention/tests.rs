use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use object_store::ObjectStore;
use object_store::multipart::MultipartStore;
use proptest::prelude::*;

use super::plan::{Evidence, Intended, judge, judge_deletion};
use super::*;
use crate::backup::catalog::Select;
use crate::backup::catalog::{BackupSummary, DamagedBackup};
use crate::backup::id::BackupId;
use crate::backup::kind::Kind;
use crate::backup::manifest::tests::{manifest, stripe};
use crate::backup::{Backup, BackupOptions, Series, Store, VerifyLevel, VerifyOptions, find, latest, list, verify};
use crate::error::{Error, ErrorKind};
use crate::testing::{Bucket, Contents, SimClock};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn summary(created: Timestamp, parent: Option<BackupId>) -> BackupSummary {
    let mut manifest = manifest(vec![stripe(&[(10, 5)])]);
    (manifest.id, manifest.created, manifest.parent) = (BackupId::generate(created), created, parent);
    manifest.kind = if parent.is_some() { Kind::Log } else { Kind::Full };
    manifest.labels.clear();
    BackupSummary::from(&manifest)
}

/// The same with damage that was found at `time` and stands.
fn damaged_at(mut backup: BackupSummary, time: Timestamp) -> BackupSummary {
    let damage = serde_json::json!({"level": "full", "time": time, "outcome": "damaged", "good": 0, "segments": 1});
    backup.standing_damage = Some(serde_json::from_value(damage).unwrap());
    backup
}

/// One full backup every `hours` hours up to `newest`, oldest first.
fn every(hours: i64, count: i64, newest: &str) -> Vec<BackupSummary> {
    (0..count).rev().map(|n| summary(at(newest) - (n * hours).hours(), None)).collect()
}

fn judged(evidence: &Evidence, policy: &RetentionPolicy, now: &str) -> RetentionPlan {
    judge(&Series::default(), evidence, policy, at(now)).unwrap()
}

/// The days and hours of what is kept, oldest first.
fn kept(plan: &RetentionPlan) -> Vec<String> {
    plan.kept().map(|backup| backup.created.strftime("%dT%H").to_string()).collect()
}

#[test]
fn rules_keep_the_newest_of_each_period() {
    let evidence = Evidence { backups: every(6, 20, "2026-11-22T18:00:00Z"), ..Evidence::default() };
    let plan = |policy: RetentionPolicy| kept(&judged(&evidence, &policy, "2026-11-22T20:00:00Z"));
    assert_eq!(plan(RetentionPolicy::new().keep_last(1)), ["22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep_last(3)), ["22T06", "22T12", "22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep(Rule::Daily, 3)), ["20T18", "21T18", "22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep(Rule::Weekly, 9)), ["22T18"], "all in one week");
    assert_eq!(
        plan(RetentionPolicy::new().keep(Rule::Hourly, 2)),
        ["22T12", "22T18"],
        "hours without one do not count"
    );
    assert_eq!(plan(RetentionPolicy::new().keep_within(Duration::from_secs(6 * 3600))), ["22T12", "22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep_within(Duration::ZERO)), ["22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep_within(Duration::MAX)).len(), 20);
    let both = RetentionPolicy::new().keep_last(2).keep(Rule::Daily, 2);
    assert_eq!(plan(both), ["21T18", "22T12", "22T18"]);
    assert_eq!(plan(RetentionPolicy::new().keep_last(u32::MAX)).len(), 20);
}

#[test]
fn a_series_that_has_come_to_a_stop_does_not_fade_away() {
    let evidence = Evidence { backups: every(24, 5, "2020-01-05T00:00:00Z"), ..Evidence::default() };
    let policy = RetentionPolicy::new().keep_within(Duration::from_secs(2 * 86_400));
    assert_eq!(kept(&judged(&evidence, &policy, "2026-11-22T00:00:00Z")), ["03T00", "04T00", "05T00"]);
    let label = RetentionPolicy::new().keep_label("nobody", None);
    assert_eq!(kept(&judged(&evidence, &label, "2026-11-22T00:00:00Z")), ["05T00"], "the newest stays in any case");
}

/// The machine's clock was a year ahead. It once took the place of the newest, so that every good backup went.
#[test]
fn a_backup_that_is_dated_ahead_pushes_out_no_other_and_stays() {
    let mut backups = every(24, 10, "2026-11-10T00:00:00Z");
    let mut wrong = summary(at("2027-11-10T12:00:00Z"), Some(backups[0].id));
    wrong.committed = Some(at("2026-11-10T12:00:00Z"));
    backups.push(wrong.clone());
    let mut evidence = Evidence { backups, ..Evidence::default() };
    let days = |days: u64| RetentionPolicy::new().keep_within(Duration::from_secs(days * 86_400));
    // Before its date has come and after it.
    for now in ["2026-11-11T00:00:00Z", "2029-01-01T00:00:00Z"] {
        let plan = judged(&evidence, &days(3), now);
        assert_eq!(kept(&plan), ["01T00", "07T00", "08T00", "09T00", "10T00", "10T12"]);
        let Verdict::Keep { reasons } = &plan.backups.last().unwrap().verdict else { panic!("{plan:?}") };
        assert_eq!(*reasons, [Reason::Ahead(at("2026-11-10T12:00:00Z"))]);
        assert_eq!(reasons[0].to_string(), "dated ahead: stored by 2026-11-10T12:00:00Z");
        assert_eq!(plan.backups[0].verdict, Verdict::Keep { reasons: vec![Reason::ParentOf(wrong.id)] });
        let plan = judged(&evidence, &RetentionPolicy::new().keep_last(1).keep(Rule::Yearly, 1), now);
        assert_eq!(kept(&plan), ["01T00", "10T00", "10T12"]);
    }
    // Of a backup of which it is not known when it was stored, it is known that it was before now.
    evidence.backups.last_mut().unwrap().committed = None;
    assert_eq!(kept(&judged(&evidence, &days(0), "2026-11-11T00:00:00Z")), ["01T00", "10T00", "10T12"]);
    // A quarter of an hour is no more than clocks differ by.
    let close = evidence.backups.last_mut().unwrap();
    (close.committed, close.parent) = (Some(close.created - 15.minutes()), None);
    assert_eq!(kept(&judged(&evidence, &days(0), "2029-01-01T00:00:00Z")), ["10T12"]);
}

#[test]
fn labels_and_protection_keep() {
    let mut backups = every(24, 4, "2026-11-04T00:00:00Z");
    backups[0].labels = [("tier".to_owned(), "gold".to_owned())].into();
    backups[1].labels = [("tier".to_owned(), "tin".to_owned())].into();
    backups[2].keep_until = Some(at("2026-12-01T00:00:00Z"));
    let evidence = Evidence { backups, ..Evidence::default() };
    let gold = RetentionPolicy::new().keep_label("tier", Some("gold".to_owned()));
    assert_eq!(kept(&judged(&evidence, &gold, "2026-11-05T00:00:00Z")), ["01T00", "03T00", "04T00"]);
    assert_eq!(kept(&judged(&evidence, &gold, "2026-12-01T00:00:00Z")), ["01T00", "04T00"], "until then, not at it");
    let any = RetentionPolicy::new().keep_label("tier", None);
    assert_eq!(kept(&judged(&evidence, &any, "2026-12-01T00:00:00Z")), ["01T00", "02T00", "04T00"]);
}

/// A stub that is no backup must not push a good one out of the count: that has cost people their data.
#[test]
fn what_cannot_be_restored_counts_for_no_rule_and_is_left_alone() {
    let mut backups = every(24, 4, "2026-11-04T00:00:00Z");
    let newest = backups.pop().unwrap();
    let orphan = summary(at("2026-11-06T00:00:00Z"), Some(BackupId::generate(at("2026-10-01T00:00:00Z"))));
    let failed = damaged_at(summary(at("2026-11-07T00:00:00Z"), None), at("2026-11-10T00:00:00Z"));
    let child_of_failed = summary(at("2026-11-08T00:00:00Z"), Some(failed.id));
    let damaged = DamagedBackup {
        id: newest.id,
        series: Series::default(),
        error: Error::new(ErrorKind::Corrupt, "its seal is broken"),
    };
    let child_of_damaged = summary(at("2026-11-09T00:00:00Z"), Some(newest.id));
    backups.extend([orphan, failed, child_of_failed, child_of_damaged]);
    let evidence = Evidence { backups, damaged: vec![damaged], ..Evidence::default() };
    let plan = judged(&evidence, &RetentionPolicy::new().keep_last(2), "2026-11-20T00:00:00Z");
    assert_eq!(kept(&plan), ["02T00", "03T00"]);
    let ignored: Vec<&str> = plan
        .backups
        .iter()
        .filter_map(|backup| match &backup.verdict {
            Verdict::Ignore { why } => Some(why.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ignored.len(), 5, "{ignored:?}");
    assert!(ignored[0].contains("seal") && ignored[1].contains("not there"), "{ignored:?}");
    assert!(ignored[2].contains("verification of 2026-11-10"), "{ignored:?}");
    assert!(ignored[3].contains("is damaged") && ignored[4].contains("is damaged"), "{ignored:?}");
    assert_eq!(plan.removed().count(), 1);
}

/// A newer version may have recorded damage that this one cannot read.
#[test]
fn a_backup_with_a_record_that_cannot_be_used_counts_for_no_rule() {
    let mut backups = every(24, 3, "2026-11-03T00:00:00Z");
    let newest = backups.last_mut().unwrap();
    newest.has_unread_verification = true;
    let child = summary(at("2026-11-04T00:00:00Z"), Some(newest.id));
    backups.push(child);
    let evidence = Evidence { backups, ..Evidence::default() };
    let plan = judged(&evidence, &RetentionPolicy::new().keep_last(1), "2026-11-20T00:00:00Z");
    assert_eq!(kept(&plan), ["02T00"]);
    let verdicts: Vec<&Verdict> = plan.backups.iter().map(|backup| &backup.verdict).collect();
    let [Verdict::Remove, Verdict::Keep { .. }, Verdict::Ignore { why: unread }, Verdict::Ignore { why: child }] =
        verdicts[..]
    else {
        panic!("{verdicts:?}");
    };
    assert!(unread.contains("cannot be used") && child.contains("not known to be good"), "{unread}, {child}");
}

#[test]
fn chains_stay_whole() {
    let mut backups = vec![summary(at("2026-11-01T00:00:00Z"), None)];
    for hour in 1..5 {
        let parent = backups.last().map(|backup| backup.id);
        backups.push(summary(at("2026-11-01T00:00:00Z") + hour.hours(), parent));
    }
    backups.push(summary(at("2026-11-02T00:00:00Z"), None));
    let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
    let mut evidence = Evidence { backups, ..Evidence::default() };
    let one = RetentionPolicy::new().keep_last(1);
    let now = "2026-11-03T00:00:00Z";
    let plan = judged(&evidence, &one, now);
    assert_eq!(kept(&plan), ["02T00"], "the chain goes as a whole");
    let order: Vec<BackupId> = plan.removed().map(|backup| backup.id).collect();
    assert_eq!(order, [ids[4], ids[3], ids[2], ids[1], ids[0]], "children before parents");

    let two = judged(&evidence, &RetentionPolicy::new().keep_last(2), now);
    assert_eq!(two.removed().count(), 0, "the last link holds all of it");
    let parent = &two.backups[0].verdict;
    assert_eq!(*parent, Verdict::Keep { reasons: vec![Reason::ParentOf(ids[4])] });

    // A backup that is being made continues the third link.
    let running = BackupId::generate(at(now));
    evidence.needed = BTreeMap::from([(ids[2], running)]);
    let plan = judged(&evidence, &one, now);
    assert_eq!(kept(&plan), ["01T00", "01T01", "01T02", "02T00"]);
}

/// A log every minute. Each was once compared with all before it, which took minutes, within which a signal was not seen.
#[test]
fn a_chain_as_long_as_a_series_is_judged_at_once() {
    const LINKS: i64 = 50_000;
    let mut backups: Vec<BackupSummary> = Vec::new();
    for minutes in 0..LINKS {
        let parent = backups.last().map(|backup| backup.id);
        backups.push(summary(at("2026-01-01T00:00:00Z") + minutes.minutes(), parent));
    }
    let (first, last) = (backups[0].id, backups[backups.len() - 1].id);
    let mut evidence = Evidence { backups, ..Evidence::default() };
    let (one, now) = (RetentionPolicy::new().keep_last(1), "2026-03-01T00:00:00Z");
    let plan = judged(&evidence, &one, now);
    let (newest, rest) = plan.backups.split_last().unwrap();
    assert_eq!(newest.verdict, Verdict::Keep { reasons: vec![Reason::Newest, Reason::Last] });
    let parent = Verdict::Keep { reasons: vec![Reason::ParentOf(last)] };
    assert!(rest.iter().all(|backup| backup.verdict == parent));

    let plan = judge_deletion(&Series::default(), &evidence, first, Descendants::Delete, at(now)).unwrap();
    assert!(plan.removed().map(|backup| backup.id).eq(plan.backups.iter().rev().map(|backup| backup.id)));

    evidence.missing.insert(first, "its first segment is gone".to_owned());
    let plan = judged(&evidence, &one, now);
    let broken = Verdict::Ignore { why: format!("it continues {first}, which is damaged") };
    assert!(plan.backups[1..].iter().all(|backup| backup.verdict == broken));
}

fn damaged(id: BackupId) -> DamagedBackup {
    DamagedBackup { id, series: Series::default(), error: Error::new(ErrorKind::Corrupt, "its seal is broken") }
}

/// A clock that went back makes a child that is older than its parent.
#[test]
fn children_go_before_their_parents_whatever_their_dates_say() {
    let full = summary(at("2026-11-05T00:00:00Z"), None);
    let diff = summary(at("2026-11-03T00:00:00Z"), Some(full.id));
    let logs = ["2026-11-01T00:00:00Z", "2026-11-04T00:00:00Z"].map(|time| summary(at(time), Some(diff.id)));
    let other = summary(at("2026-11-02T00:00:00Z"), None);
    let newest = summary(at("2026-11-06T00:00:00Z"), None);
    let order = [logs[1].id, logs[0].id, diff.id, full.id, other.id];
    let backups = [vec![full, diff, other, newest], logs.to_vec()].concat();
    let evidence = Evidence { backups, ..Evidence::default() };
    let plan = judged(&evidence, &RetentionPolicy::new().keep_last(1), "2026-11-07T00:00:00Z");
    assert_eq!(plan.removed().map(|backup| backup.id).collect::<Vec<_>>(), order);
}

#[test]
fn what_a_damaged_backup_continues_stays_and_stands_in_the_way() {
    let mut backups = every(24, 4, "2026-11-04T00:00:00Z");
    let ids: Vec<BackupId> = backups.iter().map(|backup| backup.id).collect();
    // A log of the second continues the first; another one continues that log.
    let (broken, now) = (backups.remove(1).id, "2026-11-05T00:00:00Z");
    let last = summary(at("2026-11-02T12:00:00Z"), Some(broken));
    backups.push(last.clone());
    let intended = Intended { parent: Some(ids[0]), keep_until: None };
    let mut evidence = Evidence {
        backups,
        damaged: vec![damaged(broken)],
        intended: [(broken, intended)].into(),
        ..Default::default()
    };
    let one = RetentionPolicy::new().keep_last(1);
    let plan = judged(&evidence, &one, now);
    assert_eq!(plan.removed().map(|backup| backup.id).collect::<Vec<_>>(), [ids[2]]);
    assert!(
        matches!(&plan.backups[0].verdict, Verdict::Keep { reasons } if matches!(reasons[..], [Reason::ParentOf(_)]))
    );
    assert_eq!((plan.backups[1].id, plan.backups[1].parent), (broken, Some(ids[0])));

    let delete = |evidence: &Evidence, id, descendants| {
        judge_deletion(&Series::default(), evidence, id, descendants, at(now))
            .map(|plan| plan.removed().map(|backup| backup.id).collect::<Vec<_>>())
    };
    let refused = delete(&evidence, ids[0], Descendants::Refuse).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(delete(&evidence, ids[0], Descendants::Delete).unwrap(), [last.id, broken, ids[0]]);
    assert_eq!(delete(&evidence, broken, Descendants::Delete).unwrap(), [last.id, broken]);
    evidence.intended.get_mut(&broken).unwrap().keep_until = Some(at("2026-12-01T00:00:00Z"));
    let refused = delete(&evidence, ids[0], Descendants::Delete).unwrap_err();
    assert!(refused.to_string().contains("protected until 2026-12-01"), "{refused}");
}

#[test]
fn what_does_not_tell_its_parent_may_need_every_backup() {
    let mut evidence = Evidence { backups: every(24, 4, "2026-11-04T00:00:00Z"), ..Evidence::default() };
    let ids: Vec<BackupId> = evidence.backups.iter().map(|backup| backup.id).collect();
    let (now, torn) = ("2026-11-05T00:00:00Z", Error::new(ErrorKind::Corrupt, "its end is missing"));
    let one = RetentionPolicy::new().keep_last(1);
    let plan = |evidence: &Evidence| judged(evidence, &one, now).removed().count();
    let delete = |evidence: &Evidence, id| {
        judge_deletion(&Series::default(), evidence, id, Descendants::Delete, at(now))
            .map(|plan| plan.removed().map(|backup| backup.id).collect::<Vec<_>>())
    };
    assert_eq!(plan(&evidence), 3);

    // One that was not committed: only a collection removes it.
    let open = BackupId::generate(at("2026-11-04T12:00:00Z"));
    evidence.unknown.insert(open, torn.clone());
    assert_eq!(plan(&evidence), 0);
    let refused = delete(&evidence, ids[0]).unwrap_err();
    assert!(refused.to_string().contains(&open.to_string()) && refused.to_string().contains("`gc`"), "{refused}");
    assert!(refused.kind() == ErrorKind::Corrupt && refused.report().contains("its end is missing"), "{refused:?}");
    evidence.unknown.clear();

    // Committed ones, of which each may continue the others: the newest can go by its name.
    let broken = ["2026-11-02T12:00:00Z", "2026-11-03T12:00:00Z"].map(|time| BackupId::generate(at(time)));
    for id in broken {
        evidence.damaged.push(damaged(id));
        evidence.unknown.insert(id, torn.clone());
    }
    let judgement = judged(&evidence, &one, now);
    assert_eq!(judgement.removed().count(), 0);
    let Verdict::Keep { reasons } = &judgement.backups[0].verdict else { panic!("{judgement:?}") };
    assert_eq!(*reasons, [Reason::MayBeNeededBy(broken[1])]);
    for id in [ids[0], ids[3], broken[0]] {
        let refused = delete(&evidence, id).unwrap_err().to_string();
        assert!(refused.contains(&broken[1].to_string()) && refused.contains("delete that one first"), "{refused}");
    }
    assert_eq!(delete(&evidence, broken[1]).unwrap(), [broken[1]]);
    evidence.unknown.remove(&broken[1]);
    evidence.damaged.pop();
    assert_eq!(delete(&evidence, broken[0]).unwrap(), [broken[0]]);
}

#[test]
fn the_plan_is_a_document() {
    let evidence = Evidence { backups: every(24, 2, "2026-11-04T00:00:00Z"), ..Evidence::default() };
    let plan = judged(&evidence, &RetentionPolicy::new().keep_last(1).keep(Rule::Daily, 1), "2026-11-05T00:00:00Z");
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["backups"][0]["verdict"], "remove");
    assert_eq!(json["backups"][1]["verdict"], "keep");
    assert_eq!(json["backups"][1]["reasons"], serde_json::json!(["newest", "last", "daily 2026-11-04"]));
    assert_eq!(json["backups"][1]["kind"], "full");
}

#[test]
fn a_deletion_names_what_stands_in_its_way() {
    let full = summary(at("2026-11-01T00:00:00Z"), None);
    let mut log = summary(at("2026-11-02T00:00:00Z"), Some(full.id));
    let later = summary(at("2026-11-03T00:00:00Z"), Some(log.id));
    let now = at("2026-11-04T00:00:00Z");
    let delete =
        |evidence: &Evidence, id, descendants| judge_deletion(&Series::default(), evidence, id, descendants, now);
    let mut evidence = Evidence { backups: vec![full.clone(), log.clone(), later.clone()], ..Evidence::default() };
    let refused = delete(&evidence, full.id, Descendants::Refuse).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains(&log.id.to_string()) && refused.to_string().contains("1 more"), "{refused}");
    let plan = delete(&evidence, log.id, Descendants::Delete).unwrap();
    assert_eq!(plan.removed().map(|backup| backup.id).collect::<Vec<_>>(), [later.id, log.id]);
    assert_eq!(delete(&evidence, later.id, Descendants::Refuse).unwrap().removed().count(), 1);
    let stranger = BackupId::generate(now);
    assert_eq!(delete(&evidence, stranger, Descendants::Delete).unwrap_err().kind(), ErrorKind::NotFound);

    evidence.needed = BTreeMap::from([(later.id, stranger)]);
    assert_eq!(delete(&evidence, log.id, Descendants::Delete).unwrap_err().kind(), ErrorKind::Conflict);
    log.keep_until = Some(at("2026-11-05T00:00:00Z"));
    let protected = Evidence { backups: vec![full.clone(), log], ..Evidence::default() };
    let refused = delete(&protected, full.id, Descendants::Delete).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "no credentials would help");
    assert!(refused.to_string().contains("protected until 2026-11-05"), "{refused}");
}

proptest! {
    /// Whatever the list and the rules: nothing that stays has lost a parent, the newest good one stays, protection holds.
    #[test]
    fn no_plan_breaks_a_chain(
        shape in prop::collection::vec((0i64..500, prop::option::of(0usize..30), any::<bool>(), 0u8..8, 0u8..8), 1..30),
        last in 0u32..4, daily in 0u32..4, hours in 0u64..100,
    ) {
        let start = at("2026-01-01T00:00:00Z");
        let mut backups: Vec<BackupSummary> = Vec::new();
        let (mut broken, mut ids, mut intended) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (hour, parent, protected, fault, ahead) in shape {
            // Parents of any age: clocks go back.
            let parent = parent.and_then(|index| ids.get(index)).copied();
            let mut backup = summary(start + hour.hours(), parent);
            backup.keep_until = protected.then_some(start + 600.hours());
            backup.committed = Some(backup.created - if ahead == 0 { 1.hours() } else { 0.hours() });
            ids.push(backup.id);
            if fault == 1 {
                broken.push(damaged(backup.id));
                intended.insert(backup.id, Intended { parent, keep_until: None });
                continue;
            }
            if fault == 0 {
                backup = damaged_at(backup, start);
            }
            backups.push(backup);
        }
        let evidence = Evidence { backups, damaged: broken, intended, ..Evidence::default() };
        let policy = RetentionPolicy::new().keep_last(last).keep(Rule::Daily, daily).keep_within(Duration::from_secs(hours * 3600));
        let plan = judge(&Series::default(), &evidence, &policy, start + 500.hours()).unwrap();
        let removed: BTreeSet<BackupId> = plan.removed().map(|backup| backup.id).collect();
        for backup in plan.backups.iter().filter(|backup| !removed.contains(&backup.id)) {
            prop_assert!(backup.parent.is_none_or(|parent| !removed.contains(&parent)));
        }
        // Nor has what goes, at any moment before.
        let mut gone = BTreeSet::new();
        for backup in plan.removed() {
            prop_assert!(backup.parent.is_none_or(|parent| !gone.contains(&parent)), "{} after its parent", backup.id);
            gone.insert(backup.id);
        }
        prop_assert_eq!(&gone, &removed);
        let is_ahead = |backup: &BackupSummary| backup.committed.is_some_and(|committed| committed < backup.created);
        for backup in &evidence.backups {
            prop_assert!((backup.keep_until.is_none() && !is_ahead(backup)) || !removed.contains(&backup.id));
        }
        let ignored = |id| plan.backups.iter().any(|b| b.id == id && matches!(b.verdict, Verdict::Ignore { .. }));
        let newest = evidence.backups.iter().filter(|b| !ignored(b.id) && !is_ahead(b)).max_by_key(|b| (b.created, b.id));
        prop_assert!(newest.is_none_or(|backup| !removed.contains(&backup.id)));
        prop_assert_eq!(plan.backups.len(), ids.len());
    }
}

proptest! {
    /// A plan is judged again with every fault that is found: nothing that stayed before may go for it.
    #[test]
    fn a_fault_only_makes_more_backups_stay(
        shape in prop::collection::vec((0i64..500, prop::option::of(0usize..30), any::<bool>(), 0u8..6), 1..30),
        last in 0u32..4, daily in 0u32..4, weekly in 0u32..2, hours in 0u64..100, broken in any::<prop::sample::Index>(),
    ) {
        let start = at("2026-01-01T00:00:00Z");
        let mut evidence = Evidence::default();
        for (hour, parent, protected, fault) in shape {
            let parent = parent.and_then(|index| evidence.backups.get(index)).map(|backup| backup.id);
            let mut backup = summary(start + hour.hours(), parent);
            backup.keep_until = protected.then_some(start + 600.hours());
            if fault == 0 {
                backup = damaged_at(backup, start);
            }
            evidence.backups.push(backup);
        }
        let policy = RetentionPolicy::new().keep_last(last).keep(Rule::Daily, daily).keep(Rule::Weekly, weekly);
        let policy = policy.keep_within(Duration::from_secs(hours * 3600));
        let removed = |evidence: &Evidence| -> BTreeSet<BackupId> {
            let plan = judge(&Series::default(), evidence, &policy, start + 500.hours()).unwrap();
            plan.removed().map(|backup| backup.id).collect()
        };
        let before = removed(&evidence);
        let broken = evidence.backups[broken.index(evidence.backups.len())].id;
        evidence.missing.insert(broken, "a segment is missing".to_owned());
        let after = removed(&evidence);
        prop_assert!(after.is_subset(&before), "{:?} would go now", after.difference(&before));
    }
}

async fn back_up(store: &Store, options: BackupOptions) -> Result<BackupId, Error> {
    let mut backup = Backup::begin(store, "default", options).await?;
    backup.stripe_reader(0, std::io::Cursor::new(b"rows".to_vec()))?;
    Ok(backup.commit().await?.manifest.id)
}

/// Applies a plan to its end.
async fn applied(store: &Store, plan: &RetentionPlan) -> DeletionReport {
    let mut report = DeletionReport::default();
    apply(store, plan, &mut report).await.unwrap();
    report
}

#[tokio::test]
async fn what_a_plan_removes_does_not_exist_any_more() {
    let (store, series) = (Store::memory(), Series::default());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(back_up(&store, BackupOptions::default()).await.unwrap());
    }
    let plan = plan(&store, &series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
    let before = list(&store, None).await.unwrap();
    assert_eq!(before.backups.len(), 3, "a plan changes nothing");
    let report = applied(&store, &plan).await;
    assert_eq!(report.deleted.len(), 2);
    let left = list(&store, None).await.unwrap().backups;
    assert_eq!(left.iter().map(|backup| backup.id).collect::<Vec<_>>(), [ids[2]]);
    for id in &ids[..2] {
        assert_eq!(find(&store, &series, Select::Id(*id)).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    // Once more: there is nothing to do, and no harm.
    assert_eq!(applied(&store, &plan).await.deleted.len(), 2);
}

#[tokio::test]
async fn a_clock_that_was_ahead_costs_no_backup() {
    let (store, series) = (Store::memory(), Series::default());
    let century = SimClock::new();
    century.advance(Duration::from_secs(100 * 366 * 86_400));
    let first = back_up(&store, BackupOptions::default()).await.unwrap();
    let second = back_up(&store, BackupOptions::default()).await.unwrap();
    let wrong = back_up(&store.clone().clock(century.shared()), BackupOptions::default()).await.unwrap();
    let month = RetentionPolicy::new().keep_within(Duration::from_secs(30 * 86_400));
    let judged = plan(&store, &series, &month).await.unwrap();
    assert_eq!(judged.removed().count(), 0, "{judged:?}");
    let found = latest(&store, &series).await.unwrap();
    assert_eq!((found.manifest.id, found.ahead), (second, vec![wrong]));

    // Each new backup counts, and the next plan does not remove it.
    let last = RetentionPolicy::new().keep_last(1);
    for number in 0..2 {
        let newest = if number == 0 { second } else { back_up(&store, BackupOptions::default()).await.unwrap() };
        let judged = plan(&store, &series, &last).await.unwrap();
        applied(&store, &judged).await;
        assert_eq!(find(&store, &series, Select::Latest).await.unwrap().id, newest);
    }
    let left: Vec<BackupId> = list(&store, None).await.unwrap().backups.iter().map(|backup| backup.id).collect();
    assert_eq!((left.len(), left[1]), (2, wrong), "{left:?}");
    assert!(left[0] > second && second > first);
}

#[tokio::test]
async fn a_backup_begun_after_the_plan_keeps_its_parent() {
    let (store, series) = (Store::memory(), Series::default());
    let full = back_up(&store, BackupOptions::default()).await.unwrap();
    let log = back_up(&store, BackupOptions::default().continues(full, Kind::Log)).await.unwrap();
    back_up(&store, BackupOptions::default()).await.unwrap();
    let plan = plan(&store, &series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
    assert_eq!(plan.removed().count(), 2);
    let running = Backup::begin(&store, "default", BackupOptions::default().continues(log, Kind::Log)).await.unwrap();
    let report = applied(&store, &plan).await;
    assert_eq!(report.deleted, []);
    assert_eq!(report.kept.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [log, full]);
    assert!(report.kept[0].1.contains(&running.id().to_string()), "{report:?}");
    running.abort(Error::new(ErrorKind::Aborted, "enough")).await.unwrap();
    // The records of the deletions that did not happen are gone: the parent can be continued.
    back_up(&store, BackupOptions::default().continues(log, Kind::Log)).await.unwrap();
}

#[tokio::test]
async fn a_backup_that_is_gone_or_going_cannot_be_continued() {
    let (store, series) = (Store::memory(), Series::default());
    let full = back_up(&store, BackupOptions::default()).await.unwrap();
    let names = crate::backup::names::Names::new(series.clone(), full);
    let record = record::write(&store, &names).await.unwrap();
    let log = || BackupOptions::default().continues(full, Kind::Log);
    assert_eq!(back_up(&store, log()).await.unwrap_err().kind(), ErrorKind::Conflict);
    store.delete(&record).await.unwrap();
    applied(&store, &plan_deletion(&store, &series, full, Descendants::Refuse).await.unwrap()).await;
    store
        .delete_all(&store.list(&names.directory()).await.unwrap().into_iter().map(|o| o.name).collect::<Vec<_>>())
        .await
        .unwrap();
    assert_eq!(back_up(&store, log()).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(list(&store, None).await.unwrap().uncommitted.is_empty(), "nothing is left behind");
}

/// The first of two deletions gives way and takes its record away. A new backup must still see that of the second.
#[tokio::test]
async fn deletions_of_the_same_moment_have_a_record_each() {
    for ignores_create_only in [false, true] {
        let clock = SimClock::new();
        let bucket = Bucket::new(Contents::default(), clock.shared());
        let bucket = if ignores_create_only { bucket.ignoring_create_only() } else { bucket };
        let objects: (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>) = (Arc::new(bucket.clone()), Arc::new(bucket));
        let store = Store::with_multipart(objects.0, objects.1, "").clock(clock.shared());
        let series = Series::default();
        let full = back_up(&store, BackupOptions::default()).await.unwrap();
        let names = crate::backup::names::Names::new(series.clone(), full);
        let (one, other) = tokio::join!(record::write(&store, &names), record::write(&store, &names));
        store.delete(&one.unwrap()).await.unwrap();
        let refused = check_parent(&store, &series, full).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{}", refused.report());
        store.delete(&other.unwrap()).await.unwrap();
        check_parent(&store, &series, full).await.unwrap();
    }
}

#[tokio::test]
async fn a_backup_that_was_found_damaged_counts_only_once_it_is_shown_to_be_whole() {
    let (store, series) = (Store::memory(), Series::default());
    let old = back_up(&store, BackupOptions::default()).await.unwrap();
    let new = back_up(&store, BackupOptions::default()).await.unwrap();
    let manifest = find(&store, &series, Select::Id(new)).await.unwrap();
    let (_, segment, _) = manifest.objects().next().unwrap();
    let content = store.read_small(&segment, u64::MAX).await.unwrap();
    let level = VerifyOptions::new;
    let policy = RetentionPolicy::new().keep_last(1);
    let kept = async || {
        let plan = plan(&store, &series, &policy).await.unwrap();
        plan.kept().map(|backup| backup.id).collect::<Vec<_>>()
    };
    assert_eq!(kept().await, [new]);

    store.delete(&segment).await.unwrap();
    assert!(!verify(&store, &manifest, level(VerifyLevel::Stored)).await.unwrap().is_good());
    assert_eq!(kept().await, [old], "the damaged one does not push out the good one");

    store.create(&segment, content).await.unwrap();
    assert!(verify(&store, &manifest, level(VerifyLevel::Quick)).await.unwrap().is_good());
    assert_eq!(kept().await, [old], "a look at the sizes does not refute a look at the hashes");
    assert!(verify(&store, &manifest, level(VerifyLevel::Full)).await.unwrap().is_good());
    assert_eq!(kept().await, [new]);
}
