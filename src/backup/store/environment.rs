//! The process's environment variables as the stores read them.

use std::collections::BTreeMap;

/// A snapshot of the environment; tests make their own.
#[derive(Clone, Default)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What this process was started with.
    pub(super) fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    #[cfg(all(test, any(feature = "aws", feature = "azure", feature = "gcp")))]
    pub(super) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    /// The value of `key`; an empty one counts as not set.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// True if `key` has a value that means yes.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(super) fn is_true(&self, key: &str) -> bool {
        let value = self.value(key).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "1" | "true" | "yes" | "y" | "on")
    }

    /// All variables whose names start with `prefix` and that are not empty, with lower-case names.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(super) fn with_prefix(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let pairs = self.0.iter().filter(move |(key, value)| key.starts_with(prefix) && !value.is_empty());
        pairs.map(|(key, value)| (key.to_ascii_lowercase(), value.as_str()))
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: the values are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
