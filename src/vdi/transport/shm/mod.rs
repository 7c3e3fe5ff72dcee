//! Device sets between processes: a hub that is a directory of sockets.

mod connection;
mod handshake;
mod home;
mod hub;

pub use hub::{ShmHub, ShmOptions};
