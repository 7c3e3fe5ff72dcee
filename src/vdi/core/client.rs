//! The client's calls.

use std::sync::Arc;
use std::task::{Poll, Waker};

use super::super::answer::Completion;
use super::super::area::Buffer;
use super::super::client::{self, BufferHandle, MappedBuffer, Slot};
use super::super::code::{CommandCode, CompletionCode};
use super::super::config::Configuration;
use super::super::device_state::{CommandId, Take};
use super::super::state::{ClientCall, ClientState};
use super::super::status::{Error, Status};
use super::super::waiters::{Place, Wakes, register_one};
use super::inner::{Core, Inner, Member};
use super::links::Answer;

/// A command on its way to the client.
pub(crate) struct Taken {
    pub(crate) id: CommandId,
    pub(crate) code: CommandCode,
    pub(crate) size: usize,
    pub(crate) position: u64,
    pub(crate) buffer: Option<Buffer>,
}

impl Core {
    pub(crate) fn client_state(&self, member: Member) -> ClientState {
        let inner = self.lock();
        if inner.is_member(member) { inner.set.client() } else { ClientState::DoesNotExist }
    }

    /// Another client joins; the primary must have fetched the configuration.
    pub(crate) fn join(&self) -> Result<Member, Error> {
        let mut inner = self.lock();
        match inner.set.client() {
            ClientState::Aborted => return Err(inner.error(Status::Abort)),
            ClientState::DoesNotExist => return Err(Error::from(Status::Protocol)),
            ClientState::Configurable => {
                return Err(Error::new(Status::Protocol, "the primary client has not fetched the configuration yet"));
            }
            ClientState::Initializing | ClientState::Active | ClientState::NormallyTerminated => {}
        }
        let member = Member::Secondary(inner.next_id);
        inner.next_id += 1;
        inner.secondaries.push(member);
        Ok(member)
    }

    /// Gives a number to a buffer that the client holds.
    pub(crate) fn lend(&self, slot: &Arc<Slot>) -> Result<BufferHandle, Error> {
        let mut inner = self.lock();
        if inner.set.client() == ClientState::DoesNotExist {
            return Err(Error::from(Status::Protocol));
        }
        #[cfg(feature = "shm")]
        if let Some(control) = &inner.links.control {
            let number = slot.publish().and_then(|place| control.lend(place));
            let number = number.ok_or_else(|| Error::new(Status::Memory, "too many buffers are lent"))?;
            let handle = BufferHandle::from_number(number);
            inner.handles.insert(handle, Arc::clone(slot));
            return Ok(handle);
        }
        let mut handle = BufferHandle::next();
        while inner.handles.contains_key(&handle) {
            handle = BufferHandle::next();
        }
        inner.handles.insert(handle, Arc::clone(slot));
        Ok(handle)
    }

    /// The command that lent a buffer ends. The buffer comes with it, unless somebody has it mapped.
    #[cfg(not(feature = "shm"))]
    pub(crate) fn end_lending(&self, handle: BufferHandle, slot: &Slot) -> Option<Buffer> {
        let _slot = self.lock().handles.remove(&handle);
        slot.end()
    }

    pub(crate) fn map_buffer(self: &Arc<Self>, member: Member, handle: BufferHandle) -> Result<MappedBuffer, Error> {
        let slot = {
            let inner = self.lock();
            if inner.set.client() == ClientState::DoesNotExist || !inner.is_member(member) {
                return Err(Error::from(Status::Protocol));
            }
            #[cfg(feature = "shm")]
            if let Some(control) = inner.links.control.clone() {
                drop(inner);
                return self.map_shared(control, handle);
            }
            inner.handles.get(&handle).cloned()
        };
        let Some(slot) = slot else {
            return Err(Error::new(Status::Invalid, "no buffer of this device set has that handle"));
        };
        slot.map().ok_or_else(|| Error::new(Status::Busy, "the buffer is mapped by somebody else"))
    }

    /// A new set may take the place of this one once the client has closed it.
    pub(crate) fn admit_create(&self) -> Result<(), Error> {
        let inner = self.lock();
        inner.set.client().admit(ClientCall::Create).map_err(|status| inner.error(status))
    }

    pub(crate) fn poll_configuration(
        &self,
        member: Member,
        place: &mut Place,
        waker: &Waker,
    ) -> Poll<Result<Configuration, Error>> {
        let _replaced;
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::Configuration) {
            return Poll::Ready(Err(error));
        }
        if inner.set.is_configured() {
            if inner.set.client() == ClientState::Configurable {
                inner.links.fetched(&mut wakes);
            }
            inner.set.on_configuration_fetched();
            let configuration = inner.configuration.clone();
            drop(inner);
            wakes.wake();
            return Poll::Ready(Ok(configuration));
        }
        _replaced = inner.configured.register(place, waker);
        Poll::Pending
    }

    pub(crate) fn forget_configuration_waiter(&self, place: &mut Place) {
        let _removed = self.lock().configured.remove(place);
    }

    /// Opens the device of that name, or with `None` the next one that is not open.
    pub(crate) fn client_open_device(&self, member: Member, name: Option<&str>) -> Result<usize, Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit_client(member, ClientCall::OpenDevice)?;
        let named = match name {
            None => None,
            Some(name) => {
                let index = inner.configuration.device_names.iter().position(|known| known == name);
                Some(index.ok_or_else(|| {
                    Error::new(Status::Invalid, format!("device set {:?} has no device {name:?}", self.name))
                })?)
            }
        };
        let is_unopened = |index: &usize| !inner.devices[*index].state.is_opened_by_client();
        let mut unopened = (0..inner.devices.len()).filter(is_unopened).peekable();
        let all_open = || Error::new(Status::Open, "every device of the set is open already");
        let index = match named {
            Some(_) if unopened.peek().is_none() => return Err(all_open()),
            Some(index) if !is_unopened(&index) || !inner.links.claim(index) => {
                return Err(Error::new(Status::Protocol, "the device is open already"));
            }
            Some(index) => index,
            None => unopened.find(|index| inner.links.claim(*index)).ok_or_else(all_open)?,
        };
        inner.devices[index].state.on_client_opened();
        inner.devices[index].opened_by = Some(member);
        inner.set.on_client_device_opened();
        inner.links.client_opened(index, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(index)
    }

    pub(crate) fn poll_take(&self, index: usize, waker: &Waker) -> Poll<Result<Taken, Error>> {
        let _replaced;
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(status) = inner.set.client().admit(ClientCall::NextCommand) {
            return Poll::Ready(Err(inner.error(status)));
        }
        let device = &mut inner.devices[index];
        match device.state.on_take() {
            Err(status) => Poll::Ready(Err(inner.error(status))),
            Ok(Take::Nothing) => {
                _replaced = register_one(&mut device.client, waker);
                Poll::Pending
            }
            Ok(Take::Closed) => {
                inner.note_finished();
                inner.links.saw_close(index, &mut wakes);
                drop(inner);
                wakes.wake();
                Poll::Ready(Err(Error::from(Status::Close)))
            }
            Ok(Take::Command(id)) => {
                device.room.wake_into(&mut wakes);
                // The state names only commands that have an entry.
                let Some(entry) = device.entries.iter_mut().find(|entry| entry.id == id) else {
                    return Poll::Ready(Err(Error::from(Status::Unexpected)));
                };
                let taken = Taken {
                    id,
                    code: entry.code,
                    size: entry.size,
                    position: entry.position,
                    buffer: entry.buffer.take(),
                };
                inner.links.taken(index, id);
                drop(inner);
                wakes.wake();
                Poll::Ready(Ok(taken))
            }
        }
    }

    /// The client answers a command. The buffer comes back with it.
    pub(crate) fn complete(
        &self,
        index: usize,
        id: CommandId,
        buffer: Option<Buffer>,
        completion: client::Completion,
        reason: Option<crate::Error>,
    ) -> Result<(), Error> {
        #[cfg(feature = "shm")]
        let mut buffer = buffer;
        #[cfg(feature = "shm")]
        if let Some(buffer) = &mut buffer {
            // What the server reads of it; it wrote the rest itself.
            buffer.publish(completion.bytes_transferred);
        }
        let now = self.now();
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        let Some(entry) = inner.take_entry(index, id) else {
            let status = inner.set.client().admit(ClientCall::Complete).err().unwrap_or(Status::Invalid);
            let error = inner.error(status);
            drop(inner);
            // Answered by the abort already; the memory goes where it came from.
            drop(buffer);
            return Err(error);
        };
        let mut code = CompletionCode::from_code(completion.code.code());
        let mut bytes_transferred = if entry.code.is_transfer() { completion.bytes_transferred } else { 0 };
        let mut reason = reason;
        let mut result = Ok(());
        if bytes_transferred > entry.size {
            let message = format!("{bytes_transferred} bytes reported for a transfer of {}", entry.size);
            reason = Some(crate::Error::new(crate::ErrorKind::Invalid, message.clone()));
            result = Err(Error::new(Status::Invalid, message));
            (code, bytes_transferred) = (CompletionCode::IoDevice, 0);
        }
        let device = &mut inner.devices[index];
        let dropped = match device.state.on_completed(id, code) {
            Ok(dropped) => dropped,
            Err(status) => return Err(Error::from(status)),
        };
        if device.state.is_deliverable() {
            wakes.push_from(&mut device.client);
        }
        if device.state.has_room() || !code.is_success() {
            // After a failure whoever waits for room must learn of it.
            device.room.wake_into(&mut wakes);
        }
        inner.last_progress = now;
        let told = reason.clone();
        let answer = Answer {
            code,
            completion: client::Completion { bytes_transferred, ..completion },
            has_buffer: buffer.is_some(),
            reason: told.as_ref(),
        };
        // With a server in another process the buffers are given back here, so before it learns that they are its own again.
        inner.record(entry, Completion { code, bytes_transferred, position: completion.position, buffer, reason });
        inner.record_dropped(index, dropped, CompletionCode::IoDevice);
        inner.links.completed(index, id, answer, &mut wakes);
        inner.note_finished();
        inner.wake_agent(&mut wakes);
        drop(inner);
        wakes.wake();
        result
    }

    /// The client dropped its end of a device.
    pub(crate) fn client_device_dropped(&self, index: usize) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if inner.set.client() != ClientState::Active {
            return;
        }
        if inner.devices[index].state.is_open_at_client() {
            let name = &inner.configuration.device_names[index];
            let reason = crate::Error::new(
                crate::ErrorKind::Aborted,
                format!("the client dropped device {name:?} before the server closed it"),
            );
            inner.abort(reason, &mut wakes);
        } else if inner.devices[index].state.on_take() == Ok(Take::Closed) {
            // The server had closed it; nobody is left to be told.
            inner.links.saw_close(index, &mut wakes);
            inner.note_finished();
        }
        drop(inner);
        wakes.wake();
    }
}

impl Inner {
    /// True if that client is there: the primary always is, for its state says the rest.
    pub(super) fn is_member(&self, member: Member) -> bool {
        member == Member::Primary || self.secondaries.contains(&member)
    }

    pub(super) fn admit_client(&self, member: Member, call: ClientCall) -> Result<(), Error> {
        if !self.is_member(member) {
            return Err(self.error(Status::Protocol));
        }
        self.set.client().admit(call).map_err(|status| self.error(status))
    }

    /// The client's end of the set is through once every device is.
    pub(super) fn note_finished(&mut self) {
        if self.devices.iter().all(|device| device.state.is_finished_at_client()) {
            self.set.on_all_close_seen();
        }
    }
}
