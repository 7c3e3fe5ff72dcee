//! The record that a backup is being deleted: written before its manifest goes, and gone with the last of its data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::document;
use super::super::id::BackupId;
use super::super::names::{Names, ObjectName, Series};
use super::super::options::TOOL;
use super::super::stamp::Stamp;
use super::super::store::Store;
use crate::error::{Error, ErrorKind, Result};

/// The `format` member of a record.
const DELETED: &str = "vdstream-deleted";

#[derive(Debug, Serialize, Deserialize)]
struct DeletedV1 {
    series: Series,
    id: BackupId,
    time: Timestamp,
    tool: String,
}

/// Writes a record and returns its name. Each deletion has one of its own, so nothing is overwritten, no condition is needed, and who
/// takes its own away leaves those of others.
pub(super) async fn write(store: &Store, names: &Names) -> Result<String> {
    let time = store.time().wall();
    let record = DeletedV1 { series: names.series().clone(), id: names.id(), time, tool: TOOL.to_owned() };
    let name = names.of(&ObjectName::Deleted(Stamp::draw(time)));
    store.create(&name, document::encode(DELETED, &record)?.into()).await?;
    Ok(name)
}

/// Checks that a backup may continue `parent`: it is committed, and not being deleted.
///
/// It is called after the intent that names the parent was written. Deletion writes its record first and then looks for
/// intents, so that at least one of the two sees the other.
pub(in crate::backup) async fn check_parent(store: &Store, series: &Series, parent: BackupId) -> Result<()> {
    let names = Names::new(series.clone(), parent);
    if store.has_below(&names.deleted()).await? {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "backup {parent} is being deleted and cannot be continued; choose another parent, or make a full backup"
            ),
        ));
    }
    match store.find_size(&names.manifest()).await? {
        Some(_) => Ok(()),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no backup {parent} to continue in series `{series}` of {store}; `list` shows what there is"
            ),
        )),
    }
}
