//! The file system calls beneath local stores: staged files, publishing without overwriting, durable directories.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{Advice, RenameFlags};

/// Creates `path` for writing, and the directories above it down from `root`. Fails if it exists.
pub(super) fn create_file(root: &Path, path: &Path) -> io::Result<File> {
    // Somebody else who removes the last object of a directory may remove the directory in between.
    const ATTEMPTS: usize = 8;
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for _ in 0..ATTEMPTS {
        outcome = OpenOptions::new().write(true).create_new(true).open(path);
        match &outcome {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    create_directories(root, parent)?;
                }
            }
            _ => break,
        }
    }
    outcome
}

/// Creates `path` and what is missing above it; the new entries are durable on return.
pub(super) fn create_directories(root: &Path, path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = Vec::new();
    let mut next = Some(path);
    while let Some(directory) = next {
        if directory.is_dir() {
            break;
        }
        missing.push(directory);
        next = directory.parent();
    }
    for directory in missing.into_iter().rev() {
        match fs::create_dir(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Removed again by somebody's clean-up below the root; the caller tries again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory.starts_with(root) => return Ok(()),
            Err(error) => return Err(error),
        }
        sync_parent(directory)?;
    }
    Ok(())
}

/// Writes all of `payload` at `offset` without joining it first.
pub(super) fn write_at(file: &File, payload: &[Bytes], mut offset: u64) -> io::Result<()> {
    for piece in payload.iter().flat_map(|bytes| bytes.chunks(WRITE_BYTES)) {
        file.write_all_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Bytes of one write call. For larger ones some file systems take larger runs of memory, which a virtual machine may have to get
/// from its host: measured on ext4 with memory that the host had taken back, 0.6 GB took 0.4 to 0.6 s of system time in pieces of
/// 32 KiB, and 0.7 to 1.1 s in pieces of 128 KiB.
const WRITE_BYTES: usize = 32 << 10;

/// Asks the kernel to start writing this range to the disk now, so that the sync at the end is short.
///
/// On Linux `DONTNEED` starts the write-back of dirty pages and drops only clean ones, which a backup does not read
/// again soon. Elsewhere, and if it fails, nothing is lost but time.
pub(super) fn start_write_back(file: &File, offset: u64, len: u64) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(len), Advice::DontNeed);
}

/// Gives the complete and synced file `staged` its final name, unless that is taken, and makes the name durable.
pub(super) fn publish(staged: &Path, destination: &Path) -> io::Result<()> {
    use rustix::io::Errno;
    let renamed =
        rustix::fs::renameat_with(rustix::fs::CWD, staged, rustix::fs::CWD, destination, RenameFlags::NOREPLACE);
    match renamed {
        Ok(()) => {}
        // File systems without that flag (some network ones) have links that do not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(staged, destination)?;
            fs::remove_file(staged)?;
        }
        Err(error) => return Err(error.into()),
    }
    sync_parent(destination)
}

/// Makes the entries of the directory that holds `path` durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(()),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes a file durably, then the directories that it leaves empty, up to but not including `root`.
pub(super) fn remove(root: &Path, path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    match sync_parent(path) {
        // The directory may be gone already: another removal emptied it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        outcome => outcome?,
    }
    remove_empty_parents(root, path);
    Ok(())
}

/// Removes the directories above `path` that are empty, up to but not including `root`.
pub(super) fn remove_empty_parents(root: &Path, path: &Path) {
    let mut directory = path.parent();
    while let Some(current) = directory {
        if current == root || !current.starts_with(root) || fs::remove_dir(current).is_err() {
            break;
        }
        directory = current.parent();
    }
}

/// The name of the staging file of `destination` for upload `id`. It is an ordinary object name, so that a listing
/// shows what a crash left behind.
pub(super) fn staged_path(destination: &Path, id: &str) -> PathBuf {
    let mut name = destination.as_os_str().to_owned();
    name.push(".partial-");
    name.push(id);
    PathBuf::from(name)
}
