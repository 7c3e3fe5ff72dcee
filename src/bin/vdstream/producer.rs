//! Where a backup's bytes come from: stdin, files and FIFOs, and any other reader.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncRead;
use vdstream::{Error, ErrorKind, Result};

/// One stripe's source.
pub(crate) struct Source {
    /// What to call it in messages.
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
    /// Where in a file its first byte is: stdin may be handed over behind what somebody else has read.
    start: u64,
}

impl Source {
    pub(crate) fn new(name: String, bytes: Bytes) -> Self {
        Self { name, bytes, start: 0 }
    }

    /// Goes to `offset`, counted from its first byte, if it is a regular file; answers whether it is one.
    pub(crate) async fn seek(&self, offset: u64) -> Result<bool> {
        let Bytes::File(file) = &self.bytes else { return Ok(false) };
        let (file, start) = (Arc::clone(file), self.start);
        let sought = move || {
            let metadata = file.file.metadata()?;
            let len = metadata.len().saturating_sub(start);
            if metadata.is_file() && len >= offset {
                file.seek(start + offset);
            }
            Ok::<_, io::Error>((metadata.is_file(), len))
        };
        #[expect(clippy::disallowed_methods, reason = "nothing is left behind: the process ends with the command")]
        let sought = tokio::task::spawn_blocking(sought).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let (is_file, len) =
            sought.map_err(|error| Error::from(error).context(format!("cannot read {}", self.name)))?;
        if is_file && len < offset {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{} has {len} bytes, and {offset} bytes of it are stored already: it is another file, or was cut",
                    self.name
                ),
            ));
        }
        Ok(is_file)
    }
}

/// How it is read.
pub(crate) enum Bytes {
    /// When it is ready, without a thread: pipes.
    Stream(Pin<Box<dyn AsyncRead + Send>>),
    /// By calls that may block: files, and whatever cannot be waited for.
    File(Arc<Blocking>),
}

/// What is read by calls that may block, in order.
pub(crate) struct Blocking {
    file: File,
    /// Where the next byte is, if it is where it is asked for: of files and block devices. The position that the system keeps is shared
    /// with whoever has opened a redirected one, and stays: who tries the same command again hands over the same bytes.
    position: Option<AtomicU64>,
}

impl Blocking {
    /// Asks for twice the usual read-ahead. A refusal costs only speed.
    fn new(file: File, start: u64) -> Self {
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let has_positions = file.metadata().is_ok_and(|found| found.is_file() || found.file_type().is_block_device());
        Self { file, position: has_positions.then(|| AtomicU64::new(start)) }
    }

    fn seek(&self, offset: u64) {
        if let Some(position) = &self.position {
            position.store(offset, Ordering::Relaxed);
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(position) = &self.position else { return (&self.file).read(buffer) };
        let count = self.file.read_at(buffer, position.load(Ordering::Relaxed))?;
        position.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    /// Reads until `buffer` is full or the file at its end; returns how much that was.
    pub(crate) fn read_full(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Stdin as a stripe.
pub(crate) async fn stdin() -> Result<Source> {
    if io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "stdin is a terminal: pipe the data in, or name a program after `--`",
        ));
    }
    if is_null_device().await {
        return Err(Error::new(
            ErrorKind::Invalid,
            "stdin is closed or /dev/null: there is nothing to back up (`--input /dev/null` makes an empty stripe)",
        ));
    }
    // Read past the standard library's buffer, which nobody else uses.
    let mut stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let name = "stdin".to_owned();
    // A pipe is opened anew, so that making it non-blocking does not change it for the process that shares it with us. That is
    // refused if the pipe is another user's. One with a name would wait for a writer to come, though its own may have gone already.
    let is_unnamed = || async {
        let link = tokio::fs::read_link("/proc/self/fd/0").await;
        link.is_ok_and(|link| link.as_os_str().as_encoded_bytes().starts_with(b"pipe:"))
    };
    if stdin.metadata()?.file_type().is_fifo()
        && is_unnamed().await
        && let Ok(pipe) = tokio::fs::File::open("/dev/stdin").await
    {
        return Ok(Source::new(name, open_pipe_or_file(pipe).await?));
    }
    // Anything else would begin anew at its first byte, and not where whoever has opened it stands. What cannot be sought is read
    // from where it stands in any case.
    let start = stdin.stream_position().unwrap_or(0);
    widen(&stdin);
    Ok(Source { start, ..Source::new(name, Bytes::File(Arc::new(Blocking::new(stdin, start)))) })
}

/// A closed stdin was replaced by `/dev/null` before this program's first line, so the two cannot be told apart.
async fn is_null_device() -> bool {
    let (stdin, null) = (tokio::fs::metadata("/dev/stdin").await, tokio::fs::metadata("/dev/null").await);
    matches!((stdin, null), (Ok(stdin), Ok(null)) if stdin.file_type().is_char_device() && stdin.rdev() == null.rdev())
}

/// Files and FIFOs as stripes, in the order given. Opening a FIFO waits for its writer; all wait at once, because
/// nobody knows in which order the writers come.
pub(crate) async fn inputs(paths: &[PathBuf]) -> Result<Vec<Source>> {
    futures::future::try_join_all(paths.iter().map(|path| input(path))).await
}

async fn input(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let failed = |error: io::Error| Error::from(error).context(format!("cannot read {name}"));
    if tokio::fs::metadata(path).await.map_err(failed)?.is_dir() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{name} is a directory: back it up with `-- tar c {name}`"),
        ));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let bytes = open_pipe_or_file(file).await.map_err(|error| error.context(format!("cannot read {name}")))?;
    Ok(Source::new(name, bytes))
}

async fn open_pipe_or_file(file: tokio::fs::File) -> Result<Bytes> {
    if file.metadata().await?.file_type().is_fifo() {
        widen(&file);
        let pipe = tokio::net::unix::pipe::Receiver::from_file(file.into_std().await)?;
        return Ok(Bytes::Stream(Box::pin(pipe)));
    }
    Ok(Bytes::File(Arc::new(Blocking::new(file.into_std().await, 0))))
}

/// Asks for a pipe as large as an ordinary user may have: fewer wake-ups per byte. A refusal costs only speed.
pub(crate) fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

/// The default of `/proc/sys/fs/pipe-max-size`.
pub(crate) const PIPE_BYTES: usize = 1 << 20;
