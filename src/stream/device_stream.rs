//! The agent's side of a backup stream, without copying.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;

use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::vdi::client::{Command, Completion, Device, DeviceSet};
use crate::vdi::{CommandCode, CompletionCode, Status};

/// What an engine sends to a device during a backup.
#[derive(Debug)]
pub enum DeviceItem {
    /// The next bytes. They stay in the device's buffer; when the last clone is dropped, the `Write` command is completed.
    Data(Bytes),
    /// Everything before this must be durable before the answer says so; more data may follow.
    Flush(CommandAck),
    /// The true end of the data; everything before it must be durable before the answer says so.
    Complete(CommandAck),
}

/// The answer to a `Flush` or `Complete` command. Dropping it answers "aborted".
#[derive(Debug)]
pub struct CommandAck {
    command: Command,
}

impl CommandAck {
    /// Completes the command: successfully, or with an error that carries the cause to the engine.
    pub fn answer(self, outcome: Result<()>) {
        let result = match outcome {
            Ok(()) => self.command.complete(Completion::success()),
            Err(error) => {
                let code = match error.kind() {
                    ErrorKind::Exhausted => CompletionCode::DiskFull,
                    _ => CompletionCode::IoDevice,
                };
                self.command.fail(code, error)
            }
        };
        // The set may have been aborted meanwhile; the command is answered then.
        if let Err(error) = result {
            tracing::debug!(%error, "late answer to a command");
        }
    }
}

/// The items that an engine sends to one device, in order, until the engine closes it.
///
/// `ClearError` is answered here; commands that a backup stream does not know are answered "not supported". The stream ends
/// when the engine closed the device; an abort is an error with its reason, and the last item. Dropping the stream before its
/// end aborts the device set.
pub struct DeviceStream {
    set: DeviceSet,
    device: Device,
    is_ended: bool,
    is_completed: bool,
}

impl DeviceStream {
    /// Takes an open device of `set`.
    pub fn new(set: &DeviceSet, device: Device) -> Self {
        Self { set: set.clone(), device, is_ended: false, is_completed: false }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// True once the engine sent `Complete`.
    pub fn is_completed(&self) -> bool {
        self.is_completed
    }

    /// The item that a command stands for, if any.
    fn item(&mut self, command: Command) -> Option<DeviceItem> {
        match command.code() {
            CommandCode::Write if command.size() > 0 => {
                Some(DeviceItem::Data(Bytes::from_owner(WrittenBytes { command: Some(command) })))
            }
            CommandCode::Flush => Some(DeviceItem::Flush(CommandAck { command })),
            CommandCode::Complete => {
                self.is_completed = true;
                Some(DeviceItem::Complete(CommandAck { command }))
            }
            CommandCode::Write | CommandCode::ClearError => {
                answer(command, Completion::success());
                None
            }
            _ => {
                answer(command, Completion::failed(CompletionCode::NotSupported));
                None
            }
        }
    }
}

impl Stream for DeviceStream {
    type Item = Result<DeviceItem>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.is_ended {
            match ready!(this.device.poll_next_command(cx)) {
                Ok(command) => {
                    if let Some(item) = this.item(command) {
                        return Poll::Ready(Some(Ok(item)));
                    }
                }
                Err(error) => {
                    this.is_ended = true;
                    if error.status() != Status::Close {
                        return Poll::Ready(Some(Err(Error::from(error))));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for DeviceStream {
    fn drop(&mut self) {
        if !self.is_ended {
            // An error means that the set has ended already.
            let _ended = self.set.abort(failure::dropped("stream", self.device.name()));
        }
    }
}

impl fmt::Debug for DeviceStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceStream")
            .field("device", &self.device.name())
            .field("is_ended", &self.is_ended)
            .finish_non_exhaustive()
    }
}

pub(super) fn answer(command: Command, completion: Completion) {
    // The set may have been aborted meanwhile; the command is answered then.
    if let Err(error) = command.complete(completion) {
        tracing::debug!(%error, "late answer to a command");
    }
}

/// The data of a `Write` command, completed when nobody needs it any more. Success means "taken", not "durable".
struct WrittenBytes {
    command: Option<Command>,
}

impl AsRef<[u8]> for WrittenBytes {
    fn as_ref(&self) -> &[u8] {
        self.command.as_ref().map(Command::data).unwrap_or_default()
    }
}

impl Drop for WrittenBytes {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            let size = command.size();
            answer(command, Completion::transferred(size));
        }
    }
}
