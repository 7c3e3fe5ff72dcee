//! What a listing shows of a backup, as much of it as its manifest names: others can store there as many objects as they like, of
//! which the first few are told.

use std::collections::HashMap;

use super::record::{RecordName, RecordNames};
use super::report::Unnamed;
use crate::backup::manifest::Manifest;
use crate::backup::names::ObjectName;
use crate::backup::store::{Seen, Store};
use crate::error::Result;
use crate::pipeline::SegmentId;

/// Some objects of a backup.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sizes of the segments that the manifest names.
    pub(super) segments: HashMap<SegmentId, u64>,
    /// Segments that it does not name.
    pub(super) unnamed: Unnamed,
    pub(super) has_intent: bool,
    pub(super) has_manifest: bool,
    records: RecordNames,
}

impl Listing {
    /// Lists the directory of the backup.
    pub(crate) async fn of(store: &Store, manifest: &Manifest) -> Result<Self> {
        let names = manifest.names();
        let names_segment = |id: SegmentId| {
            let stripe = manifest.stripes.get(usize::from(id.stripe));
            stripe.is_some_and(|stripe| (id.index as usize) < stripe.segments.len())
        };
        let see = |found: &mut Self, seen: Seen| match names.parse(&seen.name) {
            Some(ObjectName::Intent) => found.has_intent = true,
            Some(ObjectName::Manifest) => found.has_manifest = true,
            Some(ObjectName::Verified(_)) => found.records.see(store, &names, seen),
            name => {
                let Some((id, _)) = name.as_ref().and_then(ObjectName::as_segment) else { return };
                // Another process may have stored a segment of the same number.
                match names_segment(id) && names.segment(id) == seen.name {
                    true => drop(found.segments.insert(id, seen.bytes)),
                    false => found.unnamed.add(seen.name),
                }
            }
        };
        store.fold(&names.directory(), see).await
    }

    /// The records of earlier verifications, oldest first.
    pub(super) fn records(self) -> Vec<RecordName> {
        self.records.in_order()
    }
}
