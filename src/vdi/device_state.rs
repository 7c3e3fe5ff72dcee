//! One device: its queue, what is with the client, and the error protocol. Pure state, no lock, no clock, no waiting.

use std::collections::VecDeque;

use super::code::{CommandCode, CompletionCode};
use super::status::Status;

/// Identifies an accepted command within its set; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CommandId(pub(crate) u64);

/// The device as the specification's diagram has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DevicePhase {
    /// Not opened by both sides yet.
    Unopened,
    /// Both sides opened it.
    Active,
    /// A command failed; only `ClearError` is accepted.
    IoError,
    /// Closed by the server.
    Closed,
    /// The set was aborted.
    Aborted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServerEnd {
    Unopened,
    Open,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientEnd {
    Unopened,
    Open,
    /// It was told that the server closed the device.
    SawClose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// `ClearError` is withheld while `outstanding` commands of before the failure are with the client.
    Failed {
        outstanding: usize,
    },
}

#[derive(Debug, Clone, Copy)]
struct Delivered {
    id: CommandId,
    code: CommandCode,
    /// It was with the client when the device failed.
    before_failure: bool,
}

/// What the client gets when it asks for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// This command is now with the client.
    Command(CommandId),
    /// Nothing to deliver now.
    Nothing,
    /// The server closed the device; told once.
    Closed,
}

#[derive(Debug)]
pub(crate) struct DeviceState {
    depth: usize,
    server: ServerEnd,
    client: ClientEnd,
    health: Health,
    aborted: bool,
    /// How often the device has failed.
    #[cfg(feature = "shm")]
    epoch: u32,
    queue: VecDeque<(CommandId, CommandCode)>,
    delivered: Vec<Delivered>,
}

/// Bounds what a client can hold without answering, for commands that carry no buffer.
const MAX_DELIVERED: usize = 1024;

impl DeviceState {
    pub(crate) fn new() -> Self {
        Self {
            depth: 1,
            server: ServerEnd::Unopened,
            client: ClientEnd::Unopened,
            health: Health::Good,
            aborted: false,
            #[cfg(feature = "shm")]
            epoch: 0,
            queue: VecDeque::new(),
            delivered: Vec::new(),
        }
    }

    pub(crate) fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    pub(crate) fn phase(&self) -> DevicePhase {
        match (self.server, self.client, self.health) {
            _ if self.aborted => DevicePhase::Aborted,
            (ServerEnd::Closed, _, _) => DevicePhase::Closed,
            (ServerEnd::Unopened, _, _) | (_, ClientEnd::Unopened, _) => DevicePhase::Unopened,
            (_, _, Health::Good) => DevicePhase::Active,
            (_, _, Health::Failed { .. }) => DevicePhase::IoError,
        }
    }

    pub(crate) fn is_open_at_server(&self) -> bool {
        self.server == ServerEnd::Open
    }

    pub(crate) fn is_opened_by_server(&self) -> bool {
        self.server != ServerEnd::Unopened
    }

    pub(crate) fn is_closed_by_server(&self) -> bool {
        self.server == ServerEnd::Closed
    }

    pub(crate) fn is_opened_by_client(&self) -> bool {
        self.client != ClientEnd::Unopened
    }

    /// True while the client has something to expect of the device. A device whose close waits to be seen counts as closed.
    pub(crate) fn is_open_at_client(&self) -> bool {
        self.client == ClientEnd::Open && !(self.is_closed_by_server() && self.queue.is_empty())
    }

    /// True if the client was told of the close and has answered every command.
    pub(crate) fn is_finished_at_client(&self) -> bool {
        self.client == ClientEnd::SawClose && self.delivered.is_empty()
    }

    /// Commands that the client holds.
    pub(crate) fn held(&self) -> usize {
        self.delivered.len()
    }

    /// True if `on_send` of an ordinary command would find room.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < self.depth && self.delivered.len() < MAX_DELIVERED
    }

    pub(crate) fn on_server_opened(&mut self) {
        self.server = ServerEnd::Open;
    }

    pub(crate) fn on_client_opened(&mut self) {
        self.client = ClientEnd::Open;
    }

    /// The server wants to send; the order of the checks is the order of what the caller should learn first.
    pub(crate) fn check_send(&self, code: CommandCode) -> Result<(), Status> {
        if self.server != ServerEnd::Open {
            return Err(Status::Protocol);
        }
        if self.health != Health::Good && code != CommandCode::ClearError {
            return Err(Status::IoError);
        }
        if !self.has_room() {
            return Err(Status::QueueFull);
        }
        Ok(())
    }

    /// The server sent a command that `check_send` accepted.
    pub(crate) fn on_sent(&mut self, id: CommandId, code: CommandCode) {
        debug_assert!(self.check_send(code).is_ok(), "sent only after the check");
        self.queue.push_back((id, code));
    }

    /// The client asks for its next command.
    pub(crate) fn on_take(&mut self) -> Result<Take, Status> {
        if self.client != ClientEnd::Open {
            return Err(Status::Protocol);
        }
        if !self.is_deliverable() {
            return Ok(Take::Nothing);
        }
        if let Some((id, code)) = self.queue.pop_front() {
            self.delivered.push(Delivered { id, code, before_failure: false });
            return Ok(Take::Command(id));
        }
        self.client = ClientEnd::SawClose;
        Ok(Take::Closed)
    }

    /// The client completed a command. Returns the queued commands that the failure drops, in order.
    pub(crate) fn on_completed(&mut self, id: CommandId, end: CompletionCode) -> Result<Dropped, Status> {
        let index = self.delivered.iter().position(|delivered| delivered.id == id).ok_or(Status::Invalid)?;
        let delivered = self.delivered.swap_remove(index);
        if let Health::Failed { outstanding } = &mut self.health {
            if delivered.before_failure {
                *outstanding -= 1;
            } else if delivered.code == CommandCode::ClearError && end.is_success() {
                self.health = Health::Good;
            }
            return Ok(Dropped(Vec::new()));
        }
        // The end of a medium is a warning: what is pending must still be stored.
        if end.is_success() || end == CompletionCode::EndOfMedia {
            return Ok(Dropped(Vec::new()));
        }
        for pending in &mut self.delivered {
            pending.before_failure = true;
        }
        self.health = Health::Failed { outstanding: self.delivered.len() };
        #[cfg(feature = "shm")]
        {
            self.epoch = self.epoch.wrapping_add(1);
        }
        Ok(Dropped(self.queue.drain(..).map(|(id, _)| id).collect()))
    }

    /// The server closes the device. Returns the commands that can no longer be delivered.
    ///
    /// Queued commands of a healthy device are delivered before the client sees the close.
    pub(crate) fn on_closed(&mut self) -> Result<Dropped, Status> {
        match self.server {
            ServerEnd::Unopened => Err(Status::Protocol),
            ServerEnd::Closed => Err(Status::Close),
            ServerEnd::Open => {
                self.server = ServerEnd::Closed;
                let withheld = matches!(self.health, Health::Failed { .. });
                let dropped = if withheld { self.queue.drain(..).map(|(id, _)| id).collect() } else { Vec::new() };
                Ok(Dropped(dropped))
            }
        }
    }

    /// The server closed the whole set without opening this device, or the set was aborted: nothing is delivered any more.
    pub(crate) fn on_server_gone(&mut self) {
        self.server = ServerEnd::Closed;
    }

    /// The set was aborted. Every command of the device is to be answered by the caller.
    pub(crate) fn on_aborted(&mut self) {
        self.aborted = true;
        self.queue.clear();
        self.delivered.clear();
    }

    /// True if the next `on_take` delivers something or tells of the close.
    pub(crate) fn is_deliverable(&self) -> bool {
        if self.queue.is_empty() {
            return self.server == ServerEnd::Closed;
        }
        // What is queued in a failed device is ClearError, and it is withheld.
        !matches!(self.health, Health::Failed { outstanding: 1.. })
    }
}

/// The same device in two processes: the events of either side reach the other one later, in order.
///
/// What the server sends and what the client takes and completes can cross without harm, because the one adds at the end of the
/// queue and the other removes at its front. Only a failure empties the queue, so each command carries the number of failures
/// that its sender knew of: one that crossed a failure is dropped by both sides.
#[cfg(feature = "shm")]
impl DeviceState {
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The commands that wait to be taken, in order.
    pub(crate) fn queued(&self) -> impl Iterator<Item = CommandId> {
        self.queue.iter().map(|(id, _)| *id)
    }

    /// A command came from the server's process, which accepted it when `epoch` failures were known there. False if it
    /// crossed a failure.
    ///
    /// The client may hold more than the server knows of, so only the sum of what waits and what is held is bounded here.
    pub(crate) fn check_arrived(&self, code: CommandCode, epoch: u32) -> Result<bool, Status> {
        if self.server != ServerEnd::Open {
            return Err(Status::Protocol);
        }
        if epoch < self.epoch {
            return Ok(false);
        }
        if epoch > self.epoch || (self.health != Health::Good && code != CommandCode::ClearError) {
            return Err(Status::IoError);
        }
        if self.queue.len() >= self.depth || self.queue.len() + self.delivered.len() >= self.depth + MAX_DELIVERED {
            return Err(Status::QueueFull);
        }
        Ok(true)
    }

    /// A command that `check_arrived` let in.
    pub(crate) fn on_arrived(&mut self, id: CommandId, code: CommandCode) {
        self.queue.push_back((id, code));
    }

    /// True if the client's process may take this command now.
    pub(crate) fn is_next(&self, id: CommandId) -> bool {
        self.client == ClientEnd::Open
            && self.is_deliverable()
            && self.queue.front().is_some_and(|(first, _)| *first == id)
    }

    /// True if the client's process may tell its client that the device is closed.
    pub(crate) fn is_close_due(&self) -> bool {
        self.client == ClientEnd::Open && self.queue.is_empty() && self.is_closed_by_server()
    }

    /// True if the client holds this command.
    pub(crate) fn is_delivered(&self, id: CommandId) -> bool {
        self.delivered.iter().any(|delivered| delivered.id == id)
    }
}

/// Commands that left the queue without being delivered; each must be answered.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Dropped(pub(crate) Vec<CommandId>);
