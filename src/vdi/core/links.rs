//! What a process tells the others that hold a part of the set.
//!
//! Each process has a core of its own. A call of a side is judged by the core of its process, and told to the others, whose
//! cores repeat it. Messages are queued under the lock of the core, so in the order of what happened; they are written after it.

use std::sync::Arc;

use super::super::area::Area;
use super::super::client::Completion;
use super::super::code::CompletionCode;
use super::super::config::ServerConfig;
use super::super::device_state::CommandId;
use super::super::waiters::Wakes;
use super::inner::{Device, Entry, Member};
use super::link::Link;
use super::translate::{choice, reason};
use crate::shm::wire::{Completed, Message, Place, Sent};
use crate::shm::{Attached, Control};

/// The connections of this process's part of a set. Empty in a set within one process.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(super) role: Role,
    /// Towards the server.
    pub(super) up: Option<Arc<Link>>,
    /// Towards the clients.
    pub(super) down: Vec<(Member, Arc<Link>)>,
    /// What the clients' processes share.
    pub(super) control: Option<Arc<Control>>,
    pub(super) choice: Option<ServerConfig>,
    told_regions: usize,
}

/// Which part of the set is in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Role {
    /// All of it.
    #[default]
    Whole,
    Server,
    Primary,
    Secondary(Member),
}

impl Links {
    pub(crate) fn begun(&mut self, config: &ServerConfig, wakes: &mut Wakes) {
        if self.role == Role::Whole {
            return;
        }
        self.choice = Some(config.clone());
        self.tell_down(&Message::Begun(choice(config)), wakes);
    }

    /// Tells of the regions that were not told of.
    pub(crate) fn grown(&mut self, area: &Area, wakes: &mut Wakes) {
        if self.role == Role::Whole {
            return;
        }
        for region in area.regions(self.told_regions) {
            self.told_regions += 1;
            let message = Message::Grown { len: region.len() as u64 };
            for (_, link) in &self.down {
                link.socket.tell_with(&message, Attached::Region(Arc::clone(&region)));
                wakes.push(link.socket.flusher());
            }
        }
    }

    pub(crate) fn ended(&self, area_size: u32, wakes: &mut Wakes) {
        self.tell_down(&Message::Ended { area_size }, wakes);
    }

    pub(crate) fn server_opened(&self, device: usize, wakes: &mut Wakes) {
        self.tell_down(&Message::ServerOpened { device: number(device) }, wakes);
    }

    /// The server sent the command; only the process that has the device opened is told.
    pub(crate) fn sent(&self, index: usize, device: &Device, wakes: &mut Wakes) {
        if self.role == Role::Whole {
            return;
        }
        let Some(entry) = device.entries.last() else { return };
        for (member, link) in &self.down {
            if self.role == Role::Server || device.opened_by == Some(*member) {
                link.tell(&sent(index, device, entry), wakes);
            }
        }
    }

    pub(crate) fn server_closed(&self, device: usize, wakes: &mut Wakes) {
        self.tell_down(&Message::ServerClosed { device: number(device) }, wakes);
    }

    pub(crate) fn fetched(&self, wakes: &mut Wakes) {
        self.tell_up(&Message::Fetched, wakes);
    }

    /// True if this client gets the device, as far as the other clients say.
    pub(crate) fn claim(&self, device: usize) -> bool {
        self.control.as_ref().is_none_or(|control| control.claim(device))
    }

    pub(crate) fn client_opened(&self, device: usize, wakes: &mut Wakes) {
        self.tell_up(&Message::ClientOpened { device: number(device) }, wakes);
    }

    /// Nobody waits for this but a full queue, so it goes with the next message, or when the connection's task runs.
    pub(crate) fn taken(&self, device: usize, id: CommandId) {
        if let Some(up) = &self.up {
            up.socket.tell_later(&Message::Taken { device: number(device), id: id.0 });
        }
    }

    pub(crate) fn saw_close(&self, device: usize, wakes: &mut Wakes) {
        self.tell_up(&Message::SawClose { device: number(device) }, wakes);
    }

    pub(crate) fn completed(&self, device: usize, id: CommandId, answer: Answer<'_>, wakes: &mut Wakes) {
        if self.up.is_none() {
            return;
        }
        let message = Message::Completed(Completed {
            device: number(device),
            id: id.0,
            code: answer.code.code(),
            // At most the size of a command, which is 32 bits wide.
            bytes: u32::try_from(answer.completion.bytes_transferred).unwrap_or(u32::MAX),
            position: answer.completion.position,
            has_buffer: answer.has_buffer,
            reason: answer.reason.map(reason),
        });
        self.tell_up(&message, wakes);
    }

    pub(crate) fn returned(&self, place: Place, wakes: &mut Wakes) {
        self.tell_up(&Message::Returned(place), wakes);
    }

    pub(crate) fn returned_below(&self, place: Place, wakes: &mut Wakes) {
        self.tell_down(&Message::Returned(place), wakes);
    }

    pub(crate) fn aborted(&self, error: &crate::Error, wakes: &mut Wakes) {
        if self.role == Role::Whole {
            return;
        }
        let message = Message::Aborted(reason(error));
        self.tell_up(&message, wakes);
        self.tell_down(&message, wakes);
    }

    /// The server is gone from the set.
    pub(crate) fn server_left(&mut self, wakes: &mut Wakes) {
        self.tell_down(&Message::Left { is_server: true }, wakes);
        match self.role {
            Role::Server => self.end_all(),
            // Nothing more is to be told to it.
            Role::Primary => self.end_up(),
            Role::Whole | Role::Secondary(_) => {}
        }
    }

    /// A client is gone from the set.
    pub(crate) fn client_left(&mut self, member: Member, wakes: &mut Wakes) {
        match (self.role, member) {
            (Role::Primary, Member::Primary) => {
                self.tell_up(&Message::Left { is_server: false }, wakes);
                self.tell_down(&Message::Left { is_server: false }, wakes);
                self.end_all();
            }
            (Role::Secondary(me), _) => {
                if member == me {
                    self.tell_up(&Message::Left { is_server: false }, wakes);
                }
                self.end_all();
            }
            (Role::Primary, Member::Secondary(_)) | (Role::Server, Member::Primary) => self.end_down(member),
            (Role::Whole, _) | (Role::Server, Member::Secondary(_)) => {}
        }
    }

    fn end_all(&mut self) {
        self.end_up();
        for (_, link) in self.down.drain(..) {
            link.socket.close();
        }
        self.control = None;
    }

    fn end_up(&mut self) {
        if let Some(up) = self.up.take() {
            up.socket.close();
        }
    }

    fn end_down(&mut self, member: Member) {
        self.down.retain(|(other, link)| {
            let is_other = *other != member;
            if !is_other {
                link.socket.close();
            }
            is_other
        });
    }

    fn tell_up(&self, message: &Message, wakes: &mut Wakes) {
        if let Some(up) = &self.up {
            up.tell(message, wakes);
        }
    }

    fn tell_down(&self, message: &Message, wakes: &mut Wakes) {
        for (_, link) in &self.down {
            link.tell(message, wakes);
        }
    }

    pub(super) fn tell_member(&self, member: Member, message: &Message, wakes: &mut Wakes) {
        for (_, link) in self.down.iter().filter(|(other, _)| *other == member) {
            link.tell(message, wakes);
        }
    }
}

impl Link {
    fn tell(&self, message: &Message, wakes: &mut Wakes) {
        self.socket.tell(message);
        wakes.push(self.socket.flusher());
    }
}

/// What a client answered.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) code: CompletionCode,
    pub(crate) completion: Completion,
    pub(crate) has_buffer: bool,
    pub(crate) reason: Option<&'a crate::Error>,
}

/// The message for a command that waits in the queue of a device.
pub(super) fn sent(index: usize, device: &Device, entry: &Entry) -> Message {
    Message::Sent(Sent {
        device: number(index),
        is_short: entry.is_short,
        epoch: device.state.epoch(),
        id: entry.id.0,
        code: entry.code.code(),
        // Sizes are bounded by the largest transfer, counts are 32 bits wide.
        size: u32::try_from(entry.size).unwrap_or(u32::MAX),
        position: entry.position,
        place: entry.buffer.as_ref().and_then(super::super::area::Buffer::place),
    })
}

/// Devices are 64 at most.
pub(super) fn number(device: usize) -> u8 {
    u8::try_from(device).unwrap_or(u8::MAX)
}
