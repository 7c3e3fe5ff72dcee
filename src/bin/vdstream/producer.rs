//! Where a backup's bytes come from: a program's stdout, stdin, files and FIFOs.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::process::{Child, ChildStdin, ChildStdout};
use vdstream::{Error, ErrorKind, Result};

/// One stripe's source.
pub(crate) struct Source {
    /// What to call it in messages.
    pub(crate) name: String,
    pub(crate) bytes: Pin<Box<dyn AsyncRead + Send>>,
}

/// How long a child gets between the polite and the final signal.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// A program whose stdout is backed up, or whose stdin is fed.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts `command` with its stdout connected to the returned reader.
    pub(crate) fn producer(command: &[OsString]) -> Result<(Self, ChildStdout)> {
        let mut program = Self::start(command, Stdio::null(), Stdio::piped())?;
        let stdout =
            program.child.stdout.take().ok_or_else(|| Error::new(ErrorKind::Internal, "no pipe to the program"))?;
        widen(&stdout);
        Ok((program, stdout))
    }

    /// Starts `command` with its stdin connected to the returned writer.
    pub(crate) fn consumer(command: &[OsString]) -> Result<(Self, ChildStdin)> {
        let mut program = Self::start(command, Stdio::piped(), Stdio::inherit())?;
        let stdin =
            program.child.stdin.take().ok_or_else(|| Error::new(ErrorKind::Internal, "no pipe to the program"))?;
        widen(&stdin);
        Ok((program, stdin))
    }

    fn start(command: &[OsString], stdin: Stdio, stdout: Stdio) -> Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(Error::new(ErrorKind::Invalid, "no program is named after `--`"));
        };
        let name = program.to_string_lossy().into_owned();
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(stdin)
            .stdout(stdout)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::from(error).context(format!("cannot start `{name}`")))?;
        Ok(Self { name, child })
    }

    /// Waits for the program's end; anything but success is an error that names it.
    pub(crate) async fn success(&mut self) -> Result<ExitStatus> {
        let status = self
            .child
            .wait()
            .await
            .map_err(|error| Error::from(error).context(format!("cannot wait for `{}`", self.name)))?;
        if status.success() {
            Ok(status)
        } else {
            Err(Error::new(ErrorKind::Aborted, format!("`{}` failed ({status}): see what it said above", self.name)))
        }
    }

    /// Ends the program: politely, and after a few seconds by force.
    pub(crate) async fn stop(&mut self) {
        if let Some(pid) =
            self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // An error means that the program has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        #[expect(clippy::disallowed_methods, reason = "the tool runs in real time")]
        let ended = tokio::time::timeout(KILL_AFTER, self.child.wait()).await;
        if ended.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Stdin as a stripe.
pub(crate) async fn stdin() -> Result<Source> {
    if std::io::stdin().is_terminal() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "stdin is a terminal: pipe the data in, or name a program after `--`",
        ));
    }
    // Opened anew, so that making it non-blocking does not change it for the process that shares it with us.
    let bytes: Pin<Box<dyn AsyncRead + Send>> = match tokio::fs::File::open("/dev/stdin").await {
        Ok(file) => open_pipe_or_file(file).await?,
        Err(_not_to_be_opened_again) => Box::pin(tokio::io::stdin()),
    };
    Ok(Source { name: "stdin".to_owned(), bytes })
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
fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

/// The default of `/proc/sys/fs/pipe-max-size`.
const PIPE_BYTES: usize = 1 << 20;

/// Bytes per read of a file.
const READ_BYTES: usize = 1 << 20;
