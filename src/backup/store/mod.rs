//! Stores: where backup sets are kept, from a URL and the environment or from the caller's own `object_store`.
//!
//! | part | what it is |
//! |---|---|
//! | [`Store`] | the handle: opened from a URL, cloned freely |
//! | `location` | URLs and paths, parsed once and printable without secrets |
//! | `aws`, `azure`, `gcp`, `client` | the network stores, set up from the environment |
//! | `credentials` | what it means that none come, before and after there were some |
//! | `demand` | the storage class and the tags of what is put |
//! | `patience`, `work` | how long the answer to one request may take |
//! | `local`, `tree`, `walk`, `syncs` | local disk: staged, synced, published without overwriting; no link is followed |
//! | `durable` | what is there is made sure to stay |
//! | `sequential` | parts for a caller's store that has only `put_multipart` |
//! | `retry` | retries of small requests; data is retried by the pipeline |
//! | `error` | foreign errors to [`ErrorKind`](crate::ErrorKind), cleaned of secrets |
//! | `rules` | what a bucket itself does with unfinished uploads |
//! | `probe` | whether create-only is kept |
//! | `sweep` | listings that are not kept, however long they are; deletions that may be refused |

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod client;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod credentials;
mod demand;
mod durable;
mod environment;
mod error;
#[cfg(feature = "gcp")]
mod gcp;
mod handle;
#[cfg(feature = "fs")]
mod local;
mod location;
mod open;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
mod patience;
mod probe;
mod retry;
mod rules;
mod sequential;
mod sweep;
#[cfg(feature = "fs")]
mod syncs;
#[cfg(feature = "fs")]
mod tree;
#[cfg(feature = "fs")]
mod walk;
mod work;

#[cfg(all(test, any(feature = "aws", feature = "azure", feature = "gcp")))]
pub(super) use credentials::Asked;
pub(super) use demand::Content;
pub(crate) use error::may_have_worked;
pub(crate) use handle::Read;
pub use handle::{PartLimits, Store};
#[cfg(all(test, feature = "fs"))]
pub(super) use open::scripted;
#[cfg(all(test, any(feature = "aws", feature = "azure", feature = "gcp")))]
pub(super) use patience::limited;
pub(crate) use sweep::{NAMES_AT_ONCE, Refused, Seen, is_refusal};
#[cfg(all(test, feature = "fs"))]
pub(super) use syncs::{Fails, Script};
