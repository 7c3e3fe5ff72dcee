//! Harness for black-box tests against real servers.
