//! Collection: look again, then remove, so that an interrupted one goes on the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::super::catalog;
use super::super::id::BackupId;
use super::super::names::{self, Names, ObjectName, Series};
use super::super::store::{NAMES_AT_ONCE, Refused, Store};
use super::found::Found;
use super::meter::Meter;
use super::named::Named;
use super::plan::{self, Ages, CollectionPlan, Leftover, Reason, Subject, Verdict};
use super::{mark, uploads};
use crate::error::{ErrorKind, Result};

/// Backups that are listed at once.
const LISTINGS_AT_ONCE: usize = 16;
/// What is said if there is no room for the mark, and nothing that may go before it is written.
const NO_ROOM: &str = "there is no room for the mark of a collection: make a few KiB by hand, and collect again";
/// Refusals that a report holds; the rest is counted.
const MOST_LEFT: usize = 1000;

/// What a collection did. If it ended early, its numbers are those of what it knew by then: at least so many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionReport {
    /// Backups of which nothing is left.
    pub backups: Vec<BackupId>,
    /// The objects that were removed of those that the plan names one by one.
    pub singles: Vec<String>,
    /// Objects that were removed, these and those of backups.
    pub objects: u64,
    /// Multipart uploads of which there were records, and which are ended now.
    pub uploads: u64,
    /// What was to go and is alive, or was committed meanwhile: it stays.
    pub kept: Vec<Left>,
    /// What the store does not delete now, because it is locked or protected: a later collection tries again.
    pub later: Vec<Left>,
    /// Objects that do not go now and are not in `later`, because those are enough to show.
    pub later_more: u64,
    /// The store keeps versions of what was removed, or locks them: no space is freed before its own rules remove them. False if
    /// nothing was removed, if it ended early, or if the store does not say.
    pub keeps_versions: bool,
}

/// Something that was not removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Left {
    /// A backup, as `series/id`, or an object below the store's prefix.
    pub what: String,
    /// Why it stays.
    pub why: String,
}

impl CollectionReport {
    /// Objects that do not go now, listed or not.
    pub(super) fn refused(&self) -> u64 {
        self.later.len() as u64 + self.later_more
    }

    fn keep(&mut self, what: impl ToString, why: impl Into<String>) {
        self.kept.push(Left { what: what.to_string(), why: why.into() });
    }

    /// Of these single objects, all went but for the refused ones.
    fn remove(&mut self, objects: &[String], refused: &[Refused]) {
        let mut gone = objects.to_vec();
        without(&mut gone, refused);
        self.singles.append(&mut gone);
        self.refuse(refused);
    }

    fn refuse(&mut self, refused: &[Refused]) {
        for Refused { name, error } in refused {
            if self.later.len() < MOST_LEFT {
                self.later.push(Left { what: name.clone(), why: error.report() });
            } else {
                self.later_more += 1;
            }
        }
    }
}

/// Looks for what belongs to no committed backup of `series`, or of any series, and judges by its age. Nothing is changed.
///
/// `grace` is the time without a sign of life after which a backup that is not committed counts as dead, and for which the
/// data of a deleted one stays for its readers: [`DEFAULT_GRACE`](super::DEFAULT_GRACE) suits nearly everybody, and less than
/// [`SAFE_GRACE`](super::SAFE_GRACE) is right only where nothing else uses the store.
///
/// Costs one listing per series, one of the root if no series is given, and for each backup, committed or not, a small read and one
/// listing. However many objects there are, only numbers about each backup are held, and never more than 128 MiB of manifests.
///
/// # Errors
///
/// Those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn plan(store: &Store, series: Option<&Series>, grace: Duration) -> Result<CollectionPlan> {
    let time = store.time().wall();
    let ages = Ages { now: time, grace, shares_clock: store.shares_clock() };
    let all = match series {
        Some(series) => vec![series.clone()],
        None => catalog::series_of(store).await?,
    };
    let mut leftovers = Vec::new();
    let gate = &catalog::gate();
    for series in all {
        let ids = catalog::ids_of(store, &series).await?;
        let mut listings = stream::iter(ids)
            .map(|id| {
                let names = Names::new(series.clone(), id);
                async move { look(store, &names, ages, gate).await.map(|found| (names, found)) }
            })
            .buffered(LISTINGS_AT_ONCE);
        while let Some(listing) = listings.next().await {
            let (names, found) = listing?;
            leftovers.extend(plan::judge(&names, &found, ages));
        }
    }
    if series.is_none() {
        let probes: Vec<Leftover> = store
            .fold(names::PROBES, |probes: &mut Vec<Leftover>, seen| {
                if names::is_probe(&seen.name) && probes.len() < NAMES_AT_ONCE {
                    probes.push(plan::probe(seen, ages));
                }
            })
            .await?;
        leftovers.extend(probes);
    }
    Ok(CollectionPlan { time, grace, leftovers })
}

/// What is there of a backup now.
async fn look(store: &Store, names: &Names, ages: Ages, gate: &Semaphore) -> Result<Found> {
    // The manifest first: of a backup that is committed between the two, no segment is taken for one that is not named.
    let named = match catalog::read_gated(store, names, gate).await {
        Ok(committed) => committed.map(|committed| Named::of(&committed.manifest)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => return Ok(Found::protected()),
        Err(error) => return Err(error),
    };
    let see = |found: &mut Found, seen| found.see(names, named.as_ref(), ages, seen);
    let mut found: Found = store.fold(&names.directory(), see).await?;
    // Some listings lag behind: what was read is there.
    found.has_manifest |= named.is_some();
    Ok(found)
}

/// Removes what `plan` removes, after it has looked again. `report` begins empty and has what was done, as it is done.
///
/// Of each backup a mark is written first, so that its writer, if it wakes, does not commit. Then it is looked for a manifest and
/// for signs of life, by the store's own clock: what is committed or lives stays. Then the recorded uploads are ended, and the
/// segments, the records, the intent and the mark go, in this order, so that what is left of an interrupted collection is found
/// and removed by the next one. Segments beside a committed backup go if the manifest, read once more, does not name them. What
/// the store refuses to delete is in [`CollectionReport::later`] and is no error.
///
/// Where there is no room for the mark, what may go without one goes first: files that never got their names, and the segments of a
/// deleted backup. On local disk there need not be room to ask for the time either.
///
/// Costs three small requests, one more where the bucket can be asked whether it keeps versions, and for each backup a small read,
/// three listings or more, two small writes or deletions, two requests per recorded upload, and one deletion for each object or
/// each 1000 of them, as the store allows. At most 10,000 names are held.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] if there is no room for a mark, and nothing that may go without one; those of the store, by kind. What was
/// removed until then stays removed and is in `report`, and a new plan goes on from there.
///
/// # Cancel safety
///
/// Stops between two requests; `report` has what was done but for the requests under way. What is half removed is never a committed
/// backup; call it again, or make a new plan.
#[tracing::instrument(name = "collect", skip_all, fields(leftovers = plan.removed().count(), grace_seconds = plan.grace.as_secs()))]
pub async fn apply(store: &Store, plan: &CollectionPlan, report: &mut CollectionReport) -> Result<()> {
    *report = CollectionReport::default();
    let mut meter = Meter::new(Arc::clone(store.time()));
    if plan.removed().next().is_none() {
        meter.on_end(report);
        return Ok(());
    }
    let skew = store.skew().await.map_err(|error| error.context("cannot ask the store for its time"))?;
    let ages = || Ages {
        now: store.time().wall().checked_add(skew).unwrap_or(plan.time),
        grace: plan.grace,
        shares_clock: store.shares_clock(),
    };
    let gate = &catalog::gate();
    for (names, objects) in unnamed(plan) {
        let removed = segments(store, &names, &objects, ages(), gate, report).await;
        meter.on_progress(report);
        removed.map_err(|error| error.context(format!("cannot remove what is left of {}", names.directory())))?;
    }
    let mut rest: Vec<&Leftover> = plan.removed().filter(|leftover| leftover.reason != Reason::Unnamed).collect();
    while !rest.is_empty() {
        let (mut again, mut full) = (Vec::new(), None);
        for leftover in &rest {
            let removed = one(store, leftover, ages(), gate, report).await;
            meter.on_progress(report);
            match removed.map_err(|error| error.context(format!("cannot remove what is left of {}", leftover.subject)))
            {
                // There may be room for its mark when others have gone.
                Err(error) if error.kind() == ErrorKind::Exhausted => {
                    again.push(*leftover);
                    full.get_or_insert(error);
                }
                outcome => outcome?,
            }
        }
        match full {
            Some(error) if again.len() == rest.len() => return Err(error),
            _ => rest = again,
        }
    }
    report.keeps_versions = report.objects > 0 && store.keeps_versions().await;
    meter.on_end(report);
    Ok(())
}

/// Removes one leftover.
async fn one(
    store: &Store,
    leftover: &Leftover,
    ages: Ages,
    gate: &Semaphore,
    report: &mut CollectionReport,
) -> Result<()> {
    let verdict = ages.verdict(leftover.last_sign);
    match &leftover.subject {
        Subject::Backup { series, id } => {
            let names = Names::new(series.clone(), *id);
            backup(store, &names, ages, gate, report).await
        }
        Subject::Beside { series, id, object: name } => {
            let names = Names::new(series.clone(), *id);
            object(store, Some(&names), leftover, name, verdict, report).await
        }
        Subject::Object { object: name } => object(store, None, leftover, name, verdict, report).await,
    }
}

/// Removes what is left of a backup that is not committed.
async fn backup(
    store: &Store,
    names: &Names,
    ages: Ages,
    gate: &Semaphore,
    report: &mut CollectionReport,
) -> Result<()> {
    let mark = match mark::write(store, names).await {
        Err(error) if error.kind() == ErrorKind::Exhausted => {
            let found = look(store, names, ages, gate).await?;
            if let Some(why) = alive(names, &found, ages) {
                report.keep(names.directory(), why);
                return Ok(());
            }
            let mut sweep = Sweep { store, names, report: &mut *report, refused: Vec::new() };
            sweep.make_room(found.is_deleted).await?;
            mark::write(store, names).await.map_err(|error| match error.kind() {
                ErrorKind::Exhausted => error.context(NO_ROOM),
                _ => error,
            })?
        }
        outcome => outcome?,
    };
    let found = look(store, names, ages, gate).await?;
    if let Some(why) = alive(names, &found, ages) {
        report.keep(names.directory(), why);
        // Nothing of what the plan removes.
        report.refuse(&store.delete_each(&[mark], &mut 0).await?);
        return Ok(());
    }
    let mut sweep = Sweep { store, names, report: &mut *report, refused: Vec::new() };
    let swept = sweep.run().await;
    let refused = sweep.refused;
    report.refuse(&refused);
    swept?;
    if refused.is_empty() {
        report.backups.push(names.id());
    }
    Ok(())
}

/// Why what was found of a backup stays, if it does.
fn alive(names: &Names, found: &Found, ages: Ages) -> Option<String> {
    if found.has_manifest {
        return Some("it was committed meanwhile".to_owned());
    }
    match ages.verdict(plan::last_sign(names, found, ages.now)) {
        Verdict::Remove => None,
        Verdict::Wait { until } => Some(young(until)),
    }
}

/// The objects of a backup in the order in which they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The records of uploads, each after its upload was ended.
    Uploads,
    Data,
    Intent,
    Marks,
}

impl Part {
    /// Where an object belongs; a manifest belongs nowhere.
    fn of(name: &ObjectName) -> Option<Self> {
        match name {
            ObjectName::Manifest => None,
            ObjectName::Upload { .. } => Some(Self::Uploads),
            ObjectName::Intent => Some(Self::Intent),
            ObjectName::Collected(_) => Some(Self::Marks),
            ObjectName::Claim(_)
            | ObjectName::Deleted(_)
            | ObjectName::Identity
            | ObjectName::Partial
            | ObjectName::Resumed { .. }
            | ObjectName::Sealed(_)
            | ObjectName::Segment(_)
            | ObjectName::Verified(_) => Some(Self::Data),
        }
    }
}

/// The removal of one backup.
struct Sweep<'a> {
    store: &'a Store,
    names: &'a Names,
    report: &'a mut CollectionReport,
    refused: Vec<Refused>,
}

impl Sweep<'_> {
    /// Removes the whole backup, as far as the store lets it.
    async fn run(&mut self) -> Result<()> {
        self.remove(Part::Uploads).await?;
        self.remove(Part::Data).await?;
        for last in [Part::Intent, Part::Marks] {
            // As long as something is left, these say what it is.
            if self.refused.is_empty() {
                self.remove(last).await?;
            }
        }
        Ok(())
    }

    /// Removes what may go without a mark, where there is no room for one. What the store refuses is left to the next look.
    ///
    /// A file without its name is in no backup that is committed: whoever wakes and goes on with it cannot give it its name, is told,
    /// and commits nothing that lacks it. If the backup was deleted, the record of that tells a writer the same as a mark, so the
    /// segments go too, and the record stays.
    async fn make_room(&mut self, is_deleted: bool) -> Result<()> {
        self.remove_those(false, |name| match name {
            ObjectName::Partial => true,
            name => is_deleted && name.as_segment().is_some(),
        })
        .await
    }

    /// Removes a part.
    async fn remove(&mut self, part: Part) -> Result<()> {
        self.remove_those(part == Part::Uploads, |name| Part::of(name) == Some(part)).await
    }

    /// Removes what is `wanted`, some thousands of objects at a time.
    async fn remove_those(&mut self, are_uploads: bool, wanted: impl Fn(&ObjectName) -> bool) -> Result<()> {
        let (store, names) = (self.store, self.names);
        let is_wanted = |name: &str| names.parse(name).is_some_and(|parsed| wanted(&parsed));
        let mut before: Option<String> = None;
        loop {
            // Those that were refused are listed again.
            let most = NAMES_AT_ONCE + self.refused.len();
            let mut found = store.some_of(&names.directory(), most, is_wanted).await?;
            let is_all = found.len() < most;
            without(&mut found, &self.refused);
            if before.is_some() && before.as_ref() == found.first() {
                return Err(store.still_listed(&found[0]));
            }
            before = found.first().cloned();
            let mut refused = Vec::new();
            if are_uploads {
                refused = uploads::abort(store, names, &found).await?;
                without(&mut found, &refused);
                self.report.uploads += found.len() as u64;
            }
            let locked = store.delete_each(&found, &mut self.report.objects).await?;
            refused.extend(locked);
            self.refused.append(&mut refused);
            if is_all {
                return Ok(());
            }
        }
    }
}

/// Takes those that were refused out of `names`.
fn without(names: &mut Vec<String>, refused: &[Refused]) {
    let refused: BTreeSet<&str> = refused.iter().map(|refused| refused.name.as_str()).collect();
    names.retain(|name| !refused.contains(name.as_str()));
}

/// The segments that go because no manifest names them, backup by backup.
fn unnamed(plan: &CollectionPlan) -> Vec<(Names, BTreeSet<&str>)> {
    let mut backups: BTreeMap<(&Series, BackupId), BTreeSet<&str>> = BTreeMap::new();
    for leftover in plan.removed().filter(|leftover| leftover.reason == Reason::Unnamed) {
        if let Subject::Beside { series, id, object } = &leftover.subject {
            backups.entry((series, *id)).or_default().insert(object);
        }
    }
    backups.into_iter().map(|((series, id), objects)| (Names::new(series.clone(), id), objects)).collect()
}

/// Removes segments that the manifest of their backup does not name, after it was read again.
///
/// A manifest is never replaced, so what it does not name now it will not name. If it is gone, another one might still come, of
/// a process that was taken over from and lives; then all that is there waits for the next collection, as of every deleted backup.
async fn segments(
    store: &Store,
    names: &Names,
    objects: &BTreeSet<&str>,
    ages: Ages,
    gate: &Semaphore,
    report: &mut CollectionReport,
) -> Result<()> {
    let found = look(store, names, ages, gate).await?;
    let why = match ages.verdict(found.newest_stray.unwrap_or(Timestamp::MIN)) {
        _ if !found.has_manifest => Some("the backup was deleted meanwhile".to_owned()),
        Verdict::Wait { until } => Some(young(until)),
        Verdict::Remove => None,
    };
    if let Some(why) = why {
        objects.iter().for_each(|object| report.keep(object, why.clone()));
        return Ok(());
    }
    // Only what was seen again: it is there, and the manifest that is there now does not name it.
    let seen = found.strays.into_iter().map(|stray| stray.name).filter(|name| objects.contains(name.as_str()));
    let seen: Vec<String> = seen.collect();
    let refused = store.delete_each(&seen, &mut report.objects).await?;
    report.remove(&seen, &refused);
    Ok(())
}

/// Removes one object beside a committed backup, or beside all backups, unless it is too young by the store's clock.
async fn object(
    store: &Store,
    names: Option<&Names>,
    leftover: &Leftover,
    name: &str,
    verdict: Verdict,
    report: &mut CollectionReport,
) -> Result<()> {
    if let Verdict::Wait { until } = verdict {
        report.keep(name, young(until));
        return Ok(());
    }
    let object = &[name.to_owned()];
    if let (Some(names), Reason::UploadRecord) = (names, leftover.reason) {
        let refused = uploads::abort(store, names, object).await?;
        if !refused.is_empty() {
            report.refuse(&refused);
            return Ok(());
        }
        report.uploads += 1;
    }
    let refused = store.delete_each(object, &mut report.objects).await?;
    report.remove(object, &refused);
    Ok(())
}

fn young(until: Timestamp) -> String {
    format!("by the store's clock it is too young until {until:.0}")
}
