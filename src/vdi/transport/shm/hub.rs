//! The hub: a directory in which sets have names.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{UnixListener, UnixStream};

use super::super::super::config::{Config, is_name};
use super::super::super::core::{Core, Member};
use super::super::super::status::{Error, Status};
use super::super::super::{client, server};
use super::super::Transport;
use super::handshake;
use super::home::SetHome;
use crate::buffer::MemoryBudget;
use crate::clock::{Clock, SystemClock};
use crate::error::ErrorKind;
use crate::shm::{Credentials, Directory, Entry, Found};

/// Where a [`ShmHub`] is, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShmOptions {
    /// The directory of the sockets. Default none: `vdstream` in `$XDG_RUNTIME_DIR`. It is made with mode 0700 if it is not there;
    /// its parent must be.
    pub directory: Option<PathBuf>,
    /// Users, by number, who may be the other side, besides this process's own. Default none.
    ///
    /// With a user or a group here, the directory may be open to others: make it beforehand, with an owner and a mode that let
    /// them in. Each connection is checked all the same.
    pub users: Vec<u32>,
    /// Groups, by number, one of which the other process must run as (its effective group) to be let in. Default none.
    pub groups: Vec<u32>,
}

/// A hub between processes of one machine: a directory of sockets, one per device set.
///
/// The two sides may also be in one process. Clones share the hub. Sets need a Tokio runtime with I/O: each connection to
/// another process has a task, which the closing of the set waits for.
///
/// A name is in use from `create` until either side closes the set or the primary client's process ends. See
/// [the manual](crate::manual::shm).
#[derive(Debug, Clone)]
pub struct ShmHub {
    inner: Arc<Inner>,
    clock: Arc<dyn Clock>,
    budget: Option<MemoryBudget>,
}

#[derive(Debug)]
struct Inner {
    directory: Directory,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl ShmHub {
    /// Opens the directory, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Denied`] if the directory is another user's, or open to others without a list of who may connect;
    /// [`ErrorKind::Invalid`] without a directory and without `$XDG_RUNTIME_DIR`; what the system says otherwise.
    pub fn open(options: ShmOptions) -> crate::Result<Self> {
        let ShmOptions { directory, users, groups } = options;
        let path = match directory {
            Some(path) => path,
            None => match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
                Some(path) => PathBuf::from(path).join("vdstream"),
                None => {
                    let message = "XDG_RUNTIME_DIR is not set: say which directory the device sets are in";
                    return Err(crate::Error::new(ErrorKind::Invalid, message));
                }
            },
        };
        let is_open_to_others = !users.is_empty() || !groups.is_empty();
        let directory = Directory::open(&path, is_open_to_others).map_err(|error| {
            crate::Error::from(error).context(format!("directory {} of device sets", path.display()))
        })?;
        let inner = Arc::new(Inner { directory, users, groups });
        Ok(Self { inner, clock: SystemClock::shared(), budget: None })
    }

    /// The same hub on another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same hub, whose sets of this process reserve their buffer areas from `budget`. The server's process reserves twice
    /// the size of the area, for the shared memory and for private copies; a client's process once, for its private copies, and
    /// up to 68 KiB more for each piece of the area.
    ///
    /// Without one, only the 4 GiB of the specification bound the area of a set. A client that cannot reserve what the server
    /// asks for aborts the set.
    #[must_use]
    pub fn with_budget(mut self, budget: &MemoryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// The directory of the sockets.
    pub fn path(&self) -> &std::path::Path {
        self.inner.directory.path()
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn budget(&self) -> Option<&MemoryBudget> {
        self.budget.as_ref()
    }

    /// Whether that process may be the other side.
    pub(super) fn admit(&self, credentials: Credentials) -> Result<(), Error> {
        let Credentials { user, group, .. } = credentials;
        let Inner { users, groups, .. } = self.inner.as_ref();
        if user == rustix::process::geteuid().as_raw() || users.contains(&user) || groups.contains(&group) {
            return Ok(());
        }
        Err(Error::new(Status::Security, format!("user {user} (group {group}) is not allowed to be the other side")))
    }

    fn connect(&self, name: &str) -> Result<Option<(UnixStream, Entry)>, Error> {
        check(name)?;
        match self.directory().find(name).map_err(|error| unavailable(name, error))? {
            Found::Listening(stream, found) => {
                Ok(Some((UnixStream::from_std(stream).map_err(|error| unavailable(name, error))?, found)))
            }
            Found::Nothing | Found::Stale => Ok(None),
        }
    }

    fn bind(&self, name: &str) -> Result<UnixListener, Error> {
        let is_open_to_others = !self.inner.users.is_empty() || !self.inner.groups.is_empty();
        let bound = self.directory().bind(name, is_open_to_others).map_err(|error| unavailable(name, error))?;
        let Some(listener) = bound else {
            return Err(Error::new(Status::Protocol, format!("device set {name:?} exists already")));
        };
        UnixListener::from_std(listener).map_err(|error| unavailable(name, error))
    }
}

#[async_trait]
impl Transport for ShmHub {
    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error> {
        let config = config.validate()?;
        check(name)?;
        let listener = Arc::new(self.bind(name)?);
        let home = SetHome::of_creator(self, Arc::clone(&listener));
        let core = match Core::primary(Box::new(home.clone()), name, &config) {
            Ok(core) => Arc::new(core),
            Err(error) => {
                // The first failure is the one to tell.
                let _second = self.directory().remove(name);
                return Err(error);
            }
        };
        let accept = handshake::accept(Arc::clone(&core), listener, home.clone(), config);
        home.tasks.spawn(accept);
        Ok(client::DeviceSet::new(core, Member::Primary))
    }

    async fn open(&self, name: &str) -> Result<server::DeviceSet, Error> {
        let unknown = || Error::new(Status::Invalid, format!("there is no device set {name:?}"));
        let (stream, found) = self.connect(name)?.ok_or_else(unknown)?;
        Ok(server::DeviceSet::new(handshake::open(self, name, stream, found).await?))
    }

    async fn open_in_secondary(&self, name: &str) -> Result<client::DeviceSet, Error> {
        let unknown = || Error::new(Status::Protocol, format!("there is no device set {name:?} to join"));
        let (stream, found) = self.connect(name)?.ok_or_else(unknown)?;
        let (core, member) = match handshake::join(self, name, stream, found).await {
            // The set came to its end meanwhile.
            Err(error) if error.status() == Status::Invalid => {
                return Err(unknown().because(error.reason().cloned()));
            }
            joined => joined?,
        };
        Ok(client::DeviceSet::new(core, member))
    }

    fn names(&self) -> Vec<String> {
        self.directory().names().unwrap_or_default()
    }
}

/// Names are checked, and sockets need the runtime's I/O.
fn check(name: &str) -> Result<(), Error> {
    if !is_name(name) {
        return Err(Error::new(Status::Invalid, format!("{name:?} cannot name a device set")));
    }
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::new(Status::Unexpected, "device sets between processes need a Tokio runtime"));
    }
    Ok(())
}

fn unavailable(name: &str, error: std::io::Error) -> Error {
    let message = format!("the socket of device set {name:?} cannot be used");
    Error::new(Status::Unexpected, message).because(Some(crate::Error::from(error)))
}
