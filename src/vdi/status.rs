//! What a call on a device set reports: the specification's `VD_E_*` results, and the error that carries one.

use std::borrow::Cow;
use std::fmt;

use crate::error::ErrorKind;

/// A result of the device set interface other than success.
///
/// The numbers are the specification's. It names `VD_E_QUEUE_FULL` and `VD_E_IO_ERROR` without a number; theirs are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[non_exhaustive]
pub enum Status {
    /// `VD_E_NOTOPEN`: the object is not open.
    NotOpen = 0x8077_0002,
    /// `VD_E_TIMEOUT`: the wait expired; nothing changed.
    Timeout = 0x8077_0003,
    /// `VD_E_ABORT`: somebody aborted the set; only closing works.
    Abort = 0x8077_0004,
    /// `VD_E_SECURITY`: the security environment could not be built.
    Security = 0x8077_0005,
    /// `VD_E_INVALID`: a parameter is out of its bounds.
    Invalid = 0x8077_0006,
    /// `VD_E_INSTANCE_NAME`: the server instance is unknown.
    InstanceName = 0x8077_0007,
    /// `VD_E_NOTSUPPORTED`: the configuration or the command is not supported.
    NotSupported = 0x8077_0009,
    /// `VD_E_MEMORY`: not enough memory.
    Memory = 0x8077_000A,
    /// `VD_E_UNEXPECTED`: a bug in this crate.
    Unexpected = 0x8077_000B,
    /// `VD_E_PROTOCOL`: the call is not allowed in this state.
    Protocol = 0x8077_000C,
    /// `VD_E_OPEN`: all devices are open already, or devices were still open at close.
    Open = 0x8077_000D,
    /// `VD_E_CLOSE`: the object was closed by the server.
    Close = 0x8077_000E,
    /// `VD_E_BUSY`: the closing goes on, but cannot be waited for from here.
    Busy = 0x8077_000F,
    /// `VD_E_QUEUE_FULL`: the device's queue is full. The number is ours.
    QueueFull = 0x8077_0010,
    /// `VD_E_IO_ERROR`: the device is in error until `ClearError` succeeds. The number is ours.
    IoError = 0x8077_0011,
}

impl Status {
    /// Every status, in the order of the numbers.
    pub const ALL: [Self; 15] = [
        Self::NotOpen,
        Self::Timeout,
        Self::Abort,
        Self::Security,
        Self::Invalid,
        Self::InstanceName,
        Self::NotSupported,
        Self::Memory,
        Self::Unexpected,
        Self::Protocol,
        Self::Open,
        Self::Close,
        Self::Busy,
        Self::QueueFull,
        Self::IoError,
    ];

    /// The number of the specification.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The status with that number, if there is one. Zero is success and no status.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }

    /// The name in the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOpen => "VD_E_NOTOPEN",
            Self::Timeout => "VD_E_TIMEOUT",
            Self::Abort => "VD_E_ABORT",
            Self::Security => "VD_E_SECURITY",
            Self::Invalid => "VD_E_INVALID",
            Self::InstanceName => "VD_E_INSTANCE_NAME",
            Self::NotSupported => "VD_E_NOTSUPPORTED",
            Self::Memory => "VD_E_MEMORY",
            Self::Unexpected => "VD_E_UNEXPECTED",
            Self::Protocol => "VD_E_PROTOCOL",
            Self::Open => "VD_E_OPEN",
            Self::Close => "VD_E_CLOSE",
            Self::Busy => "VD_E_BUSY",
            Self::QueueFull => "VD_E_QUEUE_FULL",
            Self::IoError => "VD_E_IO_ERROR",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::NotOpen => "not open",
            Self::Timeout => "the wait expired",
            Self::Abort => "the device set was aborted",
            Self::Security => "the security environment could not be built",
            Self::Invalid => "a parameter is out of its bounds",
            Self::InstanceName => "the server instance is unknown",
            Self::NotSupported => "not supported by this device set",
            Self::Memory => "not enough buffer memory",
            Self::Unexpected => "internal error",
            Self::Protocol => "the call is not allowed in this state",
            Self::Open => "devices are open",
            Self::Close => "the device was closed by the server",
            Self::Busy => "the closing goes on and cannot be waited for from a completion callback",
            Self::QueueFull => "the device's queue is full",
            Self::IoError => "the device is in error until ClearError succeeds",
        }
    }

    const fn kind(self) -> ErrorKind {
        match self {
            Self::Abort => ErrorKind::Aborted,
            Self::NotOpen | Self::Close => ErrorKind::Closed,
            Self::Open => ErrorKind::Conflict,
            Self::Security => ErrorKind::Denied,
            Self::Memory => ErrorKind::Exhausted,
            Self::Unexpected => ErrorKind::Internal,
            Self::Invalid | Self::NotSupported | Self::Protocol => ErrorKind::Invalid,
            Self::InstanceName => ErrorKind::NotFound,
            Self::Timeout | Self::Busy | Self::QueueFull | Self::IoError => ErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A call on a device set that did not succeed: its [`Status`], and the reason of the abort if there was one.
#[derive(Clone)]
pub struct Error {
    status: Status,
    message: Cow<'static, str>,
    reason: Option<crate::Error>,
}

impl Error {
    /// An error with a message for people.
    pub(crate) fn new(status: Status, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), reason: None }
    }

    /// Adds why the set was aborted, if it was.
    #[must_use]
    pub(crate) fn because(mut self, reason: Option<crate::Error>) -> Self {
        self.reason = reason;
        self
    }

    /// The result as the specification names it.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Why the set was aborted, if it was.
    pub fn reason(&self) -> Option<&crate::Error> {
        self.reason.as_ref()
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::new(status, status.text())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.status, self.message)?;
        match &self.reason {
            Some(reason) => write!(f, ": {}", reason.report()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reason.as_ref().map(|reason| reason as &(dyn std::error::Error + 'static))
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        // The first cause decides what the caller can do about it.
        match error.reason {
            Some(reason) => reason.context(error.message),
            None => Self::new(error.status.kind(), error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_numbers_of_the_specification() {
        let numbers: Vec<u32> = Status::ALL.iter().map(|status| status.code() - 0x8077_0000).collect();
        assert_eq!(numbers, [2, 3, 4, 5, 6, 7, 9, 0xA, 0xB, 0xC, 0xD, 0xE, 0xF, 0x10, 0x11]);
        for status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), Some(status));
        }
        for unassigned in [0, 0x8077_0001, 0x8077_0008, 0x8077_0012] {
            assert_eq!(Status::from_code(unassigned), None);
        }
    }

    #[test]
    fn the_reason_of_an_abort_is_the_source_of_the_error() {
        let reason = crate::Error::new(ErrorKind::Denied, "no key").context("cannot put object");
        let error = Error::from(Status::Abort).because(Some(reason));
        let outer = crate::Error::from(error);
        assert_eq!(outer.kind(), ErrorKind::Denied, "the first cause says what to do");
        assert_eq!(crate::Error::from(Error::from(Status::Abort)).kind(), ErrorKind::Aborted);
        assert_eq!(outer.report(), "the device set was aborted: cannot put object: no key");
    }
}
