//! What a stripe is made of when it enters the pipeline.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::stop::Stop;
use crate::error::Result;

/// One step of a stripe on its way into the pipeline.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The next bytes of the stripe. The memory is given back to its owner when the bytes are dropped.
    Data(Bytes),
    /// Everything before this must be durable before the acknowledgement says so; more data may follow.
    Flush(Ack),
    /// The true end of the stripe: nothing follows, and everything before it must be durable.
    Complete(Ack),
}

/// An answer that somebody waits for. Dropping it unanswered tells them that the work was given up.
pub struct Ack {
    answer: Option<Box<dyn FnOnce(Result<()>) + Send>>,
    /// Knows why the work was given up.
    stop: Option<Arc<Stop>>,
}

impl Ack {
    /// Creates an acknowledgement that calls `answer` once: with the outcome, or with an `Aborted` error on drop.
    pub fn new(answer: impl FnOnce(Result<()>) + Send + 'static) -> Self {
        Self { answer: Some(Box::new(answer)), stop: None }
    }

    /// The same, which tells on drop why the stripe was stopped.
    pub(super) fn of(mut self, stop: &Arc<Stop>) -> Self {
        self.stop = Some(Arc::clone(stop));
        self
    }

    /// Gives the outcome.
    pub fn answer(mut self, outcome: Result<()>) {
        if let Some(answer) = self.answer.take() {
            answer(outcome);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer(Err(self.stop.as_ref().and_then(|stop| stop.first()).unwrap_or_else(|| {
                crate::Error::new(crate::ErrorKind::Aborted, "the stripe was given up before it was durable")
            })));
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}
