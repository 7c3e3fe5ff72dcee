//! The order in which backups go.

use std::collections::{BTreeSet, HashMap};

use super::super::id::BackupId;
use super::plan::PlannedBackup;

/// Each backup after those of `backups` that continue it, and else in the order in which they are.
///
/// Dates do not tell: a clock that went back makes a child that is older than its parent. Of a circle, which nobody can make but a
/// forger, each comes once.
pub(super) fn children_first<'a>(backups: impl Iterator<Item = &'a PlannedBackup>) -> Vec<&'a PlannedBackup> {
    let backups: Vec<&PlannedBackup> = backups.collect();
    let mut children: HashMap<BackupId, Vec<&PlannedBackup>> = HashMap::new();
    for backup in &backups {
        if let Some(parent) = backup.parent {
            children.entry(parent).or_default().push(backup);
        }
    }
    let (mut order, mut seen) = (Vec::with_capacity(backups.len()), BTreeSet::new());
    for backup in backups {
        // A chain may be as long as a series, so this does not call itself.
        let mut open = vec![(backup, false)];
        while let Some((backup, is_free)) = open.pop() {
            if is_free {
                order.push(backup);
            } else if seen.insert(backup.id) {
                open.push((backup, true));
                open.extend(children.get(&backup.id).into_iter().flatten().rev().map(|child| (*child, false)));
            }
        }
    }
    order
}
