//! Buffers that are lent to clients in other processes.

use std::sync::Arc;

use super::super::area::Buffer;
use super::super::client::{BufferHandle, MappedBuffer, Slot};
use super::super::status::{Error, Status};
use super::super::waiters::Wakes;
use super::inner::{Core, Entry, Inner};
use super::links::Role;
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
            self.buffer_returned(place, true);
        }
    }

    /// A buffer that was mapped beyond the end of its command is free. Told by a client, or else by a primary client.
    pub(crate) fn buffer_returned(&self, place: Place, is_from_below: bool) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        match inner.stranded.iter().position(|buffer| buffer.place() == Some(place)) {
            // Before the server learns that the place is its own again.
            Some(index) => drop(inner.stranded.swap_remove(index)),
            // It may be faster than the end of its command, which another process tells.
            None => inner.note_returned(place),
        }
        if is_from_below {
            inner.links.returned(place, &mut wakes);
        }
        // The client that lent it may be another one than the one that had it mapped.
        if inner.links.role == Role::Primary {
            inner.links.returned_below(place, &mut wakes);
        }
        drop(inner);
        wakes.wake();
    }
}

impl Inner {
    /// Remembers it with the command that has the buffer, if there is one.
    fn note_returned(&mut self, place: Place) {
        let is_there = |entry: &&mut Entry| entry.buffer.as_ref().and_then(Buffer::place) == Some(place);
        if let Some(entry) = self.devices.iter_mut().flat_map(|device| &mut device.entries).find(is_there) {
            entry.is_returned = true;
        }
    }
}
