//! A passphrase in place of a key file.
//!
//! To try a passphrase must be slow and take much memory, so it cannot be asked of every segment. Instead a backup gets a
//! key pair of its own; the segments are encrypted to its public half, and its private half is stored beside them as an
//! identity file that is encrypted with the passphrase. `age -d -i` takes that file.

use std::fmt;

use age_core::secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::chunk::TAG_BYTES;
use super::identities::{Identities, decrypt_file};
use super::recipients::{self, Recipients};
use crate::error::{Error, ErrorKind, Result};

/// The scrypt work factor where memory allows: 2^18 blocks of 1 KiB, the default of age.
const MAX_WORK: u8 = 18;
/// Below this a passphrase is too easy to try.
const MIN_WORK: u8 = 14;

/// A passphrase, zeroed when the last clone is dropped and never printed.
#[derive(Clone)]
pub struct Passphrase(SecretString);

impl Passphrase {
    /// Takes the passphrase as it is; at most one line feed at its end is not part of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is empty or has more than 1024 bytes.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = Zeroizing::new(text.into());
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() || line.len() > 1024 {
            return Err(Error::new(ErrorKind::Invalid, "a passphrase has 1 to 1024 bytes"));
        }
        Ok(Self(SecretString::from(line)))
    }

    pub(super) fn secret(&self) -> SecretString {
        self.0.clone()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Makes a key pair: adds its public half to `recipients`, and encrypts its private half.
///
/// Takes about a second, and for that time up to 256 MiB of memory, but no more than `memory_limit` unless that is below
/// 16 MiB.
pub(crate) fn wrap_identity(
    recipients: &Recipients,
    passphrase: &Passphrase,
    memory_limit: u64,
) -> Result<(Recipients, Vec<u8>)> {
    let identity = age::x25519::Identity::generate();
    let mut wrapper = age::scrypt::Recipient::new(passphrase.secret());
    wrapper.set_work_factor(work_factor(memory_limit));
    let (mut file, cipher) = recipients::begin(std::iter::once(&wrapper))?;
    let text = identity.to_string();
    let lines = ["# key of one vdstream backup\n", text.expose_secret(), "\n"];
    let length = lines.iter().map(|line| line.len()).sum::<usize>() + TAG_BYTES;
    // Sealed where it stands, in memory that does not grow: the writer of the `age` crate leaves its content behind.
    let mut chunk = Zeroizing::new(Vec::with_capacity(length));
    lines.iter().for_each(|line| chunk.extend_from_slice(line.as_bytes()));
    chunk.resize(length, 0);
    cipher.seal(0, true, &mut chunk)?;
    file.extend_from_slice(&chunk);
    Ok((recipients.with(identity.to_public()), file))
}

/// The private key of a backup, from its encrypted file.
///
/// Takes about a second and up to 256 MiB of memory.
pub(crate) fn unwrap_identity(file: &[u8], passphrase: &Passphrase) -> Result<Identities> {
    let content = decrypt_file(file, passphrase, MAX_WORK)?;
    let mut identities = Identities::new();
    identities.add_plain(&content)?;
    Ok(identities)
}

/// The largest factor whose memory, 1 KiB times two to its power, fits.
fn work_factor(memory_limit: u64) -> u8 {
    let fits = (memory_limit >> 10).checked_ilog2().and_then(|log| u8::try_from(log).ok()).unwrap_or(0);
    fits.clamp(MIN_WORK, MAX_WORK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_fits_into_the_memory_limit() {
        for (limit, factor) in [(0, 14), (1, 14), (32 << 20, 15), (64 << 20, 16), (256 << 20, 18), (u64::MAX, 18)] {
            assert_eq!(work_factor(limit), factor, "{limit}");
        }
    }

    #[test]
    fn one_line_feed_is_not_part_of_it() {
        let plain = Passphrase::new("a b").unwrap();
        for text in ["a b\n", "a b\r\n"] {
            assert_eq!(Passphrase::new(text).unwrap(), plain);
        }
        for other in ["a b\n\n", " a b", "a b "] {
            assert_ne!(Passphrase::new(other).unwrap(), plain, "{other:?}");
        }
        for bad in ["", "\n", "\r\n", &"x".repeat(1025)] {
            assert_eq!(Passphrase::new(bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert_eq!(format!("{plain:?}"), "Passphrase");
    }
}
