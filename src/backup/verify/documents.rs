//! The small documents beside the segments.

use futures::{StreamExt, stream};
use jiff::Timestamp;

use super::options::VerifyOptions;
use super::past::Past;
use super::record::{self, Reading, RecordName};
use super::report::{Damage, VerifyReport};
use crate::backup::catalog;
use crate::backup::document::{corrupt, corrupt_at};
use crate::backup::manifest::Manifest;
use crate::backup::segments;
use crate::backup::store::Store;
use crate::error::{ErrorKind, Result};

/// Records that are read at once, and the most that are read: the newest.
const READS_AT_ONCE: usize = 16;
const MOST_RECORDS: usize = 1000;

/// The manifest and the intent as they are stored now; what is damaged goes to the report.
pub(super) async fn check(store: &Store, manifest: &Manifest, report: &mut VerifyReport) -> Result<()> {
    let names = manifest.names();
    let object = store.show(&names.manifest());
    let error = match catalog::read(store, &names).await {
        Ok(Some(stored)) if stored == *manifest => None,
        Ok(Some(stored)) => Some(corrupt_at(&object, 0, "root hash", manifest.root().to_hex(), stored.root().to_hex())),
        Ok(None) => Some(segments::missing(&object)),
        Err(error) => Some(error),
    };
    push(names.manifest(), error, report)?;

    let object = store.show(&names.intent());
    let error = match catalog::intent(store, names.series(), names.id()).await {
        Ok(intent) if intent.id != names.id() || intent.series != *names.series() => {
            let found = format!("{}/{}", intent.series, intent.id);
            Some(corrupt(&object, "backup", names.directory(), found))
        }
        Ok(intent) if usize::from(intent.stripes) != manifest.stripes.len() => {
            Some(corrupt(&object, "stripes", manifest.stripes.len(), intent.stripes))
        }
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::NotFound => Some(segments::missing(&object)),
        Err(error) => Some(error),
    };
    push(names.intent(), error, report)
}

/// Reads the records of earlier verifications, and answers what they tell together; damaged ones go to the report.
pub(super) async fn records(
    store: &Store,
    manifest: &Manifest,
    names: &[RecordName],
    options: &VerifyOptions,
    now: Timestamp,
    report: &mut VerifyReport,
) -> Result<Past> {
    let mut newest: Vec<&RecordName> = names.iter().collect();
    newest.sort_by_key(|name| name.place());
    let newest = &newest[newest.len().saturating_sub(MOST_RECORDS)..];
    let of = &record::Of::from(manifest);
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..newest.len())
        .map(|number| async move {
            let name = newest[number];
            (name, record::read(store, of, &name.object).await)
        })
        .buffered(READS_AT_ONCE);
    let mut past = Past::new(manifest, options, now);
    while let Some((name, outcome)) = outcomes.next().await {
        match outcome {
            Ok(Reading::Record(record)) => past.see(name, &record),
            Ok(Reading::Unusable) => past.see_unusable(name),
            Ok(Reading::Gone) => {}
            Err(error) => {
                push(name.object.clone(), Some(error), report)?;
                past.see_unusable(name);
            }
        }
    }
    Ok(past)
}

/// Damage goes to the report, other errors end the verification.
fn push(object: String, error: Option<crate::error::Error>, report: &mut VerifyReport) -> Result<()> {
    match error {
        None => Ok(()),
        Some(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
            report.damage.push(Damage::of_document(object, error));
            Ok(())
        }
        Some(error) => Err(error),
    }
}
