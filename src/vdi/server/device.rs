//! The server's end of a device.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::answer::{CommandFuture, Completion, Recipient};
use super::super::code::{CommandCode, CompletionCode};
use super::super::core::Core;
use super::super::device_state::DevicePhase;
use super::super::status::{Error, Status};
use super::super::waiters::Place;
use super::{Command, SendError};

/// The server's end of one device.
///
/// It can be shared between tasks. Dropping it closes nothing: the device stays open, and closing the set will say so.
#[derive(Debug)]
pub struct Device {
    core: Arc<Core>,
    index: usize,
    name: String,
    /// Where `poll_ready` waits.
    place: Place,
}

impl Device {
    pub(crate) fn new(core: &Arc<Core>, index: usize) -> Self {
        Self { core: Arc::clone(core), index, name: core.device_name(index), place: Place::default() }
    }

    /// The device's name; the first of a set is named like the set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's place in its set, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Where the device is in its life.
    pub fn phase(&self) -> DevicePhase {
        self.core.device_phase(self.index)
    }

    /// Sends a command; never waits. The future resolves once, when the completion agent answers.
    ///
    /// # Errors
    ///
    /// The error gives the command and its buffer back. `QueueFull`; `IoError` while the device is in error;
    /// `Protocol` if the device is not open; `Abort` with the reason after an abort; `Invalid` for a transfer out of its
    /// bounds; `NotSupported` for a command that the configuration excludes.
    pub fn send(&self, command: Command) -> Result<CommandFuture, SendError> {
        let (recipient, future) = Recipient::future();
        self.core.send(self.index, command, recipient).map_err(SendError::new)?;
        Ok(future)
    }

    /// Sends a command; `callback` gets the answer on the completion agent. It runs exactly once in any case.
    ///
    /// A callback must not block. Set and devices may be used in it; waiting for the set's closing there reports `Busy`.
    ///
    /// # Errors
    ///
    /// As [`Device::send`]. The callback has run on this task then, with the code that belongs to the error and the
    /// command's buffer; the return value is not a second failure.
    pub fn send_with(&self, command: Command, callback: impl FnOnce(Completion) + Send + 'static) -> Result<(), Error> {
        let Err(refused) = self.core.send(self.index, command, Recipient::Callback(Box::new(callback))) else {
            return Ok(());
        };
        let error = refused.error;
        let completion = Completion {
            code: refusal_code(error.status()),
            buffer: refused.command.into_buffer(),
            reason: error.reason().cloned(),
            ..Completion::default()
        };
        refused.recipient.answer(completion);
        Err(error)
    }

    /// Sends a command as soon as the queue has room.
    ///
    /// # Errors
    ///
    /// As [`Device::send`], without `QueueFull`.
    ///
    /// # Cancel safety
    ///
    /// Not sent if dropped while it waits; the command and its buffer are dropped with it.
    pub async fn send_when_ready(&self, command: Command) -> Result<CommandFuture, SendError> {
        let mut command = command;
        let mut waiter = RoomWaiter { device: self, place: Place::default() };
        loop {
            // A refusal for another reason than a full queue is told by `send`, which gives the command back.
            let _told_by_send = poll_fn(|cx| waiter.poll(command.code(), cx)).await;
            match self.send(command) {
                Err(error) if error.status() == Status::QueueFull => command = error.into_command(),
                sent => return sent,
            }
        }
    }

    /// Ready when the queue has room for a command, for adapters that poll.
    ///
    /// With one task sending, a following [`Device::send`] does not report `QueueFull`.
    ///
    /// # Errors
    ///
    /// `IoError`, `Protocol` or `Abort`, as [`Device::send`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.core.poll_room(self.index, CommandCode::Write, &mut self.place, cx.waker())
    }

    /// Closes the device. Commands that are queued are still delivered; then the client learns of the close.
    ///
    /// In a device that is in error, a withheld `ClearError` is answered as aborted. Answers that are outstanding still come.
    ///
    /// # Errors
    ///
    /// `Close` if it is closed already, `Abort` with the reason after an abort (nothing is done then),
    /// `Protocol` after the set was closed.
    pub fn close(&self) -> Result<(), Error> {
        self.core.server_close_device(self.index)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.core.forget_room_waiter(self.index, &mut self.place);
    }
}

struct RoomWaiter<'a> {
    device: &'a Device,
    place: Place,
}

impl RoomWaiter<'_> {
    fn poll(&mut self, code: CommandCode, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.device.core.poll_room(self.device.index, code, &mut self.place, cx.waker())
    }
}

impl Drop for RoomWaiter<'_> {
    fn drop(&mut self) {
        self.device.core.forget_room_waiter(self.device.index, &mut self.place);
    }
}

/// The completion code that belongs to a refused send.
fn refusal_code(status: Status) -> CompletionCode {
    match status {
        Status::QueueFull => CompletionCode::NoSystemResources,
        Status::IoError => CompletionCode::IoDevice,
        Status::Abort => CompletionCode::OperationAborted,
        Status::Invalid => CompletionCode::InvalidParameter,
        Status::NotSupported => CompletionCode::NotSupported,
        _ => CompletionCode::InvalidHandle,
    }
}
