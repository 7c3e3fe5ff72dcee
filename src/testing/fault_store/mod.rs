//! A store that fails as networks and servers do, on request and repeatably.
//!
//! A [`FaultStore`] stands in front of any [`ObjectStore`](object_store::ObjectStore). It is given [`Rule`]s: which requests
//! (operation, path, probability, how often), and what happens to them ([`Fault`]). What happens to a request depends on the seed, on
//! the rules, on the operation and the object, and on how often that object was asked for before; not on the order in which
//! tasks happen to run. So one seed has one log.
//!
//! ```
//! # use vdstream::testing::fault_store::Operation;
//! # use vdstream::testing::{Fault, FaultStore, Rule};
//! # use std::time::Duration;
//! let faults = FaultStore::memory(7)
//!     .rule(Rule::new(Fault::SlowDown).on(Operation::Part).probability(0.1))
//!     .rule(Rule::new(Fault::LostAnswer).path("manifest.json").each(1))
//!     .rule(Rule::new(Fault::Latency(Duration::from_millis(20))));
//! let store = faults.store();
//! # drop(store);
//! ```
//!
//! Waits go through a [`Clock`](crate::clock::Clock): with Tokio's paused time a test of hours takes no time.

mod body;
mod log;
mod rule;
mod store;
#[cfg(test)]
mod tests;

pub use log::LogEntry;
pub use rule::{Fault, Operation, Rule};
pub use store::FaultStore;
