//! A program beside the backup: the producer whose stdout is stored, or the consumer whose stdin is fed.

use std::ffi::OsString;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use vdstream::{Error, ErrorKind, Result};

use crate::producer::{PIPE_BYTES, widen};

/// How long a program gets between the polite and the final signal.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// How long the output of a program that has ended may stay open without a byte.
const OUTLIVE: Duration = Duration::from_secs(10);

/// A program in a process group of its own, so that what it starts ends with it.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    /// Cancelled when the program has ended.
    ended: CancellationToken,
}

/// The process group of the program that runs, for the way out without clean-up; 0 is none.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// That program reads what this process writes.
static IS_FED: AtomicBool = AtomicBool::new(false);

impl Program {
    /// Starts `command` with its stdout connected to the returned reader.
    pub(crate) fn producer(command: &[OsString]) -> Result<(Self, Output)> {
        let mut program = Self::start(command, Stdio::null(), Stdio::piped())?;
        let stdout =
            program.child.stdout.take().ok_or_else(|| Error::new(ErrorKind::Internal, "no pipe to the program"))?;
        widen(&stdout);
        let output = Output::new(&program, stdout);
        Ok((program, output))
    }

    /// Starts `command` with its stdin connected to the returned writer.
    pub(crate) fn consumer(command: &[OsString]) -> Result<(Self, ChildStdin)> {
        let mut program = Self::start(command, Stdio::piped(), Stdio::inherit())?;
        let stdin =
            program.child.stdin.take().ok_or_else(|| Error::new(ErrorKind::Internal, "no pipe to the program"))?;
        widen(&stdin);
        IS_FED.store(true, Ordering::Relaxed);
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
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::from(error).context(format!("cannot start `{name}`")))?;
        GROUP.store(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or(0), Ordering::Relaxed);
        Ok(Self { name, child, ended: CancellationToken::new() })
    }

    /// Waits for the program's end; anything but success is an error that names it.
    pub(crate) async fn success(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await;
        self.ended.cancel();
        let status = status.map_err(|error| Error::from(error).context(format!("cannot wait for `{}`", self.name)))?;
        if status.success() {
            Ok(status)
        } else {
            Err(Error::new(ErrorKind::Aborted, format!("`{}` failed ({status}): see what it said above", self.name)))
        }
    }

    /// Ends the program and everything in its group: politely, and after a few seconds by force. Whoever feeds it keeps its stdin
    /// open until then, because its end would say that the data is complete.
    pub(crate) async fn stop(&mut self) {
        signal_group(Signal::TERM);
        #[expect(clippy::disallowed_methods, reason = "the tool runs in real time")]
        let _ended = tokio::time::timeout(KILL_AFTER, self.child.wait()).await;
        // What the program started may have stayed, whether or not it has ended itself.
        signal_group(Signal::KILL);
        let _ended = self.child.wait().await;
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        GROUP.store(0, Ordering::Relaxed);
    }
}

/// Ends the program that runs, if any, when nobody will wait for it. One that is fed ends by force, because its stdin is closed
/// with this process and looks complete.
pub(crate) fn leave() {
    signal_group(if IS_FED.load(Ordering::Relaxed) { Signal::KILL } else { Signal::TERM });
}

/// Sends `signal` to the program that runs, if any, and to what it has started.
fn signal_group(signal: Signal) {
    if let Some(group) = Pid::from_raw(GROUP.load(Ordering::Relaxed)) {
        // An error means that nothing of it runs any more.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// The stdout of a program.
///
/// Its end comes when nobody holds it any more. Something that the program has started can hold it after the program's own
/// end; then the exit status, which decides about the backup, says nothing about what is still to come. So once the program has
/// ended, the rest must come to its end within [`OUTLIVE`] and be no more than what the pipe can hold.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: ChildStdout,
    name: String,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    is_ended: bool,
    /// Bytes that the program can have left in the pipe.
    left: usize,
    limit: Option<Pin<Box<Sleep>>>,
}

impl Output {
    fn new(program: &Program, stdout: ChildStdout) -> Self {
        let ended = Box::pin(program.ended.clone().cancelled_owned());
        Self { stdout, name: program.name.clone(), ended, is_ended: false, left: PIPE_BYTES, limit: None }
    }

    fn outlived(&self, what: &str) -> io::Error {
        let message = format!(
            "`{}` has ended, but something that it started {what} its stdout, so nobody says whether the data is complete: \
             let the program wait for what it starts",
            self.name
        );
        Error::new(ErrorKind::Aborted, message).into()
    }
}

impl AsyncRead for Output {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stdout).poll_read(cx, buffer) {
            let count = buffer.filled().len() - before;
            if this.is_ended && read.is_ok() {
                let Some(left) = this.left.checked_sub(count) else {
                    return Poll::Ready(Err(this.outlived("still writes to")));
                };
                this.left = left;
            }
            return Poll::Ready(read);
        }
        if !this.is_ended {
            ready!(this.ended.as_mut().poll(cx));
            this.is_ended = true;
        }
        #[expect(clippy::disallowed_methods, reason = "the tool runs in real time")]
        let limit = this.limit.get_or_insert_with(|| Box::pin(tokio::time::sleep(OUTLIVE)));
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Err(this.outlived("still holds")))
    }
}
