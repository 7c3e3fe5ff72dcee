//! Backup sets on object storage: one set is visible exactly when its manifest exists.

#![allow(dead_code, unused_imports, reason = "writer, reader and catalog come next")]

mod document;
mod id;
mod intent;
mod manifest;
pub(crate) mod names;
pub mod store;
mod wire;

pub use id::BackupId;
pub use intent::Intent;
pub use manifest::{Codec, MAX_FRAME_BYTES, MAX_MANIFEST_BYTES, MAX_SEGMENTS, Manifest, Producer};
pub use names::{MAX_STRIPE_SEGMENTS, MAX_STRIPES, Series};
pub use store::Store;
