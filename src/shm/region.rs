//! A sealed memory file and its mapping.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{ShmError, copy};

/// Memory that processes share: an anonymous file whose size is sealed, and this process's mapping of it.
///
/// There is no way to its bytes but [`Region::read`] and [`Region::write`], which check their bounds and copy, and
/// the words of [`Region::word`].
pub(crate) struct Region {
    file: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Region {}
// SAFETY: every access is a volatile or an atomic one, and no reference to a plain byte is made; what several threads do at
// once mixes bytes as what another process does, and a region promises no more.
unsafe impl Sync for Region {}

impl Region {
    /// A new file of `len` bytes, all zero, that nobody can make longer or shorter.
    pub(crate) fn create(len: usize) -> Result<Self, ShmError> {
        let file = memfd_create("vdstream", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        Self::map(file, len)
    }

    /// The file that another process sent, which must be sealed as ours are and have the length that it says.
    pub(crate) fn adopt(file: OwnedFd, len: u64) -> Result<Self, ShmError> {
        // Only memory files know seals: a file on a disk, or of a file system in user space, is refused here.
        let seals = fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        if !seals.contains(SEALS) {
            return Err(ShmError::NotSealed);
        }
        // So can files of huge pages be, but a page that is punched out of one may not come back: an access would fault.
        if i128::from(fstatfs(&file)?.f_type) != TMPFS {
            return Err(ShmError::NotSealed);
        }
        let actual = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        let expected = usize::try_from(len).map_err(|_| ShmError::WrongSize { expected: len, actual })?;
        if actual != len {
            return Err(ShmError::WrongSize { expected: len, actual });
        }
        Self::map(file, expected)
    }

    fn map(file: OwnedFd, len: usize) -> Result<Self, ShmError> {
        if len == 0 || len > MAX_REGION {
            return Err(ShmError::WrongSize { expected: MAX_REGION as u64, actual: len as u64 });
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no memory of this process is replaced. The seals keep the file as long
        // as the mapping, so no access within `len` can fault.
        let base = unsafe { mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(ShmError::NotSealed)?;
        Ok(Self { file, base, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Copies from `offset` on into `target`.
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), ShmError> {
        self.check(offset, target.len())?;
        let source = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: `check` keeps the range within the mapping, which lives as long as `self`.
        unsafe { copy::load(source, target) };
        Ok(())
    }

    /// Copies `source` to `offset`.
    pub(crate) fn write(&self, offset: usize, source: &[u8]) -> Result<(), ShmError> {
        self.check(offset, source.len())?;
        let target = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: `check` keeps the range within the mapping, which lives as long as `self`.
        unsafe { copy::store(source, target) };
        Ok(())
    }

    /// The 64-bit word number `index`, for atomic access.
    ///
    /// This is the one reference into shared memory: onto an atomic, whose type says that others write it.
    pub(super) fn word(&self, index: usize) -> Result<&AtomicU64, ShmError> {
        let offset = index.saturating_mul(size_of::<AtomicU64>());
        self.check(offset, size_of::<AtomicU64>())?;
        let word = self.base.as_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: in bounds by `check`; aligned, because a mapping begins at a page; alive as long as `self`; and callers
        // touch these words by no other way.
        Ok(unsafe { AtomicU64::from_ptr(word) })
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), ShmError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(ShmError::OutOfBounds { offset: offset as u64, len: len as u64, region: self.len as u64 }),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map`, and every borrow of it has ended with `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "the range is one mapping");
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Without the first, a peer could cut the file under a mapping, and an access would kill this process.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// What the kernel says of the file system that memory files of ordinary pages are in.
const TMPFS: i128 = 0x0102_1994;

/// The 4 GiB of a whole buffer area, with room for alignment.
const MAX_REGION: usize = (1 << 32) + (1 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_of_one_file_show_the_same_bytes() {
        let ours = Region::create(8192).unwrap();
        let theirs = Region::adopt(ours.file().try_clone_to_owned().unwrap(), 8192).unwrap();
        ours.write(4000, b"pages").unwrap();
        let mut bytes = [0; 5];
        theirs.read(4000, &mut bytes).unwrap();
        assert_eq!(&bytes, b"pages");
    }

    #[test]
    fn nothing_outside_the_region_is_read_or_written() {
        let region = Region::create(4096).unwrap();
        for (offset, len) in [(4096, 1), (4095, 2), (0, 4097), (usize::MAX, 1), (usize::MAX - 3, 8)] {
            let mut bytes = vec![0; len];
            assert!(matches!(region.read(offset, &mut bytes), Err(ShmError::OutOfBounds { .. })));
            assert!(matches!(region.write(offset, &bytes), Err(ShmError::OutOfBounds { .. })));
        }
        for (offset, len) in [(0, 0), (4096, 0), (0, 4096), (4095, 1)] {
            region.read(offset, &mut vec![0; len]).unwrap();
            region.write(offset, &vec![7; len]).unwrap();
        }
        assert!(region.word(511).is_ok());
        assert!(region.word(512).is_err());
        assert!(region.word(usize::MAX).is_err());
    }

    #[test]
    fn a_file_that_could_be_cut_is_refused() {
        let file = memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 4096).unwrap();
        assert!(matches!(Region::adopt(file.try_clone().unwrap(), 4096), Err(ShmError::NotSealed)));
        fcntl_add_seals(&file, SEALS).unwrap();
        for wrong in [0, 4095, 4097, u64::MAX] {
            assert!(matches!(Region::adopt(file.try_clone().unwrap(), wrong), Err(ShmError::WrongSize { .. })));
        }
        assert!(Region::adopt(file, 4096).is_ok());
        // Not every kernel has files of huge pages.
        if let Ok(huge) = memfd_create("huge", MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB) {
            ftruncate(&huge, 1 << 30).unwrap();
            fcntl_add_seals(&huge, SEALS).unwrap();
            assert!(matches!(Region::adopt(huge, 1 << 30), Err(ShmError::NotSealed)));
        }
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(4096).unwrap();
        assert!(matches!(Region::adopt(disk.into(), 4096), Err(ShmError::NotSealed)));
    }

    #[test]
    fn a_sealed_file_keeps_its_size() {
        let region = Region::create(4096).unwrap();
        for len in [0, 4095, 4097] {
            assert!(ftruncate(region.file(), len).is_err());
        }
    }
}
