//! Retention: which backups of a series to keep, and how the others go.
//!
//! A plan is made first, and is data: [`plan`] lists a series and judges each backup by a [`RetentionPolicy`];
//! [`RetentionPlan`] says of each backup whether it is kept, for which reasons, and can be printed. Nothing is removed until
//! [`apply`] is given the plan. [`plan_deletion`] makes the plan for a backup that is named. What a deletion has done is in a
//! [`DeletionReport`] that the caller holds, so it is known also if the deletion fails half-way.
//!
//! | part | what it is |
//! |---|---|
//! | `policy` | [`RetentionPolicy`]: the rules |
//! | `plan` | [`RetentionPlan`]: the judgement, a pure function of a list, the rules and the time |
//! | `chain` | who continues whom, however long a chain is |
//! | `order` | children before their parents |
//! | `check` | looks whether all is there of what is to be kept |
//! | `apply` | hides the manifests of what goes; the data follows after a grace time |
//! | `protection` | keeps what goes from being continued until it is gone, however long that takes |
//! | `record` | the object that says since when a backup is being deleted |
//!
//! The manual page on retention says what happens when several of these run at once, or beside a backup or a restore.

mod apply;
mod chain;
mod check;
mod order;
mod plan;
mod policy;
mod protection;
mod record;

#[cfg(test)]
mod tests;

pub use apply::{DeletionReport, apply, plan, plan_deletion};
pub use plan::{Descendants, PlannedBackup, Reason, RetentionPlan, Verdict};
pub use policy::{RetentionPolicy, Rule};

pub(super) use record::check_parent;
