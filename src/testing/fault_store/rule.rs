//! Which requests meet which fault.

use std::fmt;
use std::io;
use std::time::Duration;

use object_store::Error;

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// An object is written in one request.
    Put,
    /// An object, or a range of one, is read.
    Get,
    /// An object is looked up.
    Head,
    /// A directory is listed, flat or with a delimiter.
    List,
    /// An object is deleted; each object of a batch counts for itself.
    Delete,
    /// An object is copied.
    Copy,
    /// A multipart upload is begun.
    Begin,
    /// A part is written.
    Part,
    /// A multipart upload is completed.
    Complete,
    /// A multipart upload is aborted.
    Abort,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Put,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Delete,
        Self::Copy,
        Self::Begin,
        Self::Part,
        Self::Complete,
        Self::Abort,
    ];
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// It takes so much longer, and then goes on.
    Latency(Duration),
    /// What is written or read takes its size divided by so many bytes per second, at least 1, and then goes on. Other requests pass.
    Bandwidth(u64),
    /// 403, without effect.
    Denied,
    /// The effect happens, then 403: what a store answers that repeats a lost request itself and finds it done.
    DeniedAfter,
    /// 409, without effect: what a store answers to a create-only put while another one of the same name is on its way.
    Conflict,
    /// 408, without effect.
    RequestTimeout,
    /// 429, without effect.
    TooManyRequests,
    /// 503 `SlowDown`, without effect.
    SlowDown,
    /// 503 without a word of the store's own, without effect: what a proxy answers that has lost the store behind it.
    ServiceUnavailable,
    /// 500, without effect.
    Internal,
    /// The connection is reset before the request has an effect.
    Reset,
    /// The server closes the connection while the request is sent, and the request has no effect.
    BrokenPipe,
    /// The effect happens, then the connection is reset: the answer is lost.
    LostAnswer,
    /// No answer for so long, then a time-out; without effect.
    TimeoutBefore(Duration),
    /// The effect happens, then no answer for so long, then a time-out.
    TimeoutAfter(Duration),
    /// Nothing happens for ever.
    Hang,
    /// The body of a read ends in its middle without an error. Other requests pass.
    Truncated,
    /// The connection is reset in the middle of the body of a read. Other requests pass.
    CutBody,
    /// One byte of the body of a read is another. Other requests pass.
    WrongBytes,
    /// A listing does not have the so many objects that were written last. Other requests pass.
    StaleList(usize),
}

impl Fault {
    /// The error of a request that fails so, as the HTTP clients of `object_store` word it; `None` if it does not fail at once.
    pub(super) fn error(self) -> Option<Error> {
        let status = |line: &str| {
            Some(Error::Generic {
                store: "FaultStore",
                source: format!("Server returned non-2xx status code: {line}").into(),
            })
        };
        let io =
            |kind: io::ErrorKind| Some(Error::Generic { store: "FaultStore", source: io::Error::from(kind).into() });
        match self {
            Self::Denied | Self::DeniedAfter => status("403 Forbidden: <Code>AccessDenied</Code>"),
            Self::Conflict => status("409 Conflict: <Code>ConditionalRequestConflict</Code>"),
            Self::RequestTimeout => status("408 Request Timeout: "),
            Self::TooManyRequests => status("429 Too Many Requests: "),
            Self::SlowDown => status("503 Service Unavailable: <Code>SlowDown</Code>"),
            Self::ServiceUnavailable => status("503 Service Unavailable: "),
            Self::Internal => status("500 Internal Server Error: <Code>InternalError</Code>"),
            Self::Reset | Self::LostAnswer => io(io::ErrorKind::ConnectionReset),
            Self::BrokenPipe => io(io::ErrorKind::BrokenPipe),
            Self::TimeoutBefore(_) | Self::TimeoutAfter(_) => io(io::ErrorKind::TimedOut),
            _ => None,
        }
    }

    /// True if the request goes on afterwards, to further rules.
    pub(super) const fn is_delay(self) -> bool {
        matches!(self, Self::Latency(_) | Self::Bandwidth(_))
    }

    /// True if it can happen to such a request.
    pub(super) const fn fits(self, operation: Operation) -> bool {
        match self {
            Self::Bandwidth(_) => matches!(operation, Operation::Put | Operation::Get | Operation::Part),
            Self::Truncated | Self::CutBody | Self::WrongBytes => matches!(operation, Operation::Get),
            Self::StaleList(_) => matches!(operation, Operation::List),
            _ => true,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Requests that a fault happens to: all of them, unless narrowed.
#[derive(Debug, Clone)]
#[must_use]
pub struct Rule {
    pub(super) fault: Fault,
    pub(super) operation: Option<Operation>,
    pub(super) path: String,
    pub(super) probability: f64,
    pub(super) after: u64,
    pub(super) each: u64,
    pub(super) times: u64,
}

impl Rule {
    /// `fault` for every request.
    pub fn new(fault: Fault) -> Self {
        let path = String::new();
        Self { fault, operation: None, path, probability: 1.0, after: 0, each: u64::MAX, times: u64::MAX }
    }

    /// Only for this operation.
    pub fn on(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// Only for objects whose path contains `part`.
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path = part.into();
        self
    }

    /// Only with this probability, 0 to 1; drawn anew for each request.
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// Lets the first `count` requests of each operation on each object pass.
    pub fn after(mut self, count: u64) -> Self {
        self.after = count;
        self
    }

    /// Only for the next `count` requests of each operation on each object.
    pub fn each(mut self, count: u64) -> Self {
        self.each = count;
        self
    }

    /// Only so often in all. If several requests are in flight at once, which ones depends on their order.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }
}
