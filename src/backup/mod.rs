//! Backup sets on object storage: one set is visible exactly when its manifest exists.

mod catalog;
pub(crate) mod claim;
pub mod collection;
mod commit;
mod course;
mod dating;
mod devices;
pub mod doctor;
pub(crate) mod document;
mod encryption;
mod feed;
mod id;
pub(crate) mod intent;
mod kind;
mod manifest;
mod meter;
mod moment;
pub(crate) mod names;
mod options;
mod reader;
mod report;
mod resume;
mod resume_watch;
pub mod retention;
mod segments;
mod session;
mod signs;
pub(crate) mod stamp;
pub mod store;
pub(crate) mod verify;
mod wire;
mod writer;
pub(crate) mod writers;

#[cfg(test)]
mod tests;

pub use catalog::{
    BackupSummary, DamagedBackup, Latest, Listing, Select, find, intent, latest, list, series_of, standing,
};
pub use commit::may_be_committed;
pub use course::Course;
pub use document::MAX_LABELS;
#[cfg(feature = "encryption")]
pub use encryption::unlock;
pub use encryption::{Encryption, IdentityObject};
pub use id::BackupId;
pub use intent::Intent;
pub use kind::Kind;
pub use manifest::{Codec, MAX_MANIFEST_BYTES, MAX_SEGMENTS, Manifest, Producer};
pub use names::{MAX_STRIPE_SEGMENTS, MAX_STRIPES, Series};
pub use options::{BackupOptions, RestoreOptions, ResumeOptions};
pub use reader::Restore;
pub use report::BackupReport;
pub use resume_watch::{ResumeProgress, ResumeWatch};
pub use store::Store;
pub use verify::{
    Coverage, Damage, Finding, LastVerification, Outcome, Sample, SampleReport, SampleSize, Standing, Unnamed,
    Verification, VerifyLevel, VerifyOptions, VerifyProgress, VerifyReport, VerifyStep, VerifyWatch, verifications,
    verify,
};
pub use writer::Backup;
