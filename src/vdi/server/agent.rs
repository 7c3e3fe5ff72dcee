//! The completion agent: a future that the server drives where it likes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;

use super::super::core::{Core, Ready, Step};
use super::super::status::{Error, Status};

/// Gives the answers to commands, and watches their progress.
///
/// It starts nothing by itself: spawn it, or await it next to the work. It returns when every device is closed and every
/// command answered, or when the set is closed (`Ok`), or when the set is aborted (`Abort` with the reason).
///
/// Dropping it after its first poll and before it returned aborts the set: nobody else would answer.
#[must_use = "nothing is answered until the agent is polled"]
pub struct CompletionAgent {
    core: Arc<Core>,
    phase: Phase,
    batch: VecDeque<Ready>,
    /// The no-progress timer; it may ring early, never late.
    timer: Option<BoxFuture<'static, ()>>,
}

enum Phase {
    /// The call was refused.
    Refused(Error),
    Created,
    Running,
    Returned,
}

impl CompletionAgent {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        let phase = match core.admit_agent() {
            Ok(()) => Phase::Created,
            Err(error) => Phase::Refused(error),
        };
        Self { core: Arc::clone(core), phase, batch: VecDeque::new(), timer: None }
    }

    /// Gives the answers of the batch.
    fn give(&mut self) {
        let _pause = PauseOnPanic(&self.core);
        while let Some(ready) = self.batch.pop_front() {
            ready.answer();
        }
    }
}

/// A callback that panics has left the thread too.
struct PauseOnPanic<'a>(&'a Core);

impl Drop for PauseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.agent_pauses();
        }
    }
}

impl Future for CompletionAgent {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let agent = self.get_mut();
        match std::mem::replace(&mut agent.phase, Phase::Returned) {
            Phase::Refused(error) => return Poll::Ready(Err(error)),
            Phase::Returned => return Poll::Ready(Err(Error::from(Status::Protocol))),
            Phase::Created => agent.core.agent_started()?,
            Phase::Running => {}
        }
        agent.phase = Phase::Running;
        if !agent.batch.is_empty() {
            // It gave way before these, or a callback panicked, somebody caught that, and polls the agent again.
            agent.core.agent_resumes();
        }
        for _ in 0..MAX_BATCHES {
            agent.give();
            match agent.core.agent_step(cx.waker(), &mut agent.batch) {
                Step::Deliver => {}
                Step::End(result) => {
                    agent.phase = Phase::Returned;
                    return Poll::Ready(result);
                }
                Step::Wait(None) => return Poll::Pending,
                Step::Wait(Some(due)) => {
                    let timer = agent.timer.get_or_insert_with(|| agent.core.clock().sleep(due));
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    agent.timer = None;
                    agent.core.check_progress();
                }
            }
        }
        // Let others run, and come back: between two polls no callback runs.
        agent.core.agent_pauses();
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for CompletionAgent {
    fn drop(&mut self) {
        if matches!(self.phase, Phase::Running) {
            self.core.agent_dropped(std::mem::take(&mut self.batch));
        }
    }
}

impl fmt::Debug for CompletionAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionAgent").field("set", &self.core.name()).finish_non_exhaustive()
    }
}

/// Batches of answers that one poll gives before it lets other tasks run.
const MAX_BATCHES: usize = 32;
