//! The store that a command works on.

use vdstream::backup::Store;
use vdstream::{Error, ErrorKind, Result};

/// Opens the store that `url` names.
pub(crate) fn open(url: &str) -> Result<Store> {
    if url.starts_with("memory:") {
        return Err(Error::new(
            ErrorKind::Invalid,
            "memory:// ends with this process, so nothing in it could be restored; use it from the library, in tests",
        ));
    }
    Store::from_url(url)
}
