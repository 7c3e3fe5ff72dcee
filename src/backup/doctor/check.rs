//! What is tried, and what came of it.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind};

/// One operation that backups need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// Listing what is there.
    List,
    /// Creating a small object.
    Create,
    /// Refusing to create an object that exists.
    CreateOnly,
    /// The size and the time of an object.
    LookUp,
    /// Reading an object.
    Read,
    /// Reading a part of an object.
    ReadRange,
    /// The store's clock beside this machine's.
    Clock,
    /// Uploading an object in parts.
    Multipart,
    /// Giving an upload up.
    AbortMultipart,
    /// Deleting an object.
    Delete,
    /// A rule of the bucket that ends uploads which a crash left unfinished.
    UploadRule,
    /// Reading whether the bucket keeps versions of what is deleted.
    Versions,
}

impl Check {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::CreateOnly => "create-only",
            Self::LookUp => "look-up",
            Self::Read => "read",
            Self::ReadRange => "read-range",
            Self::Clock => "clock",
            Self::Multipart => "multipart",
            Self::AbortMultipart => "abort-multipart",
            Self::Delete => "delete",
            Self::UploadRule => "upload-rule",
            Self::Versions => "versions",
        }
    }

    /// The permission that it needs on a store whose URL has this scheme, several with commas between; empty if none is known.
    ///
    /// What the store's objects are given may need more: see [`Finding::permission`].
    pub fn permission(self, scheme: &str) -> &'static str {
        let row = match self {
            Self::List => ["s3:ListBucket", "…/blobs/read", "storage.objects.list", "read the directory"],
            Self::Create | Self::CreateOnly => {
                ["s3:PutObject", "…/blobs/write", "storage.objects.create", "write to the directory"]
            }
            Self::Multipart => [
                "s3:PutObject",
                "…/blobs/write",
                "storage.multipartUploads.create, storage.objects.create",
                "write to the directory",
            ],
            Self::LookUp | Self::Read | Self::ReadRange | Self::Clock => {
                ["s3:GetObject", "…/blobs/read", "storage.objects.get", "read files"]
            }
            Self::AbortMultipart => {
                ["s3:AbortMultipartUpload", "", "storage.multipartUploads.abort", "write to the directory"]
            }
            Self::Delete => ["s3:DeleteObject", "…/blobs/delete", "storage.objects.delete", "write to the directory"],
            Self::UploadRule => ["s3:GetLifecycleConfiguration", "", "", ""],
            Self::Versions => ["s3:GetBucketVersioning", "", "", ""],
        };
        match scheme {
            "s3" => row[0],
            "az" | "azure" | "abfss" | "https" => row[1],
            "gs" => row[2],
            "file" => row[3],
            _ => "",
        }
    }

    /// The same, and what this store's objects need beside it.
    pub(super) fn permissions(self, scheme: &str, given: Given) -> String {
        let (is_tagged, key): (bool, &[&str]) = match self {
            _ if scheme != "s3" => (false, &[]),
            Self::Create | Self::CreateOnly => (true, &["kms:GenerateDataKey"]),
            // The parts are read again when they are joined.
            Self::Multipart => (true, &["kms:GenerateDataKey", "kms:Decrypt"]),
            Self::Read | Self::ReadRange => (false, &["kms:Decrypt"]),
            _ => (false, &[]),
        };
        let mut all = vec![self.permission(scheme)];
        all.extend((is_tagged && given.tags).then_some("s3:PutObjectTagging"));
        all.extend(key.iter().filter(|_| given.service_key));
        all.join(", ")
    }
}

/// What each object of a store is given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    pub(super) tags: bool,
    /// A key of the store's key service, to be encrypted with.
    pub(super) service_key: bool,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It works.
    Good,
    /// Backups work, but something is less than it could be.
    Warning,
    /// It does not work, and backups need it.
    Failed,
    /// It could not be tried, because something before it failed or the store has no such thing.
    Skipped,
}

impl Verdict {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was tried.
    pub check: Check,
    /// What came of it.
    pub verdict: Verdict,
    /// The permission that it needs, in the store's own words, several with commas between; empty if none is known. On S3 it knows
    /// of tags and of a key that the store was told of, but not of a key that the bucket chooses by itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub permission: String,
    /// What was found, and what to do about it; empty if it just works.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Why it failed.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// What [`examine`](super::examine) found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The store, as a URL that is safe to print.
    pub store: String,
    /// One for each check, in the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// True if backups, restores and deletions will find all that they need.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Failed)
    }

    /// What failed first, if anything did.
    pub fn first_error(&self) -> Option<Error> {
        let finding = self.findings.iter().find(|finding| finding.verdict == Verdict::Failed)?;
        let plain = || Error::new(ErrorKind::Unavailable, finding.detail.clone());
        Some(finding.error.clone().unwrap_or_else(plain))
    }
}
