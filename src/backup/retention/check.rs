//! A look at the backups that are to be kept, before others go for their sake: is all of them there?

use futures::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::super::catalog::{self, Committed};
use super::super::id::BackupId;
use super::super::names::{Names, Series};
use super::super::store::Store;
use super::super::verify::listing::Listing;
use super::super::verify::{VerifyLevel, quick};
use crate::error::{ErrorKind, Result};

/// Which of the backups `ids` are not whole, as far as a listing tells, and the first thing that is wrong.
pub(super) async fn faults(store: &Store, series: &Series, ids: Vec<BackupId>) -> Result<Vec<(BackupId, String)>> {
    let gate = &catalog::gate();
    let mut looks = stream::iter(ids)
        .map(|id| {
            let names = Names::new(series.clone(), id);
            async move { (id, look(store, &names, gate).await) }
        })
        .buffered(catalog::READS_AT_ONCE);
    let mut faults = Vec::new();
    while let Some((id, fault)) = looks.next().await {
        faults.extend(fault?.map(|why| (id, why)));
    }
    Ok(faults)
}

async fn look(store: &Store, names: &Names, gate: &Semaphore) -> Result<Option<String>> {
    // The permit is held as long as the listing too, which is as long as the manifest.
    let Committed { manifest, permit: _permit, .. } = match catalog::read_gated(store, names, gate).await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Some("it was deleted meanwhile".to_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
            return Ok(Some(error.to_string()));
        }
        Err(error) => return Err(error),
    };
    let listed = Listing::of(store, &manifest).await?;
    let damage = quick::compare(store, &manifest, &listed, VerifyLevel::Quick, 1).await?;
    Ok(damage.first().map(|damage| damage.error.to_string()))
}
