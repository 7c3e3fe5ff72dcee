//! One error type for the whole crate; its kind says what the caller can do next.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A result whose error is [`struct@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`struct@Error`].
///
/// A kind exists only where callers act differently; the detail stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Somebody asked for the work to stop; the source says who and why.
    Aborted,
    /// The object was closed before the call; open a new one.
    Closed,
    /// Somebody else holds or has created the same thing, or it is protected or needed; choose another name or look at what is there.
    Conflict,
    /// Stored data is not what was written; the message names object, offset, expected and found.
    Corrupt,
    /// Credentials are missing or do not suffice; fix them before trying again.
    Denied,
    /// A limit is reached (disk, quota, memory); free or raise it before trying again.
    Exhausted,
    /// A bug in this crate; please report it.
    Internal,
    /// The request cannot work as given; change it.
    Invalid,
    /// The data is encrypted, and its key is missing or is another one; give the key that opens it.
    Locked,
    /// The named thing does not exist.
    NotFound,
    /// The store asks for fewer requests; slow down, then try again.
    Throttled,
    /// A passing fault; the same call may work later.
    Unavailable,
}

impl ErrorKind {
    /// A stable lower-case word for logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Closed => "closed",
            Self::Conflict => "conflict",
            Self::Corrupt => "corrupt",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Internal => "internal",
            Self::Invalid => "invalid",
            Self::Locked => "locked",
            Self::NotFound => "not-found",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Source = Arc<dyn std::error::Error + Send + Sync + 'static>;

/// An error of any part of the crate: a kind, a message for people, and the cause beneath.
///
/// It is cheap to clone, because the first cause of an abort is reported by every stream and command it ends.
/// `Display` prints this layer only; [`std::error::Error::source`] carries the rest, and [`Error::report`]
/// prints the chain on one line.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
}

impl Error {
    /// Creates an error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause beneath this error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Wraps this error in a new layer of the same kind that says what was being done.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind: self.kind, message: message.into(), source: Some(Arc::new(self)) }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// This layer's message, without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// True if the same call may work later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, ErrorKind::Throttled | ErrorKind::Unavailable)
    }

    /// The whole chain on one line, outermost first, separated by `: `.
    pub fn report(&self) -> String {
        let mut line = self.message.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            // Foreign errors often repeat their source in their own text; say it once.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = cause.source();
        }
        line
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.kind, self.report())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// `AsyncRead` and `AsyncWrite` users see only the `io` kind, so it is chosen on purpose.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind {
            ErrorKind::Aborted => Io::ConnectionAborted,
            ErrorKind::Closed => Io::BrokenPipe,
            ErrorKind::Conflict => Io::AlreadyExists,
            ErrorKind::Corrupt => Io::InvalidData,
            ErrorKind::Denied | ErrorKind::Locked => Io::PermissionDenied,
            ErrorKind::Exhausted => Io::StorageFull,
            ErrorKind::Internal => Io::Other,
            ErrorKind::Invalid => Io::InvalidInput,
            ErrorKind::NotFound => Io::NotFound,
            ErrorKind::Throttled | ErrorKind::Unavailable => Io::TimedOut,
        };
        Self::new(kind, error)
    }
}

/// Recovers the crate's own error from an `io::Error` that carries one, or classifies the foreign one.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return own.clone();
        }
        let kind = match error.kind() {
            Io::NotFound => ErrorKind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory | Io::FileTooLarge => ErrorKind::Exhausted,
            Io::AlreadyExists => ErrorKind::Conflict,
            Io::BrokenPipe => ErrorKind::Closed,
            Io::InvalidInput | Io::IsADirectory | Io::NotADirectory => ErrorKind::Invalid,
            Io::InvalidData | Io::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        Self { kind, message: Cow::Owned(error.to_string()), source: None }
    }
}

/// A size for people, in binary units: `61.3 MiB`.
pub(crate) fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["TiB", "GiB", "MiB", "KiB"];
    for (unit, shift) in UNITS.iter().zip([40, 30, 20, 10]) {
        if bytes >> shift > 0 {
            // Tenths, rounded up: as a lower bound it must still suffice.
            let tenths = (u128::from(bytes) * 10).div_ceil(1 << shift);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_prints_every_layer_once() {
        let root = Error::new(ErrorKind::Denied, "no key");
        let error = root.context("cannot put object").context("backup failed");
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(error.to_string(), "backup failed");
        assert_eq!(error.report(), "backup failed: cannot put object: no key");
    }

    #[test]
    fn sizes_are_printed_in_binary_units_and_never_too_small() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            ((1 << 20) + 1, "1.1 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn what_the_system_says_has_a_kind_to_act_on() {
        use std::io::ErrorKind as Io;
        for (io, kind) in [
            (Io::BrokenPipe, ErrorKind::Closed),
            (Io::IsADirectory, ErrorKind::Invalid),
            (Io::NotADirectory, ErrorKind::Invalid),
            (Io::StorageFull, ErrorKind::Exhausted),
            (Io::ConnectionReset, ErrorKind::Unavailable),
        ] {
            assert_eq!(Error::from(std::io::Error::from(io)).kind(), kind, "{io}");
        }
    }

    #[test]
    fn an_io_error_that_carries_ours_gives_it_back() {
        let ours = Error::new(ErrorKind::Corrupt, "object x, offset 3");
        let io = std::io::Error::from(ours);
        assert_eq!(io.kind(), std::io::ErrorKind::InvalidData);
        assert_eq!(Error::from(io).kind(), ErrorKind::Corrupt);
    }
}
