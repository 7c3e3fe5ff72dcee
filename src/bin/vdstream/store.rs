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

/// `url`, which has opened `store`, as it names the same store from any other directory: a path may begin at this one.
pub(crate) fn from_anywhere(url: &str, store: &Store) -> String {
    let is_path = store.label().starts_with("file://") && !url.starts_with("file:");
    let absolute = std::path::absolute(url).ok().filter(|_| is_path);
    absolute.and_then(|path| path.into_os_string().into_string().ok()).unwrap_or_else(|| url.to_owned())
}
