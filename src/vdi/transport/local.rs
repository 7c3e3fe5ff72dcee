//! Device sets within one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use async_trait::async_trait;

use super::super::config::{Config, is_name};
use super::super::core::{Core, Member};
use super::super::status::{Error, Status};
use super::super::{client, server};
use super::{Home, Transport};
use crate::buffer::MemoryBudget;
use crate::clock::{Clock, SystemClock};
use crate::sync::Mutex;

/// A hub within this process. Clones share the names.
///
/// A name is in use from `create` until the client or the server closes the set, whoever is first.
#[derive(Debug, Clone)]
pub struct LocalHub {
    names: Arc<Names>,
    clock: Arc<dyn Clock>,
    budget: Option<MemoryBudget>,
}

impl LocalHub {
    /// A hub on the system's clock.
    pub fn new() -> Self {
        Self::with_clock(SystemClock::shared())
    }

    /// A hub on another clock.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { names: Arc::new(Names::default()), clock, budget: None }
    }

    /// The same hub, whose sets created from here on reserve their buffer areas from `budget`.
    ///
    /// Without one, only the 4 GiB of the specification bound the area of a set. Memory is allocated as buffers are.
    #[must_use]
    pub fn with_budget(mut self, budget: &MemoryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }
}

impl Home for LocalHub {
    fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn budget(&self) -> Option<&MemoryBudget> {
        self.budget.as_ref()
    }

    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error> {
        Transport::create(self, name, config)
    }

    fn release(&self, core: &Core) {
        self.names.remove(core.name(), core);
    }
}

impl Default for LocalHub {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for LocalHub {
    fn create(&self, name: &str, config: Config) -> Result<client::DeviceSet, Error> {
        let config = config.validate()?;
        if !is_name(name) {
            return Err(Error::new(Status::Invalid, format!("{name:?} cannot name a device set")));
        }
        let core = Arc::new(Core::create(Box::new(self.clone()), name, &config));
        self.names.insert(name, &core)?;
        Ok(client::DeviceSet::new(core, Member::Primary))
    }

    async fn open(&self, name: &str) -> Result<server::DeviceSet, Error> {
        let core = self.names.find(name)?;
        core.server_open()?;
        Ok(server::DeviceSet::new(core))
    }

    async fn open_in_secondary(&self, name: &str) -> Result<client::DeviceSet, Error> {
        let core = self
            .names
            .find(name)
            .map_err(|_| Error::new(Status::Protocol, format!("there is no device set {name:?} to join")))?;
        let member = core.join()?;
        Ok(client::DeviceSet::new(core, member))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.sets.lock().keys().cloned().collect();
        names.sort_unstable();
        names
    }
}

/// The sets of a hub by name. The handles keep a set alive, not its name.
#[derive(Debug, Default)]
struct Names {
    sets: Mutex<HashMap<String, Weak<Core>>>,
}

impl Names {
    fn insert(&self, name: &str, core: &Arc<Core>) -> Result<(), Error> {
        match self.sets.lock().entry(name.to_owned()) {
            Entry::Occupied(_) => Err(Error::new(Status::Protocol, format!("device set {name:?} exists already"))),
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::downgrade(core));
                Ok(())
            }
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Core>, Error> {
        let found = self.sets.lock().get(name).and_then(Weak::upgrade);
        found.ok_or_else(|| Error::new(Status::Invalid, format!("there is no device set {name:?}")))
    }

    /// Frees the name of `core`, unless a newer set has it.
    fn remove(&self, name: &str, core: &Core) {
        let mut sets = self.sets.lock();
        if sets.get(name).is_some_and(|known| std::ptr::eq(known.as_ptr(), core)) {
            sets.remove(name);
        }
    }
}
