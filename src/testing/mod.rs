//! Test doubles and conformance suites, for our tests and for users' own stores and transports. Not semver-stable.

mod clock;
mod file_device;
pub mod transport_suite;

pub use clock::SimClock;
pub use file_device::FileDevice;
