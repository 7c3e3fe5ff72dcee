//! Buffers in the shared memory of a set between processes.
//!
//! The server's process hands out places; a client's process looks at the places that it is told. Nobody gets a reference to
//! the shared bytes: each side works on a private copy, or copies straight to where it needs them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::area::{Area, Block, Buffer, Layout, Memory};
use super::status::{Error, Status};
use crate::shm::wire::Place;
use crate::shm::{Region, ShmError};

/// A buffer's place, and this process's copy of it once somebody looked.
pub(super) struct SharedBuffer {
    region: Arc<Region>,
    place: Place,
    layout: Layout,
    private: OnceLock<Block>,
    /// Bytes of data, from the start, of which the shared memory may have more than a new copy: written there by the other side,
    /// or by `write_at`. Only they are worth copying.
    incoming: usize,
    /// The copy has bytes that the shared memory may not have.
    is_dirty: bool,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Handed out by this process, which is the server's.
    Ours,
    /// A command's buffer, told by the server.
    Told,
    /// Mapped through a handle; its command holds the place.
    Mapped,
}

impl SharedBuffer {
    fn new(region: &Arc<Region>, place: Place, layout: Layout, incoming: usize, origin: Origin) -> Self {
        let region = Arc::clone(region);
        Self { region, place, layout, private: OnceLock::new(), incoming, is_dirty: false, origin }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn is_copied(&self) -> bool {
        self.private.get().is_some()
    }

    fn offset(&self) -> usize {
        // Checked against the region's length when the buffer was made.
        usize::try_from(self.place.offset).unwrap_or(usize::MAX)
    }

    /// Writes past the copy, of which there is none yet.
    pub(super) fn write_at(&mut self, offset: usize, source: &[u8]) -> Result<(), Error> {
        debug_assert!(!self.is_copied(), "a copy would not see it");
        self.region.write(self.offset().saturating_add(offset), source).map_err(unexpected)?;
        self.incoming = self.incoming.max(offset.saturating_add(source.len()));
        Ok(())
    }

    pub(super) fn read_at(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        self.region.read(self.offset().saturating_add(offset), target).map_err(unexpected)
    }

    /// The private copy, made now if there is none.
    pub(super) fn copy(&self, area: &Area) -> &Block {
        self.private.get_or_init(|| {
            // A buffer that is mapped has its command's place: it is not counted twice.
            let is_pooled = self.origin != Origin::Mapped;
            let mut block = if is_pooled { area.block(self.layout) } else { Block::allocate(self.layout) };
            let (prefix, data) = (self.layout.prefix, block.data);
            let incoming = if self.origin == Origin::Ours { 0 } else { prefix };
            for (offset, range) in [
                (self.offset() - incoming, data - incoming..data),
                (self.offset(), data..data + self.incoming.min(self.layout.size)),
            ] {
                // In bounds since the buffer was made; a range that were not would leave the bytes as they are.
                let copied = self.region.read(offset, &mut block.bytes[range]);
                debug_assert!(copied.is_ok());
            }
            block
        })
    }

    pub(super) fn copy_mut(&mut self, area: &Area) -> &mut Block {
        self.copy(area);
        self.is_dirty = true;
        self.private.get_mut().expect("`copy` has filled it")
    }

    /// Lets the other side see the first `len` bytes as they are here.
    fn publish(&mut self, len: usize) {
        let Some(block) = self.private.get().filter(|_| self.is_dirty) else { return };
        let prefix = if self.origin == Origin::Ours { 0 } else { self.layout.prefix };
        let range = block.data - prefix..block.data + len.min(self.layout.size);
        let copied = self.region.write(self.offset() - prefix, &block.bytes[range]);
        debug_assert!(copied.is_ok());
        // What lies behind may be sent the next time, as it is here.
        self.is_dirty = len < self.layout.size;
    }
}

impl Buffer {
    /// Where the buffer is, for the other processes.
    pub(super) fn place(&self) -> Option<Place> {
        match &*self.memory {
            Memory::Private(_) => None,
            Memory::Shared(shared) => Some(shared.place),
        }
    }

    /// Before the buffer goes to the other side: it sees the first `len` bytes as they are here.
    pub(super) fn publish(&mut self, len: usize) {
        if let Memory::Shared(shared) = &mut *self.memory {
            shared.publish(len);
        }
    }

    /// The other side had the buffer and may have written its first `len` bytes.
    pub(super) fn returned(&mut self, len: usize) {
        if let Memory::Shared(shared) = &mut *self.memory {
            if let Some(block) = shared.private.take() {
                self.area.recycle(block);
            }
            shared.incoming = len;
            shared.is_dirty = false;
        }
    }
}

/// The regions of one set, as one process sees them.
#[derive(Debug, Default)]
pub(super) struct Space {
    regions: Vec<Arc<Region>>,
    /// What is free of each region, in the server's process: starts and ends, sorted, never adjacent.
    free: Vec<Vec<(u64, u64)>>,
    /// What the server lent to this process and has not got back: region and start, and the end.
    in_use: BTreeMap<(u32, u64), u64>,
}

impl Space {
    /// Adds a region for buffers of `bytes` together.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        if self.regions.len() == MAX_REGIONS {
            return Err(Error::new(Status::Memory, format!("the buffer area has grown {MAX_REGIONS} times already")));
        }
        // Buffers of different alignments leave gaps.
        let len = (bytes + GAP).next_multiple_of(PAGE);
        let region = usize::try_from(len).map_err(|_| Error::from(Status::Memory));
        let region = Region::create(region?).map_err(|error| {
            let error = crate::Error::new(crate::ErrorKind::Exhausted, "shared memory").with_source(error);
            Error::from(Status::Memory).because(Some(error))
        })?;
        self.regions.push(Arc::new(region));
        self.free.push(vec![(0, len)]);
        Ok(())
    }

    pub(super) fn allocate(&mut self, layout: Layout) -> Result<SharedBuffer, Error> {
        for (number, free) in self.free.iter_mut().enumerate() {
            for (index, (start, end)) in free.iter_mut().enumerate() {
                let from = start.next_multiple_of(layout.alignment as u64);
                let to = from + layout.stride() as u64;
                if to > *end {
                    continue;
                }
                let rest = std::mem::replace(end, from);
                let is_gone = start == end;
                if to < rest {
                    free.insert(index + 1, (to, rest));
                }
                if is_gone {
                    free.remove(index);
                }
                let offset = from + layout.prefix.next_multiple_of(layout.alignment) as u64;
                let place = place(number, offset, layout.size);
                return Ok(SharedBuffer::new(&self.regions[number], place, layout, 0, Origin::Ours));
            }
        }
        let message = format!("no free range of the buffer area holds a buffer of {} bytes", layout.size);
        Err(Error::new(Status::Memory, message))
    }

    /// How many buffers like this can be allocated now.
    pub(super) fn available(&self, layout: Layout) -> usize {
        let count = |(start, end): &(u64, u64)| {
            end.saturating_sub(start.next_multiple_of(layout.alignment as u64)) / layout.stride() as u64
        };
        usize::try_from(self.free.iter().flatten().map(count).sum::<u64>()).unwrap_or(usize::MAX)
    }

    fn put_back(&mut self, shared: &SharedBuffer) {
        let layout = shared.layout;
        let from = shared.place.offset - layout.prefix.next_multiple_of(layout.alignment) as u64;
        let to = from + layout.stride() as u64;
        let Some(free) = self.free.get_mut(shared.place.region as usize) else { return };
        let index = free.partition_point(|(start, _)| *start < from);
        free.insert(index, (from, to));
        if free.get(index + 1).is_some_and(|(start, _)| *start == to) {
            free[index].1 = free.remove(index + 1).1;
        }
        if index > 0 && free[index - 1].1 == from {
            free[index - 1].1 = free.remove(index).1;
        }
    }

    fn find(&self, place: Place, prefix: usize) -> Result<&Arc<Region>, &'static str> {
        let region = self.regions.get(place.region as usize).ok_or("a buffer of a region that was not announced")?;
        let end = place.offset.checked_add(place.len.into());
        let is_inside = end.is_some_and(|end| end <= region.len() as u64) && place.offset >= prefix as u64;
        if is_inside && place.len > 0 { Ok(region) } else { Err("a buffer outside of its region") }
    }
}

impl Area {
    /// An area in shared memory.
    pub(super) fn share(self) -> Self {
        self.inner.lock().space = Some(Space::default());
        self
    }

    /// The regions from number `first` on.
    pub(super) fn regions(&self, first: usize) -> Vec<Arc<Region>> {
        let inner = self.inner.lock();
        inner.space.as_ref().and_then(|space| space.regions.get(first..)).unwrap_or_default().to_vec()
    }

    /// The server announced a region.
    pub(super) fn adopt(&self, region: Region) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        let bytes = region.len() as u64;
        let Some(mut space) = inner.space.take() else { return Ok(()) };
        let adopted = if space.regions.len() < MAX_REGIONS {
            // The place is taken while this reserves: no region is made here.
            self.reserve(&mut inner, bytes)
        } else {
            Err(Error::new(Status::Memory, format!("the buffer area has more than {MAX_REGIONS} regions")))
        };
        if adopted.is_ok() {
            space.regions.push(Arc::new(region));
        }
        inner.space = Some(space);
        adopted
    }

    /// The buffer of a command that the server sent, of which `incoming` bytes are worth reading.
    pub(super) fn view(self: &Arc<Self>, place: Place, incoming: usize) -> Result<Buffer, &'static str> {
        let mut inner = self.inner.lock();
        let layout = inner.view_layout(place);
        let taken = inner.taken.saturating_add(layout.stride() as u64);
        let is_counted = taken <= inner.capacity;
        let Some(space) = &mut inner.space else { return Err("a buffer of a set that is closed") };
        let region = Arc::clone(space.find(place, layout.prefix)?);
        let (from, to) = (place.offset - layout.prefix as u64, place.offset + u64::from(place.len));
        let before = space.in_use.range(..=(place.region, to - 1)).next_back();
        if before.is_some_and(|((region, _), end)| *region == place.region && *end > from) {
            return Err("a buffer that overlaps another one");
        }
        // Small buffers take a whole alignment each, and so do the private copies of them.
        if !is_counted {
            return Err("more buffers than the area has room for");
        }
        space.in_use.insert((place.region, from), to);
        inner.taken = taken;
        drop(inner);
        let shared = SharedBuffer::new(&region, place, layout, incoming, Origin::Told);
        Ok(Buffer { memory: Box::new(Memory::Shared(shared)), area: Arc::clone(self), lease: None })
    }

    /// The buffer behind a handle.
    pub(super) fn map(self: &Arc<Self>, place: Place) -> Option<Buffer> {
        let inner = self.inner.lock();
        let layout = inner.view_layout(place);
        let region = Arc::clone(inner.space.as_ref()?.find(place, layout.prefix).ok()?);
        drop(inner);
        let shared = SharedBuffer::new(&region, place, layout, layout.size, Origin::Mapped);
        Some(Buffer { memory: Box::new(Memory::Shared(shared)), area: Arc::clone(self), lease: None })
    }

    pub(super) fn put_back_shared(&self, mut shared: SharedBuffer) {
        let block = shared.private.take();
        let mut inner = self.inner.lock();
        if inner.is_detached || shared.origin == Origin::Mapped {
            return;
        }
        inner.taken -= shared.layout.stride() as u64;
        if let Some(space) = &mut inner.space {
            match shared.origin {
                Origin::Ours => space.put_back(&shared),
                Origin::Told => {
                    let from = shared.place.offset - shared.layout.prefix as u64;
                    space.in_use.remove(&(shared.place.region, from));
                }
                Origin::Mapped => {}
            }
        }
        inner.free.extend(block);
    }

    fn recycle(&self, block: Block) {
        let mut inner = self.inner.lock();
        if !inner.is_detached {
            inner.free.push(block);
        }
    }
}

impl super::area::Inner {
    fn view_layout(&self, place: Place) -> Layout {
        Layout { prefix: self.prefix, alignment: self.alignment.max(1), size: place.len as usize }
    }
}

fn place(region: usize, offset: u64, len: usize) -> Place {
    // At most `MAX_REGIONS`, and at most the size of a buffer.
    Place { region: u32::try_from(region).unwrap_or(u32::MAX), offset, len: u32::try_from(len).unwrap_or(u32::MAX) }
}

fn unexpected(error: ShmError) -> Error {
    let error = crate::Error::new(crate::ErrorKind::Internal, "shared memory").with_source(error);
    Error::from(Status::Unexpected).because(Some(error))
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Each is a file and a mapping in every process of the set.
const MAX_REGIONS: usize = 256;
const PAGE: u64 = 4096;
/// One largest alignment.
const GAP: u64 = 65_536;
