//! Words that the clients of one set share: who has opened which device, and which buffers are lent.
//!
//! Answers are needed at once, without asking another process, so they are atomic words. A client that writes nonsense here
//! harms its own set only: a place found here is checked like one that came in a message.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::Place;
use super::{Region, ShmError};

/// The clients' shared words. The server never gets them.
///
/// ```text
/// word 0           one bit per device: a client has opened it
/// word 1 + 4n      handle n: state in bits 0..2, generation above
/// word 2 + 4n ..   handle n: region, offset, length
/// ```
#[derive(Debug)]
pub(crate) struct Control {
    region: Region,
}

/// What came of returning a lent buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// Nobody has it mapped.
    Here,
    /// Somebody has: whoever maps it gives it back.
    Mapped,
}

impl Control {
    /// The size of its file.
    pub(crate) const BYTES: usize = (1 + 4 * HANDLES) * size_of::<u64>();
    pub(crate) fn create() -> Result<Self, ShmError> {
        Ok(Self { region: Region::create(Self::BYTES)? })
    }

    pub(crate) fn adopt(file: OwnedFd) -> Result<Self, ShmError> {
        Ok(Self { region: Region::adopt(file, Self::BYTES as u64)? })
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.region.file()
    }

    /// True if nobody had claimed the device before.
    pub(crate) fn claim(&self, device: usize) -> bool {
        let bit = 1 << (device % 64);
        self.word(0).is_some_and(|word| word.fetch_or(bit, Ordering::AcqRel) & bit == 0)
    }

    /// Enters a buffer. `None` if too many are lent.
    pub(crate) fn lend(&self, place: Place) -> Option<u32> {
        for index in 0..HANDLES {
            let state = self.state(index)?;
            let old = state.load(Ordering::Acquire);
            if old & MASK != FREE {
                continue;
            }
            let generation = (old >> 2).wrapping_add(1) & MAX_GENERATION;
            let taken = state.compare_exchange(old, generation << 2 | MAPPED, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_err() {
                continue;
            }
            let fields = [u64::from(place.region), place.offset, u64::from(place.len)];
            for (number, value) in fields.into_iter().enumerate() {
                self.word(2 + 4 * index + number)?.store(value, Ordering::Relaxed);
            }
            state.store(generation << 2 | HERE, Ordering::Release);
            return u32::try_from(generation << INDEX_BITS | index as u64).ok();
        }
        None
    }

    /// Maps a lent buffer for one party: `Some(None)` while another one has it, `None` if there is no such handle.
    pub(crate) fn map(&self, handle: u32) -> Option<Option<Place>> {
        let (index, generation) = split(handle);
        let state = self.state(index)?;
        let (here, mapped) = (generation << 2 | HERE, generation << 2 | MAPPED);
        match state.compare_exchange(here, mapped, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let field = |number| self.word(2 + 4 * index + number).map(|word| word.load(Ordering::Relaxed));
                let (region, offset, len) = (field(0)?, field(1)?, field(2)?);
                Some(Some(Place { region: u32::try_from(region).ok()?, offset, len: u32::try_from(len).ok()? }))
            }
            Err(other) if other == mapped => Some(None),
            Err(_) => None,
        }
    }

    /// The party that mapped it is done. False if the command has ended meanwhile: then the buffer is to be returned.
    pub(crate) fn unmap(&self, handle: u32) -> bool {
        let (index, generation) = split(handle);
        let Some(state) = self.state(index) else { return true };
        let (here, mapped) = (generation << 2 | HERE, generation << 2 | MAPPED);
        if state.compare_exchange(mapped, here, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return true;
        }
        state.store(generation << 2 | FREE, Ordering::Release);
        false
    }

    /// The command that lent the buffer ends.
    pub(crate) fn end(&self, handle: u32) -> Returned {
        let (index, generation) = split(handle);
        let Some(state) = self.state(index) else { return Returned::Here };
        let here = generation << 2 | HERE;
        match state.compare_exchange(here, generation << 2 | FREE, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Returned::Here,
            Err(_) => {
                let mapped = generation << 2 | MAPPED;
                match state.compare_exchange(mapped, generation << 2 | GONE, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => Returned::Mapped,
                    // Given back just now, or nonsense; in both cases nobody will return it later.
                    Err(_) => {
                        state.store(generation << 2 | FREE, Ordering::Release);
                        Returned::Here
                    }
                }
            }
        }
    }

    fn state(&self, index: usize) -> Option<&AtomicU64> {
        if index < HANDLES { self.word(1 + 4 * index) } else { None }
    }

    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.region.word(index).ok()
    }
}

fn split(handle: u32) -> (usize, u64) {
    ((handle & ((1 << INDEX_BITS) - 1)) as usize, u64::from(handle >> INDEX_BITS))
}

const FREE: u64 = 0;
const HERE: u64 = 1;
const MAPPED: u64 = 2;
const GONE: u64 = 3;
const MASK: u64 = 3;
const INDEX_BITS: u32 = 10;
/// Buffers that can be lent at once. Each is held by a command, so more are rarely possible.
const HANDLES: usize = 1 << INDEX_BITS;
/// A handle's number is the generation above the index, in 32 bits.
const MAX_GENERATION: u64 = (1 << (32 - INDEX_BITS)) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Place {
        Place { region: 0, offset, len: 512 }
    }

    #[test]
    fn a_device_is_claimed_once_whoever_asks() {
        let ours = Control::create().unwrap();
        let theirs = Control::adopt(ours.file().try_clone_to_owned().unwrap()).unwrap();
        for device in [0, 1, 63] {
            assert!(ours.claim(device));
            assert!(!theirs.claim(device));
        }
        assert!(theirs.claim(62));
    }

    #[test]
    fn a_handle_maps_for_one_party_at_a_time_until_its_command_ends() {
        let control = Control::create().unwrap();
        let handle = control.lend(place(4096)).unwrap();
        assert_eq!(control.map(handle), Some(Some(place(4096))));
        assert_eq!(control.map(handle), Some(None));
        assert!(control.unmap(handle));
        assert_eq!(control.map(handle), Some(Some(place(4096))));
        assert_eq!(control.end(handle), Returned::Mapped);
        assert_eq!(control.map(handle), None);
        assert!(!control.unmap(handle), "whoever maps it returns it");
        let next = control.lend(place(0)).unwrap();
        assert_ne!(next, handle, "a number is not used twice");
        assert_eq!(control.map(handle), None);
        assert_eq!(control.end(next), Returned::Here);
    }

    #[test]
    fn as_many_as_there_are_places_can_be_lent() {
        let control = Control::create().unwrap();
        let handles: Vec<u32> = (0..HANDLES).map(|_| control.lend(place(0)).unwrap()).collect();
        assert_eq!(control.lend(place(0)), None);
        assert_eq!(control.end(handles[HANDLES - 1]), Returned::Here);
        assert!(control.lend(place(0)).is_some());
        for wrong in [0, u32::MAX] {
            assert_eq!(control.map(wrong), None);
        }
    }
}
