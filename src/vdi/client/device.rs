//! The client's end of a device.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::core::Core;
use super::super::device_state::DevicePhase;
use super::super::status::{Error, Status};
use super::Command;
use crate::clock;

/// The client's end of one device: it hands out the commands in the order in which the server sent them.
///
/// One task drives it. Dropping it before the server has closed the device aborts the set, because nobody would ever answer;
/// after [`Status::Close`] it can be dropped at will.
#[derive(Debug)]
pub struct Device {
    core: Arc<Core>,
    index: usize,
    name: String,
}

impl Device {
    pub(crate) fn new(core: &Arc<Core>, index: usize) -> Self {
        Self { core: Arc::clone(core), index, name: core.device_name(index) }
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

    /// Waits for the next command, for at most `timeout`; zero polls, `None` waits for ever.
    ///
    /// It may be called again before earlier commands are completed.
    ///
    /// # Errors
    ///
    /// `Close` once after the server closed the device and every command before that was taken.
    /// `Timeout` if nothing came; nothing changed then. `Abort` with the reason after an abort.
    /// `Protocol` after `Close`, or after the set was closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: no command is lost.
    pub async fn next_command(&mut self, timeout: Option<Duration>) -> Result<Command, Error> {
        if timeout == Some(Duration::ZERO) {
            let polled = poll_fn(|cx| Poll::Ready(self.poll_next_command(cx))).await;
            return match polled {
                Poll::Ready(result) => result,
                Poll::Pending => Err(Error::from(Status::Timeout)),
            };
        }
        let time = Arc::clone(self.core.clock());
        let next = poll_fn(|cx| self.poll_next_command(cx));
        clock::timeout(time.as_ref(), timeout, next).await.unwrap_or_else(|_elapsed| Err(Error::from(Status::Timeout)))
    }

    /// The next command, or the waker of `cx` is woken when it is worth asking again.
    ///
    /// # Errors
    ///
    /// As [`Device::next_command`], without `Timeout`.
    pub fn poll_next_command(&mut self, cx: &mut Context<'_>) -> Poll<Result<Command, Error>> {
        let taken = std::task::ready!(self.core.poll_take(self.index, cx.waker()))?;
        Poll::Ready(Ok(Command::new(&self.core, self.index, taken)))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.core.client_device_dropped(self.index);
    }
}
