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
  10   no such backup, series or file
  11   already there, or somebody else holds it
  13   credentials are missing or do not suffice
  14   out of space, quota or memory
  130  ended by SIGINT, everything cleaned up
  143  ended by SIGTERM, everything cleaned up
Any other code is a failure too.";

/// How a command ended when it did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error of the library, or one that the tool words in the same way.
    Error(Error),
    /// A signal asked for the end, and the orderly abort is done.
    Signal(Signal),
}

/// The signals that end a command in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
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
        ExitCode::from(match self {
            Self::Signal(signal) => signal.code(),
            Self::Error(error) => match error.kind() {
                ErrorKind::Invalid => 2,
                ErrorKind::Corrupt => 4,
                ErrorKind::Throttled | ErrorKind::Unavailable => 5,
                ErrorKind::NotFound => 10,
                ErrorKind::Conflict => 11,
                ErrorKind::Denied => 13,
                ErrorKind::Exhausted => 14,
                _ => 1,
            },
        })
    }

    /// The one line that says what happened.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Error(error) => error.report().replace('\n', " "),
            Self::Signal(signal) => format!("ended by {}, nothing was left behind", signal.name()),
        }
    }
}
