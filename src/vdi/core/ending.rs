//! The three endings of a set: close, abort, drop. All of them are here.

use std::task::{Poll, Waker};

use super::super::state::{ClientCall, ClientState, ServerCall, ServerState};
use super::super::status::{Error, Status};
use super::super::waiters::{Place, Wakes};
use super::agent::Panic;
use super::inner::{Agent, Core, Device, Inner, Member};
use crate::error::ErrorKind;
use crate::sync::current_thread;

/// How a side leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Closed,
    Dropped,
}

impl Core {
    /// Aborts from the client's side.
    pub(crate) fn client_abort(&self, member: Member, reason: crate::Error) -> Result<(), Error> {
        self.abort(reason, |inner| inner.admit_client(member, ClientCall::Abort))
    }

    /// Aborts from the server's side.
    pub(crate) fn server_abort(&self, reason: crate::Error) -> Result<(), Error> {
        self.abort(reason, |inner| inner.admit(ServerCall::Abort))
    }

    fn abort(&self, reason: crate::Error, admit: impl FnOnce(&Inner) -> Result<(), Error>) -> Result<(), Error> {
        let mut wakes = Wakes::default();
        // Foreign code runs when a reason is printed and when its last clone is dropped: neither happens under the lock.
        let (text, _clone) = (reason.report(), reason.clone());
        let mut inner = self.lock();
        admit(&inner)?;
        let is_first = inner.abort(reason, &mut wakes);
        drop(inner);
        wakes.wake();
        if is_first {
            // Diagnostics come after the waiters are free: a slow log must not delay an abort.
            tracing::warn!(set = self.name, reason = text, "device set aborted");
        }
        Ok(())
    }

    /// The server closes. Everything but the wait for the agent is done when this returns; then the inner result is what
    /// close reports. The outer error says that there was nothing to close.
    pub(crate) fn server_close(&self) -> Result<Result<(), Error>, Error> {
        let (verdict, panicked) = self.server_leave(Leaving::Closed)?;
        if let Some(panic) = panicked {
            std::panic::resume_unwind(panic);
        }
        Ok(verdict)
    }

    /// The last handle of the server is gone.
    pub(crate) fn server_dropped(&self) {
        if let Ok((_, Some(_panic))) = self.server_leave(Leaving::Dropped) {
            tracing::error!(set = self.name, "a completion callback panicked while its device set was dropped");
        }
    }

    fn server_leave(&self, leaving: Leaving) -> Result<(Result<(), Error>, Option<Panic>), Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit(ServerCall::Close)?;
        let mut verdict = Ok(());
        if !inner.set.is_aborted() {
            let open = inner.open_devices(|device| device.state.is_open_at_server());
            let trouble = if !open.is_empty() {
                verdict = Err(Error::new(Status::Protocol, format!("devices were still open: {}", open.join(", "))));
                Some(format!("while devices were open: {}", open.join(", ")))
            } else if inner.pending > 0 {
                Some(format!("while {} commands were outstanding", inner.pending))
            } else if inner.set.server() != ServerState::NormallyTerminated {
                // The client must not take a part for the whole.
                Some("before every device was opened and closed".to_owned())
            } else {
                None
            };
            if let Some(trouble) = trouble {
                inner.abort(left("server", leaving, &trouble), &mut wakes);
            }
        }
        inner.set.on_server_closed();
        inner.links.server_left(&mut wakes);
        for device in &mut inner.devices {
            device.state.on_server_gone();
            wakes.push_from(&mut device.client);
            device.room.wake_into(&mut wakes);
        }
        inner.wake_agent(&mut wakes);
        if inner.is_answering_here() {
            verdict = Err(Error::from(Status::Busy));
        }
        // With an agent running, the answers are the agent's to give.
        let agent_ends = matches!(inner.agent, Agent::Running { .. });
        let answers = if agent_ends { Default::default() } else { std::mem::take(&mut inner.answers) };
        if !agent_ends {
            inner.answering.push(current_thread().id());
        }
        drop(inner);
        self.home.release(self);
        self.area.detach();
        wakes.wake();
        if agent_ends {
            return Ok((verdict, None));
        }
        Ok((verdict, self.answer_in_place_of_agent(answers)))
    }

    /// Ready once the server's closing has come to its end.
    pub(crate) fn poll_server_closed(&self, place: &mut Place, waker: &Waker) -> Poll<()> {
        let _replaced;
        let mut inner = self.lock();
        if inner.is_server_done {
            return Poll::Ready(());
        }
        _replaced = inner.server_closed.register(place, waker);
        Poll::Pending
    }

    pub(crate) fn forget_server_closed_waiter(&self, place: &mut Place) {
        let _removed = self.lock().server_closed.remove(place);
    }

    /// True on the stack of a completion callback.
    pub(crate) fn is_in_callback(&self) -> bool {
        self.lock().is_answering_here()
    }

    /// A client closes. Nothing is left to wait for: the server's agent goes its own way.
    pub(crate) fn client_close(&self, member: Member) -> Result<(), Error> {
        self.client_leave(member, Leaving::Closed)
    }

    /// The last handle of a client is gone.
    pub(crate) fn client_dropped(&self, member: Member) {
        // A drop has nobody to tell; the server learns of it by the abort.
        let _verdict = self.client_leave(member, Leaving::Dropped);
    }

    fn client_leave(&self, member: Member, leaving: Leaving) -> Result<(), Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit_client(member, ClientCall::Close)?;
        let mut verdict = Ok(());
        if !inner.set.is_aborted() {
            let is_primary = member == Member::Primary;
            let open = inner.open_devices(|device| {
                device.state.is_open_at_client() && (is_primary || device.opened_by == Some(member))
            });
            // A secondary answers for what it holds itself; with the primary go the others.
            let outstanding = if is_primary { inner.pending } else { inner.held_by(member) };
            let is_server_through =
                matches!(inner.set.server(), ServerState::DoesNotExist | ServerState::NormallyTerminated);
            let trouble = if !open.is_empty() {
                verdict = Err(Error::new(Status::Open, format!("devices were still open: {}", open.join(", "))));
                Some(format!("while devices were open: {}", open.join(", ")))
            } else if outstanding > 0 {
                Some(format!("while {outstanding} commands were outstanding"))
            } else if is_primary && !is_server_through {
                Some("before the server was through".to_owned())
            } else {
                None
            };
            if let Some(trouble) = trouble {
                inner.abort(left("client", leaving, &trouble), &mut wakes);
            }
        }
        inner.client_closed.wake_into(&mut wakes);
        inner.links.client_left(member, &mut wakes);
        if let Member::Secondary(_) = member {
            inner.secondaries.retain(|other| *other != member);
            drop(inner);
            #[cfg(feature = "shm")]
            self.detach_client(member);
            wakes.wake();
            return verdict;
        }
        inner.secondaries.clear();
        inner.set.on_client_closed();
        inner.configured.wake_into(&mut wakes);
        for device in &mut inner.devices {
            wakes.push_from(&mut device.client);
        }
        drop(inner);
        self.home.release(self);
        #[cfg(feature = "shm")]
        self.detach_client(member);
        wakes.wake();
        verdict
    }

    /// Ready once the client has closed.
    pub(crate) fn poll_client_closed(&self, member: Member, place: &mut Place, waker: &Waker) -> Poll<()> {
        let _replaced;
        let mut inner = self.lock();
        if inner.set.client() == ClientState::DoesNotExist || !inner.is_member(member) {
            return Poll::Ready(());
        }
        _replaced = inner.client_closed.register(place, waker);
        Poll::Pending
    }

    pub(crate) fn forget_client_closed_waiter(&self, place: &mut Place) {
        let _removed = self.lock().client_closed.remove(place);
    }
}

impl Inner {
    fn open_devices(&self, is_open: impl Fn(&Device) -> bool) -> Vec<String> {
        let named = self.devices.iter().zip(&self.configuration.device_names);
        named.filter(|(device, _)| is_open(device)).map(|(_, name)| name.clone()).collect()
    }

    /// Commands that this client has taken and not answered.
    fn held_by(&self, member: Member) -> usize {
        let own = self.devices.iter().filter(|device| device.opened_by == Some(member));
        own.map(|device| device.state.held()).sum()
    }
}

fn left(who: &str, leaving: Leaving, trouble: &str) -> crate::Error {
    let how = match leaving {
        Leaving::Closed => "closed",
        Leaving::Dropped => "dropped",
    };
    crate::Error::new(ErrorKind::Aborted, format!("the {who} {how} the device set {trouble}"))
}
