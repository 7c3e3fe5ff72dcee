//! What a store was asked, and what happened.

use std::collections::HashMap;
use std::fmt;

use super::rule::{Fault, Operation};
use crate::backup::stamp::Stamp;

/// One request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LogEntry {
    /// What was asked.
    pub operation: Operation,
    /// Of which object or directory. Ids of backups and times within names, which no seed decides, are replaced by `#0`, `#1` and so
    /// on, in the order in which they were first seen: ids among all ids, times among those of their directory.
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

/// Gives ids of backups and other names that no seed decides a number each.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    ids: HashMap<String, usize>,
    /// Names that are a time, with a random tail or without one, by their directories.
    stamps: HashMap<String, HashMap<String, usize>>,
}

impl Numbers {
    pub(super) fn normalise(&mut self, path: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        for part in path.split('/') {
            let is_id = uuid::Uuid::try_parse(part.strip_prefix("probe-").unwrap_or(part)).is_ok();
            let is_stamp = || part.strip_suffix(".json").and_then(Stamp::parse).is_some();
            let normal = if is_id {
                format!("#{}", number(&mut self.ids, part))
            } else if is_stamp() {
                format!("#{}.json", number(self.stamps.entry(parts.join("/")).or_default(), part))
            } else {
                part.to_owned()
            };
            parts.push(normal);
        }
        parts.join("/")
    }
}

/// The number of `name`; the next one if it was not seen yet.
fn number(seen: &mut HashMap<String, usize>, name: &str) -> usize {
    let next = seen.len();
    *seen.entry(name.to_owned()).or_insert(next)
}
