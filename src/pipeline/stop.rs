//! One stripe's reason to stop, shared by everything that works for it.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;

/// Keeps the first error of a stripe, and tells everybody that there is one.
pub(super) struct Stop {
    token: CancellationToken,
    state: Mutex<State>,
}

struct State {
    cause: Option<Error>,
    /// Told the first error at once, long before the stripe has cleaned up.
    on_failure: Option<OnFailure>,
}

type OnFailure = Box<dyn FnOnce(Error) + Send>;

impl Stop {
    pub(super) fn new(on_failure: impl FnOnce(Error) + Send + 'static) -> Self {
        let on_failure: OnFailure = Box::new(on_failure);
        Self { token: CancellationToken::new(), state: Mutex::new(State { cause: None, on_failure: Some(on_failure) }) }
    }

    /// Stops the stripe; the first cause stays.
    pub(super) fn fail(&self, cause: Error) {
        let (first, told) = {
            let mut state = self.state.lock();
            let first = state.cause.get_or_insert(cause).clone();
            (first, state.on_failure.take())
        };
        self.token.cancel();
        if let Some(tell) = told {
            tell(first);
        }
    }

    /// The stripe is complete: what ends now has not failed.
    pub(super) fn succeeded(&self) {
        let _untold = self.state.lock().on_failure.take();
    }

    /// Completes when the stripe is to stop, with the first cause.
    pub(super) async fn stopped(&self) -> Error {
        self.token.cancelled().await;
        self.cause()
    }

    /// The first cause; if there is none, that the work was given up.
    pub(super) fn cause(&self) -> Error {
        self.first().unwrap_or_else(given_up)
    }

    /// The first cause.
    pub(super) fn first(&self) -> Option<Error> {
        self.state.lock().cause.clone()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("cause", &self.state.lock().cause).finish_non_exhaustive()
    }
}

/// Stops a stripe when its future is dropped.
#[derive(Debug)]
pub(super) struct StopOnDrop(pub(super) Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.fail(given_up());
    }
}

/// Stops a stripe when the task that holds it panics.
#[derive(Debug)]
pub(super) struct StopOnPanic(pub(super) Arc<Stop>);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(ErrorKind::Internal, "a task of the pipeline panicked"));
        }
    }
}

fn given_up() -> Error {
    Error::new(ErrorKind::Aborted, "the stripe was given up")
}
