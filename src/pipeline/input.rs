//! What a stripe is made of when it enters the pipeline.

use std::fmt;

use bytes::Bytes;

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
}

impl Ack {
    /// Creates an acknowledgement that calls `answer` once: with the outcome, or with an `Aborted` error on drop.
    pub fn new(answer: impl FnOnce(Result<()>) + Send + 'static) -> Self {
        Self { answer: Some(Box::new(answer)) }
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
            answer(Err(crate::Error::new(crate::ErrorKind::Aborted, "the stripe was given up before it was durable")));
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}
