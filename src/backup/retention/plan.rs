//! The judgement: each backup of a series, kept or removed, and why. Nothing here reads or writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::super::catalog::{BackupSummary, DamagedBackup};
use super::super::dating;
use super::super::id::BackupId;
use super::super::kind::Kind;
use super::super::names::Series;
use super::super::verify::LastVerification;
use super::chain;
use super::order;
use super::policy::{RetentionPolicy, Rule};
use crate::error::{Error, ErrorKind, Result};

/// What is to become of each backup of a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RetentionPlan {
    /// The series.
    pub series: Series,
    /// When it was judged.
    pub time: Timestamp,
    /// Every backup, oldest first.
    pub backups: Vec<PlannedBackup>,
}

/// What is to become of one backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedBackup {
    /// Its id.
    pub id: BackupId,
    /// When it was begun.
    pub created: Timestamp,
    /// What it contains in relation to its parent; nothing if its manifest cannot be read.
    pub kind: Option<Kind>,
    /// The backup that it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// Size of its segment objects.
    pub stored_bytes: u64,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// A judgement on a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It stays, for these reasons; there is at least one.
    Keep {
        /// Why.
        reasons: Vec<Reason>,
    },
    /// It goes.
    Remove,
    /// It is no backup to rely on: it counts for no rule, and stays until it is deleted by name.
    Ignore {
        /// What is wrong with it.
        why: String,
    },
}

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is the newest that can be restored.
    Newest,
    /// It is one of the last.
    Last,
    /// It is the newest of this period.
    Period(Rule, String),
    /// It is young enough.
    Within,
    /// It has a label that is kept.
    Label(String),
    /// It is protected until then.
    Protected(Timestamp),
    /// A backup that is kept continues it.
    ParentOf(BackupId),
    /// A backup that is being made, or was left unfinished, continues it.
    NeededBy(BackupId),
    /// Neither this backup nor its intent can be read, so it may continue any other.
    MayBeNeededBy(BackupId),
    /// It is dated later than it was stored, which was at this time at the latest: it takes nobody's place, and goes by name only.
    Ahead(Timestamp),
    /// The deletion is not about it.
    NotNamed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Last => f.write_str("last"),
            Self::Period(rule, period) => write!(f, "{rule} {period}"),
            Self::Within => f.write_str("within"),
            Self::Label(key) => write!(f, "label {}", key.escape_debug()),
            Self::Protected(until) => write!(f, "protected until {until:.0}"),
            Self::ParentOf(id) => write!(f, "parent of {id}"),
            Self::NeededBy(id) => write!(f, "needed by unfinished {id}"),
            Self::MayBeNeededBy(id) => write!(f, "may be needed by {id}, whose intent cannot be read"),
            Self::Ahead(stored) => write!(f, "dated ahead: stored by {stored:.0}"),
            Self::NotNamed => f.write_str("not named"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl RetentionPlan {
    /// The backups that go: what continues others before them, whatever the dates say, and else newest first. So a chain never
    /// loses a parent before its children.
    pub fn removed(&self) -> impl Iterator<Item = &PlannedBackup> {
        order::children_first(self.backups.iter().rev().filter(|backup| backup.verdict == Verdict::Remove)).into_iter()
    }

    /// The backups that stay and can be restored.
    pub fn kept(&self) -> impl Iterator<Item = &PlannedBackup> {
        self.backups.iter().filter(|backup| matches!(backup.verdict, Verdict::Keep { .. }))
    }
}

/// What a judgement is made of.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) backups: Vec<BackupSummary>,
    pub(super) damaged: Vec<DamagedBackup>,
    /// Backups of which something is not there, and what.
    pub(super) missing: BTreeMap<BackupId, String>,
    /// Parents of backups that are not committed, with one of these.
    pub(super) needed: BTreeMap<BackupId, BackupId>,
    /// What the intents of damaged backups tell.
    pub(super) intended: BTreeMap<BackupId, Intended>,
    /// Backups, damaged or not committed, of which nothing tells what they continue, and why not.
    pub(super) unknown: BTreeMap<BackupId, Error>,
}

/// What an intent tells of a backup whose manifest does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intended {
    pub(super) parent: Option<BackupId>,
    pub(super) keep_until: Option<Timestamp>,
}

impl Evidence {
    /// What each backup continues, damaged or not.
    fn parents(&self) -> HashMap<BackupId, BackupId> {
        let backups = self.backups.iter().map(|backup| (backup.id, backup.parent));
        let damaged = self.intended.iter().map(|(id, intended)| (*id, intended.parent));
        backups.chain(damaged).filter_map(|(id, parent)| Some((id, parent?))).collect()
    }
}

pub(super) fn judge(
    series: &Series,
    evidence: &Evidence,
    policy: &RetentionPolicy,
    now: Timestamp,
) -> Result<RetentionPlan> {
    policy.check()?;
    let parents = evidence.parents();
    let faults = faults(evidence, &parents);
    let mut newest_first: Vec<&BackupSummary> = evidence.backups.iter().collect();
    newest_first.sort_unstable_by_key(|backup| std::cmp::Reverse((backup.created, backup.id)));
    // Whose date cannot be says nothing of what came before it: it must not push anything out.
    let ahead = |backup: &BackupSummary| {
        let stored = backup.committed.unwrap_or(now);
        dating::is_ahead(backup.created, stored).then_some(stored)
    };
    let is_good = |backup: &BackupSummary| !faults.contains_key(&backup.id) && ahead(backup).is_none();
    let good = || newest_first.iter().copied().filter(|backup| is_good(backup));

    let mut reasons = wanted(good(), policy);
    for backup in &newest_first {
        if let Some(until) = backup.keep_until.filter(|&until| until > now) {
            reasons.entry(backup.id).or_default().push(Reason::Protected(until));
        }
        if let Some(&child) = evidence.needed.get(&backup.id) {
            reasons.entry(backup.id).or_default().push(Reason::NeededBy(child));
        }
        if let Some((&child, _)) = evidence.unknown.last_key_value() {
            reasons.entry(backup.id).or_default().push(Reason::MayBeNeededBy(child));
        }
        if let Some(stored) = ahead(backup) {
            reasons.entry(backup.id).or_default().push(Reason::Ahead(stored));
        }
    }
    // What is not deleted needs its parents. That is also true of what is ignored: it may be good after all.
    let all = newest_first.iter().map(|backup| backup.id).chain(evidence.damaged.iter().map(|damaged| damaged.id));
    let staying = all.filter(|id| reasons.contains_key(id) || faults.contains_key(id));
    for (parent, child) in chain::needed(staying.collect::<Vec<_>>(), &parents) {
        reasons.entry(parent).or_default().push(Reason::ParentOf(child));
    }

    Ok(RetentionPlan {
        series: series.clone(),
        time: now,
        backups: planned(evidence, |id| match (faults.get(&id), reasons.remove(&id)) {
            (Some(why), _) => Verdict::Ignore { why: why.clone() },
            (None, Some(reasons)) => Verdict::Keep { reasons },
            (None, None) => Verdict::Remove,
        }),
    })
}

/// What is to be done with the backups that continue one that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descendants {
    /// They stand in the way.
    Refuse,
    /// They are deleted too.
    Delete,
}

pub(super) fn judge_deletion(
    series: &Series,
    evidence: &Evidence,
    named: BackupId,
    descendants: Descendants,
    now: Timestamp,
) -> Result<RetentionPlan> {
    let committed = evidence.backups.iter().map(|backup| backup.id);
    let committed: Vec<BackupId> = committed.chain(evidence.damaged.iter().map(|damaged| damaged.id)).collect();
    if !committed.contains(&named) {
        let message = format!("there is no backup {named} in series `{series}`; what was never committed is for `gc`");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let parents = evidence.parents();
    let others = || committed.iter().copied().filter(|id| *id != named);
    let continuing = chain::nearest(others(), &parents, |id| id == named);
    let children: Vec<BackupId> = others().filter(|id| continuing.contains_key(id)).collect();
    if let (Descendants::Refuse, Some(child)) = (descendants, children.first()) {
        let others = match children.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let message =
            format!("backup {child}{others} would be of no use without {named}; delete them with it, or neither");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    // Of several of these one is the last, and can go.
    if let Some((&child, error)) = evidence.unknown.last_key_value().filter(|(child, _)| **child != named) {
        let what = match committed.contains(&child) {
            true => "delete that one first, or look at it with the version that made it",
            false => "`gc` removes that one when it has given no sign of life for the grace time",
        };
        return Err(error
            .clone()
            .context(format!("backup {child}, whose intent cannot be read, may need {named}; {what}")));
    }
    let going: BTreeSet<BackupId> = children.into_iter().chain([named]).collect();
    let protections = evidence.backups.iter().map(|backup| (backup.id, backup.keep_until));
    let intended = evidence.intended.iter().map(|(id, intended)| (*id, intended.keep_until));
    let protections: HashMap<BackupId, Option<Timestamp>> = protections.chain(intended).collect();
    for id in &going {
        if let Some(child) = evidence.needed.get(id) {
            let message = format!("backup {child} is being made, or was left unfinished, and continues {id}");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if let Some(until) = protections.get(id).copied().flatten().filter(|&until| until > now) {
            return Err(Error::new(ErrorKind::Conflict, format!("backup {id} is protected until {until:.0}")));
        }
    }
    let verdict =
        |id| if going.contains(&id) { Verdict::Remove } else { Verdict::Keep { reasons: vec![Reason::NotNamed] } };
    Ok(RetentionPlan { series: series.clone(), time: now, backups: planned(evidence, verdict) })
}

/// Every backup with its verdict, oldest first.
fn planned(evidence: &Evidence, mut verdict: impl FnMut(BackupId) -> Verdict) -> Vec<PlannedBackup> {
    let mut backups: Vec<PlannedBackup> = Vec::with_capacity(evidence.backups.len() + evidence.damaged.len());
    for backup in &evidence.backups {
        backups.push(PlannedBackup {
            id: backup.id,
            created: backup.created,
            kind: Some(backup.kind),
            parent: backup.parent,
            stored_bytes: backup.stored_bytes,
            verdict: verdict(backup.id),
        });
    }
    for damaged in &evidence.damaged {
        backups.push(PlannedBackup {
            id: damaged.id,
            created: damaged.id.time(),
            kind: None,
            parent: evidence.intended.get(&damaged.id).and_then(|intended| intended.parent),
            stored_bytes: 0,
            verdict: verdict(damaged.id),
        });
    }
    backups.sort_unstable_by_key(|backup| (backup.created, backup.id));
    backups
}

/// What is wrong with each backup that cannot be relied on.
fn faults(evidence: &Evidence, parents: &HashMap<BackupId, BackupId>) -> HashMap<BackupId, String> {
    let readable: BTreeSet<BackupId> = evidence.backups.iter().map(|backup| backup.id).collect();
    let told = |damage: LastVerification| format!("its verification of {:.0} found damage", damage.time);
    let mut faults: HashMap<BackupId, String> =
        evidence.backups.iter().filter_map(|backup| Some((backup.id, told(backup.standing_damage?)))).collect();
    faults.extend(evidence.missing.iter().map(|(id, why)| (*id, why.clone())));
    faults.extend(evidence.damaged.iter().map(|damaged| (damaged.id, damaged.error.to_string())));
    let unread = evidence.backups.iter().filter(|backup| backup.has_unread_verification).map(|backup| backup.id);
    let unread: BTreeSet<BackupId> = unread.filter(|id| !faults.contains_key(id)).collect();
    let told = "a record of its verifications cannot be used, and may tell damage";
    faults.extend(unread.iter().map(|id| (*id, told.to_owned())));
    let is_bad = |id: BackupId| !readable.contains(&id) || faults.contains_key(&id);
    let good = readable.iter().copied().filter(|id| !is_bad(*id));
    let broken = chain::nearest(good, parents, is_bad).into_iter().map(|(id, missing)| {
        let state = match faults.contains_key(&missing) {
            true if unread.contains(&missing) => "not known to be good",
            true => "damaged",
            false => "not there",
        };
        (id, format!("it continues {missing}, which is {state}"))
    });
    let broken: Vec<(BackupId, String)> = broken.collect();
    faults.extend(broken);
    faults
}

/// The backups that the policy wants, of good ones from the newest on.
fn wanted<'a>(
    good: impl Iterator<Item = &'a BackupSummary>,
    policy: &RetentionPolicy,
) -> HashMap<BackupId, Vec<Reason>> {
    let mut wanted: HashMap<BackupId, Vec<Reason>> = HashMap::new();
    let mut left: Vec<(Rule, u32, Option<String>)> =
        policy.periods().map(|(rule, count)| (rule, count, None)).collect();
    let mut oldest_within = None;
    for (position, backup) in (0u32..).zip(good) {
        let mut reasons = Vec::new();
        if position == 0 {
            reasons.push(Reason::Newest);
            let age = policy.within.map(|age| SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX));
            oldest_within = age.map(|age| backup.created.checked_sub(age).unwrap_or(Timestamp::MIN));
        }
        if position < policy.last {
            reasons.push(Reason::Last);
        }
        for (rule, count, last_period) in &mut left {
            let period = rule.period(backup.created);
            if *count > 0 && last_period.as_ref() != Some(&period) {
                *count -= 1;
                reasons.push(Reason::Period(*rule, period.clone()));
                *last_period = Some(period);
            }
        }
        if oldest_within.is_some_and(|oldest| backup.created >= oldest) {
            reasons.push(Reason::Within);
        }
        let labels = policy.labels.iter().filter(|(key, value)| match (backup.labels.get(key), value) {
            (Some(found), Some(value)) => found == value,
            (found, None) => found.is_some(),
            (None, Some(_)) => false,
        });
        reasons.extend(labels.map(|(key, _)| Reason::Label(key.clone())));
        if !reasons.is_empty() {
            wanted.insert(backup.id, reasons);
        }
    }
    wanted
}
