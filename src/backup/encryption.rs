//! Encryption of a backup: what is recorded of it, and the key that a passphrase opens.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::names::ObjectName;
use super::store::Store;
use super::verify::VerifyLevel;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "encryption")]
use crate::pipeline::{self, Passphrase};
use crate::pipeline::{Identities, Recipients};

/// How the segments of a backup are encrypted. It holds no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Encryption {
    /// Its name; `age` is the only one.
    pub name: String,
    /// Number of public keys that each segment is encrypted to. The one behind a passphrase is one of them.
    pub recipients: u32,
    /// The object with the private key that the passphrase opens, if there is a passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityObject>,
}

/// The object `identity.age`: an identity file that is encrypted with the passphrase of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IdentityObject {
    /// Its size.
    pub stored_bytes: u64,
    /// Its BLAKE3, in lower-case hexadecimal.
    pub stored_hash: String,
}

impl IdentityObject {
    fn of(file: &[u8]) -> Self {
        Self { stored_bytes: file.len() as u64, stored_hash: blake3::hash(file).to_hex().to_string() }
    }

    /// What is wrong with the object, if anything.
    fn compare(&self, object: &str, file: &[u8]) -> Result<()> {
        let found = Self::of(file);
        if found == *self {
            return Ok(());
        }
        // Any of its bytes may be what is wrong, and of one that is too short or too long the first that differs.
        let place = match found.stored_bytes.cmp(&self.stored_bytes) {
            Ordering::Equal => format!("0 to {}", self.stored_bytes),
            _ => found.stored_bytes.min(self.stored_bytes).to_string(),
        };
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{object}, offset {place}: expected {} bytes with hash {}, found {} with {}",
                self.stored_bytes, self.stored_hash, found.stored_bytes, found.stored_hash
            ),
        ))
    }
}

/// The largest `identity.age` that is read.
const MAX_IDENTITY_BYTES: u64 = 16 << 10;

/// Who can read a backup that is to be made.
#[derive(Debug, Clone, Default)]
pub(super) struct Readers {
    pub(super) recipients: Option<Recipients>,
    #[cfg(feature = "encryption")]
    pub(super) passphrase: Option<Passphrase>,
}

/// What a backup that is being made needs for its encryption.
#[derive(Debug)]
pub(super) struct Sealing {
    pub(super) recipients: Recipients,
    pub(super) encryption: Encryption,
    /// The content of `identity.age`.
    pub(super) identity: Option<Vec<u8>>,
}

impl Readers {
    /// Makes the key of the passphrase, if there is one. Nothing is stored yet.
    pub(super) async fn prepare(self, store: &Store, memory_limit: u64) -> Result<Option<Sealing>> {
        let (recipients, identity) = self.with_passphrase(store, memory_limit).await?;
        let Some(recipients) = recipients else { return Ok(None) };
        let encryption = Encryption {
            name: AGE.to_owned(),
            recipients: u32::try_from(recipients.len()).unwrap_or(u32::MAX),
            identity: identity.as_deref().map(IdentityObject::of),
        };
        Ok(Some(Sealing { recipients, encryption, identity }))
    }

    #[cfg(feature = "encryption")]
    async fn with_passphrase(self, store: &Store, memory_limit: u64) -> Result<(Option<Recipients>, Option<Vec<u8>>)> {
        let Some(passphrase) = self.passphrase else { return Ok((self.recipients, None)) };
        let recipients = self.recipients.unwrap_or_default();
        let (recipients, file) =
            blocking(store, move || pipeline::wrap_identity(&recipients, &passphrase, memory_limit)).await?;
        Ok((Some(recipients), Some(file)))
    }

    #[cfg(not(feature = "encryption"))]
    async fn with_passphrase(self, _: &Store, _: u64) -> Result<(Option<Recipients>, Option<Vec<u8>>)> {
        Ok((self.recipients, None))
    }
}

/// Opens the private key of an encrypted backup with its passphrase.
///
/// Takes about a second, and for that time up to 256 MiB of memory.
///
/// # Errors
///
/// [`ErrorKind::Locked`] if the passphrase is wrong, or if the backup has none; [`ErrorKind::Corrupt`] if the object with the
/// key is damaged or lost; those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
#[cfg(feature = "encryption")]
pub async fn unlock(store: &Store, manifest: &Manifest, passphrase: &Passphrase) -> Result<Identities> {
    let expected = manifest.encryption.as_ref().and_then(|encryption| encryption.identity.as_ref());
    let Some(expected) = expected else {
        return Err(Error::new(
            ErrorKind::Locked,
            format!("backup {} was not encrypted with a passphrase: give an identity", manifest.id),
        ));
    };
    let file = read_identity(store, manifest, expected).await?;
    let passphrase = passphrase.clone();
    let identities = blocking(store, move || pipeline::unwrap_identity(&file, &passphrase)).await;
    identities.map_err(|error| error.context(format!("cannot open the key of backup {}", manifest.id)))
}

/// Checks the object with the key of the passphrase: that it is there, and what it is.
pub(super) async fn verify(store: &Store, manifest: &Manifest, level: VerifyLevel) -> Result<Option<Error>> {
    let expected = manifest.encryption.as_ref().and_then(|encryption| encryption.identity.as_ref());
    let Some(expected) = expected else { return Ok(None) };
    let name = manifest.names().of(&ObjectName::Identity);
    let outcome = if level >= VerifyLevel::Stored {
        read_identity(store, manifest, expected).await.map(|_intact| ())
    } else {
        let object = store.show(&name);
        match store.find_size(&name).await? {
            Some(size) if size == expected.stored_bytes => Ok(()),
            Some(size) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{object}, offset {}: expected {} bytes in all, found {size}",
                    size.min(expected.stored_bytes),
                    expected.stored_bytes
                ),
            )),
            None => Err(super::segments::missing(&object)),
        }
    };
    match outcome {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

async fn read_identity(store: &Store, manifest: &Manifest, expected: &IdentityObject) -> Result<Vec<u8>> {
    let name = manifest.names().of(&ObjectName::Identity);
    let object = store.show(&name);
    let file = match store.read_small(&name, MAX_IDENTITY_BYTES).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(super::segments::missing(&object)),
        Err(error) => return Err(error),
    };
    expected.compare(&object, &file)?;
    Ok(file.into())
}

/// Why a backup cannot be read with what was given, if so.
pub(super) fn check_key(manifest: &Manifest, identities: Option<&Identities>) -> Result<()> {
    let Some(encryption) = &manifest.encryption else { return Ok(()) };
    if identities.is_some_and(|identities| !identities.is_empty()) {
        return Ok(());
    }
    let how = match (cfg!(feature = "encryption"), &encryption.identity) {
        (false, _) => "this build cannot decrypt: build it with the feature `encryption`",
        (true, None) => "no key was given: give the identity of one of them",
        (true, Some(_)) => "no key was given: give its passphrase, or the identity of one of them",
    };
    let count = encryption.recipients;
    let keys = if count == 1 { "key" } else { "keys" };
    Err(Error::new(ErrorKind::Locked, format!("backup {} is encrypted to {count} {keys}, and {how}", manifest.id)))
}

/// Runs what takes a second beside the tasks of the runtime.
#[cfg(feature = "encryption")]
async fn blocking<T: Send + 'static>(store: &Store, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = store.tasks().spawn_blocking(work);
    task.await.map_err(|error| Error::new(ErrorKind::Internal, "a passphrase panicked").with_source(error))?
}

/// The `name` of the encryption.
pub(super) const AGE: &str = "age";
