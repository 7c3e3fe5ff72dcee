//! One device set in one process: the owner of its state, behind one lock.
//!
//! A call locks, asks the pure state what may happen, applies it, unlocks, and only then wakes tasks, drops buffers and runs
//! callbacks. The only lock taken inside is the one of the buffer area.

mod agent;
mod client;
mod ending;
mod inner;
#[cfg(feature = "shm")]
mod joining;
#[cfg(feature = "shm")]
mod lending;
#[cfg(feature = "shm")]
mod link;
#[cfg(not(feature = "shm"))]
#[path = "alone.rs"]
mod links;
#[cfg(feature = "shm")]
mod links;
#[cfg(feature = "shm")]
mod peer_client;
#[cfg(feature = "shm")]
mod peer_server;
#[cfg(feature = "shm")]
mod remote;
mod server;
#[cfg(feature = "shm")]
mod translate;

pub(crate) use agent::Step;
pub(crate) use client::Taken;
pub(crate) use inner::{Core, Member, Ready};
#[cfg(feature = "shm")]
pub(crate) use link::{Link, Part, Peer, Pumped};
pub(crate) use server::Refused;
#[cfg(feature = "shm")]
pub(crate) use translate::{config_of, error_of, reason, wishes};
