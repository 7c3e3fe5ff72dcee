//! What a store was asked, and what happened.

use std::collections::HashMap;
use std::fmt;

use super::rule::{Fault, Operation};

/// One request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogEntry {
    /// What was asked.
    pub operation: Operation,
    /// Of which object or directory. Ids of backups, which no seed decides, are replaced by `#0`, `#1` and so on, in the order in
    /// which they were first seen.
    pub path: String,
    /// How often this was asked of it before.
    pub before: u64,
    /// What happened; nothing is a request that passed.
    pub faults: Vec<Fault>,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} ({})", self.operation, self.path, self.before)?;
        for fault in &self.faults {
            write!(f, " {fault}")?;
        }
        Ok(())
    }
}

/// Gives ids of backups and other random names a number each.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    seen: HashMap<String, usize>,
}

impl Numbers {
    pub(super) fn normalise(&mut self, path: &str) -> String {
        let parts = path.split('/').map(|part| {
            if uuid::Uuid::try_parse(part.strip_prefix("probe-").unwrap_or(part)).is_err() {
                return part.to_owned();
            }
            let next = self.seen.len();
            format!("#{}", self.seen.entry(part.to_owned()).or_insert(next))
        });
        parts.collect::<Vec<_>>().join("/")
    }
}
