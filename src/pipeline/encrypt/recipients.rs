//! Public keys: who can read a backup.

use std::fmt;
use std::sync::Arc;

use age::ssh::ParseRecipientKeyError;

use super::cipher::Cipher;
use super::witness::{Seen, Witness};
use super::{MAX_HEADER_BYTES, MAX_RECIPIENTS};
use crate::error::{Error, ErrorKind, Result};

/// The public keys that a backup is encrypted to; each of their private keys opens it.
///
/// X25519 keys of age (`age1…`) and SSH keys (`ssh-ed25519 …`, `ssh-rsa …` from 2048 to 4096 bits), at most
/// [`MAX_RECIPIENTS`]. No secret is in here. Clones share the keys.
#[derive(Clone, Default)]
pub struct Recipients {
    keys: Arc<Vec<Key>>,
}

#[derive(Clone)]
enum Key {
    X25519(age::x25519::Recipient),
    Ssh(age::ssh::Recipient),
}

impl Key {
    fn as_recipient(&self) -> &(dyn age::Recipient + Send + Sync) {
        match self {
            Self::X25519(key) => key,
            Self::Ssh(key) => key,
        }
    }
}

impl Recipients {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one public key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if it is no public key of a kind that works, or one too many. A private key in its place is
    /// refused too; no message repeats what was given.
    pub fn add(&mut self, key: &str) -> Result<()> {
        let key = parse(key.trim())?;
        if self.len() >= MAX_RECIPIENTS {
            return Err(invalid(format!("more than {MAX_RECIPIENTS} recipients")));
        }
        Arc::make_mut(&mut self.keys).push(key);
        Ok(())
    }

    /// Adds every public key of a recipients file: one per line, empty lines and lines that start with `#` ignored. Lines
    /// of `authorized_keys` work too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] with the number of the line, or if there is no key in it.
    pub fn add_lines(&mut self, text: &str) -> Result<()> {
        let before = self.len();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line).map_err(|error| error.context(format!("line {number}")))?;
            }
        }
        if self.len() == before {
            return Err(invalid("there is no public key in it".to_owned()));
        }
        Ok(())
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds the key of a passphrase.
    pub(crate) fn with(&self, key: age::x25519::Recipient) -> Self {
        let mut keys = (*self.keys).clone();
        keys.push(Key::X25519(key));
        Self { keys: Arc::new(keys) }
    }

    /// Makes the header and nonce of a new file, and its cipher. Every file gets a file key of its own.
    pub(in crate::pipeline) fn begin(&self) -> Result<(Vec<u8>, Cipher)> {
        let (header, cipher) = begin(self.keys.iter().map(Key::as_recipient))?;
        if header.len() > MAX_HEADER_BYTES as usize {
            return Err(invalid(format!("the recipients need a header of {} bytes", header.len())));
        }
        Ok((header, cipher))
    }
}

/// The header and nonce of a new file for these keys, and its cipher.
pub(super) fn begin<'a, T>(keys: impl Iterator<Item = &'a T>) -> Result<(Vec<u8>, Cipher)>
where
    T: age::Recipient + ?Sized + 'a,
{
    let seen = Seen::default();
    let witnesses: Vec<_> = keys.map(|key| Witness::new(key, &seen)).collect();
    let recipients = witnesses.iter().map(|witness| witness as &dyn age::Recipient);
    let failed = |source| Error::new(ErrorKind::Internal, "cannot encrypt").with_source(source);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(Box::new(error)))?;
    let mut header = Vec::new();
    // The writer for the payload is dropped: header and nonce are written, nothing else.
    drop(
        encryptor
            .wrap_output(&mut header)
            .map_err(|error| Error::new(ErrorKind::Internal, "cannot encrypt").with_source(error))?,
    );
    let file_key = seen.lock().take();
    let (Some(file_key), Some(nonce)) = (file_key, header.last_chunk::<NONCE_BYTES>()) else {
        return Err(Error::new(ErrorKind::Internal, "encryption without a key"));
    };
    let cipher = Cipher::new(&file_key, nonce);
    Ok((header, cipher))
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipients").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn parse(text: &str) -> Result<Key> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") || text.starts_with("-----BEGIN") {
        return Err(invalid(
            "this is a private key: give the public one, and keep this one away from backups".to_owned(),
        ));
    }
    if let Ok(key) = text.parse::<age::x25519::Recipient>() {
        return Ok(Key::X25519(key));
    }
    match text.parse::<age::ssh::Recipient>() {
        Ok(key) => Ok(Key::Ssh(key)),
        Err(ParseRecipientKeyError::RsaModulusTooLarge) => {
            Err(invalid("an RSA key of more than 4096 bits is not supported".to_owned()))
        }
        Err(ParseRecipientKeyError::RsaModulusTooSmall) => {
            Err(invalid("an RSA key of less than 2048 bits is too weak".to_owned()))
        }
        Err(ParseRecipientKeyError::Unsupported(kind)) => {
            let kind: String = kind.chars().take(40).filter(char::is_ascii_graphic).collect();
            Err(invalid(format!("SSH keys of type {kind} are not supported: use ssh-ed25519, ssh-rsa or age1…")))
        }
        Err(_) => Err(invalid("not a public key: expected age1…, ssh-ed25519 … or ssh-rsa …".to_owned())),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// Bytes between header and payload.
pub(super) const NONCE_BYTES: usize = 16;
