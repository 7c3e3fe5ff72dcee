//! Bytes in and out of devices.
//!
//! | side | backup | restore |
//! |---|---|---|
//! | server (engine) | [`DeviceWriter`]: `AsyncWrite` | [`DeviceReader`]: `AsyncRead` |
//! | client (agent) | [`DeviceStream`]: data, flush and complete without copying; [`ClientReader`]: `AsyncRead` | [`ClientWriter`]: `AsyncWrite` |
//!
//! Any byte length works. The block size binds the command interface as the VDI specification has it; the streams end with a
//! transfer that may be shorter, which is an extension of ours. Reads may have other sizes than the writes had.
//!
//! **The end of a stream is not success.** A backup stream has ended well when its writer was shut down: everything is durable
//! then, and the device is closed. Dropping any of these before its end aborts the device set, and the other side learns why.

mod client_reader;
mod client_writer;
mod device_reader;
mod device_stream;
mod device_writer;
mod failure;

pub use client_reader::{ClientReader, OnFlush};
pub use client_writer::ClientWriter;
pub use device_reader::DeviceReader;
pub use device_stream::{CommandAck, DeviceItem, DeviceStream};
pub use device_writer::DeviceWriter;

#[cfg(test)]
mod tests;
