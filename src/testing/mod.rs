//! Test doubles and conformance suites, for our tests and for users' own stores and transports. Not semver-stable.

mod clock;

pub use clock::SimClock;
