//! The command line as types, one file per group of verbs; nothing here does anything.

mod backup;
mod catalog;
mod cli;
mod collection;
#[cfg(feature = "shm")]
mod devices;
mod doctor;
mod limits;
mod restore;
mod retention;
mod setup;
mod value;
mod verify;

pub(crate) use backup::Backup;
pub(crate) use catalog::{List, Show};
pub(crate) use cli::{Cli, Command, Common, ProgressStyle};
pub(crate) use collection::Gc;
#[cfg(feature = "shm")]
pub(crate) use devices::{Devices, Engine, EngineWork};
pub(crate) use doctor::Doctor;
pub(crate) use limits::{Download, Limits, Metrics};
pub(crate) use restore::Restore;
pub(crate) use retention::{Delete, Prune};
pub(crate) use setup::{Completions, Man};
pub(crate) use value::ZstdLevel;
#[cfg(feature = "encryption")]
pub(crate) use value::is_typed;
pub(crate) use verify::{Level, Verify};
