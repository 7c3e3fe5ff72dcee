//! Where the two sides of a device set find each other.

mod local;
#[cfg(feature = "shm")]
mod shm;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::config::Config;
use super::core::Core;
use super::status::Error;
use super::{client, server};
use crate::buffer::MemoryBudget;
use crate::clock::Clock;

pub use local::LocalHub;
#[cfg(feature = "shm")]
pub use shm::{ShmHub, ShmOptions};

/// A place where device sets have names: in this process, or across processes.
#[async_trait]
pub trait Transport: std::fmt::Debug + Send + Sync + 'static {
    /// Creates a set; see [`client::DeviceSet::create`].
    ///
    /// # Errors
    ///
    /// As [`client::DeviceSet::create`].
    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error>;

    /// Opens a set; see [`server::DeviceSet::open`].
    ///
    /// # Errors
    ///
    /// As [`server::DeviceSet::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing is open.
    async fn open(&self, name: &str) -> Result<server::DeviceSet, Error>;

    /// Joins a set; see [`client::DeviceSet::open_in_secondary`].
    ///
    /// # Errors
    ///
    /// As [`client::DeviceSet::open_in_secondary`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing is joined.
    async fn open_in_secondary(&self, name: &str) -> Result<client::DeviceSet, Error>;

    /// The names that are in use now, sorted.
    fn names(&self) -> Vec<String>;
}

/// What a set needs of its hub while it lives.
pub(crate) trait Home: std::fmt::Debug + Send + Sync {
    fn clock(&self) -> &Arc<dyn Clock>;

    /// What the buffer area is reserved from.
    fn budget(&self) -> Option<&MemoryBudget>;

    /// Creates another set on the same hub.
    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error>;

    /// Frees the name of a set that one side has closed.
    fn release(&self, core: &Core);

    /// Waits for the tasks that the set has started.
    fn settled(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}
