//! Does the store keep to create-only? Some answer yes and overwrite, some do not know it.

use bytes::Bytes;
use object_store::{Error as StoreError, PutMode};
use uuid::Uuid;

use super::demand::Content;
use super::handle::Store;
use crate::error::{ErrorKind, Result};

/// Writes one object twice. The second write must be refused, by the store itself.
pub(super) async fn create_only(store: &Store) -> Result<bool> {
    let name = crate::backup::names::probe(Uuid::new_v4());
    store.create(&name, Bytes::from_static(b"first")).await?;
    let verdict = store.retry(|| refuses_another(store, &name)).await;
    // What was found out counts, also if the object cannot be removed (a locked bucket).
    if let Err(error) = store.delete(&name).await {
        tracing::warn!(error = %error.report(), "the probe object stays");
    }
    verdict
}

/// Asks to create `name`, which is there, in one attempt. Not by [`Store::create_once`]: where the condition cannot be had
/// that one looks itself, and would refuse whatever the store does.
async fn refuses_another(store: &Store, name: &str) -> Result<bool> {
    let other = [Bytes::from_static(b"other")];
    match store.put_once(name, &other, Content::Document, PutMode::Create).await {
        Ok(()) | Err(StoreError::NotImplemented { .. }) => Ok(false),
        Err(error) => match store.error(&error, "write", name) {
            refusal if refusal.kind() == ErrorKind::Conflict => Ok(true),
            error => Err(error),
        },
    }
}
