//! The key of one segment: seals and opens its chunks, in any order, on any thread.

use std::fmt;

use age_core::format::FileKey;
use age_core::primitives::hkdf;
use age_core::secrecy::ExposeSecret as _;
use blake3::Hash;
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use zeroize::Zeroizing;

use super::chunk::TAG_BYTES;
use crate::error::{Error, ErrorKind, Result};

/// What a file key and a nonce give. Its memory is zeroed when it is dropped.
pub(crate) struct Cipher {
    aead: ChaCha20Poly1305,
    content_key: Zeroizing<[u8; 32]>,
}

impl Cipher {
    /// `nonce` stands between the header and the payload.
    pub(super) fn new(file_key: &FileKey, nonce: &[u8]) -> Self {
        let payload_key = Zeroizing::new(hkdf(nonce, b"payload", file_key.expose_secret()));
        Self {
            aead: ChaCha20Poly1305::new((&*payload_key).into()),
            content_key: Zeroizing::new(blake3::derive_key(CONTENT_CONTEXT, file_key.expose_secret())),
        }
    }

    /// Seals a chunk in place; the last [`TAG_BYTES`] of `chunk` are room for the tag. No number may be sealed twice.
    pub(in crate::pipeline) fn seal(&self, number: u64, is_last: bool, chunk: &mut [u8]) -> Result<()> {
        let content = chunk.len().checked_sub(TAG_BYTES).ok_or_else(too_short)?;
        let (content, room) = chunk.split_at_mut(content);
        let tag = self.aead.encrypt_in_place_detached(&nonce(number, is_last), &[], content);
        // The only error is a length over 256 GiB.
        room.copy_from_slice(&tag.map_err(|_| too_short())?);
        Ok(())
    }

    /// Opens a chunk in place, its tag at its end; false if it is not what was sealed under this number.
    pub(in crate::pipeline) fn open(&self, number: u64, is_last: bool, chunk: &mut [u8]) -> bool {
        let Some(content) = chunk.len().checked_sub(TAG_BYTES) else { return false };
        let (content, tag) = chunk.split_at_mut(content);
        self.aead.decrypt_in_place_detached(&nonce(number, is_last), &[], content, Tag::from_slice(tag)).is_ok()
    }

    /// What may be published of the hash of the content: without the file key it tells nothing, not even whether two
    /// segments have the same content.
    pub(in crate::pipeline) fn commit(&self, content: Hash) -> Hash {
        blake3::keyed_hash(&self.content_key, content.as_bytes())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

/// 11 bytes of number, most significant first, and a byte that marks the last chunk.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    nonce.into()
}

fn too_short() -> Error {
    Error::new(ErrorKind::Internal, "a chunk has no room for its tag")
}

const CONTENT_CONTEXT: &str = "vdstream 2026-11 content hash of an encrypted segment v1";
