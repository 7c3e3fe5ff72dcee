//! The agent's side of a restore stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::device_stream::answer;
use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::vdi::client::{Command, Completion, Device, DeviceSet};
use crate::vdi::{CommandCode, CompletionCode, Status};

/// Feeds an engine that restores: `AsyncWrite` that answers the `Read` commands of one device.
///
/// * `poll_write` fills the read that the engine waits for; a full one is answered.
/// * `poll_flush` answers a partly filled read, so that the engine sees everything written so far.
/// * `poll_shutdown` reports the end of data and is ready when the engine has closed the device: only then did the engine take
///   everything. It may be polled again after it was ready.
///
/// An engine that closes the device before the end is an error. Dropping the writer before its shutdown aborts the device set.
///
/// # Cancel safety
///
/// `write` is cancel-safe: if it is dropped, nothing of that call was written. `flush` and `shutdown` can be called again.
pub struct ClientWriter {
    set: DeviceSet,
    device: Device,
    filling: Option<Filling>,
    position: u64,
    phase: Phase,
}

struct Filling {
    command: Command,
    len: usize,
}

enum Phase {
    Open,
    Ending,
    Closed,
    Failed(Error),
}

impl ClientWriter {
    /// Takes an open device of `set`.
    pub fn new(set: &DeviceSet, device: Device) -> Self {
        Self { set: set.clone(), device, filling: None, position: 0, phase: Phase::Open }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Ready with the next read; `None` when the engine closed the device. Other commands are answered on the way.
    fn poll_next_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Command>>> {
        loop {
            match ready!(self.device.poll_next_command(cx)) {
                Ok(command) => match command.code() {
                    CommandCode::Read if command.size() > 0 => return Poll::Ready(Ok(Some(command))),
                    CommandCode::Read | CommandCode::Flush | CommandCode::Complete | CommandCode::ClearError => {
                        answer(command, Completion::success());
                    }
                    _ => answer(command, Completion::failed(CompletionCode::NotSupported)),
                },
                Err(error) if error.status() == Status::Close => return Poll::Ready(Ok(None)),
                Err(error) => return Poll::Ready(Err(self.fail(error.into()))),
            }
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        if let Phase::Failed(first) = &self.phase {
            return first.clone();
        }
        self.phase = Phase::Failed(error.clone());
        error
    }

    fn poll_filling(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &self.phase {
            Phase::Open => {}
            Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
            Phase::Ending | Phase::Closed => {
                return Poll::Ready(Err(Error::new(
                    ErrorKind::Closed,
                    format!("device {}: written to after its shutdown", self.device.name()),
                )));
            }
        }
        if self.filling.is_none() {
            let Some(command) = ready!(self.poll_next_read(cx))? else {
                let message = format!(
                    "the engine closed device {} after {} bytes, before the end of the data",
                    self.device.name(),
                    self.position
                );
                return Poll::Ready(Err(self.fail(Error::new(ErrorKind::Aborted, message))));
            };
            self.filling = Some(Filling { command, len: 0 });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &self.phase {
            Phase::Closed => return Poll::Ready(Ok(())),
            Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
            Phase::Open | Phase::Ending => self.phase = Phase::Ending,
        }
        if let Some(Filling { command, len }) = self.filling.take() {
            answer(command, Completion { code: CompletionCode::HandleEof, ..Completion::transferred(len) });
        }
        while let Some(command) = ready!(self.poll_next_read(cx))? {
            answer(command, Completion::failed(CompletionCode::HandleEof));
        }
        self.phase = Phase::Closed;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, source: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if source.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_filling(cx))?;
        let mut count = 0;
        if let Some(Filling { command, len }) = &mut this.filling {
            count = source.len().min(command.size() - *len);
            command.write_at(*len, &source[..count]).map_err(Error::from)?;
            *len += count;
            this.position += count as u64;
        }
        if let Some(Filling { command, len }) = this.filling.take_if(|filling| filling.len == filling.command.size()) {
            answer(command, Completion::transferred(len));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Phase::Failed(error) = &this.phase {
            return Poll::Ready(Err(error.clone().into()));
        }
        if let Some(Filling { command, len }) = this.filling.take_if(|filling| filling.len > 0) {
            answer(command, Completion::transferred(len));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(cx).map_err(io::Error::from)
    }
}

impl Drop for ClientWriter {
    fn drop(&mut self) {
        let reason = match &self.phase {
            Phase::Closed => return,
            Phase::Failed(error) => error.clone(),
            Phase::Open | Phase::Ending => failure::dropped("writer", self.device.name()),
        };
        // An error means that the set has ended already.
        let _ended = self.set.abort(reason);
    }
}

impl fmt::Debug for ClientWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientWriter")
            .field("device", &self.device.name())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
