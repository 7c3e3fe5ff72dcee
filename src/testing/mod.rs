//! Test doubles and conformance suites, for our tests and for users' own stores and transports. Not semver-stable.

mod bucket;
mod clock;
pub mod decoder;
pub mod fault_store;
mod file_device;
pub mod hostile_segment;
#[cfg(feature = "shm")]
pub mod lying_peer;
mod recording;
pub mod transport_suite;

pub use bucket::{Bucket, Contents, Effect, OpenUpload, StoredObject};
pub use clock::SimClock;
pub use fault_store::{Fault, FaultStore, Rule};
pub use file_device::FileDevice;
pub use recording::{Crash, Event, Log, Operation, Outcome, RecordingStore};
