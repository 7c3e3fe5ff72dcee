//! What goes wrong below the transport.

use std::io;

/// A failure of shared memory or of the socket beside it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShmError {
    #[error("{len} bytes at {offset} are outside of a region of {region} bytes")]
    OutOfBounds { offset: u64, len: u64, region: u64 },
    #[error("the memory file has {actual} bytes, {expected} were expected")]
    WrongSize { expected: u64, actual: u64 },
    #[error("the file is no memory file of sealed size")]
    NotSealed,
    #[error("a message cannot be understood: {0}")]
    Message(&'static str),
    #[error("the peer speaks version {theirs} of the messages, this process version {ours}")]
    Version { theirs: u16, ours: u16 },
    #[error("a message came without the file that belongs to it")]
    NoFile,
    #[error("more files came than belong to the messages")]
    TooManyFiles,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for ShmError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl From<bytes::TryGetError> for ShmError {
    fn from(_short: bytes::TryGetError) -> Self {
        Self::Message("it ends before its last field")
    }
}
