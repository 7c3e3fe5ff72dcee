//! Learns the file key of an age file while the `age` crate wraps or unwraps it.

use std::collections::HashSet;

use age::{DecryptError, EncryptError};
use age_core::format::{FileKey, Stanza};
use age_core::secrecy::ExposeSecret as _;

use crate::sync::Mutex;

/// A recipient or an identity that does what another does, and keeps a copy of the file key.
pub(super) struct Witness<'a, T: ?Sized> {
    inner: &'a T,
    seen: &'a Seen,
}

/// The copy; zeroed when it is dropped.
pub(super) type Seen = Mutex<Option<FileKey>>;

impl<'a, T: ?Sized> Witness<'a, T> {
    pub(super) fn new(inner: &'a T, seen: &'a Seen) -> Self {
        Self { inner, seen }
    }

    fn see(&self, key: &FileKey) {
        let copy = FileKey::init_with_mut(|copy| copy.copy_from_slice(key.expose_secret()));
        *self.seen.lock() = Some(copy);
    }
}

impl<T: age::Recipient + ?Sized> age::Recipient for Witness<'_, T> {
    fn wrap_file_key(&self, key: &FileKey) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        self.see(key);
        self.inner.wrap_file_key(key)
    }
}

impl<T: age::Identity + ?Sized> age::Identity for Witness<'_, T> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.inner.unwrap_stanza(stanza)
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let outcome = self.inner.unwrap_stanzas(stanzas);
        if let Some(Ok(key)) = &outcome {
            self.see(key);
        }
        outcome
    }
}
