//! Is everything there that backups need of a store? Each operation is tried once, on objects of its own.
//!
//! | part | what it is |
//! |---|---|
//! | `check` | what is tried, the permission that it needs, and what came of it |
//! | `run` | the trials, in order |

mod check;
mod run;

#[cfg(test)]
mod tests;

pub use check::{Check, Diagnosis, Finding, Verdict};
pub use run::examine;
