//! Collection: what backups that never came to their end, or were deleted, have left in a store, and how it goes.
//!
//! A plan is made first, and is data: [`plan`] lists the store and judges what belongs to no committed backup;
//! [`CollectionPlan`] says of each leftover why it is one and whether it is old enough, and can be printed. Nothing is removed
//! until [`apply`] is given the plan. What it does is in a [`CollectionReport`] that the caller holds, so it is known also if it
//! fails half-way.
//!
//! | part | what it is |
//! |---|---|
//! | `found` | what a listing tells of one backup, in little memory |
//! | `named` | which segments a manifest names, in less |
//! | `plan` | [`CollectionPlan`]: the judgement, a pure function of what was found, the grace time and the time |
//! | `apply` | looks again, and removes: uploads, segments, records, the intent last |
//! | `uploads` | ends the multipart uploads of which there are records |
//! | `mark` | the object that tells a writer that its backup is being removed |
//! | `meter` | what metrics tell of it |
//!
//! The manual page on collection says why nothing of a backup that lives is touched, and what happens when several of these
//! run at once.

mod apply;
mod found;
mod mark;
mod meter;
mod named;
mod plan;
pub(super) mod uploads;

#[cfg(test)]
mod tests;

pub use apply::{CollectionReport, Left, apply, plan};
pub use plan::{CollectionPlan, DEFAULT_GRACE, Leftover, Reason, SAFE_GRACE, Subject, Verdict};

pub(super) use mark::{LONGEST_SILENCE, check_not_removed};
