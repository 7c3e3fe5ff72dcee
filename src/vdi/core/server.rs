//! The server's calls.

use std::task::{Poll, Waker};

use super::super::answer::Recipient;
use super::super::area::Buffer;
use super::super::code::{CommandCode, CompletionCode};
use super::super::config::{Configuration, ServerConfig};
use super::super::device_state::CommandId;
use super::super::features::Features;
use super::super::server::Command;
use super::super::state::{ServerCall, ServerState};
use super::super::status::{Error, Status};
use super::super::waiters::{Place, Wakes};
use super::inner::{Core, Entry, Inner};

/// A command that was not accepted, with everything that came with it.
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) command: Command,
    pub(crate) recipient: Recipient,
}

impl Core {
    pub(crate) fn server_state(&self) -> ServerState {
        self.lock().set.server()
    }

    pub(crate) fn server_open(&self) -> Result<(), Error> {
        self.lock().open(&self.name)
    }

    pub(crate) fn server_configuration(&self) -> Result<Configuration, Error> {
        let inner = self.lock();
        inner.admit(ServerCall::Configuration)?;
        Ok(inner.configuration.clone())
    }

    pub(crate) fn begin_configuration(&self, config: ServerConfig) -> Result<(), Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit(ServerCall::BeginConfiguration)?;
        let agreed = inner.configuration.agreed(config.clone())?;
        self.area.begin(agreed.prefix_zone_size, agreed.alignment);
        for device in &mut inner.devices {
            device.state.set_depth(agreed.max_io_depth as usize);
        }
        inner.configuration = agreed;
        inner.set.on_configuration_begun();
        inner.links.begun(&config, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(crate) fn request_buffers(&self, size: usize, alignment: usize, count: usize) -> Result<(), Error> {
        let mut wakes = Wakes::default();
        #[cfg_attr(not(feature = "shm"), expect(unused_mut, reason = "only other processes are told"))]
        let mut inner = self.lock();
        inner.admit(ServerCall::RequestBuffers)?;
        self.area.request(size, alignment, count)?;
        inner.links.grown(&self.area, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(crate) fn query_available_buffers(&self, size: usize, alignment: usize) -> Result<usize, Error> {
        self.lock().admit(ServerCall::QueryAvailableBuffers)?;
        self.area.available(size, alignment)
    }

    pub(crate) fn end_configuration(&self) -> Result<Configuration, Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit(ServerCall::EndConfiguration)?;
        let size = self.area.end()?;
        inner.configuration.buffer_area_size = size;
        inner.set.on_configuration_ended();
        inner.configured.wake_into(&mut wakes);
        inner.links.grown(&self.area, &mut wakes);
        inner.links.ended(size, &mut wakes);
        let configuration = inner.configuration.clone();
        drop(inner);
        wakes.wake();
        Ok(configuration)
    }

    pub(crate) fn server_open_device(&self) -> Result<usize, Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit(ServerCall::OpenDevice)?;
        let Some(index) = inner.devices.iter().position(|device| !device.state.is_opened_by_server()) else {
            return Err(Error::new(Status::Open, "every device of the set is open already"));
        };
        inner.devices[index].state.on_server_opened();
        inner.set.on_server_activity();
        inner.links.server_opened(index, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(index)
    }

    pub(crate) fn allocate_buffer(&self, size: usize, alignment: usize) -> Result<Buffer, Error> {
        // Not under the lock of the set: memory is zeroed here.
        self.lock().admit(ServerCall::AllocateBuffer)?;
        self.area.allocate(size, alignment)
    }

    pub(crate) fn free_buffer(&self, buffer: Buffer) -> Result<(), Error> {
        self.lock().admit(ServerCall::FreeBuffer)?;
        if self.area.is_of(&buffer) {
            Ok(())
        } else {
            Err(Error::new(Status::Invalid, "the buffer belongs to another device set"))
        }
    }

    pub(crate) fn is_shared_buffer(&self, buffer: &Buffer) -> bool {
        self.area.owns(buffer)
    }

    /// Accepts a command or gives everything back. What is accepted is answered once, whatever happens.
    pub(crate) fn send(&self, index: usize, mut command: Command, recipient: Recipient) -> Result<(), Box<Refused>> {
        let now = self.now();
        let mut wakes = Wakes::default();
        #[cfg(feature = "shm")]
        command.publish();
        let mut inner = self.lock();
        if let Err(error) = inner.check_send(index, &command, self) {
            drop(inner);
            return Err(Box::new(Refused { error, command, recipient }));
        }
        let id = CommandId(inner.next_id);
        inner.next_id += 1;
        if inner.pending == 0 {
            inner.last_progress = now;
        }
        inner.pending += 1;
        let device = &mut inner.devices[index];
        #[cfg(feature = "shm")]
        {
            device.last_id = Some(id.0);
        }
        device.state.on_sent(id, command.code());
        device.entries.push(Entry {
            id,
            code: command.code(),
            size: command.size(),
            position: command.position(),
            #[cfg(feature = "shm")]
            is_short: command.is_short(),
            #[cfg(feature = "shm")]
            is_out: false,
            #[cfg(feature = "shm")]
            is_returned: false,
            buffer: command.take_buffer(),
            recipient,
        });
        if device.state.is_deliverable() {
            wakes.push_from(&mut device.client);
        }
        inner.links.sent(index, &inner.devices[index], &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    /// Ready when a command would find room, or would be refused for another reason than a full queue.
    pub(crate) fn poll_room(
        &self,
        index: usize,
        code: CommandCode,
        place: &mut Place,
        waker: &Waker,
    ) -> Poll<Result<(), Error>> {
        let _replaced;
        let mut inner = self.lock();
        if let Err(error) = inner.admit(ServerCall::SendCommand) {
            return Poll::Ready(Err(error));
        }
        let device = &mut inner.devices[index];
        match device.state.check_send(code) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Status::QueueFull) => {
                _replaced = device.room.register(place, waker);
                Poll::Pending
            }
            Err(status) => Poll::Ready(Err(Error::from(status))),
        }
    }

    pub(crate) fn forget_room_waiter(&self, index: usize, place: &mut Place) {
        let _removed = self.lock().devices[index].room.remove(place);
    }

    pub(crate) fn server_close_device(&self, index: usize) -> Result<(), Error> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        inner.admit(ServerCall::CloseDevice)?;
        let dropped = inner.devices[index].state.on_closed().map_err(Error::from)?;
        inner.record_dropped(index, dropped, CompletionCode::OperationAborted);
        let device = &mut inner.devices[index];
        wakes.push_from(&mut device.client);
        device.room.wake_into(&mut wakes);
        if inner.devices.iter().all(|device| device.state.is_closed_by_server()) {
            inner.set.on_all_closed();
        }
        inner.links.server_closed(index, &mut wakes);
        inner.wake_agent(&mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }
}

impl Inner {
    /// A server opens the set. Whoever found it by its name may come when its client, or a server before, has freed the name.
    pub(super) fn open(&mut self, name: &str) -> Result<(), Error> {
        self.set.check_open().map_err(|status| match status {
            Status::Invalid => Error::new(status, format!("device set {name:?} is over")).because(self.reason.clone()),
            other => self.error(other),
        })?;
        self.set.on_opened();
        Ok(())
    }

    pub(super) fn admit(&self, call: ServerCall) -> Result<(), Error> {
        self.set.server().admit(call).map_err(|status| self.error(status))
    }

    fn check_send(&self, index: usize, command: &Command, core: &Core) -> Result<(), Error> {
        self.admit(ServerCall::SendCommand)?;
        self.devices[index].state.check_send(command.code())?;
        self.check_command(command, core)
    }

    pub(super) fn check_command(&self, command: &Command, core: &Core) -> Result<(), Error> {
        let refuse = |status, message: String| Err(Error::new(status, message));
        let configuration = &self.configuration;
        match command.code() {
            CommandCode::Complete if !configuration.features.contains(Features::COMPLETE_ENABLED) => refuse(
                Status::NotSupported,
                "the client did not ask for Complete, or the server did not enable it".into(),
            ),
            CommandCode::PrepareToFreeze if !configuration.features.contains(Features::SNAPSHOT_PREPARE) => {
                refuse(Status::NotSupported, "the client did not ask for PrepareToFreeze".into())
            }
            CommandCode::Snapshot | CommandCode::MountSnapshot | CommandCode::PrepareToFreeze
                if configuration.device_count != 1 =>
            {
                refuse(
                    Status::NotSupported,
                    format!("snapshots need exactly one device, the set has {}", configuration.device_count),
                )
            }
            CommandCode::Read | CommandCode::Write => {
                let size = command.size();
                let Some(buffer) = command.buffer() else {
                    return refuse(Status::Invalid, "a transfer needs a buffer".into());
                };
                if !core.area.is_of(buffer) {
                    return refuse(Status::Invalid, "the buffer belongs to another device set".into());
                }
                let limit = buffer.len().min(configuration.max_transfer_size as usize);
                if size == 0 || size > limit {
                    return refuse(Status::Invalid, format!("a transfer of {size} bytes; 1 to {limit} are possible"));
                }
                if !command.is_short() && !size.is_multiple_of(configuration.block_size as usize) {
                    let block = configuration.block_size;
                    return refuse(
                        Status::Invalid,
                        format!(
                            "a transfer of {size} bytes is not a multiple of the block size {block}, and not marked short"
                        ),
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
