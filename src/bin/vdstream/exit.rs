//! Exit codes: a contract for scripts, printed by `--help` and kept stable.

use std::process::ExitCode;

use vdstream::{Error, ErrorKind};

/// The table that `--help` shows.
pub(crate) const TABLE: &str = "\
Exit codes:
  0    done
  1    failed: nothing was committed, or what was asked for did not happen
  2    wrong usage: the message says what to change
  4    stored data is damaged
  5    a passing fault of the store; the same command may work later
  6    done, but the report could not be printed: the backup or the restored files are there
  10   no such backup, series or file
  11   already there, or held: by somebody else, a lock, a protection, a backup that needs it
  13   credentials are missing or do not suffice
  14   out of space, quota or memory
  15   encrypted, and the key is missing or another one
  129  ended by SIGHUP, everything cleaned up
  130  ended by SIGINT, everything cleaned up
  141  the reader of stdout went away, as SIGPIPE ends other tools
  143  ended by SIGTERM, everything cleaned up
Any other code is a failure too.";

/// How a command ended when it did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library, or one that the tool words in the same way.
    Error(Error),
    /// The work is done, and stdout did not take the report.
    Report { done: String, error: Error },
    /// A signal asked for the end, and the orderly abort is done.
    Signal(Signal),
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
            Self::Signal(signal) => signal.code(),
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
            Self::Pipe => None,
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
