//! Exit codes: a contract for scripts, printed by `--help` and kept stable.

use std::process::ExitCode;

use vdstream::{Error, ErrorKind};

/// What `vdstream --help` ends with.
pub(crate) const TABLE: &str = "\
Example: vdstream backup s3://bucket/prod -- pg_basebackup -D - -Ft -X fetch

Exit codes: 0 done, or one of these; any other is a failure too:
  1              nothing was committed, or what was asked for did not happen
  2              wrong usage: the message says what to change
  4              stored data is damaged
  5              a passing fault of the store; the same command may work later
  6              done and safe, but the report could not be printed
  10             no such backup, series or file
  11             already there, or held: in use, locked, protected, needed
  13, 15         credentials, or the key of the backup, are missing or wrong
  14             out of space, quota or memory
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM; cleaned up, or reported
  141            the reader of stdout went away, as SIGPIPE ends other tools";

/// How a command ended when it did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library, or one that the tool words in the same way.
    Error(Error),
    /// The work is done, and stdout did not take the report.
    Report { done: String, error: Error },
    /// A signal asked for the end, and the orderly abort is done.
    Signal(Signal),
    /// The same of what is not undone: a report tells how far it came.
    Halfway(Signal),
    /// The same of a backup that was resumed: what is stored stays.
    Resumable { signal: Signal, id: String },
    /// The same of a restore whose output cannot be taken back, such as a device, a pipe or what a program has read.
    Cut(Signal),
    /// Whoever reads stdout has seen enough. Not worth a message.
    Pipe,
}

/// The signals that end a command in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl Signal {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Hangup => 129,
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    pub(crate) fn code(&self) -> ExitCode {
        self.number().into()
    }

    pub(crate) fn number(&self) -> u8 {
        match self {
            Self::Signal(signal) | Self::Halfway(signal) | Self::Resumable { signal, .. } | Self::Cut(signal) => {
                signal.code()
            }
            Self::Pipe => 141,
            Self::Report { .. } => 6,
            Self::Error(error) => match error.kind() {
                ErrorKind::Invalid => 2,
                ErrorKind::Corrupt => 4,
                ErrorKind::Throttled | ErrorKind::Unavailable => 5,
                ErrorKind::NotFound => 10,
                ErrorKind::Conflict => 11,
                ErrorKind::Denied => 13,
                ErrorKind::Exhausted => 14,
                ErrorKind::Locked => 15,
                _ => 1,
            },
        }
    }

    /// The one line that says what happened, if it must be said.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Error(error) => Some(error.report().replace('\n', " ")),
            Self::Report { done, error } => {
                Some(format!("{done}, but its report could not be printed: {}", error.report().replace('\n', " ")))
            }
            Self::Signal(signal) => Some(format!("ended by {}, nothing was left behind", signal.name())),
            Self::Halfway(signal) => {
                Some(format!("ended by {} before all was done; the same command goes on from there", signal.name()))
            }
            Self::Resumable { signal, id } => {
                Some(format!("ended by {}; what is stored stays, and `--resume {id}` goes on with it", signal.name()))
            }
            Self::Cut(signal) => Some(format!("ended by {}, the output is incomplete", signal.name())),
            Self::Pipe => None,
        }
    }

    /// The same failure of work that is not undone when a signal ends it.
    pub(crate) fn halfway(self) -> Self {
        match self {
            Self::Signal(signal) => Self::Halfway(signal),
            other => other,
        }
    }

    /// The same failure of a backup that was resumed.
    pub(crate) fn resumable(self, id: &str) -> Self {
        match self {
            Self::Signal(signal) => Self::Resumable { signal, id: id.to_owned() },
            other => other,
        }
    }

    /// The same failure of a restore that has written where nothing is taken back.
    pub(crate) fn cut(self) -> Self {
        match self {
            Self::Signal(signal) => Self::Cut(signal),
            other => other,
        }
    }

    /// What a failed print at the end of successful work is: `done` says what is there all the same.
    pub(crate) fn after(self, done: String) -> Self {
        match self {
            Self::Error(error) => Self::Report { done, error },
            Self::Pipe => Self::Report { done, error: Error::new(ErrorKind::Closed, "the reader of stdout went away") },
            other => other,
        }
    }
}
