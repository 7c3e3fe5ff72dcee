//! Time that a store has for its own part of a request, beside what its size gives it.

use std::time::Duration;

tokio::task_local! {
    /// A request for an upload goes through interfaces that carry no such thing, and stays in the task that makes it.
    static WORK: Duration;
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
