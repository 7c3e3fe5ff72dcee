//! The mark that a collection removes what is left of a backup: written before anything goes, and gone last.
//!
//! A writer may have been silent for longer than the grace time (a stopped process, a laptop that slept) and go on as if nothing
//! had happened. Before and after it writes its manifest it looks for a mark, and for its intent; a collection writes its mark
//! and then looks for a manifest. So at least one of the two sees the other, and gives way.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::document;
use super::super::id::BackupId;
use super::super::names::{Names, ObjectName, Series};
use super::super::options::TOOL;
use super::super::stamp::Stamp;
use super::super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// A writer that stored something at least this often cannot have been taken for dead: the shortest grace time beside which
/// writers may run is twice as long. So only one that was silent for longer has to look for a mark.
pub(in crate::backup) const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 60);

/// The `format` member of a mark.
const COLLECTED: &str = "vdstream-collected";

#[derive(Debug, Serialize, Deserialize)]
struct CollectedV1 {
    series: Series,
    id: BackupId,
    time: Timestamp,
    tool: String,
}

/// The directory of the marks of a backup.
pub(super) fn directory(names: &Names) -> String {
    format!("{}/collected", names.directory())
}

/// Writes a mark and returns its name. Each collection has one of its own, so no condition is needed, and who takes its own away
/// leaves those of others.
pub(super) async fn write(store: &Store, names: &Names) -> Result<String> {
    let time = store.time().wall();
    let mark = CollectedV1 { series: names.series().clone(), id: names.id(), time, tool: TOOL.to_owned() };
    let name = names.of(&ObjectName::Collected(Stamp::draw(time)));
    store.create(&name, document::encode(COLLECTED, &mark)?.into()).await?;
    Ok(name)
}

/// Checks that this backup was not deleted: another process may have resumed and committed it.
///
/// The record of a deletion is there before a manifest goes, and stays until a collection has written its mark.
///
/// # Errors
///
/// `Conflict` if it was.
async fn check_not_deleted(store: &Store, names: &Names) -> Result<()> {
    if !store.has_below(&names.deleted()).await? {
        return Ok(());
    }
    let message = format!("backup {} was deleted: another process had resumed and committed it", names.id());
    Err(Error::new(ErrorKind::Conflict, message))
}

/// Checks that this backup was not deleted, and that no collection removes it, or has removed it.
///
/// # Errors
///
/// `Conflict` if so.
pub(in crate::backup) async fn check_not_removed(store: &Store, names: &Names) -> Result<()> {
    // In the order in which they come and go: the record goes after the mark was written, the mark after the intent has gone.
    check_not_deleted(store, names).await?;
    let is_marked = store.has_below(&directory(names)).await?;
    if !is_marked && store.find_size(&names.intent()).await?.is_some() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "backup {} gave no sign of life for longer than the grace time of a collection, which took it for dead and removes it",
            names.id()
        ),
    ))
}
