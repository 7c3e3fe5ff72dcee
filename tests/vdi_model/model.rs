//! A device set as its documentation has it, with nothing to wait for and nothing to optimise.

use vdstream::vdi::client::State as Client;
use vdstream::vdi::server::State as Server;
use vdstream::vdi::{CommandCode, CompletionCode, DevicePhase, Status};

use super::op::{How, Shape};

/// Bytes of each buffer, and of each block.
pub(crate) const BLOCK: usize = 512;
/// Buffers that fit into the budget.
pub(crate) const BUDGET: u64 = 24;
/// The no-progress limit of a timed set, in seconds.
pub(crate) const LIMIT: u64 = 10;

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) shape: Shape,
    /// The hub knows the set.
    pub(crate) is_named: bool,
    pub(crate) client: Client,
    pub(crate) server: Server,
    /// What the reason of the abort says.
    pub(crate) cause: Option<&'static str>,
    pub(crate) devices: Vec<Device>,
    /// The server has ended the configuration.
    is_configured: bool,
    /// The second client is there.
    pub(crate) has_secondary: bool,
    /// Every command that was accepted, in order.
    pub(crate) commands: Vec<Command>,
    /// The agent was polled and has not returned.
    pub(crate) is_agent_running: bool,
    /// The server's closing is complete.
    pub(crate) is_closed: bool,
    now: u64,
    last_progress: u64,
    wanted: u64,
    /// Buffers of the area.
    pub(crate) capacity: u64,
    /// Buffers that the server keeps.
    pub(crate) kept: u64,
    /// The most buffers that were ever out.
    pub(crate) peak: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Unopened,
    Open,
    /// The server closed it; the client was told so.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) server: End,
    pub(crate) client: End,
    is_of_secondary: bool,
    is_failed: bool,
    is_aborted: bool,
}

#[derive(Debug)]
pub(crate) struct Command {
    device: usize,
    pub(crate) code: CommandCode,
    pub(crate) size: usize,
    life: Life,
    /// Where its buffer is.
    buffer: Buffer,
    pub(crate) is_answered: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Queued,
    Held { before_failure: bool },
    Ended(Answer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffer {
    None,
    Queue,
    Client,
    Lent {
        is_mapped: bool,
    },
    /// The command was ended, and somebody still has it mapped.
    Mapped,
    Answer,
}

/// What the server learns of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: CompletionCode,
    pub(crate) bytes: usize,
    pub(crate) position: u64,
    pub(crate) has_buffer: bool,
    /// What the reason says.
    pub(crate) reason: Option<&'static str>,
}

/// How a side leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Leaving {
    Closed,
    Dropped,
}

impl Leaving {
    fn of_client(self) -> &'static str {
        match self {
            Self::Closed => "the client closed the device set",
            Self::Dropped => "the client dropped the device set",
        }
    }

    fn of_server(self) -> &'static str {
        match self {
            Self::Closed => "the server closed the device set",
            Self::Dropped => "the server dropped the device set",
        }
    }
}

/// What every reason that there can be says, and only that one.
pub(crate) const REASONS: [&str; 12] = [
    "the client said stop",
    "the server said stop",
    "none ended for",
    "agent was dropped",
    "the client closed the device set",
    "the client dropped the device set",
    "the server closed the device set",
    "the server dropped the device set",
    "the client dropped device",
    "the disk is gone",
    "dropped the command unanswered",
    "bytes reported for a transfer",
];

type Verdict = Result<(), Status>;

impl Model {
    pub(crate) fn created(shape: Shape, now: u64) -> Self {
        let device = || Device {
            server: End::Unopened,
            client: End::Unopened,
            is_of_secondary: false,
            is_failed: false,
            is_aborted: false,
        };
        Self {
            shape,
            is_named: true,
            client: Client::Configurable,
            server: Server::DoesNotExist,
            cause: None,
            devices: (0..shape.devices).map(|_| device()).collect(),
            is_configured: false,
            has_secondary: false,
            commands: Vec::new(),
            is_agent_running: false,
            is_closed: false,
            now,
            last_progress: 0,
            wanted: 0,
            capacity: 0,
            kept: 0,
            peak: 0,
        }
    }

    // The server's configuration.

    pub(crate) fn open(&mut self) -> Verdict {
        if !self.is_named {
            return Err(Status::Invalid);
        }
        allow(self.server == Server::DoesNotExist)?;
        if self.cause.is_some() {
            return Err(Status::Abort);
        }
        self.server = Server::Connected;
        Ok(())
    }

    pub(crate) fn begin(&mut self) -> Verdict {
        allow(self.server == Server::Connected)?;
        self.server = Server::Configurable;
        Ok(())
    }

    pub(crate) fn request(&mut self, count: u64) -> Verdict {
        match self.server {
            Server::Configurable => self.wanted += count,
            Server::Initializing | Server::Active => self.grow(count)?,
            _ => return Err(Status::Protocol),
        }
        Ok(())
    }

    pub(crate) fn end(&mut self) -> Verdict {
        self.not_aborted_server()?;
        allow(self.server == Server::Configurable)?;
        let wanted = std::mem::take(&mut self.wanted);
        self.grow(wanted)?;
        self.server = Server::Initializing;
        self.is_configured = true;
        Ok(())
    }

    fn grow(&mut self, count: u64) -> Verdict {
        if self.capacity + count > BUDGET {
            return Err(Status::Memory);
        }
        self.capacity += count;
        Ok(())
    }

    pub(crate) fn available(&self) -> Result<usize, Status> {
        match self.server {
            Server::Configurable => Ok(0),
            Server::Initializing | Server::Active => Ok(usize::try_from(self.capacity - self.out()).unwrap()),
            _ => Err(Status::Protocol),
        }
    }

    /// Buffers that are with somebody.
    fn out(&self) -> u64 {
        self.kept + self.commands.iter().filter(|command| command.buffer != Buffer::None).count() as u64
    }

    pub(crate) fn allocate(&mut self) -> Verdict {
        self.not_aborted_server()?;
        allow(matches!(self.server, Server::Initializing | Server::Active))?;
        if self.out() == self.capacity {
            return Err(Status::Memory);
        }
        self.kept += 1;
        self.peak = self.peak.max(self.out());
        Ok(())
    }

    pub(crate) fn free(&mut self) -> Verdict {
        self.kept -= 1;
        allow(!matches!(self.server, Server::DoesNotExist | Server::Connected | Server::Configurable))
    }

    // Devices.

    /// `None` until the server has ended the configuration. It may be gone since.
    pub(crate) fn peek_configuration(&self) -> Result<Option<()>, Status> {
        self.not_aborted_client()?;
        allow(self.client != Client::DoesNotExist)?;
        Ok(self.is_configured.then_some(()))
    }

    pub(crate) fn fetch(&mut self) -> Result<Option<()>, Status> {
        let fetched = self.peek_configuration()?;
        if fetched.is_some() && self.client == Client::Configurable {
            self.client = Client::Initializing;
        }
        Ok(fetched)
    }

    pub(crate) fn open_server_device(&mut self) -> Result<usize, Status> {
        self.not_aborted_server()?;
        allow(matches!(self.server, Server::Initializing | Server::Active))?;
        let index = self.devices.iter().position(|device| device.server == End::Unopened).ok_or(Status::Open)?;
        self.devices[index].server = End::Open;
        self.server = Server::Active;
        Ok(index)
    }

    pub(crate) fn open_client_device(&mut self, index: usize, by_secondary: bool) -> Verdict {
        allow(!by_secondary || self.has_secondary)?;
        self.not_aborted_client()?;
        allow(matches!(self.client, Client::Initializing | Client::Active))?;
        if index == self.shape.devices {
            return Err(Status::Invalid);
        }
        if self.devices.iter().all(|device| device.client != End::Unopened) {
            return Err(Status::Open);
        }
        allow(self.devices[index].client == End::Unopened)?;
        self.devices[index].client = End::Open;
        self.devices[index].is_of_secondary = by_secondary;
        self.client = Client::Active;
        Ok(())
    }

    pub(crate) fn close_device(&mut self, index: usize) -> Verdict {
        self.not_aborted_server()?;
        if self.server == Server::NormallyTerminated || self.devices[index].server == End::Closed {
            return Err(if self.server == Server::DoesNotExist { Status::Protocol } else { Status::Close });
        }
        allow(self.server == Server::Active && self.devices[index].server == End::Open)?;
        self.devices[index].server = End::Closed;
        if self.devices[index].is_failed {
            self.drop_queue(index, CompletionCode::OperationAborted);
        }
        if self.devices.iter().all(|device| device.server == End::Closed) {
            self.server = Server::NormallyTerminated;
        }
        Ok(())
    }

    pub(crate) fn phase(&self, index: usize) -> DevicePhase {
        let device = &self.devices[index];
        match (device.server, device.client) {
            _ if device.is_aborted => DevicePhase::Aborted,
            (End::Closed, _) => DevicePhase::Closed,
            (End::Unopened, _) | (_, End::Unopened) => DevicePhase::Unopened,
            _ if device.is_failed => DevicePhase::IoError,
            _ => DevicePhase::Active,
        }
    }

    // Commands.

    /// Whether a command would be accepted, were its fields in order; `None`: when there is room.
    pub(crate) fn room(&self, index: usize, code: CommandCode) -> Result<Option<()>, Status> {
        self.not_aborted_server()?;
        allow(self.server == Server::Active && self.devices[index].server == End::Open)?;
        if self.devices[index].is_failed && code != CommandCode::ClearError {
            return Err(Status::IoError);
        }
        Ok((self.of_device(index, Life::Queued).count() < self.shape.depth).then_some(()))
    }

    /// The server sends a command, whose buffer it keeps until then. Returns its number.
    pub(crate) fn send(
        &mut self,
        index: usize,
        code: CommandCode,
        size: usize,
        is_short: bool,
    ) -> Result<usize, Status> {
        self.room(index, code)?.ok_or(Status::QueueFull)?;
        let is_single = self.shape.devices == 1;
        let is_supported = match code {
            CommandCode::Complete => self.shape.asks_complete,
            CommandCode::PrepareToFreeze => self.shape.asks_prepare && is_single,
            CommandCode::Snapshot | CommandCode::MountSnapshot => is_single,
            _ => true,
        };
        if !is_supported {
            return Err(Status::NotSupported);
        }
        let is_transfer = matches!(code, CommandCode::Read | CommandCode::Write);
        if is_transfer && (size == 0 || size > BLOCK || (size != BLOCK && !is_short)) {
            return Err(Status::Invalid);
        }
        if self.pending() == 0 {
            self.last_progress = self.now;
        }
        self.kept -= u64::from(is_transfer);
        let buffer = if is_transfer { Buffer::Queue } else { Buffer::None };
        self.commands.push(Command { device: index, code, size, life: Life::Queued, buffer, is_answered: false });
        Ok(self.commands.len() - 1)
    }

    /// The client's next command by its number; `None`: nothing yet.
    pub(crate) fn take(&mut self, index: usize) -> Result<Option<usize>, Status> {
        let next = self.next(index)?;
        if let Some(number) = next {
            let command = &mut self.commands[number];
            command.life = Life::Held { before_failure: false };
            if command.buffer == Buffer::Queue {
                command.buffer = Buffer::Client;
            }
        }
        Ok(next)
    }

    /// The same; a close is noted, a command is not taken.
    fn next(&mut self, index: usize) -> Result<Option<usize>, Status> {
        let next = self.peek(index);
        if next == Err(Status::Close) {
            self.devices[index].client = End::Closed;
            self.note_client_end();
        }
        next
    }

    pub(crate) fn peek(&self, index: usize) -> Result<Option<usize>, Status> {
        self.not_aborted_client()?;
        allow(self.client == Client::Active && self.devices[index].client == End::Open)?;
        let next = self.of_device(index, Life::Queued).next();
        match next {
            None if self.devices[index].server == End::Closed => Err(Status::Close),
            // Only ClearError is ever queued in a failed device, and it waits for what was out at the failure.
            Some(_) if self.of_device(index, Life::Held { before_failure: true }).next().is_some() => Ok(None),
            next => Ok(next),
        }
    }

    pub(crate) fn complete(&mut self, number: usize, how: How) -> Verdict {
        let (code, mut bytes, position, mut reason) = match how {
            How::With { code, bytes, position } => (code, bytes, position, None),
            How::Fail => (CompletionCode::HandleEof, 0, 0, Some("the disk is gone")),
            How::Drop => (CompletionCode::OperationAborted, 0, 0, Some("dropped the command unanswered")),
        };
        let mut code = CompletionCode::from_code(code.code());
        let Command { device: index, code: asked, size, life, buffer, .. } = self.commands[number];
        let is_mapped = buffer == Buffer::Lent { is_mapped: true };
        self.commands[number].buffer = if is_mapped { Buffer::Mapped } else { Buffer::None };
        if matches!(life, Life::Ended(_)) {
            self.not_aborted_client()?;
            return Err(Status::Protocol);
        }
        let mut verdict = Ok(());
        if !matches!(asked, CommandCode::Read | CommandCode::Write) {
            bytes = 0;
        } else if bytes > size {
            (code, bytes, reason) = (CompletionCode::IoDevice, 0, Some("bytes reported for a transfer"));
            verdict = Err(Status::Invalid);
        }
        self.last_progress = self.now;
        let has_buffer = matches!(buffer, Buffer::Client | Buffer::Lent { is_mapped: false });
        self.finish(number, Answer { code, bytes, position, has_buffer, reason });
        let was_out_at_failure = life == Life::Held { before_failure: true };
        if self.devices[index].is_failed {
            if !was_out_at_failure && asked == CommandCode::ClearError && code.is_success() {
                self.devices[index].is_failed = false;
            }
        } else if !code.is_success() && code != CompletionCode::EndOfMedia {
            self.devices[index].is_failed = true;
            for command in &mut self.commands {
                if command.device == index && matches!(command.life, Life::Held { .. }) {
                    command.life = Life::Held { before_failure: true };
                }
            }
            self.drop_queue(index, CompletionCode::IoDevice);
        }
        self.note_client_end();
        verdict
    }

    fn finish(&mut self, number: usize, answer: Answer) {
        let command = &mut self.commands[number];
        command.life = Life::Ended(answer);
        if answer.has_buffer {
            command.buffer = Buffer::Answer;
        }
    }

    /// Ends what the client has not taken.
    fn drop_queue(&mut self, index: usize, code: CompletionCode) {
        let queued: Vec<usize> = self.of_device(index, Life::Queued).collect();
        for number in queued {
            let has_buffer = self.commands[number].buffer == Buffer::Queue;
            self.finish(number, Answer { code, bytes: 0, position: 0, has_buffer, reason: None });
        }
    }

    pub(crate) fn answer_of(&self, number: usize) -> Option<Answer> {
        match self.commands[number] {
            Command { life: Life::Ended(answer), is_answered: true, .. } => Some(answer),
            _ => None,
        }
    }

    fn of_device(&self, index: usize, life: Life) -> impl Iterator<Item = usize> {
        let commands = self.commands.iter().enumerate();
        commands.filter(move |(_, command)| command.device == index && command.life == life).map(|(number, _)| number)
    }

    fn pending(&self) -> usize {
        self.commands.iter().filter(|command| !matches!(command.life, Life::Ended(_))).count()
    }

    /// Gives every answer that there is.
    fn answer_all(&mut self) {
        for command in &mut self.commands {
            if matches!(command.life, Life::Ended(_)) && !command.is_answered {
                command.is_answered = true;
                // The test looks at the answer and drops it.
                if command.buffer == Buffer::Answer {
                    command.buffer = Buffer::None;
                }
            }
        }
    }

    // The agent.

    pub(crate) fn create_agent(&mut self) -> Verdict {
        self.not_aborted_server()?;
        allow(matches!(self.server, Server::Initializing | Server::Active))?;
        self.server = Server::Active;
        Ok(())
    }

    /// True if a poll of the running agent would do something.
    pub(crate) fn is_agent_due(&self) -> bool {
        let has_answers =
            self.commands.iter().any(|command| matches!(command.life, Life::Ended(_)) && !command.is_answered);
        has_answers || self.is_agent_over() || self.is_overdue()
    }

    fn is_agent_over(&self) -> bool {
        match self.server {
            Server::DoesNotExist | Server::AbnormallyTerminated => true,
            Server::NormallyTerminated => self.pending() == 0,
            _ => false,
        }
    }

    fn is_overdue(&self) -> bool {
        self.shape.is_timed && self.pending() > 0 && self.now - self.last_progress > 2 * LIMIT
    }

    /// `None` while it waits.
    pub(crate) fn poll_agent(&mut self) -> Option<Verdict> {
        self.is_agent_running = true;
        if !self.is_agent_over() && self.is_overdue() {
            self.abort("none ended for");
        }
        self.answer_all();
        if !self.is_agent_over() {
            return None;
        }
        self.agent_is_gone();
        Some(if self.cause.is_some() { Err(Status::Abort) } else { Ok(()) })
    }

    pub(crate) fn drop_agent(&mut self) {
        if self.is_agent_running {
            if !self.is_agent_over() {
                self.abort("agent was dropped");
            }
            self.answer_all();
            self.agent_is_gone();
        }
    }

    fn agent_is_gone(&mut self) {
        self.is_agent_running = false;
        self.is_closed |= self.server == Server::DoesNotExist;
    }

    pub(crate) fn tick(&mut self, seconds: u64) {
        self.now += seconds;
    }

    // The endings.

    pub(crate) fn abort_by_client(&mut self) -> Verdict {
        allow(self.client != Client::DoesNotExist)?;
        self.abort("the client said stop");
        Ok(())
    }

    pub(crate) fn abort_by_server(&mut self) -> Verdict {
        allow(self.server != Server::DoesNotExist)?;
        self.abort("the server said stop");
        Ok(())
    }

    fn abort(&mut self, cause: &'static str) {
        if self.cause.is_some() {
            return;
        }
        self.cause = Some(cause);
        if self.client != Client::DoesNotExist {
            self.client = Client::Aborted;
        }
        if self.server != Server::DoesNotExist {
            self.server = Server::AbnormallyTerminated;
        }
        for device in &mut self.devices {
            device.is_aborted = true;
        }
        for number in 0..self.commands.len() {
            if !matches!(self.commands[number].life, Life::Ended(_)) {
                let has_buffer = self.commands[number].buffer == Buffer::Queue;
                let code = CompletionCode::OperationAborted;
                self.finish(number, Answer { code, bytes: 0, position: 0, has_buffer, reason: Some(cause) });
            }
        }
    }

    pub(crate) fn leave_client(&mut self, leaving: Leaving) -> Verdict {
        allow(self.client != Client::DoesNotExist)?;
        let mut verdict = Ok(());
        if self.cause.is_none() {
            let is_open = (0..self.shape.devices).any(|index| self.is_open_at_client(index));
            if is_open {
                verdict = Err(Status::Open);
            }
            let server_is_through = matches!(self.server, Server::DoesNotExist | Server::NormallyTerminated);
            if is_open || self.pending() > 0 || !server_is_through {
                self.abort(leaving.of_client());
            }
        }
        self.client = Client::DoesNotExist;
        self.has_secondary = false;
        self.is_named = false;
        verdict
    }

    // The second client.

    pub(crate) fn join(&mut self) -> Verdict {
        allow(self.is_named)?;
        self.not_aborted_client()?;
        allow(!matches!(self.client, Client::DoesNotExist | Client::Configurable))?;
        self.has_secondary = true;
        Ok(())
    }

    pub(crate) fn leave_secondary(&mut self, leaving: Leaving) -> Verdict {
        allow(self.has_secondary && self.client != Client::DoesNotExist)?;
        self.has_secondary = false;
        let is_open =
            (0..self.shape.devices).any(|index| self.devices[index].is_of_secondary && self.is_open_at_client(index));
        let is_holding = self
            .commands
            .iter()
            .any(|command| matches!(command.life, Life::Held { .. }) && self.devices[command.device].is_of_secondary);
        if self.cause.is_some() {
            return Ok(());
        }
        if is_open || is_holding {
            self.abort(leaving.of_client());
        }
        if is_open { Err(Status::Open) } else { Ok(()) }
    }

    // Buffers on loan.

    /// The client lends the buffer of a command that it holds; lent again, it is the same loan.
    pub(crate) fn lend(&mut self, number: usize) -> Verdict {
        match self.commands[number].buffer {
            Buffer::Lent { .. } => Ok(()),
            Buffer::Client => {
                allow(self.client != Client::DoesNotExist)?;
                self.commands[number].buffer = Buffer::Lent { is_mapped: false };
                Ok(())
            }
            _ => Err(Status::Invalid),
        }
    }

    /// The client holds the command, and it has a buffer, lent or not.
    pub(crate) fn has_loan(&self, number: usize) -> bool {
        matches!(self.commands[number].buffer, Buffer::Client | Buffer::Lent { .. })
    }

    pub(crate) fn map(&mut self, number: usize, by_secondary: bool) -> Verdict {
        allow(self.client != Client::DoesNotExist && (!by_secondary || self.has_secondary))?;
        match &mut self.commands[number].buffer {
            Buffer::Lent { is_mapped: true } => Err(Status::Busy),
            Buffer::Lent { is_mapped } => {
                *is_mapped = true;
                Ok(())
            }
            _ => Err(Status::Invalid),
        }
    }

    pub(crate) fn unmap(&mut self, number: usize) {
        self.commands[number].buffer = match self.commands[number].buffer {
            Buffer::Lent { .. } => Buffer::Lent { is_mapped: false },
            // Its command was ended meanwhile.
            Buffer::Mapped => Buffer::None,
            other => other,
        };
    }

    pub(crate) fn leave_server(&mut self, leaving: Leaving) -> Verdict {
        allow(self.server != Server::DoesNotExist)?;
        let mut verdict = Ok(());
        if self.cause.is_none() {
            if self.devices.iter().any(|device| device.server == End::Open) {
                verdict = Err(Status::Protocol);
            }
            if verdict.is_err() || self.pending() > 0 || self.server != Server::NormallyTerminated {
                self.abort(leaving.of_server());
            }
        }
        self.server = Server::DoesNotExist;
        self.is_named = false;
        // The area is detached: nothing of it is counted any more.
        (self.capacity, self.peak) = (0, 0);
        if !self.is_agent_running {
            self.answer_all();
            self.is_closed = true;
        }
        verdict
    }

    pub(crate) fn drop_client_device(&mut self, index: usize) {
        if self.client == Client::Active {
            if self.is_open_at_client(index) {
                self.abort("the client dropped device");
            } else {
                let _seen = self.next(index);
            }
        }
    }

    /// The client has something to expect of it.
    fn is_open_at_client(&self, index: usize) -> bool {
        let Device { client, server, .. } = self.devices[index];
        client == End::Open && !(server == End::Closed && self.of_device(index, Life::Queued).next().is_none())
    }

    /// The client's end is through when it knows of every close and holds no command.
    fn note_client_end(&mut self) {
        let is_holding = self.commands.iter().any(|command| matches!(command.life, Life::Held { .. }));
        let is_told = self.devices.iter().all(|device| device.client == End::Closed);
        if self.client == Client::Active && is_told && !is_holding {
            self.client = Client::NormallyTerminated;
        }
    }

    fn not_aborted_client(&self) -> Verdict {
        if self.client == Client::Aborted { Err(Status::Abort) } else { Ok(()) }
    }

    fn not_aborted_server(&self) -> Verdict {
        if self.server == Server::AbnormallyTerminated { Err(Status::Abort) } else { Ok(()) }
    }
}

fn allow(is_allowed: bool) -> Verdict {
    if is_allowed { Ok(()) } else { Err(Status::Protocol) }
}
