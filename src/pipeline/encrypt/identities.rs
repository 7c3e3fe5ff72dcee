//! Private keys: what opens a backup.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;

use age::DecryptError;
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::passphrase::Passphrase;
use super::recipients::NONCE_BYTES;
use super::witness::{Seen, Witness};
use crate::error::{Error, ErrorKind, Result};

/// The largest identity file that is read, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The largest scrypt work factor of an identity file that a user brings: 1 GiB of memory, some seconds.
const MAX_USER_WORK: u8 = 20;

type Key = dyn age::Identity + Send + Sync;

/// Private keys that open encrypted backups; one that fits is enough. Clones share them.
///
/// Keys are zeroed when the last clone is dropped, and are never printed.
#[derive(Clone, Default)]
pub struct Identities {
    keys: Arc<Vec<Arc<Key>>>,
}

impl Identities {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// True if the identity file is encrypted, so that [`Identities::add_file`] needs its passphrase.
    pub fn needs_passphrase(file: &[u8]) -> bool {
        is_age(file) || matches!(ssh(file), Ok(Some(age::ssh::Identity::Encrypted(_))))
    }

    /// Adds every private key of an identity file: an age identity file (lines `AGE-SECRET-KEY-1…`), one that is encrypted
    /// with a passphrase, or an SSH private key, encrypted or not.
    ///
    /// An encrypted file takes about a second and up to 1 GiB of memory: do not call this on a thread that others wait for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is none of these, [`ErrorKind::Locked`] if its passphrase is missing or wrong. No
    /// message repeats anything of the file.
    pub fn add_file(&mut self, file: &[u8], passphrase: Option<&Passphrase>) -> Result<()> {
        if file.len() > MAX_FILE_BYTES {
            return Err(invalid(format!(
                "an identity file has at most {MAX_FILE_BYTES} bytes, this has {}",
                file.len()
            )));
        }
        if is_age(file) {
            let passphrase =
                passphrase.ok_or_else(|| locked("the identity file is encrypted: its passphrase is missing"))?;
            let content = decrypt_file(file, passphrase, MAX_USER_WORK)?;
            return self.add_plain(&content);
        }
        match ssh(file)? {
            None => self.add_plain(file),
            Some(age::ssh::Identity::Unencrypted(key)) => {
                self.push(Arc::new(age::ssh::Identity::Unencrypted(key)));
                Ok(())
            }
            Some(age::ssh::Identity::Encrypted(key)) => {
                let passphrase =
                    passphrase.ok_or_else(|| locked("the SSH key is encrypted: its passphrase is missing"))?;
                let key =
                    key.decrypt(passphrase.secret()).map_err(|_| locked("the passphrase of the SSH key is wrong"))?;
                self.push(Arc::new(age::ssh::Identity::Unencrypted(key)));
                Ok(())
            }
            Some(age::ssh::Identity::Unsupported(_)) => Err(invalid(
                "this kind of SSH key is not supported: use ssh-ed25519 or ssh-rsa in the format of OpenSSH".to_owned(),
            )),
        }
    }

    /// Adds the keys of `other`.
    pub fn extend(&mut self, other: &Self) {
        Arc::make_mut(&mut self.keys).extend(other.keys.iter().cloned());
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The lines of an age identity file.
    pub(super) fn add_plain(&mut self, file: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(file).map_err(|_| invalid("it is not an identity file".to_owned()))?;
        let before = self.len();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = line.parse::<age::x25519::Identity>();
            // Only the number of the line: its content may be a secret with a typing error.
            self.push(Arc::new(key.map_err(|_| invalid(format!("line {number} is not a private key")))?));
        }
        if self.len() == before {
            return Err(invalid("there is no private key in it".to_owned()));
        }
        Ok(())
    }

    fn push(&mut self, key: Arc<Key>) {
        Arc::make_mut(&mut self.keys).push(key);
    }

    /// Opens the header and nonce of a file, which are known to be what was written.
    pub(in crate::pipeline) fn open(&self, header: &[u8]) -> Result<Cipher> {
        let seen = Seen::default();
        let mut rest = header;
        let decryptor = age::Decryptor::new_buffered(&mut rest).map_err(|error| refused(&error))?;
        let witnesses: Vec<_> = self.keys.iter().map(|key| Witness::new(&**key, &seen)).collect();
        let reader = decryptor.decrypt(witnesses.iter().map(|witness| witness as &dyn age::Identity));
        drop(reader.map_err(|error| refused(&error))?);
        if !rest.is_empty() {
            return Err(damaged());
        }
        let file_key = seen.lock().take();
        match (file_key, header.last_chunk::<NONCE_BYTES>()) {
            (Some(file_key), Some(nonce)) => Ok(Cipher::new(&file_key, nonce)),
            _ => Err(Error::new(ErrorKind::Internal, "decryption without a key")),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Decrypts a whole age file that is encrypted with a passphrase.
pub(super) fn decrypt_file(file: &[u8], passphrase: &Passphrase, most_work: u8) -> Result<Zeroizing<Vec<u8>>> {
    let mut identity = age::scrypt::Identity::new(passphrase.secret());
    identity.set_max_work_factor(most_work);
    let unreadable = || invalid("it is not an age file that is encrypted with a passphrase".to_owned());
    let decryptor = age::Decryptor::new(age::armor::ArmoredReader::new(file)).map_err(|_| unreadable())?;
    if !decryptor.is_scrypt() {
        return Err(unreadable());
    }
    let reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity));
    let reader = reader.map_err(|error| match error {
        DecryptError::ExcessiveWork { .. } => invalid("its passphrase takes more work than is accepted".to_owned()),
        DecryptError::InvalidHeader => unreadable(),
        _ => locked("the passphrase is wrong"),
    })?;
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES));
    // Within the capacity, so that no copy is left behind by growing.
    let read = reader.take(MAX_FILE_BYTES as u64).read_to_end(&mut content);
    read.map_err(|_| Error::new(ErrorKind::Corrupt, "the encrypted identity file is damaged"))?;
    Ok(content)
}

fn is_age(file: &[u8]) -> bool {
    file.starts_with(b"age-encryption.org/")
        || file.trim_ascii_start().starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

/// An SSH private key, if it claims to be one.
fn ssh(file: &[u8]) -> Result<Option<age::ssh::Identity>> {
    let start = file.trim_ascii_start();
    if !start.starts_with(b"-----BEGIN") || is_age(file) {
        return Ok(None);
    }
    let key = age::ssh::Identity::from_buffer(start, None);
    // The error could quote what it read.
    key.map(Some).map_err(|_| {
        invalid("it is not an SSH private key in the format of OpenSSH; `ssh-keygen -p` rewrites one".to_owned())
    })
}

fn refused(error: &DecryptError) -> Error {
    match error {
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            locked("no identity that was given opens it: the key is the wrong one")
        }
        DecryptError::UnknownFormat => {
            invalid("it is an age file of a version that this tool does not know".to_owned())
        }
        _ => damaged(),
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::Corrupt, "the age header is not what was written")
}

pub(super) fn locked(message: &'static str) -> Error {
    Error::new(ErrorKind::Locked, message)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
