//! Buffers that are lent to clients in other processes.

use std::sync::Arc;

use super::super::area::Buffer;
use super::super::client::{BufferHandle, MappedBuffer, Slot};
use super::super::status::{Error, Status};
use super::super::waiters::Wakes;
use super::inner::Core;
use crate::shm::wire::Place;
use crate::shm::{Control, Returned};

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
}
