//! Async backup streams: a virtual device set in, verified and atomic backup sets on object storage out.

// Loom replaces the types that `sync` exports; what it does not model is compiled out.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backup;
pub mod buffer;
pub mod clock;
pub mod error;
pub mod pipeline;
pub mod stream;
pub(crate) mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod vdi;

pub use error::{Error, ErrorKind, Result};
