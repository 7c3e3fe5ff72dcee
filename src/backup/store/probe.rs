//! Does the store keep to create-only? Some answer yes and overwrite.

use bytes::Bytes;
use uuid::Uuid;

use super::handle::Store;
use crate::error::{ErrorKind, Result};

/// Writes one object twice. The second write must be refused.
pub(super) async fn create_only(store: &Store) -> Result<bool> {
    let name = crate::backup::names::probe(Uuid::new_v4());
    let first = Bytes::from_static(b"first");
    store.create(&name, first.clone()).await?;
    let second = store.create(&name, Bytes::from_static(b"other")).await;
    let verdict = match second {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(true),
        Err(error) => Err(error),
        Ok(()) => Ok(false),
    };
    // What was found out counts, also if the object cannot be removed (a locked bucket).
    if let Err(error) = store.delete(&name).await {
        tracing::warn!(error = %error.report(), "the probe object stays");
    }
    verdict
}
