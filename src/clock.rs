//! Time as a component: every wait and every time stamp of the crate goes through a [`Clock`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// A source of time. Monotonic time is a [`Duration`] since an origin that the clock chooses.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Monotonic time since the clock's origin; never goes backwards.
    fn now(&self) -> Duration;

    /// Wall-clock time, for records that people read; it may jump.
    fn wall(&self) -> Timestamp;

    /// Completes once at least `duration` has passed. Dropping the future ends the wait and nothing else.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The system's clock, through Tokio's timer, so that Tokio's paused time works with it.
#[derive(Debug, Clone)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// Creates a clock whose origin is now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    pub fn new() -> Self {
        Self { origin: tokio::time::Instant::now() }
    }

    /// The same, shared.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Runs `future` for at most `limit`; `None` limits nothing.
///
/// # Errors
///
/// [`Elapsed`] if the limit passed first; the future is dropped then.
///
/// # Cancel safety
///
/// As cancel-safe as `future` itself.
pub async fn timeout<F: Future>(clock: &dyn Clock, limit: Option<Duration>, future: F) -> Result<F::Output, Elapsed> {
    let Some(limit) = limit else { return Ok(future.await) };
    let sleep = clock.sleep(limit);
    tokio::select! {
        biased;
        output = future => Ok(output),
        () = sleep => Err(Elapsed),
    }
}

/// The limit of [`timeout`] passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time limit passed")]
pub struct Elapsed;
