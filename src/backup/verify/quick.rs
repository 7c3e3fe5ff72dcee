//! Names and sizes: what one listing tells of a backup.

use futures::StreamExt;
use futures::stream::FuturesOrdered;

use super::choice::Segment;
use super::listing::Listing;
use super::options::VerifyLevel;
use super::report::Damage;
use crate::backup::encryption;
use crate::backup::manifest::Manifest;
use crate::backup::names::ObjectName;
use crate::backup::segments;
use crate::backup::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{SegmentId, SegmentSummary};

/// Segments that are asked for by name at once.
const LOOKUPS_AT_ONCE: usize = 8;

/// Compares a listing of the backup's directory with its manifest. Ends with the finding number `most`.
///
/// Some listings lag behind; what they lack is asked for by name, a few segments at once. Of the key of an encrypted backup more is looked at if the `level`
/// is deeper.
pub(crate) async fn compare(
    store: &Store,
    manifest: &Manifest,
    listed: &Listing,
    level: VerifyLevel,
    most: usize,
) -> Result<Vec<Damage>> {
    let (names, mut damage) = (manifest.names(), Vec::new());
    let (mut objects, mut looks) = (manifest.objects(), FuturesOrdered::new());
    while damage.len() < most {
        while looks.len() < LOOKUPS_AT_ONCE
            && let Some((id, name, summary)) = objects.next()
        {
            looks.push_back(look(store, listed, id, name, summary));
        }
        let Some(looked) = looks.next().await else { break };
        let (id, name, summary, size) = looked?;
        let object = store.show(&name);
        let error = match size {
            Some(size) if size == summary.stored_bytes => continue,
            None => segments::missing(&object),
            Some(size) => {
                let offset = size.min(summary.stored_bytes);
                let expected = summary.stored_bytes;
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{object}, offset {offset}: expected {expected} bytes in all, found {size}"),
                )
            }
        };
        damage.push(Damage::of(&Segment { id, name, summary }, error));
    }
    if damage.len() >= most {
        return Ok(damage);
    }
    for (name, is_there) in [(names.intent(), listed.has_intent), (names.manifest(), listed.has_manifest)] {
        if !is_there && store.find_size(&name).await?.is_none() {
            let error = segments::missing(&store.show(&name));
            damage.push(Damage::of_document(name, error));
        }
    }
    if let Some(error) = encryption::verify(store, manifest, level).await? {
        damage.push(Damage::of_document(names.of(&ObjectName::Identity), error));
    }
    damage.truncate(most);
    Ok(damage)
}

/// A segment with the size that its object has, if it is there.
async fn look<'a>(
    store: &Store,
    listed: &Listing,
    id: SegmentId,
    name: String,
    summary: &'a SegmentSummary,
) -> Result<(SegmentId, String, &'a SegmentSummary, Option<u64>)> {
    let size = match listed.segments.get(&id) {
        Some(size) => Some(*size),
        None => store.find_size(&name).await?,
    };
    Ok((id, name, summary, size))
}
