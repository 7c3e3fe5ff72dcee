//! Is a backup still what was written? Three depths, from a listing to reading everything, whole or in part.
//!
//! | part | what it is |
//! |---|---|
//! | `options` | how deep to look, and at how much |
//! | `run` | one verification: the order of the steps |
//! | `listing` | what a listing shows of what the manifest names |
//! | `quick` | the first step, which lists; retention takes it too, to look at what it keeps |
//! | `documents`, `stored`, `content` | the steps that read: small documents, hashes of objects, decompressed content |
//! | `choice`, `coverage` | which segments are looked at; sets of segments as short text |
//! | `past` | what earlier verifications tell of each segment: which need not be read again |
//! | `record` | what is kept of a verification, and the order of what is kept |
//! | `standing` | how a backup stands by what is kept: damage that no later verification has shown to be gone |
//! | `report` | what was found |
//! | `watch`, `waiting` | how far it is, for whoever watches; what it waits for |

mod choice;
mod content;
mod coverage;
mod documents;
pub(crate) mod listing;
mod options;
mod past;
pub(crate) mod quick;
pub(crate) mod record;
mod report;
mod run;
pub(crate) mod standing;
mod stored;
mod waiting;
mod watch;

pub use coverage::Coverage;
pub use options::{Sample, SampleSize, VerifyLevel, VerifyOptions};
pub use record::{Finding, Outcome, Verification, verifications};
pub use report::{Damage, SampleReport, Unnamed, VerifyReport};
pub use run::verify;
pub use standing::{LastVerification, Standing};
pub use watch::{VerifyProgress, VerifyStep, VerifyWatch};
