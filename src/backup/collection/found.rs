//! What a listing tells of one backup.

use jiff::Timestamp;

use super::super::names::{Names, ObjectName};
use super::super::store::Seen;
use super::named::Named;
use super::plan::Ages;

/// Single objects beside a committed backup that one plan takes; the next one takes the others.
const MOST_STRAYS: usize = 1000;

/// What a listing tells of one backup; a few numbers, however many objects there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) has_manifest: bool,
    pub(super) has_intent: bool,
    /// There is a record that the backup is being deleted.
    pub(super) is_deleted: bool,
    /// There is the mark of a collection.
    pub(super) is_marked: bool,
    /// Objects that are ours, and their bytes.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// Records of uploads.
    pub(super) uploads: u64,
    /// When the last of the objects was written, by the store's clock, of those whose time counts. The marks of collections are no sign
    /// of life.
    pub(super) newest: Option<Timestamp>,
    /// Objects that do not belong to a backup once it is committed.
    pub(super) strays: Vec<Seen>,
    /// When the last of those was written that a process may have left which did not commit the backup.
    pub(super) newest_stray: Option<Timestamp>,
}

impl Found {
    /// What is known of a backup whose manifest cannot be read: it is committed, and nothing of it is looked at.
    pub(super) fn protected() -> Self {
        Self { has_manifest: true, ..Self::default() }
    }

    /// One object more. `named` is of the manifest, if it was there before the listing.
    pub(super) fn see(&mut self, names: &Names, named: Option<&Named>, ages: Ages, seen: Seen) {
        let Some(name) = names.parse(&seen.name) else { return };
        let sign = Some(seen.modified).filter(|sign| ages.counts(*sign));
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(seen.bytes);
        if !matches!(name, ObjectName::Collected(_)) {
            self.newest = self.newest.max(sign);
        }
        let is_stray = match name {
            ObjectName::Sealed(_) | ObjectName::Segment(_) | ObjectName::Resumed { .. } => {
                named.is_some_and(|named| named.lacks(&name))
            }
            ObjectName::Identity | ObjectName::Verified(_) => false,
            ObjectName::Manifest => {
                self.has_manifest = true;
                false
            }
            ObjectName::Intent => {
                self.has_intent = true;
                false
            }
            ObjectName::Upload { .. } => {
                self.uploads += 1;
                true
            }
            ObjectName::Deleted(_) => {
                self.is_deleted = true;
                true
            }
            ObjectName::Collected(_) => {
                self.is_marked = true;
                true
            }
            ObjectName::Claim(_) | ObjectName::Partial => true,
        };
        if is_stray && !matches!(name, ObjectName::Deleted(_) | ObjectName::Collected(_)) {
            self.newest_stray = self.newest_stray.max(sign);
        }
        if is_stray && self.strays.len() < MOST_STRAYS {
            self.strays.push(seen);
        }
    }
}
