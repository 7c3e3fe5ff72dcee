//! What the other processes of a set say happened there, judged and repeated here.
//!
//! A message is believed only if the state here allows what it says, and its numbers are in their bounds. One that is not
//! believed aborts the set: a peer can end its own set, and nothing else.

use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::super::device_state::CommandId;
use super::super::state::{ClientState, ServerCall, ServerState};
use super::super::status::Error;
use super::super::waiters::{Place as WaitPlace, Wakes};
use super::inner::{Core, Inner, Member};
use super::link::{Doubt, Link, Part, Pumped};
use super::links::Role;
use super::translate::{error_of, server_config};
use crate::error::ErrorKind;
use crate::shm::wire::Message;
use crate::shm::{Inbox, Received, Region, ShmError};

impl Core {
    /// Reads what has arrived and does it, without waiting.
    pub(crate) fn pump(&self, link: &Link) -> Pumped {
        let mut inbox = link.inbox.lock();
        for _ in 0..MAX_READS {
            loop {
                let doubt = match inbox.next() {
                    Ok(Some(message)) => match self.apply(link, message, &mut inbox) {
                        Ok(()) => continue,
                        Err(doubt) => doubt,
                    },
                    Ok(None) => break,
                    Err(error) => Doubt::from(error),
                };
                self.end_for(link, doubt);
                return Pumped::Ended;
            }
            match inbox.receive(&link.socket) {
                Ok(Received::Bytes) => {}
                Ok(Received::Nothing) => return Pumped::Idle,
                Ok(Received::End) => return self.peer_gone(link, None),
                Err(error @ ShmError::Io(_)) => return self.peer_gone(link, Some(error)),
                Err(error) => {
                    self.end_for(link, error.into());
                    return Pumped::Ended;
                }
            }
        }
        Pumped::More
    }

    /// Does what has arrived from any other process, so that a call sees the set as it is now.
    pub(crate) fn catch_up(&self) {
        let links: Vec<_> = {
            let inner = self.lock();
            inner.links.up.iter().chain(inner.links.down.iter().map(|(_, link)| link)).cloned().collect()
        };
        for link in links {
            // Whether it has ended, the connection's task finds out by itself.
            let _pumped = self.pump(&link);
        }
    }

    /// The connection is of no more use: the peer does not read, or this process's runtime has ended.
    pub(crate) fn connection_lost(&self, link: &Link, why: &'static str) {
        if !link.has_left.swap(true, Ordering::AcqRel) {
            let text = format!("the connection to {} is lost: {why}", link.peer);
            self.abort_remotely(crate::Error::new(ErrorKind::Aborted, text));
        }
    }

    /// The peer's process is gone, unless it had left before.
    pub(crate) fn peer_gone(&self, link: &Link, error: Option<ShmError>) -> Pumped {
        // Who connected and went away before it had joined is as if it had not come.
        if link.has_left.swap(true, Ordering::AcqRel) || link.is_stranger() {
            return Pumped::Ended;
        }
        let mut reason = crate::Error::new(ErrorKind::Aborted, format!("peer died: {} is gone", link.peer));
        if let Some(error) = error {
            reason = reason.with_source(error);
        }
        self.abort_remotely(reason);
        Pumped::Died
    }

    fn end_for(&self, link: &Link, doubt: Doubt) {
        link.has_left.store(true, Ordering::Release);
        if link.is_stranger() {
            // It has no part in the set: it is not let in, and that is all.
            link.socket.close();
            return;
        }
        let reason = match doubt {
            Doubt::Lie(text) => {
                let text = format!("{} broke the rules of the device set: {text}", link.peer);
                crate::Error::new(ErrorKind::Aborted, text)
            }
            Doubt::Trouble(error) => crate::Error::from(error),
        };
        self.abort_remotely(reason);
    }

    fn abort_remotely(&self, reason: crate::Error) {
        let text = reason.report();
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if inner.set.client() == ClientState::DoesNotExist && inner.set.server() == ServerState::DoesNotExist {
            return;
        }
        let is_first = inner.abort(reason, &mut wakes);
        drop(inner);
        wakes.wake();
        if is_first {
            tracing::warn!(set = self.name, reason = text, "device set aborted");
        }
    }

    fn apply(&self, link: &Link, message: Message, inbox: &mut Inbox) -> Result<(), Doubt> {
        if link.is_stranger() && message != Message::Joined {
            return Err("a message of a process that has not joined".into());
        }
        if let Message::Aborted(reason) = message {
            self.abort_remotely(error_of(reason));
            return Ok(());
        }
        match (link.peer.part, message) {
            (Part::Server | Part::Primary, Message::Left { is_server: true }) if self.is_downstream_of(link) => {
                if link.peer.part == Part::Server {
                    link.has_left.store(true, Ordering::Release);
                }
                self.peer_server_left();
                Ok(())
            }
            (Part::Primary | Part::Secondary(_), Message::Left { is_server: false }) => {
                link.has_left.store(true, Ordering::Release);
                self.peer_client_left(link.peer.part);
                Ok(())
            }
            (_, Message::Joined) => {
                link.has_joined.store(true, Ordering::Release);
                Ok(())
            }
            (Part::Server | Part::Primary, message) if self.is_downstream_of(link) => self.apply_server(message, inbox),
            (Part::Primary, message) => self.apply_client(Member::Primary, message),
            (Part::Secondary(member), message) => self.apply_client(member, message),
            (Part::Server, _) => Err("a message that a server does not send".into()),
        }
    }

    /// True if the link leads towards the server.
    fn is_downstream_of(&self, link: &Link) -> bool {
        match self.lock().links.role {
            Role::Primary => link.peer.part == Part::Server,
            Role::Secondary(_) => true,
            Role::Whole | Role::Server => false,
        }
    }

    /// The server did something.
    fn apply_server(&self, message: Message, inbox: &mut Inbox) -> Result<(), Doubt> {
        match message {
            Message::Begun(choice) => {
                let done = self.begin_configuration(server_config(choice));
                self.judge_server("begin of the configuration", done)
            }
            Message::Grown { len } => {
                let region = Region::adopt(inbox.file()?, len)?;
                let mut wakes = Wakes::default();
                let mut inner = self.lock();
                let admitted = inner.admit(ServerCall::RequestBuffers);
                if admitted.is_err() {
                    drop(inner);
                    return self.judge_server("buffer area", admitted);
                }
                self.area.adopt(region).map_err(Doubt::Trouble)?;
                inner.links.grown(&self.area, &mut wakes);
                drop(inner);
                wakes.wake();
                Ok(())
            }
            Message::Ended { area_size } => self.peer_ended(area_size),
            Message::ServerOpened { device } => {
                let expected = self.server_open_device();
                let is_expected = expected.as_ref().map_or(true, |index| *index == usize::from(device));
                self.judge_server("opening of a device", expected.map(|_| ()))?;
                if is_expected { Ok(()) } else { Err("a device opened out of its order".into()) }
            }
            Message::Sent(sent) => self.peer_sent(sent),
            Message::ServerClosed { device } => {
                let index = self.index(device)?;
                let done = self.server_close_device(index);
                self.judge_server("closing of a device", done)
            }
            Message::Returned(place) => {
                self.buffer_returned(place, false);
                Ok(())
            }
            _ => Err("a message that this side does not get".into()),
        }
    }

    /// A client did something.
    fn apply_client(&self, member: Member, message: Message) -> Result<(), Doubt> {
        match message {
            Message::Fetched => match self.poll_configuration(member, &mut WaitPlace::default(), Waker::noop()) {
                Poll::Ready(done) => self.judge_client("configuration", done.map(|_| ())),
                Poll::Pending => Err("a configuration fetched before it ended".into()),
            },
            Message::ClientOpened { device } => self.peer_opened(member, self.index(device)?),
            Message::Taken { device, id } => self.peer_took(member, self.index(device)?, CommandId(id)),
            Message::SawClose { device } => self.peer_saw_close(member, self.index(device)?),
            Message::Completed(completed) => self.peer_completed(member, completed),
            Message::Returned(place) => {
                self.buffer_returned(place, true);
                Ok(())
            }
            _ => Err("a message that this side does not get".into()),
        }
    }

    pub(super) fn index(&self, device: u8) -> Result<usize, Doubt> {
        let index = usize::from(device);
        if index < self.lock().devices.len() { Ok(index) } else { Err("a device that the set does not have".into()) }
    }

    /// A call of the server that was told and is refused here: too late, or a lie.
    pub(super) fn judge_server(&self, what: &str, done: Result<(), Error>) -> Result<(), Doubt> {
        let inner = self.lock();
        match done {
            Err(_late) if inner.set.is_aborted() || inner.set.client() == ClientState::DoesNotExist => Ok(()),
            Err(error) => Err(Doubt::Lie(format!("{what}: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn judge_client(&self, what: &str, done: Result<(), Error>) -> Result<(), Doubt> {
        match done {
            Err(_late) if self.lock().is_over_for_clients() => Ok(()),
            Err(error) => Err(Doubt::Lie(format!("{what}: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

impl Inner {
    pub(super) fn is_over_for_clients(&self) -> bool {
        self.set.is_aborted() || self.set.server() == ServerState::DoesNotExist
    }
}

/// Reads of one connection before other tasks run.
const MAX_READS: usize = 16;
