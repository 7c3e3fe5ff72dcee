//! A peer that lies to a device set between processes, driven by bytes: for fuzzers, and for tests with seeds.
//!
//! The honest side is the real one. The liar has a socket and shared memory of its own, behaves for as long as the first byte says,
//! and then says whatever the bytes make of it. Whatever that is: nobody panics, the honest side closes in time, every command is
//! answered, and nothing is left.
//!
//! | who lies to whom | |
//! |---|---|
//! | a server to a primary client | [`server_lies`] |
//! | a primary client to a server | [`client_lies`] |
//! | a secondary client to a primary client and its server | [`secondary_lies`] |
//! | a primary client to a secondary client | [`primary_lies_to_secondary`] |
//! | whoever sends bytes to the codec | [`decode`] |
//!
//! Bytes would hardly find some lies; these have a function each: [`strangers_leave`], [`strangers_come_late`], [`peers_flood`],
//! [`small_buffers_crowd`], [`wrong_files_come`].

mod late;
mod liar;
mod named;
mod session;

pub use late::strangers_come_late;
pub use liar::decode;
pub use named::{peers_flood, small_buffers_crowd, strangers_leave, wrong_files_come};
pub use session::{client_lies, primary_lies_to_secondary, secondary_lies, server_lies};
