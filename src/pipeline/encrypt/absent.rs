//! Stands in for the keys in a build without the feature `encryption`: types of which no value exists.

use blake3::Hash;

use crate::error::Result;

/// Public keys.
#[derive(Debug, Clone)]
pub(crate) enum Recipients {}

impl Recipients {
    pub(crate) fn len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn is_empty(&self) -> bool {
        match *self {}
    }

    pub(in crate::pipeline) fn begin(&self) -> Result<(Vec<u8>, Cipher)> {
        match *self {}
    }
}

/// Private keys.
#[derive(Debug, Clone)]
pub(crate) enum Identities {}

impl Identities {
    pub(crate) fn is_empty(&self) -> bool {
        match *self {}
    }

    pub(in crate::pipeline) fn open(&self, _header: &[u8]) -> Result<Cipher> {
        match *self {}
    }
}

/// The key of one segment.
#[derive(Debug)]
pub(crate) enum Cipher {}

impl Cipher {
    pub(in crate::pipeline) fn seal(&self, _number: u64, _is_last: bool, _chunk: &mut [u8]) -> Result<()> {
        match *self {}
    }

    pub(in crate::pipeline) fn open(&self, _number: u64, _is_last: bool, _chunk: &mut [u8]) -> bool {
        match *self {}
    }

    pub(in crate::pipeline) fn commit(&self, _content: Hash) -> Hash {
        match *self {}
    }
}
