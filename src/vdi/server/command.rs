//! A command in the hands of the server, before it is sent.

use std::fmt;

use super::super::area::Buffer;
use super::super::code::CommandCode;
use super::super::core::Refused;
use super::super::status::{Error, Status};

/// A command to be sent to a device.
#[derive(Debug)]
#[must_use = "a command does nothing until it is sent"]
pub struct Command {
    code: CommandCode,
    size: usize,
    position: u64,
    buffer: Option<Buffer>,
    is_short: bool,
}

/// From where `SetPosition` counts on a random access device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Whence {
    /// The beginning of the data.
    #[default]
    Beginning = 0,
    /// The current position.
    Current = 1,
    /// The end of the data.
    End = 2,
}

impl Command {
    fn plain(code: CommandCode) -> Self {
        Self { code, size: 0, position: 0, buffer: None, is_short: false }
    }

    fn transfer(code: CommandCode, buffer: Buffer, len: usize) -> Self {
        Self { size: len, buffer: Some(buffer), ..Self::plain(code) }
    }

    /// Stores the first `len` bytes of `buffer`.
    ///
    /// `len` is a multiple of the block size, at most the maximum transfer size; see [`Command::short`] for others.
    pub fn write(buffer: Buffer, len: usize) -> Self {
        Self::transfer(CommandCode::Write, buffer, len)
    }

    /// Reads up to `len` bytes into `buffer`; bounds as for [`Command::write`].
    pub fn read(buffer: Buffer, len: usize) -> Self {
        Self::transfer(CommandCode::Read, buffer, len)
    }

    /// Makes everything written so far durable.
    pub fn flush() -> Self {
        Self::plain(CommandCode::Flush)
    }

    /// Marks the true end of the data. Only if the configuration says `COMPLETE_ENABLED`.
    pub fn complete() -> Self {
        Self::plain(CommandCode::Complete)
    }

    /// Recovers the device from an error. The client gets it once it has completed everything it held at the failure.
    pub fn clear_error() -> Self {
        Self::plain(CommandCode::ClearError)
    }

    /// Goes to the start of the medium.
    pub fn rewind() -> Self {
        Self::plain(CommandCode::Rewind)
    }

    /// Writes a file mark.
    pub fn write_mark() -> Self {
        Self::plain(CommandCode::WriteMark)
    }

    /// Moves over `count` file marks; negative is backwards.
    pub fn skip_marks(count: i32) -> Self {
        Self { size: count.cast_unsigned() as usize, ..Self::plain(CommandCode::SkipMarks) }
    }

    /// Moves over `count` blocks; negative is backwards.
    pub fn skip_blocks(count: i32) -> Self {
        Self { size: count.cast_unsigned() as usize, ..Self::plain(CommandCode::SkipBlocks) }
    }

    /// Asks for the next medium.
    pub fn load() -> Self {
        Self::plain(CommandCode::Load)
    }

    /// Asks for the position; the completion carries it.
    pub fn get_position() -> Self {
        Self::plain(CommandCode::GetPosition)
    }

    /// Moves to a position; the completion carries the resulting one. `whence` counts for random access devices only.
    pub fn set_position(position: u64, whence: Whence) -> Self {
        Self { size: whence as usize, position, ..Self::plain(CommandCode::SetPosition) }
    }

    /// Any command without a buffer, by its code.
    ///
    /// A `Read` or `Write` made this way is refused by `send`, because it has no buffer.
    pub fn from_code(code: CommandCode) -> Self {
        Self::plain(code)
    }

    /// The same at a position, for transfers of a random access device.
    pub fn at(self, position: u64) -> Self {
        Self { position, ..self }
    }

    /// Allows a transfer that is not a multiple of the block size: the end of a stream of any length.
    ///
    /// An extension of the specification, which has whole blocks only.
    pub fn short(self) -> Self {
        Self { is_short: true, ..self }
    }

    /// What is asked.
    pub fn code(&self) -> CommandCode {
        self.code
    }

    /// Bytes to move, or the count or choice of a command that moves none.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The position to work at.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The buffer of a transfer.
    pub fn buffer(&self) -> Option<&Buffer> {
        self.buffer.as_ref()
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> Option<Buffer> {
        self.buffer
    }

    pub(crate) fn take_buffer(&mut self) -> Option<Buffer> {
        self.buffer.take()
    }

    /// A command of a server in another process.
    #[cfg(feature = "shm")]
    pub(crate) fn told(code: CommandCode, size: usize, position: u64, buffer: Option<Buffer>, is_short: bool) -> Self {
        Self { code, size, position, buffer, is_short }
    }

    /// Lets the client's process see the data to be written.
    #[cfg(feature = "shm")]
    pub(crate) fn publish(&mut self) {
        if let (CommandCode::Write, Some(buffer)) = (self.code, &mut self.buffer) {
            buffer.publish(self.size);
        }
    }

    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }
}

/// A command was not accepted: why, and the command with its buffer.
pub struct SendError {
    refused: Box<Refused>,
}

impl SendError {
    pub(crate) fn new(refused: Box<Refused>) -> Self {
        Self { refused }
    }

    /// The result as the specification names it: `QueueFull`, `IoError`, `Protocol`, `Abort`; or `Invalid` or
    /// `NotSupported` for a command that cannot be sent at all.
    pub fn status(&self) -> Status {
        self.refused.error.status()
    }

    /// Why.
    pub fn error(&self) -> &Error {
        &self.refused.error
    }

    /// Why, by value; the command is dropped.
    pub fn into_error(self) -> Error {
        self.refused.error
    }

    /// The command, with its buffer.
    pub fn into_command(self) -> Command {
        self.refused.command
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} not sent: {:?}", self.refused.command.code(), self.refused.error)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was not sent", self.refused.command.code())
    }
}

impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.refused.error)
    }
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        error.into_error()
    }
}

impl From<SendError> for crate::Error {
    fn from(error: SendError) -> Self {
        let code = error.refused.command.code();
        Self::from(error.into_error()).context(format!("{code} was not sent"))
    }
}
