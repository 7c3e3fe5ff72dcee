//! Carrying out commands one by one, with a default for those that a client does not know.

use async_trait::async_trait;

use super::super::code::CompletionCode;
use super::super::status::{Error, Status};
use super::{Command, Completion, Device};

/// What a client does with the commands of one device.
#[async_trait]
pub trait Handler: Send {
    /// Carries out `command`: takes its data, or fills its space, and says how it ended.
    ///
    /// `None` is for every command that the handler does not know; it is answered `NotSupported`.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped, so is the command, which answers it as aborted.
    async fn carry_out(&mut self, command: &mut Command) -> Option<Completion>;
}

impl Device {
    /// Carries out every command with `handler`, one at a time, until the server closes the device.
    ///
    /// # Errors
    ///
    /// `Abort` with the reason if the set was aborted, `Protocol` if it was closed.
    ///
    /// # Cancel safety
    ///
    /// A command that is being carried out is answered as aborted. Others are not lost: call again.
    pub async fn serve(&mut self, handler: &mut dyn Handler) -> Result<(), Error> {
        loop {
            let mut command = match self.next_command(None).await {
                Ok(command) => command,
                Err(error) if error.status() == Status::Close => return Ok(()),
                Err(error) => return Err(error),
            };
            let completion = handler.carry_out(&mut command).await;
            let completion = completion.unwrap_or_else(|| Completion::failed(CompletionCode::NotSupported));
            match command.complete(completion) {
                Ok(()) => {}
                // The handler's count was wrong, and the server was told so.
                Err(error) if error.status() == Status::Invalid => {
                    tracing::error!(device = self.name(), %error, "a handler reported too many bytes");
                }
                Err(error) => return Err(error),
            }
        }
    }
}
