//! What a backup contains in relation to others: chains of full, differential and log backups.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id::BackupId;
use crate::error::{Error, ErrorKind, Result};

/// What a backup contains. All but a full one need their parent, and its parents, to be of use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// Everything: the start of a chain.
    #[default]
    Full,
    /// What changed since its parent.
    Differential,
    /// The log since its parent.
    Log,
}

impl Kind {
    /// Its name in documents and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Differential => "differential",
            Self::Log => "log",
        }
    }

    pub(super) fn is_full(&self) -> bool {
        *self == Self::Full
    }

    /// Whether a backup of this kind may have this parent: a full one has none, the others have one.
    pub(super) fn fits(self, parent: Option<BackupId>) -> bool {
        self.is_full() == parent.is_none()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Full, Self::Differential, Self::Log];
        all.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let text = text.escape_default();
            Error::new(ErrorKind::Invalid, format!("`{text}` is no kind of backup: use full, differential or log"))
        })
    }
}
