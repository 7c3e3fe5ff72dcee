//! The server's end of a set.

use std::future::poll_fn;
use std::sync::Arc;

use super::super::area::Buffer;
use super::super::config::{Configuration, ServerConfig};
use super::super::core::Core;
use super::super::status::{Error, Status};
use super::super::transport::Transport;
use super::super::waiters::Place;
use super::{CompletionAgent, Device, State};
use crate::sync::Arc as Shared;

/// The server's end of a device set.
///
/// Clones share it. When the last clone is dropped without [`DeviceSet::close`], the set is closed as if it had been called,
/// without waiting for the agent.
#[derive(Debug, Clone)]
pub struct DeviceSet {
    handle: Shared<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.server_dropped();
    }
}

impl DeviceSet {
    /// Opens the device set that a client has created under this name.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such set, `Protocol` if a server has opened it, `Abort` with the reason if it was aborted.
    ///
    /// Between processes also, each with its cause:
    ///
    /// * `Security` if either process does not allow the other one's user;
    /// * `NotSupported` if the other process speaks another version of the protocol, `Protocol` if it speaks none;
    /// * `Timeout` if it does not answer for 10 seconds;
    /// * `Unexpected` if the socket cannot be used or there is no Tokio runtime, and with a cause of kind `Unavailable` if the
    ///   connection ends before the answer: the client's process ends meanwhile, or 16 processes have connected before this one
    ///   and not joined. Then it may work later.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing is open.
    pub async fn open(hub: &(impl Transport + ?Sized), name: &str) -> Result<Self, Error> {
        hub.open(name).await
    }

    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { handle: Shared::new(Handle { core }) }
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The name of the set.
    pub fn name(&self) -> &str {
        self.core().name()
    }

    /// The server's view of the set.
    pub fn state(&self) -> State {
        self.core().server_state()
    }

    /// The client's wishes, or after `begin_configuration` what was agreed.
    ///
    /// # Errors
    ///
    /// `Abort` with the reason after an abort, `Protocol` after close.
    pub fn configuration(&self) -> Result<Configuration, Error> {
        self.core().server_configuration()
    }

    /// Fixes features, alignment, block size and transfer size for the life of the set.
    ///
    /// # Errors
    ///
    /// `Invalid` if a value is out of its bounds; nothing is fixed then. `Protocol` if it was begun before.
    pub fn begin_configuration(&self, config: ServerConfig) -> Result<&Self, Error> {
        self.core().begin_configuration(config)?;
        Ok(self)
    }

    /// Declares the need for `count` buffers of `size` bytes of data, with an alignment (0: the set's).
    ///
    /// Before `end_configuration` requests are summed; after it each one makes the buffer area larger at once.
    ///
    /// # Errors
    ///
    /// `Invalid` for a size or alignment out of its bounds, `Memory` if there is not enough, `Protocol` in another state.
    pub fn request_buffers(&self, size: usize, alignment: usize, count: usize) -> Result<&Self, Error> {
        self.core().request_buffers(size, alignment, count)?;
        Ok(self)
    }

    /// How many buffers like this can be allocated now. Before `end_configuration` that is none.
    ///
    /// # Errors
    ///
    /// `Invalid` for a size or alignment out of its bounds, `Protocol` in another state.
    pub fn query_available_buffers(&self, size: usize, alignment: usize) -> Result<usize, Error> {
        self.core().query_available_buffers(size, alignment)
    }

    /// Reserves the buffer area and lets the client go on.
    ///
    /// # Errors
    ///
    /// `Memory` if the area does not fit; the requests are forgotten then, the set stays configurable, and smaller requests
    /// may follow. `Abort` with the reason after an abort. `Protocol` in another state.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the configuration has not ended.
    pub async fn end_configuration(&self) -> Result<Configuration, Error> {
        self.core().end_configuration()
    }

    /// Opens the next device that is not open.
    ///
    /// Commands may be sent at once; they wait for the client to open its end.
    ///
    /// # Errors
    ///
    /// `Open` if every device was opened, `Abort` with the reason after an abort, `Protocol` in another state.
    pub fn open_device(&self) -> Result<Device, Error> {
        Ok(Device::new(self.core(), self.core().server_open_device()?))
    }

    /// Takes a buffer out of the buffer area; dropping the buffer gives it back.
    ///
    /// # Errors
    ///
    /// `Memory` if the area is used up, `Invalid` for a size or alignment out of its bounds, `Abort` after an abort,
    /// `Protocol` in another state.
    pub fn allocate_buffer(&self, size: usize, alignment: usize) -> Result<Buffer, Error> {
        self.core().allocate_buffer(size, alignment)
    }

    /// Gives a buffer back, as dropping it does.
    ///
    /// # Errors
    ///
    /// `Invalid` with a buffer of another set, which is dropped then; `Protocol` before the configuration has ended and
    /// after close.
    pub fn free_buffer(&self, buffer: Buffer) -> Result<(), Error> {
        self.core().free_buffer(buffer)
    }

    /// True if the buffer is part of this set's buffer area; false for every buffer once the set is closed.
    pub fn is_shared_buffer(&self, buffer: &Buffer) -> bool {
        self.core().is_shared_buffer(buffer)
    }

    /// The completion agent: a future that gives the answers. It must be driven while commands are out.
    ///
    /// One agent of a set can run at a time; a second one returns `Protocol`. A call that the state does not allow makes
    /// an agent that returns the error.
    pub fn completion_agent(&self) -> CompletionAgent {
        CompletionAgent::new(self.core())
    }

    /// Aborts the set at once: every command is answered as aborted, everything that waits returns `Abort` with `reason`.
    ///
    /// It never waits, can be called from anywhere and more than once; the first reason stays.
    ///
    /// # Errors
    ///
    /// `Protocol` if the set is closed.
    pub fn abort(&self, reason: crate::Error) -> Result<(), Error> {
        self.core().server_abort(reason)
    }

    /// Closes the set and waits for the completion agent to return.
    ///
    /// Commands that are outstanding are answered as aborted: by the agent if it runs, else by this call. Buffers that
    /// somebody holds are detached from the set and stay valid.
    ///
    /// # Errors
    ///
    /// In each case everything is released. `Protocol` with the names of the devices that were still open; the set is
    /// aborted then. `Protocol` also if it was closed already. `Busy` on the stack of a completion callback: the closing
    /// goes on, and [`DeviceSet::wait_closed`] elsewhere sees its end.
    ///
    /// # Panics
    ///
    /// If a completion callback panics that this call had to run, with its panic, after everything else is done.
    ///
    /// # Cancel safety
    ///
    /// The closing goes on if this is dropped; [`DeviceSet::wait_closed`] sees its end.
    pub async fn close(self) -> Result<(), Error> {
        let core = self.core();
        #[cfg(feature = "shm")]
        core.catch_up();
        let verdict = core.server_close()?;
        let mut waiter = CloseWaiter { core, place: Place::default() };
        let verdict = poll_fn(|cx| {
            // Also when a close that was begun elsewhere is polled in a callback.
            if core.is_in_callback() {
                return std::task::Poll::Ready(Err(Error::from(Status::Busy)));
            }
            core.poll_server_closed(&mut waiter.place, cx.waker()).map(|()| verdict.clone())
        })
        .await;
        if !core.is_in_callback() {
            core.home().settled().await;
        }
        verdict
    }

    /// Waits until the server's end is closed and its agent has returned, and the tasks of a hub between processes with it.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: call again.
    pub async fn wait_closed(&self) {
        let core = self.core();
        let mut waiter = CloseWaiter { core, place: Place::default() };
        poll_fn(|cx| core.poll_server_closed(&mut waiter.place, cx.waker())).await;
        core.home().settled().await;
    }
}

struct CloseWaiter<'a> {
    core: &'a Core,
    place: Place,
}

impl Drop for CloseWaiter<'_> {
    fn drop(&mut self) {
        self.core.forget_server_closed_waiter(&mut self.place);
    }
}
