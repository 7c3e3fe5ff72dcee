//! One buffer of a pool: written by one owner, then frozen and shared.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::pool::Shared;

/// A slot with one owner: bytes are appended to it until it is full or frozen.
///
/// Dropping it gives the slot back to its pool.
pub struct SlotMut {
    memory: Memory,
    filled: usize,
}

/// The bytes of a slot and its place in the pool; both go back together.
struct Memory {
    bytes: Vec<u8>,
    pool: Arc<Shared>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.bytes));
    }
}

impl SlotMut {
    pub(super) fn new(bytes: Vec<u8>, pool: Arc<Shared>) -> Self {
        Self { memory: Memory { bytes, pool }, filled: 0 }
    }

    /// The size of the slot, in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.bytes.len()
    }

    /// The number of bytes written so far.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// True if nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// True if nothing more fits.
    pub fn is_full(&self) -> bool {
        self.filled == self.capacity()
    }

    /// Appends as much of `source` as fits; returns how much that was.
    pub fn put(&mut self, source: &[u8]) -> usize {
        let spare = self.spare_mut();
        let count = source.len().min(spare.len());
        spare[..count].copy_from_slice(&source[..count]);
        self.filled += count;
        count
    }

    /// The bytes written so far.
    pub fn filled(&self) -> &[u8] {
        &self.memory.bytes[..self.filled]
    }

    /// The bytes written so far, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[..self.filled]
    }

    /// The rest of the slot, to be written and then counted by [`SlotMut::advance`]. Its content is arbitrary.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        &mut self.memory.bytes[self.filled..]
    }

    /// Counts `count` bytes of [`SlotMut::spare_mut`] as written.
    ///
    /// # Panics
    ///
    /// If `count` is more than the slot has left.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.capacity() - self.filled, "advanced past the end of the slot");
        self.filled += count;
    }

    /// Forgets what was written; the slot can be filled again.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Makes the written bytes read-only and shared.
    pub fn freeze(self) -> Slot {
        Slot { memory: Arc::new(self.memory), len: self.filled }
    }
}

impl fmt::Debug for SlotMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMut").field("len", &self.filled).field("capacity", &self.capacity()).finish()
    }
}

/// The written bytes of a slot, shared and read-only; the slot returns to its pool with the last clone.
#[derive(Clone)]
pub struct Slot {
    memory: Arc<Memory>,
    len: usize,
}

impl Slot {
    /// The same bytes as [`Bytes`], without copying.
    pub fn into_bytes(self) -> Bytes {
        if self.len == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Slot {
    fn as_ref(&self) -> &[u8] {
        &self.memory.bytes[..self.len]
    }
}

impl std::ops::Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("len", &self.len).finish()
    }
}
