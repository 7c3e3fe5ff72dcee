//! Deletion: hide first, then look who needs it, then remove.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde::Serialize;

use super::super::catalog;
use super::super::document;
use super::super::id::BackupId;
use super::super::names::{Names, Series};
use super::super::segments;
use super::super::store::Store;
use super::check;
use super::plan::{Descendants, Evidence, Intended, PlannedBackup, RetentionPlan, judge, judge_deletion};
use super::policy::RetentionPolicy;
use super::protection::Protection;
use crate::error::{ErrorKind, Result};

/// What a deletion did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeletionReport {
    /// Backups that do not exist any more. Their data goes after the grace time.
    pub deleted: Vec<BackupId>,
    /// Backups that were to go and stay, with the reason: a lock of the store, a backup that continues them.
    pub kept: Vec<(BackupId, String)>,
    /// The backup whose deletion was under way when it ended early: whether it still exists is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<BackupId>,
    /// The store keeps versions of what was deleted, or locks them: no space is freed before its own rules remove them. False if
    /// nothing was deleted, if it ended early, or if the store does not say.
    pub keeps_versions: bool,
}

/// Judges every backup of `series` by `policy`. Nothing is changed.
///
/// Each backup that would be kept is compared with its manifest first, as a verification of the level
/// [`Quick`](super::super::VerifyLevel::Quick) does without a record. One of which something is not there counts for no rule, and
/// others are kept in its place, which are compared too. So each backup that the plan keeps was there when it was made.
///
/// Costs what [`list`](super::super::list) costs, one small read per backup that is damaged or not committed, and for each that is kept, or
/// was found not to be whole, one small read and one listing; 32 backups at once, with 128 MiB of manifests at most. What a listing
/// lacks is looked up by name, eight segments of a backup at once, of each until the first object that is missing.
///
/// # Errors
///
/// [`ErrorKind::Invalid`] if the policy has no rule; those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn plan(store: &Store, series: &Series, policy: &RetentionPolicy) -> Result<RetentionPlan> {
    policy.check()?;
    let (mut evidence, now) = (gather(store, series).await?, store.time().wall());
    let mut looked_at = BTreeSet::new();
    loop {
        let plan = judge(series, &evidence, policy, now)?;
        // A fault only ever makes more backups stay, so the plan becomes stable, at the latest when all were looked at.
        let new: Vec<BackupId> = plan.kept().map(|backup| backup.id).filter(|id| looked_at.insert(*id)).collect();
        let faults = check::faults(store, series, new).await?;
        if faults.is_empty() {
            return Ok(plan);
        }
        evidence.missing.extend(faults);
    }
}

/// Deletes the backups that `plan` removes, in the order of [`RetentionPlan::removed`]. `report` begins empty and has what was done,
/// as it is done.
///
/// First each gets a record that it is being deleted, then the backups that were begun since the plan are asked for their
/// parents, and only then do the manifests go: from there on the backup does not exist. What turned out to be needed is
/// kept, so are the parents of what could not be deleted; all of it is kept if one of the new ones does not tell what it
/// continues. The data stays for readers that began before; a collection
/// removes it after its grace time.
///
/// A collection beside it takes an old record for that of a deletion that did not happen. So where the deletion takes long, a backup
/// whose turn comes more than 30 minutes after its record gets another one, and the new backups are asked again.
///
/// A backup that the plan removes and that is nowhere in the report was not reached: it still exists.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] if there is no room for the records; then nothing was deleted, but for what `report` has if the records
/// had to be written again. Those of the store, by kind; what was deleted until then stays deleted and is in `report`, and the same
/// plan can be applied again.
///
/// # Cancel safety
///
/// Cancel-safe: it stops between two backups or leaves one in doubt, `report` says which, and it can be called again with the
/// same plan.
#[tracing::instrument(name = "delete", skip_all, fields(series = %plan.series))]
pub async fn apply(store: &Store, plan: &RetentionPlan, report: &mut DeletionReport) -> Result<()> {
    *report = DeletionReport::default();
    let going: Vec<&PlannedBackup> = plan.removed().collect();
    let mut protection = Protection::new(store, plan);
    match protection.cover(&going).await {
        Err(error) if error.kind() == ErrorKind::Exhausted => {
            protection.withdraw_all().await;
            return Err(error.context(
                "there is no room for the record of a deletion, a few KiB, and nothing was deleted: `gc` makes some, with a \
                 shorter grace time if nothing else uses the store",
            ));
        }
        outcome => outcome?,
    }
    for (number, backup) in going.iter().enumerate() {
        let renewed = protection.renew(&going[number..]).await;
        renewed.map_err(|error| error.context("cannot protect anew what is left to delete"))?;
        let kept = match protection.why_kept(backup.id) {
            Some(why) => Some(why),
            None => {
                // Known before the request is made: it may have its effect although this fails, or is dropped.
                report.in_doubt = Some(backup.id);
                hide(store, &Names::new(plan.series.clone(), backup.id)).await?
            }
        };
        report.in_doubt = None;
        let Some(why) = kept else {
            report.deleted.push(backup.id);
            continue;
        };
        report.kept.push((backup.id, why));
        protection.withdraw(backup.id).await;
        if let Some(parent) = backup.parent {
            protection.need(parent, format!("backup {} continues it and stays", backup.id));
        }
    }
    report.keeps_versions = !report.deleted.is_empty() && store.keeps_versions().await;
    Ok(())
}

/// Deletes the manifest of a backup. Answers why it stays, if the store refuses that.
async fn hide(store: &Store, names: &Names) -> Result<Option<String>> {
    let manifest = names.manifest();
    let Err(error) = store.delete(&manifest).await else { return Ok(None) };
    if error.kind() == ErrorKind::Denied {
        // The store may have repeated a request whose answer it had lost itself, and refuse to delete what is gone.
        match store.find_size(&manifest).await {
            Ok(Some(_)) => return Ok(Some(error.report())),
            Ok(None) => return Ok(None),
            Err(unknown) => tracing::debug!(manifest, error = %unknown.report(), "it is not known whether it stays"),
        }
    }
    Err(error.context(format!("cannot delete backup {}", names.id())))
}

/// What the intents of `ids` tell, or why they do not: there is none, it is damaged, or a newer version has written it.
pub(super) async fn intents(
    store: &Store,
    series: &Series,
    ids: impl Iterator<Item = BackupId>,
) -> Result<Vec<(BackupId, Result<Intended>)>> {
    let mut intents = stream::iter(ids)
        .map(|id| async move { (id, catalog::intent(store, series, id).await) })
        .buffered(catalog::READS_AT_ONCE);
    let mut found = Vec::new();
    while let Some((id, outcome)) = intents.next().await {
        let intended = match outcome {
            Ok(intent) if (intent.id, &intent.series) == (id, series) => {
                Ok(Intended { parent: intent.parent, keep_until: intent.keep_until })
            }
            Ok(intent) => {
                let names = Names::new(series.clone(), id);
                let other = format!("{}/{}", intent.series, intent.id);
                Err(document::corrupt(&store.show(&names.intent()), "backup", names.directory(), other))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::Invalid) => {
                Err(error)
            }
            Err(error) => return Err(error),
        };
        found.push((id, intended));
    }
    Ok(found)
}

/// Judges the deletion of one backup, damaged or not. Nothing is changed; [`apply`] carries the plan out.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such backup; [`ErrorKind::Conflict`] if it is protected until a later time, if others
/// continue it and `descendants` does not say to delete them too, or if a backup that is being made continues it;
/// [`ErrorKind::Corrupt`] or [`ErrorKind::Invalid`] if another one may, because neither its manifest nor its intent can be read; those
/// of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn plan_deletion(
    store: &Store,
    series: &Series,
    id: BackupId,
    descendants: Descendants,
) -> Result<RetentionPlan> {
    let evidence = gather(store, series).await?;
    judge_deletion(series, &evidence, id, descendants, store.time().wall())
}

async fn gather(store: &Store, series: &Series) -> Result<Evidence> {
    let listing = catalog::list(store, Some(series)).await?;
    let (mut needed, mut intended, mut unknown) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (child, intent) in intents(store, series, listing.uncommitted.iter().map(|(_, id)| *id)).await? {
        match intent {
            Ok(intended) => needed.extend(intended.parent.map(|parent| (parent, child))),
            // It never began, or it has gone since.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => drop(unknown.insert(child, error)),
        }
    }
    for (id, intent) in intents(store, series, listing.damaged.iter().map(|damaged| damaged.id)).await? {
        match intent {
            Ok(found) => drop(intended.insert(id, found)),
            // Every backup that was committed had one.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let name = Names::new(series.clone(), id).intent();
                unknown.insert(id, segments::missing(&store.show(&name)));
            }
            Err(error) => drop(unknown.insert(id, error)),
        }
    }
    let (backups, damaged, missing) = (listing.backups, listing.damaged, BTreeMap::new());
    Ok(Evidence { backups, damaged, missing, needed, intended, unknown })
}
