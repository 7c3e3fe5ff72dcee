//! A command in the hands of the client.

use std::fmt;
use std::sync::Arc;

use super::super::area::Buffer;
use super::super::code::{CommandCode, CompletionCode};
use super::super::core::{Core, Taken};
use super::super::device_state::CommandId;
use super::super::status::{Error, Status};
use super::{BufferHandle, Slot};

/// A command that the client has taken and must answer.
///
/// The client owns it, and its buffer, until it completes it. Completing takes the command by value, so nobody completes one
/// twice; dropping it answers `OperationAborted`, which puts the device in error. Commands may be completed in any order and
/// from any task. After an abort or a close the memory stays valid for as long as the command is held.
pub struct Command {
    core: Arc<Core>,
    device: usize,
    id: CommandId,
    code: CommandCode,
    size: usize,
    position: u64,
    buffer: Option<Buffer>,
    /// Where the buffer is once it has a handle.
    lent: Option<(BufferHandle, Arc<Slot>)>,
    is_answered: bool,
}

impl Command {
    pub(crate) fn new(core: &Arc<Core>, device: usize, taken: Taken) -> Self {
        let Taken { id, code, size, position, buffer } = taken;
        Self { core: Arc::clone(core), device, id, code, size, position, buffer, lent: None, is_answered: false }
    }

    /// What is asked.
    pub fn code(&self) -> CommandCode {
        self.code
    }

    /// Bytes to move, for `Read` and `Write`. Other commands use the same field for a count or a choice:
    /// see [`Command::count`] and [`Command::whence`].
    pub fn size(&self) -> usize {
        self.size
    }

    /// The position to work at, for `Read` and `Write` of a random access device and for `SetPosition`.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How far to move, for `SkipMarks` and `SkipBlocks`; negative is backwards.
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "the field holds a 32-bit count")]
    pub fn count(&self) -> i32 {
        self.size as u32 as i32
    }

    /// From where `SetPosition` counts on a random access device: 0 the beginning, 1 the current position, 2 the end.
    pub fn whence(&self) -> usize {
        self.size
    }

    /// The bytes to store, for `Write`; the space to fill, for `Read`; empty for other commands.
    pub fn data(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|data| data.get(..self.size)).unwrap_or_default()
    }

    /// The space to fill, for `Read`.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().and_then(|data| data.get_mut(..self.size)).unwrap_or_default()
    }

    /// Fills `target` with the data from `offset` on. In a set between processes this saves the copy that [`Command::data`]
    /// makes.
    ///
    /// # Errors
    ///
    /// `Invalid` if that is beyond the command's size; nothing is copied then.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        self.check_range(offset, target.len())?;
        match &self.buffer {
            Some(buffer) => buffer.read_at(offset, target),
            None => Ok(()),
        }
    }

    /// Puts `source` into the space to fill, from `offset` on. In a set between processes this saves the copy that
    /// [`Command::data_mut`] makes.
    ///
    /// # Errors
    ///
    /// `Invalid` if that is beyond the command's size; nothing is copied then.
    pub fn write_at(&mut self, offset: usize, source: &[u8]) -> Result<(), Error> {
        self.check_range(offset, source.len())?;
        match &mut self.buffer {
            Some(buffer) => buffer.write_at(offset, source),
            None => Ok(()),
        }
    }

    fn check_range(&self, offset: usize, len: usize) -> Result<(), Error> {
        let size = if self.buffer.is_some() { self.size } else { 0 };
        match offset.checked_add(len) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Error::new(Status::Invalid, format!("{len} bytes at {offset} of a command of {size}"))),
        }
    }

    /// The client's private bytes right before the data; the server never sees them. Empty without a prefix zone.
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map(Buffer::prefix_mut).unwrap_or_default()
    }

    /// Lends the buffer to the other clients of the set, which map it by this number.
    ///
    /// From here on [`Command::data`] is empty: who wants to see the bytes maps them, this client included. Who called
    /// this still completes the command; while somebody has the buffer mapped then, the server gets its answer without it,
    /// and what was put into it for a `Read` is lost.
    ///
    /// # Errors
    ///
    /// `Invalid` if the command has no buffer, `Protocol` after the client has closed the set.
    pub fn buffer_handle(&mut self) -> Result<BufferHandle, Error> {
        if let Some((handle, _)) = &self.lent {
            return Ok(*handle);
        }
        let Some(buffer) = self.buffer.take() else {
            return Err(Error::new(Status::Invalid, "the command has no buffer"));
        };
        let slot = Slot::new(buffer);
        match self.core.lend(&slot) {
            Ok(handle) => {
                self.lent = Some((handle, slot));
                Ok(handle)
            }
            Err(error) => {
                self.buffer = slot.end();
                Err(error)
            }
        }
    }

    /// Answers the command.
    ///
    /// # Errors
    ///
    /// In each case the command is answered all the same.
    /// `Abort` or `Protocol` if the set was aborted or closed before; the completion is ignored then.
    /// `Invalid` if more bytes are reported than the command has; the server is told of an I/O error then.
    pub fn complete(mut self, completion: Completion) -> Result<(), Error> {
        self.answer(completion, None)
    }

    /// Answers the command with an error and says why; the server finds the reason in its completion.
    ///
    /// # Errors
    ///
    /// As [`Command::complete`].
    pub fn fail(mut self, code: CompletionCode, reason: crate::Error) -> Result<(), Error> {
        self.answer(Completion::failed(code), Some(reason))
    }

    fn answer(&mut self, completion: Completion, reason: Option<crate::Error>) -> Result<(), Error> {
        self.is_answered = true;
        if let Some((handle, slot)) = self.lent.take() {
            self.buffer = self.core.end_lending(handle, &slot);
        }
        self.core.complete(self.device, self.id, self.buffer.take(), completion, reason)
    }
}

impl AsRef<[u8]> for Command {
    fn as_ref(&self) -> &[u8] {
        self.data()
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if !self.is_answered {
            let reason = crate::Error::new(crate::ErrorKind::Aborted, "the client dropped the command unanswered");
            // The set may be gone already; then there is nobody to tell.
            let _late = self.answer(Completion::failed(CompletionCode::OperationAborted), Some(reason));
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("code", &self.code)
            .field("size", &self.size)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The client's answer to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Completion {
    /// Zero is success. Anything else puts the device in error until the server clears it; only `EndOfMedia` does not.
    pub code: CompletionCode,
    /// Bytes moved by `Read` or `Write`, at most the command's size. Ignored for other commands.
    pub bytes_transferred: usize,
    /// The position, for `GetPosition` and `SetPosition`.
    pub position: u64,
}

impl Completion {
    /// Success of a command that moves no data.
    pub fn success() -> Self {
        Self::default()
    }

    /// Success of a transfer of that many bytes.
    pub fn transferred(bytes: usize) -> Self {
        Self { bytes_transferred: bytes, ..Self::default() }
    }

    /// Failure; nothing was moved.
    pub fn failed(code: CompletionCode) -> Self {
        Self { code, ..Self::default() }
    }

    /// The same with a position.
    #[must_use]
    pub fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }
}
