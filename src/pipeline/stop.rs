//! One stripe's reason to stop, shared by everything that works for it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind};
use crate::sync::Mutex;

/// Keeps the first error of a stripe, and tells everybody that there is one.
#[derive(Debug, Default)]
pub(super) struct Stop {
    token: CancellationToken,
    cause: Mutex<Option<Error>>,
}

impl Stop {
    /// Stops the stripe; the first cause stays.
    pub(super) fn fail(&self, cause: Error) {
        self.cause.lock().get_or_insert(cause);
        self.token.cancel();
    }

    /// Completes when the stripe is to stop, with the first cause.
    pub(super) async fn stopped(&self) -> Error {
        self.token.cancelled().await;
        self.cause()
    }

    /// The first cause; if there is none, that the work was given up.
    pub(super) fn cause(&self) -> Error {
        self.cause.lock().clone().unwrap_or_else(given_up)
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

fn given_up() -> Error {
    Error::new(ErrorKind::Aborted, "the stripe was given up")
}
