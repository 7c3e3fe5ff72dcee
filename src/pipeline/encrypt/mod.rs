//! Segments as age files.
//!
//! An encrypted segment is the segment, unchanged, inside one standard [age](https://age-encryption.org/v1) file: a header in
//! which a random *file key* is wrapped for each recipient, 16 bytes of nonce, and the content in chunks of 64 KiB, each
//! sealed by itself with its number and a mark on the last.
//!
//! The `age` crate makes and opens the header: everything that touches a public or private key. It writes and reads the
//! chunks only one after the other, so they are done here. They are independent of each other, so parts are sealed in
//! parallel, and ranges of a segment are opened in parallel, in place, as CPU jobs.
//!
//! | module | what it does | without the feature `encryption` |
//! |---|---|---|
//! | `chunk` | where a byte of the content stands in the file; pure arithmetic | the same |
//! | `seal` | lays a segment into parts, with gaps that the seals fill | the same |
//! | `open` | from a range of the file to a range of the content | the same |
//! | `cipher`, `recipients`, `identities`, `passphrase`, `witness` | keys and what they do | types without a value |

pub(super) mod chunk;
pub(super) mod open;
pub(super) mod seal;

#[cfg(not(feature = "encryption"))]
mod absent;
#[cfg(feature = "encryption")]
mod cipher;
#[cfg(feature = "encryption")]
mod identities;
#[cfg(feature = "encryption")]
mod passphrase;
#[cfg(feature = "encryption")]
mod recipients;
#[cfg(feature = "encryption")]
mod witness;

#[cfg(not(feature = "encryption"))]
pub(crate) use absent::{Cipher, Identities, Recipients};
#[cfg(feature = "encryption")]
pub(crate) use cipher::Cipher;
#[cfg(feature = "encryption")]
pub use identities::Identities;
#[cfg(feature = "encryption")]
pub use passphrase::Passphrase;
#[cfg(feature = "encryption")]
pub(crate) use passphrase::{unwrap_identity, wrap_identity};
#[cfg(feature = "encryption")]
pub use recipients::Recipients;

/// The most recipients of a backup; bounds the header of each segment.
pub const MAX_RECIPIENTS: usize = 64;

/// The largest age header of a segment, in bytes: one entry takes at most 750, the largest RSA key.
pub const MAX_HEADER_BYTES: u32 = 64 << 10;
