//! Where a restored stripe goes. A file gets its name only when the whole restore has succeeded.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use vdstream::{Error, ErrorKind, Result};

/// One stripe's destination.
pub(crate) struct Target {
    /// What to call it in messages.
    pub(crate) name: String,
    bytes: Bytes,
    file: Option<PartialFile>,
    safety: Safety,
}

/// What a file is safe from when its restore has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Safety {
    /// From the end of this process: the system has it, and writes it to the disk when it likes.
    Process,
    /// From the end of the machine: it is on the disk.
    Machine,
}

/// At the bottom of an error: whoever reads the target has gone away. The kind of an error does not tell that, because a store
/// has connections of its own that can be closed.
#[derive(Debug)]
struct Left;

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads it any more")
    }
}

impl std::error::Error for Left {}

/// Whether this is the failure of a write to a target that nobody reads any more.
pub(crate) fn is_left(error: &Error) -> bool {
    let mut layer = std::error::Error::source(error);
    while let Some(cause) = layer {
        if cause.is::<Left>() {
            return true;
        }
        layer = cause.source();
    }
    false
}

/// What the failure of a write to a stream is.
fn not_taken(error: io::Error) -> Error {
    let is_left = error.kind() == io::ErrorKind::BrokenPipe;
    let error = Error::from(error);
    if is_left { error.with_source(Left) } else { error }
}

/// How it is written.
enum Bytes {
    /// When it is ready.
    Stream(Pin<Box<dyn AsyncWrite + Send>>),
    /// By calls that may block.
    File(Arc<File>),
}

/// A file that is being written under another name; removed on drop unless it was published.
struct PartialFile {
    partial: PathBuf,
    path: PathBuf,
    is_published: bool,
}

impl Target {
    /// `-` is stdout. FIFOs and devices are written directly, a block device as safely as a file. A regular file is written beside its
    /// place.
    pub(crate) async fn open(path: &Path, safety: Safety) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Ok(Self {
                name: "stdout".to_owned(),
                bytes: Bytes::Stream(Box::pin(tokio::io::stdout())),
                file: None,
                safety,
            });
        }
        let name = path.display().to_string();
        let failed = |error: io::Error| Error::from(error).context(format!("cannot write {name}"));
        let existing = match tokio::fs::metadata(path).await {
            Ok(existing) => Some(existing.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match existing {
            Some(kind) if kind.is_dir() => {
                Err(Error::new(ErrorKind::Invalid, format!("{name} is a directory: name a file in it")))
            }
            Some(kind) if !kind.is_file() => {
                let file = tokio::fs::OpenOptions::new().write(true).open(path).await.map_err(failed)?;
                let bytes = match kind.is_block_device() {
                    // The system keeps what is written to it as it does for files, until it is synced.
                    true => Bytes::File(Arc::new(file.into_std().await)),
                    false => Bytes::Stream(Box::pin(file)),
                };
                Ok(Self { name, bytes, file: None, safety })
            }
            _ => {
                // A link is followed, so that the file it names is replaced and the link stays.
                let path = match existing {
                    Some(_) => tokio::fs::canonicalize(path).await.map_err(failed)?,
                    None => path.to_owned(),
                };
                let partial = partial_name(&path)?;
                let file =
                    tokio::fs::OpenOptions::new().write(true).create_new(true).open(&partial).await.map_err(failed)?;
                let file_at = PartialFile { partial, path, is_published: false };
                if let Ok(old) = tokio::fs::metadata(&file_at.path).await {
                    // Before the first byte: what was private stays private.
                    file.set_permissions(old.permissions()).await.map_err(failed)?;
                }
                let bytes = Bytes::File(Arc::new(file.into_std().await));
                Ok(Self { name, bytes, file: Some(file_at), safety })
            }
        }
    }

    /// A program's stdin.
    pub(crate) fn program(name: String, stdin: tokio::process::ChildStdin) -> Self {
        Self { name, bytes: Bytes::Stream(Box::pin(stdin)), file: None, safety: Safety::Process }
    }

    /// Whether it is written where it is, so that what a restore has written stays even if the restore fails.
    pub(crate) fn is_direct(&self) -> bool {
        self.file.is_none()
    }

    /// Tells how long the file will be. That it does not fit is known at once; and the system has less to do for each write.
    pub(crate) async fn reserve(&self, bytes: u64) -> Result<()> {
        let Bytes::File(file) = &self.bytes else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        let file = Arc::clone(file);
        let reserved =
            blocking(move || Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)).await;
        match reserved {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(Error::from(error).context(format!("cannot write {}", self.name)))
            }
            // Not every file system can do that. A refusal costs only speed.
            _ => Ok(()),
        }
    }

    /// Writes all of `pieces`, which end with the first error.
    pub(crate) async fn fill(&mut self, pieces: impl Stream<Item = Result<bytes::Bytes>>) -> Result<()> {
        let mut pieces = pin!(pieces);
        match &mut self.bytes {
            Bytes::Stream(stream) => {
                while let Some(piece) = pieces.next().await {
                    stream.write_all(&piece?).await.map_err(not_taken)?;
                }
            }
            Bytes::File(file) => {
                let mut position = 0;
                let mut syncs = (self.safety == Safety::Machine).then(Syncs::default);
                // One piece is written while the next one is waited for; two at once would only wait for the file's lock.
                let mut writing: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>> = None;
                while let Some(piece) = pieces.next().await {
                    if let Some(before) = writing.take() {
                        before.await?;
                        if let Some(syncs) = &mut syncs {
                            syncs.go_on(file).await?;
                        }
                    }
                    let (file, piece, start) = (Arc::clone(file), piece?, position);
                    position += piece.len() as u64;
                    writing = Some(Box::pin(blocking(move || write_at(&file, &piece, start))));
                }
                if let Some(last) = writing {
                    last.await?;
                }
                if let Some(syncs) = syncs {
                    syncs.end().await?;
                }
            }
        }
        Ok(())
    }

    /// Everything was written: hands it on and ends the stream. A file is as safe as asked for afterwards, still without its name.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let failed = |error: io::Error| Error::from(error).context(format!("cannot write {}", self.name));
        match &mut self.bytes {
            Bytes::Stream(stream) => {
                let failed = |error| not_taken(error).context(format!("cannot write {}", self.name));
                // The shutdown of stdout does not flush it.
                stream.flush().await.map_err(failed)?;
                stream.shutdown().await.map_err(failed)?;
            }
            Bytes::File(file) if self.safety == Safety::Machine => {
                let file = Arc::clone(file);
                blocking(move || file.sync_all()).await.map_err(failed)?;
            }
            Bytes::File(_) => {}
        }
        // Closes it: a program that reads the other end sees the end of its input.
        self.bytes = Bytes::Stream(Box::pin(tokio::io::sink()));
        Ok(())
    }

    /// Gives a file its name.
    pub(crate) async fn publish(mut self) -> Result<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        let failed = |error: io::Error| Error::from(error).context(format!("cannot write {}", self.name));
        tokio::fs::rename(&file.partial, &file.path).await.map_err(failed)?;
        file.is_published = true;
        if self.safety == Safety::Process {
            return Ok(());
        }
        let directory = match file.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        tokio::fs::File::open(directory).await.map_err(failed)?.sync_all().await.map_err(failed)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_published {
            // It may be gone already; then there is nothing to remove.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Runs a call that may block. It starts now; the answer is for whoever awaits it.
fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> impl Future<Output = io::Result<T>> + Send {
    #[expect(clippy::disallowed_methods, reason = "nothing is left behind: the process ends with the command")]
    let running = tokio::task::spawn_blocking(call);
    async move { running.await.map_err(io::Error::other)? }
}

/// Bytes of one write call. For larger ones some file systems take larger runs of memory, which a virtual machine may have to get
/// from its host: measured on ext4 with memory that the host had taken back, a restore of 1 GB took 0.4 s of system time in pieces
/// of 32 KiB, 1.4 s in pieces of 64 KiB and 1.9 s in pieces of 128 KiB.
const WRITE_BYTES: usize = 32 << 10;

fn write_at(file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
    let mut position = start;
    for piece in bytes.chunks(WRITE_BYTES) {
        file.write_all_at(piece, position)?;
        position += piece.len() as u64;
    }
    Ok(())
}

/// Syncs of a file while it grows, one at a time, so that the sync at its end is short.
///
/// Telling the kernel to begin is not enough: the disk may keep the bytes in a cache of its own. Measured on ext4 in a virtual machine,
/// 1 GB at 1 GB/s: it was safe after 2.6 s, after 2.1 s when the kernel was told to begin every 4 MiB, and after 1.6 s with these.
#[derive(Default)]
struct Syncs {
    running: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send>>>,
}

impl Syncs {
    /// Begins the next one if the one before has ended. A failure is told by it alone: a later sync may succeed all the same.
    async fn go_on(&mut self, file: &Arc<File>) -> io::Result<()> {
        if let Some(running) = &mut self.running {
            match futures::poll!(running.as_mut()) {
                Poll::Pending => return Ok(()),
                Poll::Ready(outcome) => outcome?,
            }
        }
        let file = Arc::clone(file);
        self.running = Some(Box::pin(blocking(move || file.sync_data())));
        Ok(())
    }

    async fn end(self) -> io::Result<()> {
        match self.running {
            Some(running) => running.await,
            None => Ok(()),
        }
    }
}

fn partial_name(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{} is not the name of a file", path.display())))?;
    let mut partial = OsString::from(".");
    partial.push(name);
    // Not the process id: in a container it may be the same again after a kill.
    partial.push(format!(".{}.partial", uuid::Uuid::new_v4().simple()));
    Ok(path.with_file_name(partial))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn partials(directory: &Path) -> Vec<PathBuf> {
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "partial")).collect()
    }

    #[tokio::test]
    async fn what_was_private_stays_private_from_the_first_byte() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        for (mode, safety) in [(0o600, Safety::Machine), (0o640, Safety::Process), (0o755, Safety::Machine)] {
            std::fs::write(&path, b"old").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let mode_of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            let mut target = Target::open(&path, safety).await.unwrap();
            assert_eq!(partials(directory.path()).iter().map(|path| mode_of(path)).collect::<Vec<_>>(), [mode]);
            target.fill(futures::stream::iter([Ok(b"new"[..].into())])).await.unwrap();
            target.finish().await.unwrap();
            target.publish().await.unwrap();
            assert_eq!((mode_of(&path), std::fs::read(&path).unwrap()), (mode, b"new".to_vec()));
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        // Of the same process id, as a container gives it again and again.
        std::mem::forget(Target::open(&path, Safety::Machine).await.unwrap());
        let mut target = Target::open(&path, Safety::Machine).await.unwrap();
        assert_eq!(partials(directory.path()).len(), 2);
        target.fill(futures::stream::iter([Ok(b"new"[..].into())])).await.unwrap();
        target.finish().await.unwrap();
        target.publish().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[tokio::test]
    async fn a_reader_that_went_away_is_told_from_anything_else_that_is_closed() {
        // More than is taken before a write is seen to fail.
        let pieces = || futures::stream::repeat_with(|| Ok(vec![0; 1 << 20].into())).take(64);
        let (stream, reader) = tokio::io::duplex(1);
        drop(reader);
        let target = |bytes| Target { name: "x".to_owned(), bytes, file: None, safety: Safety::Process };
        let error = target(Bytes::Stream(Box::pin(stream))).fill(pieces()).await.unwrap_err();
        assert!(is_left(&error.context("cannot restore")), "whatever is said above it");
        // Of what is written, of the same kind.
        let closed = || Err(Error::new(ErrorKind::Closed, "connection closed"));
        let error = target(Bytes::Stream(Box::pin(tokio::io::sink()))).fill(futures::stream::iter([closed()])).await;
        let error = error.unwrap_err();
        assert_eq!((error.kind(), is_left(&error)), (ErrorKind::Closed, false));
    }

    #[tokio::test]
    async fn room_that_was_reserved_does_not_show() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        // The last is more than any file can have: refused, and not needed.
        for (reserved, len) in [(0, 0), (1, 1), (4096, 4096), (1_000_001, 1_000_001), (u64::MAX, 3)] {
            let mut target = Target::open(&path, Safety::Machine).await.unwrap();
            target.reserve(reserved).await.unwrap();
            target.fill(futures::stream::iter([Ok(vec![1; len].into())])).await.unwrap();
            target.finish().await.unwrap();
            target.publish().await.unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), vec![1; len]);
        }
    }
}
