//! What keeps the backups of a deletion from being continued until they are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::catalog;
use super::super::collection::LONGEST_SILENCE;
use super::super::id::BackupId;
use super::super::moment::Moment;
use super::super::names::{Names, Series};
use super::super::store::Store;
use super::apply::intents;
use super::plan::{PlannedBackup, RetentionPlan};
use super::record;
use crate::error::{Error, ErrorKind, Result};

/// Backups whose protection is renewed at once: so few that the last of them goes long before its record is old again.
const RENEWED_AT_ONCE: usize = 100;

/// The protection of the backups that one deletion removes.
///
/// The record of a backup refuses all who want to continue it from then on, and a look after that finds those that came before.
/// A collection takes a record that is older than its grace time, beside a manifest, for one of a deletion that did not happen. So
/// one that is half as old as the shortest grace time protects no more, and both steps are done again.
pub(super) struct Protection<'a> {
    store: &'a Store,
    series: &'a Series,
    /// What the plan has judged. Others were begun since.
    known: BTreeSet<BackupId>,
    records: HashMap<BackupId, Records>,
    /// Why some stay.
    needed: BTreeMap<BackupId, String>,
    /// Why all stay from now on.
    unknown: Option<String>,
}

/// The records of one backup.
struct Records {
    /// The last of them is at most as old as this.
    written: Moment,
    names: Vec<String>,
}

impl<'a> Protection<'a> {
    pub(super) fn new(store: &'a Store, plan: &'a RetentionPlan) -> Self {
        let known = plan.backups.iter().map(|backup| backup.id).collect();
        let (records, needed, unknown) = Default::default();
        Self { store, series: &plan.series, known, records, needed, unknown }
    }

    fn now(&self) -> Moment {
        Moment::now(self.store.time().as_ref())
    }

    /// Writes a record of each of `backups`, and then looks who continues one.
    pub(super) async fn cover(&mut self, backups: &[&PlannedBackup]) -> Result<()> {
        for backup in backups {
            let written = self.now();
            let name = record::write(self.store, &Names::new(self.series.clone(), backup.id)).await?;
            let records = self.records.entry(backup.id).or_insert(Records { written, names: Vec::new() });
            records.written = written;
            records.names.push(name);
        }
        let since = catalog::ids_of(self.store, self.series).await?.into_iter().filter(|id| !self.known.contains(id));
        for (child, intent) in intents(self.store, self.series, since).await? {
            match intent {
                Ok(intended) => {
                    self.needed.extend(intended.parent.map(|parent| (parent, format!("backup {child} continues it"))));
                }
                // It never began, or it has gone since.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => self.unknown = Some(format!("backup {child} may continue it: {}", error.report())),
            }
        }
        Ok(())
    }

    /// Before the first of `rest` goes: covers it again if its record has become old, and those that are next with it.
    pub(super) async fn renew(&mut self, rest: &[&PlannedBackup]) -> Result<()> {
        // If it has become old meanwhile, the store is very slow or the machine slept: then it alone.
        for most in [RENEWED_AT_ONCE, 1, 1] {
            if !rest.first().is_some_and(|next| self.is_old(next.id)) {
                return Ok(());
            }
            self.cover(&rest[..most.min(rest.len())]).await?;
        }
        match rest.first() {
            Some(next) if self.is_old(next.id) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the store took longer than {} minutes for what protects a deletion, three times; nothing more was deleted: try again later",
                    LONGEST_SILENCE.as_secs() / 60
                ),
            )),
            _ => Ok(()),
        }
    }

    fn is_old(&self, id: BackupId) -> bool {
        self.records.get(&id).is_none_or(|records| self.now().is_long_after(records.written, LONGEST_SILENCE))
    }

    /// Notes that the backup stays.
    pub(super) fn need(&mut self, id: BackupId, why: String) {
        self.needed.entry(id).or_insert(why);
    }

    /// Why the backup stays, if it does.
    pub(super) fn why_kept(&mut self, id: BackupId) -> Option<String> {
        self.needed.remove(&id).or_else(|| self.unknown.clone())
    }

    /// Removes the records of a backup that stays. Those that do not go are for a collection.
    pub(super) async fn withdraw(&mut self, id: BackupId) {
        for record in self.records.remove(&id).into_iter().flat_map(|records| records.names) {
            if let Err(error) = self.store.delete(&record).await {
                tracing::warn!(record, error = %error.report(), "the record of a deletion that did not happen stays");
            }
        }
    }

    /// The same of all.
    pub(super) async fn withdraw_all(&mut self) {
        let all: Vec<BackupId> = self.records.keys().copied().collect();
        for id in all {
            self.withdraw(id).await;
        }
    }
}
