//! A store that remembers what was asked of it, and the buckets that a crash at any moment would have left.

mod late;
mod log;
mod store;
#[cfg(test)]
mod tests;

pub use log::{Crash, Event, Log, Operation, Outcome};
pub use store::RecordingStore;
