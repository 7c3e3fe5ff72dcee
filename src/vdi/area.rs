//! The buffer area of a set: declared in bytes, handed out as buffers, detached when the server closes.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::config::{MAX_ALIGNMENT, is_alignment};
#[cfg(feature = "shm")]
use super::shared_area::{SharedBuffer, Space};
use super::status::{Error, Status};
use crate::buffer::{MemoryBudget, Reservation};
use crate::sync::Mutex;

/// A data buffer of a device set.
///
/// It has one owner at any time: the server until it sends a command with it, then the command, then the client until it
/// completes the command, then the server again by way of the completion. The prefix zone before the data is the client's;
/// the server never sees it. Dropping a buffer gives its memory back to the set, or frees it if the set was closed.
///
/// Dereferences to the data. Its first content is zero; a buffer that was used before keeps what was in it.
///
/// In a set between processes the other process could write to the shared bytes at any moment, so dereferencing works on a
/// private copy: made at the first look, written back when the buffer is sent or its command completed. [`Buffer::read_at`]
/// and [`Buffer::write_at`] copy straight from and to the shared bytes, and save that copy.
pub struct Buffer {
    /// Boxed, because a buffer is moved many times on its way with a command.
    pub(super) memory: Box<Memory>,
    pub(super) area: Arc<Area>,
    /// Kept for as long as the buffer exists.
    pub(super) lease: Option<Arc<()>>,
}

/// Where a buffer's bytes are.
pub(super) enum Memory {
    Private(Block),
    #[cfg(feature = "shm")]
    Shared(SharedBuffer),
}

impl Buffer {
    /// Copies `source` into the data, from `offset` on.
    ///
    /// # Errors
    ///
    /// `Invalid` if that is beyond the buffer's end; nothing is copied then.
    pub fn write_at(&mut self, offset: usize, source: &[u8]) -> Result<(), Error> {
        let len = self.len();
        let range = range(offset, source.len(), len)?;
        match &mut *self.memory {
            #[cfg(feature = "shm")]
            Memory::Shared(shared) if !shared.is_copied() => shared.write_at(offset, source),
            _ => {
                self[range].copy_from_slice(source);
                Ok(())
            }
        }
    }

    /// Fills `target` with the data from `offset` on.
    ///
    /// # Errors
    ///
    /// `Invalid` if that is beyond the buffer's end; nothing is copied then.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let range = range(offset, target.len(), self.len())?;
        match &*self.memory {
            #[cfg(feature = "shm")]
            Memory::Shared(shared) if !shared.is_copied() => shared.read_at(offset, target),
            _ => {
                target.copy_from_slice(&self[range]);
                Ok(())
            }
        }
    }

    /// Bytes of data. Never makes a private copy, as looking at the data may.
    #[expect(clippy::len_without_is_empty, reason = "a buffer has one byte at least")]
    pub fn len(&self) -> usize {
        match &*self.memory {
            Memory::Private(block) => block.layout.size,
            #[cfg(feature = "shm")]
            Memory::Shared(shared) => shared.layout().size,
        }
    }

    /// The same buffer with a clone of `lease`, or without any: whoever made the lease sees how many such buffers exist.
    pub(crate) fn with_lease(mut self, lease: Option<&Arc<()>>) -> Self {
        self.lease = lease.map(Arc::clone);
        self
    }

    /// The prefix zone, for the client that holds the command.
    pub(crate) fn prefix_mut(&mut self) -> &mut [u8] {
        let Block { bytes, data, layout } = self.block_mut();
        &mut bytes[*data - layout.prefix..*data]
    }

    fn block(&self) -> &Block {
        match &*self.memory {
            Memory::Private(block) => block,
            #[cfg(feature = "shm")]
            Memory::Shared(shared) => shared.copy(&self.area),
        }
    }

    fn block_mut(&mut self) -> &mut Block {
        match &mut *self.memory {
            Memory::Private(block) => block,
            #[cfg(feature = "shm")]
            Memory::Shared(shared) => shared.copy_mut(&self.area),
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let Block { bytes, data, layout } = self.block();
        &bytes[*data..*data + layout.size]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Block { bytes, data, layout } = self.block_mut();
        &mut bytes[*data..*data + layout.size]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("size", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match std::mem::take(&mut *self.memory) {
            Memory::Private(block) => self.area.put_back(block),
            #[cfg(feature = "shm")]
            Memory::Shared(shared) => self.area.put_back_shared(shared),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::Private(Block::default())
    }
}

/// The range of a copy, if it lies in a buffer of `size` bytes.
fn range(offset: usize, len: usize, size: usize) -> Result<std::ops::Range<usize>, Error> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(offset..end),
        _ => Err(Error::new(Status::Invalid, format!("{len} bytes at {offset} of a buffer of {size}"))),
    }
}

/// Memory of one buffer: slack for alignment, the prefix zone, the data.
#[derive(Default)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// Where the data starts in `bytes`.
    pub(super) data: usize,
    pub(super) layout: Layout,
}

impl Block {
    pub(super) fn allocate(layout: Layout) -> Self {
        // The allocator aligns as it likes, so one more alignment is asked for and the start is chosen inside.
        let bytes = vec![0; layout.stride() + layout.alignment];
        let first = bytes.as_ptr().addr() + layout.prefix;
        let data = layout.prefix + (first.next_multiple_of(layout.alignment) - first);
        Self { bytes, data, layout }
    }
}

/// What one buffer needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Layout {
    pub(super) prefix: usize,
    pub(super) alignment: usize,
    pub(super) size: usize,
}

impl Layout {
    /// Bytes of the area that one buffer takes.
    pub(super) fn stride(&self) -> usize {
        self.prefix.next_multiple_of(self.alignment) + self.size.next_multiple_of(self.alignment)
    }
}

/// The area of one set. A leaf lock: nothing else is locked while it is held.
pub(crate) struct Area {
    budget: Option<MemoryBudget>,
    pub(super) inner: Mutex<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) prefix: usize,
    pub(super) alignment: usize,
    /// Declared before the configuration ended; nothing is reserved for it yet.
    wanted: u64,
    /// Bytes that buffers may take together.
    pub(super) capacity: u64,
    /// Bytes that buffers have taken.
    pub(super) taken: u64,
    /// Bytes that are allocated, in buffers or in `free`; at most `capacity`.
    allocated: u64,
    /// Memory that came back, kept for the next buffer of the same layout.
    pub(super) free: Vec<Block>,
    reservations: Vec<Reservation>,
    is_ended: bool,
    pub(super) is_detached: bool,
    /// The shared memory of a set between processes.
    #[cfg(feature = "shm")]
    pub(super) space: Option<Space>,
}

impl Area {
    pub(crate) fn new(budget: Option<MemoryBudget>) -> Self {
        Self { budget, inner: Mutex::new(Inner::default()) }
    }

    pub(crate) fn begin(&self, prefix: u32, alignment: u32) {
        let mut inner = self.inner.lock();
        inner.prefix = prefix as usize;
        inner.alignment = alignment as usize;
    }

    /// Declares `count` buffers: summed before the configuration has ended, reserved at once after.
    pub(crate) fn request(&self, size: usize, alignment: usize, count: usize) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let stride = inner.layout(size, alignment)?.stride() as u64;
        let bytes = stride.saturating_mul(count as u64);
        if inner.is_ended {
            return self.reserve(&mut inner, bytes);
        }
        inner.wanted = inner.wanted.saturating_add(bytes);
        Ok(())
    }

    /// Reserves what was declared; on failure nothing is declared any more.
    pub(crate) fn end(&self) -> Result<u32, Error> {
        let mut inner = self.inner.lock();
        let wanted = std::mem::take(&mut inner.wanted);
        self.reserve(&mut inner, wanted)?;
        inner.is_ended = true;
        Ok(u32::try_from(inner.capacity).unwrap_or(u32::MAX))
    }

    /// How many buffers like this can be allocated now.
    pub(crate) fn available(&self, size: usize, alignment: usize) -> Result<usize, Error> {
        let inner = self.inner.lock();
        let layout = inner.layout(size, alignment)?;
        let left = usize::try_from((inner.capacity - inner.taken) / layout.stride() as u64).unwrap_or(usize::MAX);
        #[cfg(feature = "shm")]
        if let Some(space) = &inner.space {
            // Regions are larger than what was asked for, and may have no gap of this size.
            return Ok(left.min(space.available(layout)));
        }
        Ok(left)
    }

    pub(crate) fn allocate(self: &Arc<Self>, size: usize, alignment: usize) -> Result<Buffer, Error> {
        let mut inner = self.inner.lock();
        let layout = inner.layout(size, alignment)?;
        let stride = layout.stride() as u64;
        if stride > inner.capacity - inner.taken {
            return Err(Error::new(
                Status::Memory,
                format!("{stride} bytes are needed, {} of {} are left", inner.capacity - inner.taken, inner.capacity),
            ));
        }
        #[cfg(feature = "shm")]
        if let Some(space) = &mut inner.space {
            let shared = space.allocate(layout)?;
            inner.taken += stride;
            drop(inner);
            return Ok(Buffer { memory: Box::new(Memory::Shared(shared)), area: Arc::clone(self), lease: None });
        }
        inner.taken += stride;
        drop(inner);
        let memory = Box::new(Memory::Private(self.block(layout)));
        Ok(Buffer { memory, area: Arc::clone(self), lease: None })
    }

    /// Private memory for a buffer that has its place in the area; recycled if there is some.
    pub(super) fn block(&self, layout: Layout) -> Block {
        let stride = layout.stride() as u64;
        let mut inner = self.inner.lock();
        if let Some(index) = inner.free.iter().rposition(|block| block.layout == layout) {
            return inner.free.swap_remove(index);
        }
        let mut evicted = Vec::new();
        while inner.allocated + stride > inner.capacity {
            // Another layout holds the bytes that were given back.
            let Some(block) = inner.free.pop() else { break };
            inner.count_freed(block.layout.stride() as u64);
            evicted.push(block);
        }
        inner.count_allocated(stride);
        drop(inner);
        drop(evicted);
        Block::allocate(layout)
    }

    /// True if `buffer` came from this area.
    pub(crate) fn is_of(self: &Arc<Self>, buffer: &Buffer) -> bool {
        Arc::ptr_eq(self, &buffer.area)
    }

    /// True if `buffer` is one of this area, and the area is still attached.
    pub(crate) fn owns(self: &Arc<Self>, buffer: &Buffer) -> bool {
        Arc::ptr_eq(self, &buffer.area) && !self.inner.lock().is_detached
    }

    /// The server closed: nothing is counted any more, and what is held is freed by its holder.
    pub(crate) fn detach(&self) {
        let mut inner = self.inner.lock();
        inner.is_detached = true;
        let allocated = std::mem::take(&mut inner.allocated);
        if let Some(first) = inner.reservations.first() {
            first.release(allocated);
        }
        let free = std::mem::take(&mut inner.free);
        let reservations = std::mem::take(&mut inner.reservations);
        (inner.capacity, inner.taken, inner.wanted) = (0, 0, 0);
        #[cfg(feature = "shm")]
        let _space = inner.space.take();
        drop(inner);
        drop((free, reservations));
    }

    fn put_back(&self, block: Block) {
        let mut inner = self.inner.lock();
        if !inner.is_detached {
            inner.taken -= block.layout.stride() as u64;
            inner.free.push(block);
        }
    }

    /// Makes the area larger.
    pub(super) fn reserve(&self, inner: &mut Inner, bytes: u64) -> Result<(), Error> {
        let sum = inner.capacity.saturating_add(bytes);
        if sum > MAX_AREA {
            return Err(Error::new(
                Status::Memory,
                format!("a buffer area of {sum} bytes exceeds the limit of {MAX_AREA}"),
            ));
        }
        #[cfg(feature = "shm")]
        let in_use = if inner.space.is_some() { bytes.saturating_mul(2) } else { bytes };
        #[cfg(not(feature = "shm"))]
        let in_use = bytes;
        if let Some(budget) = &self.budget {
            let reservation =
                budget.reserve(in_use).map_err(|error| Error::from(Status::Memory).because(Some(error)))?;
            inner.reservations.push(reservation);
        }
        #[cfg(feature = "shm")]
        if let Some(space) = &mut inner.space
            && let Err(error) = space.grow(bytes)
        {
            inner.reservations.pop();
            return Err(error);
        }
        inner.capacity = sum;
        Ok(())
    }
}

impl Inner {
    fn layout(&self, size: usize, alignment: usize) -> Result<Layout, Error> {
        let invalid = |message: String| Err(Error::new(Status::Invalid, message));
        if size == 0 || size > MAX_BUFFER {
            return invalid(format!("a buffer of {size} bytes; 1 to {MAX_BUFFER} are possible"));
        }
        if alignment != 0 && !u32::try_from(alignment).is_ok_and(is_alignment) {
            return invalid(format!("alignment is {alignment}, it must be 0 or a power of two up to {MAX_ALIGNMENT}"));
        }
        Ok(Layout { prefix: self.prefix, alignment: alignment.max(self.alignment).max(1), size })
    }

    fn count_allocated(&mut self, bytes: u64) {
        self.allocated += bytes;
        if let Some(first) = self.reservations.first() {
            first.hold(bytes);
        }
    }

    fn count_freed(&mut self, bytes: u64) {
        self.allocated -= bytes;
        if let Some(first) = self.reservations.first() {
            first.release(bytes);
        }
    }
}

impl fmt::Debug for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Area").field("capacity", &inner.capacity).field("taken", &inner.taken).finish_non_exhaustive()
    }
}

/// The size is a 32-bit value of the configuration.
const MAX_AREA: u64 = u32::MAX as u64;
/// Far above every transfer, and small enough that no sum overflows.
const MAX_BUFFER: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn area(prefix: u32, alignment: u32, budget: Option<MemoryBudget>) -> Arc<Area> {
        let area = Area::new(budget);
        area.begin(prefix, alignment);
        Arc::new(area)
    }

    #[test]
    fn memory_is_recycled_and_another_layout_replaces_it() {
        let budget = MemoryBudget::new(1 << 20);
        let area = area(0, 512, Some(budget.clone()));
        area.request(4096, 0, 2).unwrap();
        assert_eq!(area.end().unwrap(), 8192);
        let (mut first, second) = (area.allocate(4096, 0).unwrap(), area.allocate(4096, 0).unwrap());
        assert_eq!(area.allocate(1, 0).unwrap_err().status(), Status::Memory);
        assert_eq!((budget.used(), budget.reserved()), (8192, 8192));
        first[0] = 7;
        drop(first);
        let again = area.allocate(4096, 0).unwrap();
        assert_eq!(again[0], 7);
        drop((again, second));
        let other = area.allocate(8192, 0).unwrap();
        assert_eq!(budget.used(), 8192);
        area.detach();
        assert_eq!((budget.used(), budget.reserved()), (0, 0));
        assert_eq!(other.len(), 8192);
        drop(other);
        assert_eq!(budget.used(), 0);
    }

    /// Prefix and data are each rounded up to the alignment; a buffer may be aligned more strictly than its set, never less.
    #[test]
    fn an_area_counts_what_prefix_and_alignment_cost() {
        for (prefix, base, size, alignment, bytes) in [
            (0, 512, 1, 0, 512),
            (0, 512, 512, 0, 512),
            (0, 512, 513, 0, 1024),
            (1, 512, 512, 0, 1024),
            (512, 512, 512, 0, 1024),
            (513, 512, 512, 0, 1536),
            (0, 512, 512, 4096, 4096),
            (1, 512, 512, 4096, 8192),
            (0, 4096, 512, 512, 4096),
        ] {
            let area = area(prefix, base, None);
            area.request(size, alignment, 3).unwrap();
            assert_eq!(area.end().unwrap(), 3 * bytes, "{prefix} {base} {size} {alignment}");
            assert_eq!(area.available(size, alignment).unwrap(), 3);
            let buffers = [(); 3].map(|()| area.allocate(size, alignment).unwrap());
            for buffer in &buffers {
                assert_eq!(buffer.as_ptr().addr() % alignment.max(base as usize), 0);
            }
            assert_eq!(area.allocate(size, alignment).unwrap_err().status(), Status::Memory);
        }
    }

    #[test]
    fn sizes_and_alignments_are_checked() {
        let area = area(0, 512, None);
        for (size, alignment) in [(0, 0), (MAX_BUFFER + 1, 0), (usize::MAX, 0), (1, 3), (1, 131_072), (1, usize::MAX)] {
            assert_eq!(area.request(size, alignment, 1).unwrap_err().status(), Status::Invalid);
            assert_eq!(area.available(size, alignment).unwrap_err().status(), Status::Invalid);
            assert_eq!(area.allocate(size, alignment).unwrap_err().status(), Status::Invalid);
        }
    }
}
