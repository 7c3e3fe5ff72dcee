//! Test doubles and conformance suites, for our tests and for users' own stores and transports. Not semver-stable.

mod bucket;
mod clock;
pub mod decoder;
mod file_device;
mod recording;
pub mod transport_suite;

pub use bucket::{Bucket, Contents, Effect, OpenUpload, StoredObject};
pub use clock::SimClock;
pub use file_device::FileDevice;
pub use recording::{Crash, Event, Log, Operation, Outcome, RecordingStore};
