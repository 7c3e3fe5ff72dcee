//! Where a backup's bytes come from: stdin, files and FIFOs, and any other reader.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use tokio::io::AsyncRead;
use vdstream::{Error, ErrorKind, Result};

/// One stripe's source.
pub(crate) struct Source {
    /// What to call it in messages.
    pub(crate) name: String,
    pub(crate) bytes: Pin<Box<dyn AsyncRead + Send>>,
}

/// Stdin as a stripe.
pub(crate) async fn stdin() -> Result<Source> {
    if std::io::stdin().is_terminal() {
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
    // Opened anew, so that making it non-blocking does not change it for the process that shares it with us.
    let bytes: Pin<Box<dyn AsyncRead + Send>> = match tokio::fs::File::open("/dev/stdin").await {
        Ok(file) => open_pipe_or_file(file).await?,
        Err(_not_to_be_opened_again) => Box::pin(tokio::io::stdin()),
    };
    Ok(Source { name: "stdin".to_owned(), bytes })
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
    let failed = |error: std::io::Error| Error::from(error).context(format!("cannot read {name}"));
    if tokio::fs::metadata(path).await.map_err(failed)?.is_dir() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{name} is a directory: back it up with `-- tar c {name}`"),
        ));
    }
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let bytes = open_pipe_or_file(file).await.map_err(|error| error.context(format!("cannot read {name}")))?;
    Ok(Source { name, bytes })
}

/// Pipes are read when they are ready, without a thread; files by Tokio's blocking pool.
async fn open_pipe_or_file(mut file: tokio::fs::File) -> Result<Pin<Box<dyn AsyncRead + Send>>> {
    if file.metadata().await?.file_type().is_fifo() {
        widen(&file);
        return Ok(Box::pin(tokio::net::unix::pipe::Receiver::from_file(file.into_std().await)?));
    }
    file.set_max_buf_size(READ_BYTES);
    Ok(Box::pin(file))
}

/// Asks for a pipe as large as an ordinary user may have: fewer wake-ups per byte. A refusal costs only speed.
pub(crate) fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

/// The default of `/proc/sys/fs/pipe-max-size`.
pub(crate) const PIPE_BYTES: usize = 1 << 20;

/// Bytes per read of a file.
const READ_BYTES: usize = 1 << 20;
