//! The completion agent's steps.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use super::super::state::{ServerCall, ServerState};
use super::super::status::{Error, Status};
use super::super::waiters::{Wakes, register_one};
use super::inner::{Agent, Core, Ready};
use crate::sync::current_thread;

/// What the agent does next.
pub(crate) enum Step {
    /// The batch holds answers to give.
    Deliver,
    /// Nothing to do until woken; the no-progress timer is due after this long.
    Wait(Option<Duration>),
    /// The agent returns.
    End(Result<(), Error>),
}

impl Ready {
    pub(crate) fn answer(self) {
        self.recipient.answer(self.completion);
    }
}

impl Core {
    /// The call that creates the agent; it makes the set active.
    pub(crate) fn admit_agent(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.admit(ServerCall::CompletionAgent)?;
        inner.set.on_server_activity();
        Ok(())
    }

    /// The agent is polled for the first time.
    pub(crate) fn agent_started(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        if let Agent::Running { .. } = inner.agent {
            return Err(Error::new(Status::Protocol, "a completion agent is running already"));
        }
        inner.agent = Agent::Running { waker: None, delivering: None };
        Ok(())
    }

    /// One step of the running agent. `batch` is empty when this is called.
    pub(crate) fn agent_step(&self, waker: &Waker, batch: &mut VecDeque<Ready>) -> Step {
        let now = self.now();
        let _replaced;
        let mut wakes = Wakes::default();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Agent::Running { waker: slot, delivering } = &mut inner.agent else {
            return Step::End(Err(Error::from(Status::Protocol)));
        };
        if !inner.answers.is_empty() {
            *delivering = Some(current_thread().id());
            std::mem::swap(&mut inner.answers, batch);
            return Step::Deliver;
        }
        *delivering = None;
        let is_over = match inner.set.server() {
            ServerState::DoesNotExist | ServerState::AbnormallyTerminated => true,
            ServerState::NormallyTerminated => inner.pending == 0,
            _ => false,
        };
        if is_over {
            let end = if inner.reason.is_some() { Err(inner.error(Status::Abort)) } else { Ok(()) };
            inner.agent = Agent::Returned;
            inner.note_server_done(&mut wakes);
            drop(guard);
            wakes.wake();
            return Step::End(end);
        }
        _replaced = register_one(slot, waker);
        if self.server_timeout.is_zero() {
            return Step::Wait(None);
        }
        let since = if inner.pending == 0 { now } else { inner.last_progress };
        // Aborted after *more* than two intervals.
        let due = since.saturating_add(self.server_timeout.saturating_mul(2)).saturating_add(Duration::from_nanos(1));
        Step::Wait(Some(due.saturating_sub(now)))
    }

    /// The running agent goes on with answers that it has begun to give, maybe on another thread than before.
    pub(crate) fn agent_resumes(&self) {
        if let Agent::Running { delivering, .. } = &mut self.lock().agent {
            *delivering = Some(current_thread().id());
        }
    }

    /// The running agent leaves the thread although there may be more to do.
    pub(crate) fn agent_pauses(&self) {
        if let Agent::Running { delivering, .. } = &mut self.lock().agent {
            *delivering = None;
        }
    }

    /// Aborts the set if commands are pending and none ended for more than two intervals.
    pub(crate) fn check_progress(&self) {
        let now = self.now();
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        let idle = now.saturating_sub(inner.last_progress);
        if inner.pending > 0 && idle > self.server_timeout.saturating_mul(2) {
            let message = format!("{} commands are pending and none ended for {idle:?}", inner.pending);
            inner.abort(crate::Error::new(crate::ErrorKind::Aborted, message), &mut wakes);
        }
        drop(inner);
        wakes.wake();
    }

    /// The agent was dropped before it returned. Nobody else would give the answers, so the set is aborted and they are
    /// given here; `batch` is what the agent had begun to give.
    pub(crate) fn agent_dropped(&self, batch: VecDeque<Ready>) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.agent = Agent::Absent;
        let is_over = match inner.set.server() {
            ServerState::DoesNotExist => true,
            ServerState::NormallyTerminated => inner.pending == 0,
            _ => false,
        };
        if !is_over {
            let message = "the completion agent was dropped before every device was closed";
            inner.abort(crate::Error::new(crate::ErrorKind::Aborted, message), &mut wakes);
        }
        let mut answers = batch;
        answers.append(&mut inner.answers);
        inner.answering.push(current_thread().id());
        drop(inner);
        wakes.wake();
        if self.answer_in_place_of_agent(answers).is_some() {
            tracing::error!(set = self.name, "a completion callback panicked while the agent was dropped");
        }
    }

    /// Gives every answer on this thread, which is noted in `answering`, even if a callback panics; returns the first panic.
    #[must_use]
    pub(super) fn answer_in_place_of_agent(&self, answers: VecDeque<Ready>) -> Option<Panic> {
        let mut first = None;
        for ready in answers {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ready.answer())) {
                first.get_or_insert(panic);
            }
        }
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        let here = current_thread().id();
        if let Some(index) = inner.answering.iter().position(|thread| *thread == here) {
            inner.answering.swap_remove(index);
        }
        inner.note_server_done(&mut wakes);
        drop(inner);
        wakes.wake();
        first
    }
}

/// What a panicking callback threw.
pub(super) type Panic = Box<dyn std::any::Any + Send>;
