//! The client's end of a set.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::super::config::{Config, Configuration};
use super::super::core::{Core, Member};
use super::super::status::{Error, Status};
use super::super::transport::Transport;
use super::super::waiters::Place;
use super::{BufferHandle, Device, MappedBuffer, State};
use crate::clock;
use crate::sync::Arc as Shared;

/// The client's end of a device set.
///
/// Clones share it. When the last clone is dropped without [`DeviceSet::close`], the set is aborted and released.
#[derive(Debug, Clone)]
pub struct DeviceSet {
    handle: Shared<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    member: Member,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.client_dropped(self.member);
    }
}

impl DeviceSet {
    /// Creates a device set under a name that a server can open.
    ///
    /// A name is 1 to 200 bytes, without backslash, and case-sensitive. It is best never used twice.
    ///
    /// # Errors
    ///
    /// `NotSupported` if a value of `config` is out of its bounds, `Invalid` for a bad name,
    /// `Protocol` if a set of that name exists.
    pub fn create(hub: &(impl Transport + ?Sized), name: &str, config: Config) -> Result<Self, Error> {
        hub.create(name, config)
    }

    /// Creates the next device set on the same hub, once this one is closed: a set serves one backup or restore.
    ///
    /// # Errors
    ///
    /// `Protocol` if this one is not closed; the rest as [`DeviceSet::create`].
    pub fn create_again(&self, name: &str, config: Config) -> Result<Self, Error> {
        self.core().admit_create()?;
        self.core().home().create(name, config)
    }

    /// Joins a set that another client has created and configured, as a secondary client.
    ///
    /// A secondary opens devices and maps buffers; closing it does not close the set.
    ///
    /// # Errors
    ///
    /// `Protocol` if there is no such set, or its primary client has not fetched the configuration.
    /// `Abort` with the reason if the set was aborted.
    ///
    /// Between processes also `Invalid` for a bad name, `Busy` if 128 clients have joined, and what
    /// [`server::DeviceSet::open`](crate::vdi::server::DeviceSet::open) says for them.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing is joined.
    pub async fn open_in_secondary(hub: &(impl Transport + ?Sized), name: &str) -> Result<Self, Error> {
        hub.open_in_secondary(name).await
    }

    pub(crate) fn new(core: Arc<Core>, member: Member) -> Self {
        Self { handle: Shared::new(Handle { core, member }) }
    }

    fn member(&self) -> Member {
        self.handle.member
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The name of the set.
    pub fn name(&self) -> &str {
        self.core().name()
    }

    /// The client's view of the set.
    pub fn state(&self) -> State {
        self.core().client_state(self.member())
    }

    /// Waits until the server has ended the configuration, for at most `timeout`; zero polls, `None` waits for ever.
    ///
    /// It can be called again and gives the same answer then.
    ///
    /// # Errors
    ///
    /// `Timeout`; nothing changed then. `Abort` with the reason after an abort. `Protocol` after close.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: call again.
    pub async fn configuration(&self, timeout: Option<Duration>) -> Result<Configuration, Error> {
        let core = self.core();
        let mut waiter = ConfigurationWaiter { core, place: Place::default() };
        if timeout == Some(Duration::ZERO) {
            let polled =
                poll_fn(|cx| Poll::Ready(core.poll_configuration(self.member(), &mut waiter.place, cx.waker()))).await;
            return match polled {
                Poll::Ready(result) => result,
                Poll::Pending => Err(Error::from(Status::Timeout)),
            };
        }
        let configured = poll_fn(|cx| core.poll_configuration(self.member(), &mut waiter.place, cx.waker()));
        clock::timeout(core.clock().as_ref(), timeout, configured)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::from(Status::Timeout)))
    }

    /// Opens the device of that name; the configuration must have been fetched.
    ///
    /// # Errors
    ///
    /// `Invalid` if the set has no such device, `Open` if every device is open, `Protocol` if this one is open or the
    /// state does not allow it, `Abort` with the reason after an abort.
    pub fn open_device(&self, name: &str) -> Result<Device, Error> {
        Ok(Device::new(self.core(), self.core().client_open_device(self.member(), Some(name))?))
    }

    /// Opens every device that is not open yet, in the order of their indexes.
    ///
    /// # Errors
    ///
    /// `Open` if every device is open already; the rest as [`DeviceSet::open_device`].
    pub fn open_all(&self) -> Result<Vec<Device>, Error> {
        let mut devices = vec![Device::new(self.core(), self.core().client_open_device(self.member(), None)?)];
        loop {
            match self.core().client_open_device(self.member(), None) {
                Ok(index) => devices.push(Device::new(self.core(), index)),
                Err(error) if error.status() == Status::Open => return Ok(devices),
                Err(error) => return Err(error),
            }
        }
    }

    /// Maps the buffer of a command that a client of this set holds; see [`super::Command::buffer_handle`].
    ///
    /// # Errors
    ///
    /// `Invalid` if no command that is held has such a handle, `Busy` while somebody else maps it, `Protocol` after close.
    pub fn map_buffer(&self, handle: BufferHandle) -> Result<MappedBuffer, Error> {
        self.core().map_buffer(self.member(), handle)
    }

    /// Aborts the set at once: every command is answered as aborted, everything that waits returns `Abort` with `reason`.
    ///
    /// It never waits, can be called from anywhere and more than once; the first reason stays.
    ///
    /// # Errors
    ///
    /// `Protocol` if the set is closed.
    pub fn abort(&self, reason: crate::Error) -> Result<(), Error> {
        self.core().client_abort(self.member(), reason)
    }

    /// Closes the client's end and frees the name.
    ///
    /// The server's agent is not waited for. Commands that the client still holds keep their memory, and the set is aborted,
    /// which answers them; a secondary client's close does that for its own.
    ///
    /// # Errors
    ///
    /// In each case everything is released. `Open` with the names of the devices that the server had not closed (of a
    /// secondary client: its own); the set is aborted then. `Protocol` if it is closed already.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the end is closed. What is left of the wait is for tasks of a hub between processes, which say goodbye to
    /// the other processes and end by themselves.
    pub async fn close(self) -> Result<(), Error> {
        let core = self.core();
        #[cfg(feature = "shm")]
        core.catch_up();
        let verdict = core.client_close(self.member());
        core.home().settled().await;
        verdict
    }

    /// Waits until the client's end is closed, and the tasks of a hub between processes have ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: call again.
    pub async fn wait_closed(&self) {
        let core = self.core();
        let mut waiter = CloseWaiter { core, place: Place::default() };
        poll_fn(|cx| core.poll_client_closed(self.member(), &mut waiter.place, cx.waker())).await;
        core.home().settled().await;
    }
}

struct ConfigurationWaiter<'a> {
    core: &'a Core,
    place: Place,
}

impl Drop for ConfigurationWaiter<'_> {
    fn drop(&mut self) {
        self.core.forget_configuration_waiter(&mut self.place);
    }
}

struct CloseWaiter<'a> {
    core: &'a Core,
    place: Place,
}

impl Drop for CloseWaiter<'_> {
    fn drop(&mut self) {
        self.core.forget_client_closed_waiter(&mut self.place);
    }
}
