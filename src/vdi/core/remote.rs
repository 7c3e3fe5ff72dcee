//! What the other processes of a set say happened there, judged and repeated here.
//!
//! A message is believed only if the state here allows what it says, and its numbers are in their bounds. One that is not
//! believed aborts the set: a peer can end its own set, and nothing else.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use super::super::answer::Recipient;
use super::super::area::{Area, Buffer};
use super::super::client::{self, BufferHandle, MappedBuffer, Slot};
use super::super::code::{CommandCode, CompletionCode};
use super::super::config::Config;
use super::super::device_state::{CommandId, Take};
use super::super::server::Command;
use super::super::state::{ClientCall, ClientState, ServerCall, ServerState};
use super::super::status::{Error, Status};
use super::super::transport::Home;
use super::super::waiters::{Place as WaitPlace, Wakes};
use super::inner::{Core, Entry, Inner, Member};
use super::links::{Role, number, sent};
use super::translate::{choice, error_of, no_memory, server_config};
use crate::error::ErrorKind;
use crate::shm::wire::{Completed, Message, Place, Sent};
use crate::shm::{Attached, Control, Inbox, Received, Region, Returned, ShmError, Socket};
use crate::sync::Mutex;

/// A connection to another process of the set.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Arc<Socket>,
    pub(crate) peer: Peer,
    inbox: Mutex<Inbox>,
    /// The peer said that it is leaving: the end of the connection is no death.
    has_left: AtomicBool,
    has_joined: AtomicBool,
}

/// The process at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) part: Part,
    /// None for a process in another process namespace.
    pub(crate) pid: Option<u32>,
}

/// What the other process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Server,
    Primary,
    Secondary(Member),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.part {
            Part::Server => "the server",
            Part::Primary => "the primary client",
            Part::Secondary(_) => "a secondary client",
        })?;
        match self.pid {
            Some(pid) => write!(f, " (process {pid})"),
            None => f.write_str(" (a process that is not visible from here)"),
        }
    }
}

impl Link {
    pub(crate) fn new(socket: Arc<Socket>, peer: Peer, inbox: Inbox) -> Arc<Self> {
        let (has_left, has_joined) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { socket, peer, inbox: Mutex::new(inbox), has_left, has_joined })
    }

    /// True once the peer has said that its end is up.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }
}

/// What came of reading a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Everything that had arrived is done.
    Idle,
    /// There may be more; others should run first.
    More,
    /// Nothing follows.
    Ended,
    /// Nothing follows, and the peer had not said that it leaves.
    Died,
}

/// Why a message is not believed.
enum Doubt {
    Lie(String),
    Trouble(Error),
}

impl From<ShmError> for Doubt {
    fn from(error: ShmError) -> Self {
        Self::Lie(error.to_string())
    }
}

impl From<&str> for Doubt {
    fn from(text: &str) -> Self {
        Self::Lie(text.to_owned())
    }
}

impl Core {
    /// The part of a set that its primary client holds.
    pub(crate) fn primary(home: Box<dyn Home>, name: &str, config: &Config) -> Result<Self, Error> {
        let control = Control::create().map_err(no_memory)?;
        let core = Self::part(home, name, config, Role::Primary);
        core.lock().links.control = Some(Arc::new(control));
        Ok(core)
    }

    /// The part of a set that its server holds.
    pub(crate) fn server(home: Box<dyn Home>, name: &str, config: &Config, link: &Arc<Link>) -> Result<Self, Error> {
        let core = Self::part(home, name, config, Role::Server);
        core.lock().links.down.push((Member::Primary, Arc::clone(link)));
        core.server_open()?;
        Ok(core)
    }

    /// The part of a set that another client holds.
    pub(crate) fn secondary(
        home: Box<dyn Home>,
        name: &str,
        config: &Config,
        link: &Arc<Link>,
        control: Control,
    ) -> Result<(Self, Member), Error> {
        // Its number is known in this process only.
        let member = Member::Secondary(0);
        let core = Self::part(home, name, config, Role::Secondary(member));
        core.server_open()?;
        let mut inner = core.lock();
        inner.secondaries.push(member);
        inner.links.control = Some(Arc::new(control));
        inner.links.up = Some(Arc::clone(link));
        drop(inner);
        Ok((core, member))
    }

    fn part(home: Box<dyn Home>, name: &str, config: &Config, role: Role) -> Self {
        let area = Area::new(home.budget().cloned()).share();
        let core = Self::with_area(home, name, config, area);
        core.lock().links.role = role;
        core
    }

    /// The server's process connects to this primary client.
    pub(crate) fn admit_server(&self, link: &Arc<Link>, welcome: &Message) -> Result<(), Error> {
        self.server_open()?;
        let mut inner = self.lock();
        link.socket.tell(welcome);
        inner.links.up = Some(Arc::clone(link));
        Ok(())
    }

    /// Another client's process connects to this primary client; it is told what has happened so far.
    pub(crate) fn admit_secondary(
        &self,
        welcome: &Message,
        connect: impl FnOnce(Member) -> Arc<Link>,
    ) -> Result<(Arc<Link>, Member), Error> {
        if self.lock().secondaries.len() >= MAX_SECONDARIES {
            return Err(Error::new(Status::Busy, format!("{MAX_SECONDARIES} clients have joined already")));
        }
        let member = self.join()?;
        let link = connect(member);
        let socket = &link.socket;
        let mut inner = self.lock();
        let (Some(control), Some(choice_made), false) =
            (inner.links.control.clone(), inner.links.choice.clone(), inner.set.is_aborted())
        else {
            inner.secondaries.retain(|other| *other != member);
            return Err(inner.error(if inner.set.is_aborted() { Status::Abort } else { Status::Protocol }));
        };
        socket.tell_with(welcome, Attached::Control(control));
        socket.tell(&Message::Begun(choice(&choice_made)));
        for region in self.area.regions(0) {
            socket.tell_with(&Message::Grown { len: region.len() as u64 }, Attached::Region(region));
        }
        socket.tell(&Message::Ended { area_size: inner.configuration.buffer_area_size });
        for (index, device) in inner.devices.iter().enumerate() {
            if device.state.is_opened_by_server() {
                socket.tell(&Message::ServerOpened { device: number(index) });
            }
            if device.state.is_closed_by_server() {
                socket.tell(&Message::ServerClosed { device: number(index) });
            }
        }
        socket.tell(&Message::Joined);
        inner.links.down.push((member, Arc::clone(&link)));
        Ok((link, member))
    }

    /// Everything was told: this client has the configuration that its primary client fetched.
    pub(crate) fn finish_join(&self, member: Member) -> Result<(), Error> {
        match self.poll_configuration(member, &mut WaitPlace::default(), Waker::noop()) {
            Poll::Ready(done) => done.map(|_| ()),
            Poll::Pending => Err(Error::new(Status::Protocol, "the primary client told of no configuration")),
        }
    }

    /// Why joining did not succeed.
    pub(crate) fn join_failed(&self) -> Error {
        let inner = self.lock();
        if inner.set.is_aborted() {
            return inner.error(Status::Abort);
        }
        Error::new(Status::Timeout, "the primary client did not tell what has happened so far")
    }

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

    /// A process that was welcomed went away before it had joined: as if it had not come.
    pub(crate) fn dismiss(&self, link: &Link) {
        link.has_left.store(true, Ordering::Release);
        let mut inner = self.lock();
        match link.peer.part {
            Part::Server => inner.unopen(),
            Part::Secondary(member) => {
                inner.secondaries.retain(|other| *other != member);
                inner.links.client_left(member, &mut Wakes::default());
            }
            Part::Primary => {}
        }
        link.socket.close();
    }

    /// The peer's process is gone, unless it had left before.
    pub(crate) fn peer_gone(&self, link: &Link, error: Option<ShmError>) -> Pumped {
        // Who connected and went away before it had joined is as if it had not come.
        let is_welcome_only = link.peer.part != Part::Primary && !link.has_joined();
        if link.has_left.swap(true, Ordering::AcqRel) || is_welcome_only {
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

    fn index(&self, device: u8) -> Result<usize, Doubt> {
        let index = usize::from(device);
        if index < self.lock().devices.len() { Ok(index) } else { Err("a device that the set does not have".into()) }
    }

    fn peer_ended(&self, area_size: u32) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit(ServerCall::EndConfiguration) {
            drop(inner);
            return self.judge_server("end of the configuration", Err(error));
        }
        if u64::from(area_size) > self.area.inner.lock().capacity {
            return Err("a buffer area larger than its regions".into());
        }
        inner.configuration.buffer_area_size = area_size;
        inner.set.on_configuration_ended();
        inner.configured.wake_into(&mut wakes);
        inner.links.ended(area_size, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    fn peer_sent(&self, sent: Sent) -> Result<(), Doubt> {
        let Sent { device, is_short, epoch, id, code, size, position, place } = sent;
        let (index, code, size) = (self.index(device)?, CommandCode::from_code(code), size as usize);
        let now = self.now();
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        let arrived = inner
            .admit(ServerCall::SendCommand)
            .and_then(|()| inner.devices[index].state.check_arrived(code, epoch).map_err(Error::from));
        match arrived {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                drop(inner);
                return self.judge_server("command", Err(error));
            }
        }
        if inner.devices[index].last_id.is_some_and(|last| last >= id) {
            return Err("a command with a number that was used".into());
        }
        let buffer = match place {
            Some(place) if code.is_transfer() => {
                Some(self.area.view(place, if code == CommandCode::Write { size } else { 0 })?)
            }
            Some(_) => return Err("a buffer with a command that has none".into()),
            None => None,
        };
        let mut command = Command::told(code, size, position, buffer, is_short);
        inner.check_command(&command, self).map_err(|error| Doubt::Lie(error.to_string()))?;
        if inner.pending == 0 {
            inner.last_progress = now;
        }
        inner.pending += 1;
        let device = &mut inner.devices[index];
        device.last_id = Some(id);
        device.state.on_arrived(CommandId(id), code);
        device.entries.push(Entry {
            id: CommandId(id),
            code,
            size,
            position,
            is_short,
            is_out: false,
            buffer: command.take_buffer(),
            recipient: Recipient::Remote,
        });
        if device.state.is_deliverable() {
            wakes.push_from(&mut device.client);
        }
        inner.links.sent(index, &inner.devices[index], &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    fn peer_opened(&self, member: Member, index: usize) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::OpenDevice) {
            drop(inner);
            return self.judge_client("opening of a device", Err(error));
        }
        if inner.devices[index].state.is_opened_by_client() {
            return Err("a device that a client has open".into());
        }
        inner.devices[index].state.on_client_opened();
        inner.devices[index].opened_by = Some(member);
        inner.set.on_client_device_opened();
        inner.links.client_opened(index, &mut wakes);
        if inner.links.role == Role::Primary {
            // Commands that were sent before wait here; from here on they are passed on as they come.
            let device = &inner.devices[index];
            let waiting: Vec<_> = device
                .state
                .queued()
                .filter_map(|id| device.entries.iter().find(|entry| entry.id == id))
                .map(|entry| sent(index, device, entry))
                .collect();
            for message in waiting {
                inner.links.tell_member(member, &message, &mut wakes);
            }
        }
        drop(inner);
        wakes.wake();
        Ok(())
    }

    fn peer_took(&self, member: Member, index: usize, id: CommandId) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::NextCommand) {
            drop(inner);
            return self.judge_client("taking of a command", Err(error));
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        if device.state.is_next(id) {
            let _command = device.state.on_take();
            if let Some(entry) = device.entries.iter_mut().find(|entry| entry.id == id) {
                entry.is_out = true;
            }
            device.room.wake_into(&mut wakes);
            inner.links.taken(index, id);
            drop(inner);
            wakes.wake();
            return Ok(());
        }
        device.check_late(id)
    }

    fn peer_saw_close(&self, member: Member, index: usize) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::NextCommand) {
            drop(inner);
            return self.judge_client("end of a device", Err(error));
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        if !device.state.is_close_due() || device.state.on_take() != Ok(Take::Closed) {
            return Err("the end of a device that is open".into());
        }
        inner.note_finished();
        inner.links.saw_close(index, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    fn peer_completed(&self, member: Member, completed: Completed) -> Result<(), Doubt> {
        let Completed { device, id, code, bytes, position, has_buffer, reason } = completed;
        let (index, id, bytes) = (self.index(device)?, CommandId(id), bytes as usize);
        let mut inner = self.lock();
        if inner.is_over_for_clients() {
            return Ok(());
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        let is_delivered = device.state.is_delivered(id);
        let mut buffer = match device.entries.iter_mut().find(|entry| entry.id == id) {
            Some(entry) if is_delivered => {
                if entry.code.is_transfer() && bytes > entry.size {
                    return Err("a transfer of more bytes than the command has".into());
                }
                let mut buffer = entry.buffer.take();
                if entry.code == CommandCode::Read
                    && let Some(buffer) = &mut buffer
                {
                    buffer.returned(bytes);
                }
                buffer
            }
            _ => return device.check_late(id),
        };
        if !has_buffer && let Some(buffer) = buffer.take() {
            inner.stranded.push(buffer);
        }
        drop(inner);
        let completion =
            client::Completion { code: CompletionCode::from_code(code), bytes_transferred: bytes, position };
        // An error says that the set was aborted meanwhile.
        let _late = self.complete(index, id, buffer, completion, reason.map(error_of));
        Ok(())
    }

    /// A buffer that was mapped beyond the end of its command is free. Told by a client, or else by a primary client.
    pub(crate) fn buffer_returned(&self, place: Place, is_from_below: bool) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Some(index) = inner.stranded.iter().position(|buffer| buffer.place() == Some(place)) {
            let _buffer = inner.stranded.swap_remove(index);
        }
        if is_from_below {
            inner.links.returned(place, &mut wakes);
        } else {
            inner.links.returned_below(place, &mut wakes);
        }
        drop(inner);
        wakes.wake();
    }

    fn peer_server_left(&self) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if inner.set.server() == ServerState::DoesNotExist {
            return;
        }
        if !inner.set.is_aborted() && inner.set.server() != ServerState::NormallyTerminated {
            let message = "the server closed the device set before every device was opened and closed";
            inner.abort(crate::Error::new(ErrorKind::Aborted, message), &mut wakes);
        }
        inner.set.on_server_closed();
        for device in &mut inner.devices {
            device.state.on_server_gone();
            wakes.push_from(&mut device.client);
        }
        inner.links.server_left(&mut wakes);
        drop(inner);
        self.home.release(self);
        wakes.wake();
    }

    fn peer_client_left(&self, part: Part) {
        let role = self.lock().links.role;
        if let (Role::Secondary(_), Part::Primary) = (role, part) {
            let mut wakes = Wakes::default();
            let mut inner = self.lock();
            inner.secondaries.clear();
            inner.set.on_client_closed();
            inner.configured.wake_into(&mut wakes);
            inner.client_closed.wake_into(&mut wakes);
            for device in &mut inner.devices {
                wakes.push_from(&mut device.client);
            }
            inner.links.client_left(Member::Primary, &mut wakes);
            drop(inner);
            wakes.wake();
            return;
        }
        let member = if let Part::Secondary(member) = part { member } else { Member::Primary };
        // What it left open aborts the set here as well; there is nobody to tell.
        let _verdict = self.client_close(member);
    }

    /// A side's own close gives its memory back; commands that it still holds keep theirs.
    pub(super) fn detach_client(&self, member: Member) {
        let role = self.lock().links.role;
        if role == Role::Secondary(member) || (role, member) == (Role::Primary, Member::Primary) {
            self.area.detach();
        }
    }

    /// A call of the server that was told and is refused here: too late, or a lie.
    fn judge_server(&self, what: &str, done: Result<(), Error>) -> Result<(), Doubt> {
        let inner = self.lock();
        match done {
            Err(_late) if inner.set.is_aborted() || inner.set.client() == ClientState::DoesNotExist => Ok(()),
            Err(error) => Err(Doubt::Lie(format!("{what}: {error}"))),
            Ok(()) => Ok(()),
        }
    }

    fn judge_client(&self, what: &str, done: Result<(), Error>) -> Result<(), Doubt> {
        match done {
            Err(_late) if self.lock().is_over_for_clients() => Ok(()),
            Err(error) => Err(Doubt::Lie(format!("{what}: {error}"))),
            Ok(()) => Ok(()),
        }
    }
}

/// Buffers that are lent to clients in other processes.
impl Core {
    pub(super) fn map_shared(
        self: &Arc<Self>,
        control: Arc<Control>,
        handle: BufferHandle,
    ) -> Result<MappedBuffer, Error> {
        let unknown = || Error::new(Status::Invalid, "no buffer of this device set has that handle");
        let place = control.map(handle.number()).ok_or_else(unknown)?;
        let Some(place) = place else {
            return Err(Error::new(Status::Busy, "the buffer is mapped by somebody else"));
        };
        let mut buffer = self.area.map(place);
        if buffer.is_none() {
            // The region was announced before the handle was given, but perhaps not read yet.
            self.catch_up();
            buffer = self.area.map(place);
        }
        match buffer {
            Some(buffer) => Ok(MappedBuffer::shared(buffer, self, control, handle)),
            None => {
                control.unmap(handle.number());
                Err(unknown())
            }
        }
    }

    /// The command that lent a buffer ends. The buffer comes with it, unless somebody has it mapped.
    pub(crate) fn end_lending(&self, handle: BufferHandle, slot: &Slot) -> Option<Buffer> {
        let mut inner = self.lock();
        inner.handles.remove(&handle);
        let buffer = slot.end()?;
        match inner.links.control.as_ref().map(|control| control.end(handle.number())) {
            Some(Returned::Mapped) => {
                inner.stranded.push(buffer);
                None
            }
            Some(Returned::Here) | None => Some(buffer),
        }
    }

    /// A mapped buffer is given back.
    pub(crate) fn unmap_shared(&self, control: &Control, handle: BufferHandle, mut buffer: Buffer) {
        let len = buffer.len();
        buffer.publish(len);
        if control.unmap(handle.number()) {
            return;
        }
        if let Some(place) = buffer.place() {
            // The command has ended: the server gets the place back, and so does the client that lent it.
            let mut wakes = Wakes::default();
            self.lock().links.returned_below(place, &mut wakes);
            wakes.wake();
            self.buffer_returned(place, true);
        }
    }
}

impl Inner {
    /// The server that was about to open the set did not.
    fn unopen(&mut self) {
        self.set.on_unopened();
        self.links.up = None;
    }

    fn is_over_for_clients(&self) -> bool {
        self.set.is_aborted() || self.set.server() == ServerState::DoesNotExist
    }
}

impl super::inner::Device {
    fn check_opened_by(&self, member: Member) -> Result<(), Doubt> {
        if self.opened_by == Some(member) { Ok(()) } else { Err("a device that this client does not have open".into()) }
    }

    /// The client's process may have taken or completed a command just before it learned that the command had ended.
    fn check_late(&self, id: CommandId) -> Result<(), Doubt> {
        let was_sent = self.last_id.is_some_and(|last| id.0 <= last);
        if was_sent && !self.entries.iter().any(|entry| entry.id == id) {
            return Ok(());
        }
        Err("an answer to a command that this client does not hold".into())
    }
}

/// One per device would do; a few more may only map buffers.
const MAX_SECONDARIES: usize = 128;

/// Reads of one connection before other tasks run.
const MAX_READS: usize = 16;
