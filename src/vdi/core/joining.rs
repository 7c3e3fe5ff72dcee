//! How the parts of a set in several processes come together, and how one that does not come is let go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use super::super::area::Area;
use super::super::config::Config;
use super::super::status::{Error, Status};
use super::super::transport::Home;
use super::super::waiters::{Place as WaitPlace, Wakes};
use super::inner::{Core, Inner, Member};
use super::link::{Link, Part};
use super::links::{Role, number};
use super::translate::{choice, no_memory};
use crate::shm::wire::Message;
use crate::shm::{Attached, Control};

impl Core {
    /// The part of a set that its primary client holds.
    pub(crate) fn primary(home: Box<dyn Home>, name: &str, config: &Config) -> Result<Self, Error> {
        let control = Control::create().map_err(no_memory)?;
        let core = Self::part(home, name, config, Role::Primary);
        core.lock().links.control = Some(Arc::new(control));
        Ok(core)
    }

    /// The part of a set that its server holds.
    pub(crate) fn server(home: Box<dyn Home>, name: &str, config: &Config, link: &Arc<Link>) -> Result<Self, Error> {
        let core = Self::part(home, name, config, Role::Server);
        core.lock().links.down.push((Member::Primary, Arc::clone(link)));
        core.server_open()?;
        Ok(core)
    }

    /// The part of a set that another client holds.
    pub(crate) fn secondary(
        home: Box<dyn Home>,
        name: &str,
        config: &Config,
        link: &Arc<Link>,
        control: Control,
    ) -> Result<(Self, Member), Error> {
        // Its number is known in this process only.
        let member = Member::Secondary(0);
        let core = Self::part(home, name, config, Role::Secondary(member));
        core.server_open()?;
        let mut inner = core.lock();
        inner.secondaries.push(member);
        inner.links.control = Some(Arc::new(control));
        inner.links.up = Some(Arc::clone(link));
        drop(inner);
        Ok((core, member))
    }

    fn part(home: Box<dyn Home>, name: &str, config: &Config, role: Role) -> Self {
        let area = Area::new(home.budget().cloned()).share();
        let core = Self::with_area(home, name, config, area);
        core.lock().links.role = role;
        core
    }

    /// True if this process holds the server's part and no other.
    pub(crate) fn is_server(&self) -> bool {
        self.lock().links.role == Role::Server
    }

    /// The server's process connects to this primary client. In one step: a close right after it finds the link.
    pub(crate) fn admit_server(&self, link: &Arc<Link>, welcome: &Message) -> Result<(), Error> {
        let mut inner = self.lock();
        inner.open(&self.name)?;
        link.socket.tell(welcome);
        inner.links.up = Some(Arc::clone(link));
        Ok(())
    }

    /// Another client's process connects to this primary client; it is told what has happened so far.
    pub(crate) fn admit_secondary(
        &self,
        welcome: &Message,
        connect: impl FnOnce(Member) -> Arc<Link>,
    ) -> Result<(Arc<Link>, Member), Error> {
        if self.lock().secondaries.len() >= MAX_SECONDARIES {
            return Err(Error::new(Status::Busy, format!("{MAX_SECONDARIES} clients have joined already")));
        }
        let member = self.join()?;
        let link = connect(member);
        let socket = &link.socket;
        let mut inner = self.lock();
        let (Some(control), Some(choice_made), false) =
            (inner.links.control.clone(), inner.links.choice.clone(), inner.set.is_aborted())
        else {
            inner.secondaries.retain(|other| *other != member);
            return Err(inner.error(if inner.set.is_aborted() { Status::Abort } else { Status::Protocol }));
        };
        socket.tell_with(welcome, Attached::Control(control));
        socket.tell(&Message::Begun(choice(&choice_made)));
        for region in self.area.regions(0) {
            socket.tell_with(&Message::Grown { len: region.len() as u64 }, Attached::Region(region));
        }
        socket.tell(&Message::Ended { area_size: inner.configuration.buffer_area_size });
        for (index, device) in inner.devices.iter().enumerate() {
            if device.state.is_opened_by_server() {
                socket.tell(&Message::ServerOpened { device: number(index) });
            }
            if device.state.is_closed_by_server() {
                socket.tell(&Message::ServerClosed { device: number(index) });
            }
        }
        socket.tell(&Message::Joined);
        inner.links.down.push((member, Arc::clone(&link)));
        Ok((link, member))
    }

    /// Everything was told: this client has the configuration that its primary client fetched.
    pub(crate) fn finish_join(&self, member: Member) -> Result<(), Error> {
        match self.poll_configuration(member, &mut WaitPlace::default(), Waker::noop()) {
            Poll::Ready(done) => done.map(|_| ()),
            Poll::Pending => Err(Error::new(Status::Protocol, "the primary client told of no configuration")),
        }
    }

    /// Why joining did not succeed.
    pub(crate) fn join_failed(&self) -> Error {
        let inner = self.lock();
        if inner.set.is_aborted() {
            return inner.error(Status::Abort);
        }
        Error::new(Status::Timeout, "the primary client did not tell what has happened so far")
    }

    /// A process that was welcomed went away before it had joined: as if it had not come.
    pub(crate) fn dismiss(&self, link: &Link) {
        link.has_left.store(true, Ordering::Release);
        let mut inner = self.lock();
        match link.peer.part {
            Part::Server => inner.unopen(),
            Part::Secondary(member) => {
                inner.secondaries.retain(|other| *other != member);
                inner.links.client_left(member, &mut Wakes::default());
            }
            Part::Primary => {}
        }
        link.socket.close();
    }
}

impl Inner {
    /// The server that was about to open the set did not.
    fn unopen(&mut self) {
        self.set.on_unopened();
        self.links.up = None;
    }
}

/// One per device would do; a few more may only map buffers.
const MAX_SECONDARIES: usize = 128;
