//! Time that a request has beside what every request has: for its size, and for the store's own part of it.

use std::time::Duration;

tokio::task_local! {
    /// A request for an upload goes through interfaces that carry no such thing, and stays in the task that makes it.
    static WORK: Duration;
}

/// A second for each of these bytes: for a slow link, and for others on it.
const BYTES_PER_SECOND: u64 = 16 << 10;

/// The time that `bytes` may be on their way.
pub(super) fn sending(bytes: u64) -> Duration {
    Duration::from_secs(bytes / BYTES_PER_SECOND)
}

/// Runs a request whose answer may take so much longer.
pub(super) async fn with<F: Future>(work: Duration, request: F) -> F::Output {
    WORK.scope(work, request).await
}

/// What the request has that this task makes.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
pub(super) fn granted() -> Duration {
    WORK.try_with(|work| *work).unwrap_or_default()
}
