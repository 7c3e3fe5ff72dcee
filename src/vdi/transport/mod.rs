//! Where the two sides of a device set find each other.

mod local;

use async_trait::async_trait;

use super::config::Config;
use super::status::Error;
use super::{client, server};

pub use local::LocalHub;

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
