//! The client's calls.

use std::task::{Poll, Waker};

use super::super::answer::Completion;
use super::super::area::Buffer;
use super::super::client;
use super::super::code::{CommandCode, CompletionCode};
use super::super::config::Configuration;
use super::super::device_state::{CommandId, Take};
use super::super::state::{ClientCall, ClientState};
use super::super::status::{Error, Status};
use super::super::waiters::{Place, Wakes, register_one};
use super::inner::{Core, Inner};

/// A command on its way to the client.
pub(crate) struct Taken {
    pub(crate) id: CommandId,
    pub(crate) code: CommandCode,
    pub(crate) size: usize,
    pub(crate) position: u64,
    pub(crate) buffer: Option<Buffer>,
}

impl Core {
    pub(crate) fn client_state(&self) -> ClientState {
        self.lock().set.client()
    }

    /// A new set may take the place of this one once the client has closed it.
    pub(crate) fn admit_create(&self) -> Result<(), Error> {
        let inner = self.lock();
        inner.set.client().admit(ClientCall::Create).map_err(|status| inner.error(status))
    }

    pub(crate) fn poll_configuration(&self, place: &mut Place, waker: &Waker) -> Poll<Result<Configuration, Error>> {
        let _replaced;
        let mut inner = self.lock();
        if let Err(status) = inner.set.client().admit(ClientCall::Configuration) {
            return Poll::Ready(Err(inner.error(status)));
        }
        if inner.set.is_configured() {
            inner.set.on_configuration_fetched();
            return Poll::Ready(Ok(inner.configuration.clone()));
        }
        _replaced = inner.configured.register(place, waker);
        Poll::Pending
    }

    pub(crate) fn forget_configuration_waiter(&self, place: &mut Place) {
        let _removed = self.lock().configured.remove(place);
    }

    /// Opens the device of that name, or with `None` the next one that is not open.
    pub(crate) fn client_open_device(&self, name: Option<&str>) -> Result<usize, Error> {
        let mut inner = self.lock();
        inner.set.client().admit(ClientCall::OpenDevice).map_err(|status| inner.error(status))?;
        let named = match name {
            None => None,
            Some(name) => {
                let index = inner.configuration.device_names.iter().position(|known| known == name);
                Some(index.ok_or_else(|| {
                    Error::new(Status::Invalid, format!("device set {:?} has no device {name:?}", self.name))
                })?)
            }
        };
        let Some(unopened) = inner.devices.iter().position(|device| !device.state.is_opened_by_client()) else {
            return Err(Error::new(Status::Open, "every device of the set is open already"));
        };
        let index = named.unwrap_or(unopened);
        if inner.devices[index].state.is_opened_by_client() {
            return Err(Error::new(Status::Protocol, "the device is open already"));
        }
        inner.devices[index].state.on_client_opened();
        inner.set.on_client_device_opened();
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
        inner.record(entry, Completion { code, bytes_transferred, position: completion.position, buffer, reason });
        inner.record_dropped(index, dropped, CompletionCode::IoDevice);
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
            inner.note_finished();
        }
        drop(inner);
        wakes.wake();
    }
}

impl Inner {
    /// The client's end of the set is through once every device is.
    fn note_finished(&mut self) {
        if self.devices.iter().all(|device| device.state.is_finished_at_client()) {
            self.set.on_all_close_seen();
        }
    }
}
