//! A command's buffer lent to another client of the set, by a number.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::area::Buffer;
#[cfg(feature = "shm")]
use super::super::core::Core;
#[cfg(feature = "shm")]
use crate::shm::Control;
use crate::sync::Mutex;

/// Names a buffer within its set, for a secondary client to map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferHandle(u32);

impl BufferHandle {
    /// A number that no other handle of this process has, until all of them are used up.
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }

    /// The handle with this number, as another client was told it.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// Where a buffer is while its command has a handle.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<Place>);

#[derive(Debug)]
enum Place {
    Here(Buffer),
    Mapped,
    /// The command was answered.
    Gone,
}

impl Slot {
    pub(crate) fn new(buffer: Buffer) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Place::Here(buffer))))
    }

    /// Maps the buffer if nobody else does.
    pub(crate) fn map(self: &Arc<Self>) -> Option<MappedBuffer> {
        let mut place = self.0.lock();
        match std::mem::replace(&mut *place, Place::Mapped) {
            Place::Here(buffer) => Some(MappedBuffer { buffer: Some(buffer), owner: Owner::Slot(Arc::clone(self)) }),
            other => {
                *place = other;
                None
            }
        }
    }

    /// The command takes its buffer back, or ends without it if somebody maps it.
    pub(crate) fn end(&self) -> Option<Buffer> {
        match std::mem::replace(&mut *self.0.lock(), Place::Gone) {
            Place::Here(buffer) => Some(buffer),
            Place::Mapped | Place::Gone => None,
        }
    }

    /// Lets the other processes see the buffer as it is here. Its place, if it is in shared memory.
    #[cfg(feature = "shm")]
    pub(crate) fn publish(&self) -> Option<crate::shm::wire::Place> {
        match &mut *self.0.lock() {
            Place::Here(buffer) => {
                let len = buffer.len();
                buffer.publish(len);
                buffer.returned(len);
                buffer.place()
            }
            Place::Mapped | Place::Gone => None,
        }
    }

    fn unmap(&self, buffer: Buffer) {
        let mut place = self.0.lock();
        if matches!(*place, Place::Mapped) {
            *place = Place::Here(buffer);
            return;
        }
        drop(place);
        // The command is answered; the memory goes back to the set, or is freed with it.
        drop(buffer);
    }
}

/// A buffer mapped through its handle. Dropping it unmaps; dereferences to the data.
pub struct MappedBuffer {
    buffer: Option<Buffer>,
    owner: Owner,
}

/// Who gets a mapped buffer back.
enum Owner {
    Slot(Arc<Slot>),
    #[cfg(feature = "shm")]
    Shared {
        core: Arc<Core>,
        control: Arc<Control>,
        handle: BufferHandle,
    },
}

impl MappedBuffer {
    #[cfg(feature = "shm")]
    pub(crate) fn shared(buffer: Buffer, core: &Arc<Core>, control: Arc<Control>, handle: BufferHandle) -> Self {
        Self { buffer: Some(buffer), owner: Owner::Shared { core: Arc::clone(core), control, handle } }
    }

    /// The client's private bytes right before the data.
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map(Buffer::prefix_mut).unwrap_or_default()
    }
}

impl Deref for MappedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for MappedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        match &self.owner {
            Owner::Slot(slot) => slot.unmap(buffer),
            #[cfg(feature = "shm")]
            Owner::Shared { core, control, handle } => core.unmap_shared(control, *handle, buffer),
        }
    }
}

impl fmt::Debug for MappedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedBuffer").field("size", &self.len()).finish_non_exhaustive()
    }
}
