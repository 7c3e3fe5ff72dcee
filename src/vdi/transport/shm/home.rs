//! What one process's part of a set keeps of its hub.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::super::client;
use super::super::super::config::Config;
use super::super::super::core::Core;
use super::super::super::status::Error;
use super::super::{Home, Transport};
use super::ShmHub;
use crate::buffer::MemoryBudget;
use crate::clock::Clock;
use crate::shm::Entry;
use crate::sync::Mutex;

/// The hub, the tasks of the set, and in the primary client's process its name.
#[derive(Debug, Clone)]
pub(super) struct SetHome {
    pub(super) hub: ShmHub,
    pub(super) tasks: TaskTracker,
    /// Held for as long as the name is in use: whoever holds it may remove the name.
    listener: Arc<Mutex<Option<Arc<UnixListener>>>>,
    /// In any other process, what it found under the name: that may be removed when its primary client has died.
    pub(super) found: Option<Entry>,
    /// The name is free: ends the task that accepts, and the wait for those who connected and have not said who they are.
    pub(super) released: CancellationToken,
}

impl SetHome {
    /// Of the primary client.
    pub(super) fn of_creator(hub: &ShmHub, listener: Arc<UnixListener>) -> Self {
        Self::new(hub, Some(listener), None)
    }

    /// Of a process that found the name.
    pub(super) fn of_finder(hub: &ShmHub, found: Entry) -> Self {
        Self::new(hub, None, Some(found))
    }

    fn new(hub: &ShmHub, listener: Option<Arc<UnixListener>>, found: Option<Entry>) -> Self {
        Self {
            hub: hub.clone(),
            tasks: TaskTracker::new(),
            listener: Arc::new(Mutex::new(listener)),
            found,
            released: CancellationToken::new(),
        }
    }
}

impl Home for SetHome {
    fn clock(&self) -> &Arc<dyn Clock> {
        self.hub.clock()
    }

    fn budget(&self) -> Option<&MemoryBudget> {
        self.hub.budget()
    }

    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error> {
        Transport::create(&self.hub, name, config)
    }

    fn release(&self, core: &Core) {
        let listener = self.listener.lock().take();
        if listener.is_some()
            && let Err(error) = self.hub.directory().remove(core.name())
        {
            // The socket is closed in any case, and a stale one is replaced.
            tracing::warn!(set = core.name(), %error, "the name of a device set could not be removed");
        }
        self.released.cancel();
    }

    fn settled(&self) -> BoxFuture<'static, ()> {
        let tasks = self.tasks.clone();
        Box::pin(async move {
            tasks.close();
            tasks.wait().await;
        })
    }
}
