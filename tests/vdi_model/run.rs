//! Runs a list of operations on a device set and on the model, and compares them after every step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_test::task::{self, Spawn};
use vdstream::buffer::MemoryBudget;
use vdstream::testing::SimClock;
use vdstream::vdi::server::{Buffer, Command, CommandFuture, CompletionAgent};
use vdstream::vdi::{self, CommandCode, Config, Configuration, Features, LocalHub, ServerConfig, Status, Transport};
use vdstream::vdi::{client, server};
use vdstream::{Error, ErrorKind};

use super::model::{Answer, BLOCK, BUDGET, LIMIT, Leaving, Model, REASONS};
use super::op::{How, List, Mode, Op, Shape};

/// How often each operation ended how.
pub(crate) type Seen = BTreeMap<String, u64>;

/// Runs a list to its end and closes everything.
///
/// # Panics
///
/// If implementation and model differ, or something is left at the end.
pub(crate) fn run(list: &List, seen: &mut Seen) {
    let clock = SimClock::new();
    let budget = MemoryBudget::new(BUDGET * BLOCK as u64);
    let hub = LocalHub::with_clock(clock.shared()).with_budget(&budget);
    let mut place = Place { shape: list.shape, hub, clock, budget, seconds: 0 };
    let mut set: Option<Set> = None;
    for op in &list.ops {
        if let Op::Create = op {
            let is_new = set.as_ref().is_none_or(|set| !set.model.is_named);
            if is_new && let Some(old) = set.take() {
                old.finish(&place, seen);
            }
            let created = place.create();
            if is_new {
                set = Some(Set::new(&place, created.unwrap()));
            } else {
                assert_eq!(created.err().map(|error| error.status()), Some(Status::Protocol));
            }
        }
        if let Op::Tick { seconds } = op {
            place.seconds += seconds;
            place.clock.advance(Duration::from_secs(*seconds));
        }
        if let Some(set) = &mut set {
            set.step(*op, &place, seen);
        }
    }
    if let Some(set) = set {
        set.finish(&place, seen);
    }
    assert_eq!(place.clock.sleepers(), 0, "a timer is left");
}

struct Place {
    shape: Shape,
    hub: LocalHub,
    clock: SimClock,
    budget: MemoryBudget,
    seconds: u64,
}

impl Place {
    fn create(&self) -> Result<client::DeviceSet, vdi::Error> {
        let Shape { devices, is_timed, asks_complete, asks_prepare, mode, .. } = self.shape;
        let mut features = match mode {
            Mode::Pipe => Features::PIPE,
            Mode::Disk => Features::DISK,
            Mode::Tape => Features::TAPE,
            Mode::RemovablePipe => Features::PIPE | Features::REMOVABLE,
        };
        for (is_asked, feature) in
            [(asks_complete, Features::REQUEST_COMPLETE), (asks_prepare, Features::SNAPSHOT_PREPARE)]
        {
            if is_asked {
                features |= feature;
            }
        }
        let server_timeout = Duration::from_secs(if is_timed { LIMIT } else { 0 });
        let device_count = u32::try_from(devices).unwrap();
        client::DeviceSet::create(
            &self.hub,
            "set",
            Config { device_count, features, server_timeout, ..Config::default() },
        )
    }
}

type Sending = Spawn<BoxFuture<'static, Result<CommandFuture, server::SendError>>>;
type Task<T> = Spawn<BoxFuture<'static, Result<T, vdi::Error>>>;

/// Everything that a program can hold of one set, and the model of it.
struct Set {
    model: Model,
    client: Option<client::DeviceSet>,
    /// The second client.
    secondary: Option<client::DeviceSet>,
    server: Option<server::DeviceSet>,
    client_devices: Vec<Option<client::Device>>,
    server_devices: Vec<Option<Arc<server::Device>>>,
    /// Who waits to send, per device.
    sending: Vec<Option<Sending>>,
    /// What was lent, and what is mapped, by the number of the command.
    handles: Vec<(usize, client::BufferHandle)>,
    mapped: Vec<(usize, client::MappedBuffer)>,
    fetching: Option<Task<Configuration>>,
    agent: Option<Spawn<CompletionAgent>>,
    /// A close that waits, and what it will report.
    closing: Option<(Task<()>, Result<(), Status>)>,
    buffers: Vec<Buffer>,
    /// What the client has taken, by the number of the command.
    held: Vec<(usize, client::Command)>,
    /// Who waits for the answer to each command.
    recipients: Vec<Recipient>,
    takers: Vec<Waiter>,
    senders: Vec<Waiter>,
}

enum Recipient {
    Future(CommandFuture),
    Callback(Arc<Mutex<Vec<Answer>>>),
    /// Nobody, or it has its answer.
    Gone,
}

impl Set {
    fn new(place: &Place, client: client::DeviceSet) -> Self {
        let devices = 0..place.shape.devices;
        Self {
            model: Model::created(place.shape, place.seconds),
            client: Some(client),
            secondary: None,
            server: None,
            sending: devices.clone().map(|_| None).collect(),
            handles: Vec::new(),
            mapped: Vec::new(),
            client_devices: devices.clone().map(|_| None).collect(),
            server_devices: devices.clone().map(|_| None).collect(),
            fetching: None,
            agent: None,
            closing: None,
            buffers: Vec::new(),
            held: Vec::new(),
            recipients: Vec::new(),
            takers: devices.clone().map(|_| Waiter::default()).collect(),
            senders: devices.map(|_| Waiter::default()).collect(),
        }
    }

    fn step(&mut self, op: Op, place: &Place, seen: &mut Seen) {
        let outcome = self.apply(op, place);
        let name = format!("{op:?}");
        let name = name.split([' ', '(']).next().unwrap_or_default();
        *seen.entry(format!("{name}: {outcome}")).or_default() += 1;
        self.compare(place, &op);
    }

    /// Does it on both sides. An operation on something that is not there is none.
    fn apply(&mut self, op: Op, place: &Place) -> String {
        self.try_apply(op, place).unwrap_or_else(|| "nothing to do it with".to_owned())
    }

    fn try_apply(&mut self, op: Op, place: &Place) -> Option<String> {
        let model = &mut self.model;
        let outcome = match op {
            Op::Create => "ok".to_owned(),
            Op::Tick { seconds } => {
                model.tick(seconds);
                "ok".to_owned()
            }
            Op::Open => {
                let opened = now(server::DeviceSet::open(&place.hub, "set"));
                let outcome = same(&op, model.open(), &opened);
                if let Ok(opened) = opened {
                    self.server = Some(opened);
                }
                outcome
            }
            Op::Begin => {
                let server_config =
                    ServerConfig { max_io_depth: u32::try_from(place.shape.depth).unwrap(), ..ServerConfig::default() };
                same(&op, model.begin(), &self.server.as_ref()?.begin_configuration(server_config))
            }
            Op::Request(count) => {
                let count_of_buffers = usize::try_from(count).unwrap();
                let requested = self.server.as_ref()?.request_buffers(BLOCK, 0, count_of_buffers).map(drop);
                same(&op, model.request(count), &requested)
            }
            Op::End => same(&op, model.end(), &now(self.server.as_ref()?.end_configuration())),
            Op::Fetch { waits } => self.fetch(&op, waits)?,
            Op::OpenServerDevice => {
                let opened = self.server.as_ref()?.open_device();
                let outcome = same(&op, model.open_server_device(), &opened);
                if let Ok(device) = opened {
                    let index = device.index();
                    self.server_devices[index] = Some(Arc::new(device));
                }
                outcome
            }
            Op::OpenClientDevice(index) => self.open_client_device(&op, index, false)?,
            Op::OpenSecondaryDevice(index) => self.open_client_device(&op, index, true)?,
            Op::Join => {
                if self.secondary.is_some() && model.has_secondary {
                    // One is enough.
                    return None;
                }
                let joined = now(client::DeviceSet::open_in_secondary(&place.hub, "set"));
                let outcome = same(&op, model.join(), &joined);
                self.secondary = joined.ok().or_else(|| self.secondary.take());
                outcome
            }
            Op::CloseSecondary => {
                let closed = now(self.secondary.clone()?.close());
                same(&op, model.leave_secondary(Leaving::Closed), &closed)
            }
            Op::DropSecondary => {
                drop(self.secondary.take()?);
                let _gone = model.leave_secondary(Leaving::Dropped);
                "ok".to_owned()
            }
            Op::Lend(which) => {
                // Mostly one that has something to lend.
                let mut held = self.held.iter_mut().rev();
                let (number, command) = match which % 4 {
                    0 => held.nth(which.checked_rem(held.len())?)?,
                    _ => held.find(|(number, _)| model.has_loan(*number))?,
                };
                let lent = command.buffer_handle();
                let outcome = same(&op, model.lend(*number), &lent);
                self.handles.extend(lent.ok().map(|handle| (*number, handle)));
                outcome
            }
            Op::Map { handle, by_secondary } => {
                let mut handles = self.handles.iter().rev();
                let (number, handle) = *match handle % 4 {
                    0 => handles.nth(handle.checked_rem(handles.len())?)?,
                    _ => handles.find(|(number, _)| model.has_loan(*number))?,
                };
                let client = if by_secondary { &self.secondary } else { &self.client };
                let mapped = client.as_ref()?.map_buffer(handle);
                let outcome = same(&op, model.map(number, by_secondary), &mapped);
                self.mapped.extend(mapped.ok().map(|mapped| (number, mapped)));
                outcome
            }
            Op::Unmap(which) => {
                let (number, mapped) = self.mapped.swap_remove(which.checked_rem(self.mapped.len())?);
                assert_eq!(mapped.len(), BLOCK);
                drop(mapped);
                model.unmap(number);
                "ok".to_owned()
            }
            Op::SendWhenReady(index) => self.send_when_ready(&op, index)?,
            Op::DropSender(index) => {
                drop(self.sending[index].take()?);
                "ok".to_owned()
            }
            Op::CreateAgent => self.create_agent(&op)?,
            Op::PollAgent => self.poll_agent(&op)?,
            Op::DropAgent => {
                drop(self.agent.take()?);
                model.drop_agent();
                "ok".to_owned()
            }
            Op::Allocate => self.allocate(&op)?,
            Op::Free => {
                let server = self.server.as_ref()?;
                let freed = server.free_buffer(self.buffers.pop()?);
                same(&op, model.free(), &freed)
            }
            Op::Send { .. } => self.send(&op)?,
            Op::DropFuture(number) => {
                let count = self.recipients.len();
                let recipient = self.recipients.get_mut(number.checked_rem(count)?)?;
                let Recipient::Future(future) = std::mem::replace(recipient, Recipient::Gone) else { return None };
                drop(future);
                "ok".to_owned()
            }
            Op::Room(index) => {
                // Somebody who waits to send shares the device.
                let device = Arc::get_mut(self.server_devices[index].as_mut()?)?;
                let polled = self.senders[index].poll(|cx| device.poll_ready(cx));
                same_poll(&op, model.room(index, CommandCode::Write), polled)
            }
            Op::Take(index) => self.take(&op, index)?,
            Op::Complete { command, how } => self.complete(&op, command, how)?,
            Op::CloseDevice(index) => {
                let closed = self.server_devices[index].as_ref()?.close();
                same(&op, model.close_device(index), &closed)
            }
            Op::AbortByClient => {
                let aborted = self.client.as_ref()?.abort(stop("the client said stop"));
                same(&op, model.abort_by_client(), &aborted)
            }
            Op::AbortByServer => {
                let aborted = self.server.as_ref()?.abort(stop("the server said stop"));
                same(&op, model.abort_by_server(), &aborted)
            }
            Op::CloseClient => {
                let closed = now(self.client.clone()?.close());
                same(&op, model.leave_client(Leaving::Closed), &closed)
            }
            Op::CloseServer => self.close_server(&op)?,
            Op::PollClose => self.poll_close()?,
            Op::DropClient => {
                self.fetching = None;
                drop(self.client.take()?);
                let _gone = model.leave_client(Leaving::Dropped);
                "ok".to_owned()
            }
            Op::DropServer => {
                // Whoever waits for the closing holds the set.
                self.closing = None;
                drop(self.server.take()?);
                let _gone = model.leave_server(Leaving::Dropped);
                "ok".to_owned()
            }
            Op::DropClientDevice(index) => {
                drop(self.client_devices[index].take()?);
                self.takers[index].is_waiting = false;
                model.drop_client_device(index);
                "ok".to_owned()
            }
            Op::DropServerDevice(index) => {
                drop(self.server_devices[index].take()?);
                self.sending[index] = None;
                self.senders[index].is_waiting = false;
                "ok".to_owned()
            }
        };
        Some(outcome)
    }

    fn open_client_device(&mut self, op: &Op, index: usize, by_secondary: bool) -> Option<String> {
        let name = if index == 0 { "set".to_owned() } else { format!("set-{}", index + 1) };
        let client = if by_secondary { &self.secondary } else { &self.client };
        let opened = client.as_ref()?.open_device(&name);
        let outcome = same(op, self.model.open_client_device(index, by_secondary), &opened);
        if let Ok(device) = opened {
            self.client_devices[index] = Some(device);
        }
        Some(outcome)
    }

    /// Sends a flush when there is room.
    fn send_when_ready(&mut self, op: &Op, index: usize) -> Option<String> {
        let device = Arc::clone(self.server_devices[index].as_ref()?);
        let sending = self.sending[index].get_or_insert_with(|| {
            let sending = async move { device.send_when_ready(Command::flush()).await };
            task::spawn(Box::pin(sending) as BoxFuture<'static, _>)
        });
        let polled = sending.poll();
        let expected = self.model.room(index, CommandCode::Flush);
        if let Ok(None) = expected {
            assert!(polled.is_pending(), "{op:?}: there is no room");
            return Some("waits".to_owned());
        }
        let Poll::Ready(sent) = polled else { panic!("{op:?} waits, the model does not") };
        self.sending[index] = None;
        let outcome = same(op, expected, &sent);
        if let Ok(future) = sent {
            self.model.send(index, CommandCode::Flush, 0, false).unwrap();
            self.recipients.push(Recipient::Future(future));
        }
        Some(outcome)
    }

    fn fetch(&mut self, op: &Op, waits: bool) -> Option<String> {
        let client = self.client.clone()?;
        let expected = self.model.fetch();
        if !waits && self.fetching.is_none() {
            let fetched = now(client.configuration(Some(Duration::ZERO)));
            let expected = expected.and_then(|ready| ready.ok_or(Status::Timeout));
            return Some(same(op, expected, &fetched));
        }
        let fetching = self.fetching.get_or_insert_with(|| {
            task::spawn(Box::pin(async move { client.configuration(None).await }) as BoxFuture<'static, _>)
        });
        let polled = fetching.poll();
        if polled.is_ready() {
            self.fetching = None;
        }
        Some(same_poll(op, expected, polled.map(|fetched| fetched.map(drop))))
    }

    fn create_agent(&mut self, op: &Op) -> Option<String> {
        let server = self.server.as_ref()?;
        if self.agent.is_some() && !self.model.is_agent_running {
            // The second would become the first.
            return None;
        }
        let admitted = self.model.create_agent();
        let mut agent = task::spawn(server.completion_agent());
        if admitted.is_ok() && self.agent.is_none() {
            self.agent = Some(agent);
            return Some("ok".to_owned());
        }
        // One runs already, or the call was refused: either way it ends at once, and dropping it changes nothing.
        let Poll::Ready(refused) = agent.poll() else { panic!("{op:?}: a second agent runs") };
        Some(same(op, admitted.and(Err::<(), _>(Status::Protocol)), &refused))
    }

    fn poll_agent(&mut self, op: &Op) -> Option<String> {
        let polled = self.agent.as_mut()?.poll();
        let expected = match self.model.poll_agent() {
            None => Ok(None),
            Some(Ok(())) => Ok(Some(())),
            Some(Err(status)) => Err(status),
        };
        if polled.is_ready() {
            self.agent = None;
        }
        Some(same_poll(op, expected, polled))
    }

    fn allocate(&mut self, op: &Op) -> Option<String> {
        let allocated = self.server.as_ref()?.allocate_buffer(BLOCK, 0);
        let outcome = same(op, self.model.allocate(), &allocated);
        self.buffers.extend(allocated.ok());
        Some(outcome)
    }

    fn send(&mut self, op: &Op) -> Option<String> {
        let Op::Send { device: index, code, size, is_short, calls_back } = *op else { return None };
        self.server_devices[index].as_ref()?;
        let is_transfer = matches!(code, CommandCode::Read | CommandCode::Write);
        let size = if is_transfer { size } else { 0 };
        if is_transfer && self.buffers.is_empty() {
            self.allocate(&Op::Allocate)?;
        }
        let command = match code {
            CommandCode::Read => Command::read(self.buffers.pop()?, size),
            CommandCode::Write => Command::write(self.buffers.pop()?, size),
            other => Command::from_code(other),
        };
        let command = if is_short { command.short() } else { command };
        let device = self.server_devices[index].as_ref()?;
        let expected = self.model.send(index, code, size, is_short);
        if !calls_back {
            let sent = device.send(command);
            let outcome = same(op, expected, &sent);
            match sent {
                Ok(future) => self.recipients.push(Recipient::Future(future)),
                Err(error) => self.buffers.extend(error.into_command().into_buffer()),
            }
            return Some(outcome);
        }
        let answers = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::clone(&answers);
        let sent = device.send_with(command, move |completion| called.lock().unwrap().push(answer(&completion)));
        if let Err(status) = expected {
            // Called back on the spot; the buffer went with the answer.
            self.model.kept -= u64::from(is_transfer);
            let calls = std::mem::take(&mut *answers.lock().unwrap());
            let code = vdi::CompletionCode::from_code(REFUSALS.iter().find(|(known, _)| *known == status).unwrap().1);
            let reason = self.model.cause;
            assert_eq!(calls, [Answer { code, bytes: 0, position: 0, has_buffer: is_transfer, reason }], "{op:?}");
        } else {
            self.recipients.push(Recipient::Callback(answers));
        }
        Some(same(op, expected, &sent))
    }

    fn take(&mut self, op: &Op, index: usize) -> Option<String> {
        let device = self.client_devices[index].as_mut()?;
        let polled = self.takers[index].poll(|cx| device.poll_next_command(cx));
        let expected = self.model.take(index);
        if let (Poll::Ready(Ok(command)), Ok(Some(number))) = (&polled, expected) {
            assert_eq!(command.code(), self.model.commands[number].code, "{op:?}: in the order of sending");
            assert_eq!(command.size(), self.model.commands[number].size, "{op:?}");
        }
        let outcome = same_poll(op, expected, as_unit(&polled));
        if let (Poll::Ready(Ok(command)), Ok(Some(number))) = (polled, expected) {
            self.held.push((number, command));
        }
        Some(outcome)
    }

    fn complete(&mut self, op: &Op, which: usize, how: How) -> Option<String> {
        let (number, command) = self.held.swap_remove(which.checked_rem(self.held.len())?);
        let completed = match how {
            How::With { code, bytes, position } => {
                command.complete(client::Completion { code, bytes_transferred: bytes, position })
            }
            How::Fail => command.fail(vdi::CompletionCode::HandleEof, stop("the disk is gone")),
            How::Drop => {
                drop(command);
                let _told_to_nobody = self.model.complete(number, how);
                return Some("ok".to_owned());
            }
        };
        Some(same(op, self.model.complete(number, how), &completed))
    }

    fn close_server(&mut self, op: &Op) -> Option<String> {
        let server = self.server.clone()?;
        let expected = self.model.leave_server(Leaving::Closed);
        let mut closing = task::spawn(Box::pin(server.close()) as BoxFuture<'static, _>);
        match closing.poll() {
            Poll::Ready(closed) => Some(same(op, expected, &closed)),
            Poll::Pending => {
                assert!(!self.model.is_closed, "{op:?} waits for nothing");
                self.closing = Some((closing, expected));
                Some("waits".to_owned())
            }
        }
    }

    fn poll_close(&mut self) -> Option<String> {
        let (mut closing, expected) = self.closing.take()?;
        match closing.poll() {
            Poll::Ready(closed) => {
                assert!(self.model.is_closed, "closed before its agent returned");
                Some(same(&Op::PollClose, expected, &closed))
            }
            Poll::Pending => {
                assert!(!self.model.is_closed, "close waits for nothing");
                self.closing = Some((closing, expected));
                Some("waits".to_owned())
            }
        }
    }

    /// Everything that can be seen, against the model.
    fn compare(&mut self, place: &Place, op: &Op) {
        // First, because it drops the answers and with them their buffers.
        self.compare_answers(op);
        let model = &self.model;
        if let Some(client) = &self.client {
            assert_eq!(client.state(), model.client, "{op:?}");
            if model.client == client::State::Aborted {
                let error = now(client.configuration(Some(Duration::ZERO))).unwrap_err();
                assert_eq!(error.reason().map(what_it_says), model.cause, "{op:?}: why, for the client");
            }
        }
        if let Some(secondary) = &self.secondary {
            let expected = if model.has_secondary { model.client } else { client::State::DoesNotExist };
            assert_eq!(secondary.state(), expected, "{op:?}: the second client");
        }
        if let Some(server) = &self.server {
            assert_eq!(server.state(), model.server, "{op:?}");
            if let Err(error) = server.configuration() {
                assert_eq!(error.reason().map(what_it_says), model.cause, "{op:?}: why, for the server");
            }
            let available = server.query_available_buffers(BLOCK, 0).map_err(|error| error.status());
            assert_eq!(available, model.available(), "{op:?}");
        }
        for index in 0..model.devices.len() {
            let phases = [
                self.client_devices[index].as_ref().map(client::Device::phase),
                self.server_devices[index].as_deref().map(server::Device::phase),
            ];
            for phase in phases.into_iter().flatten() {
                assert_eq!(phase, model.phase(index), "{op:?}");
            }
            let taker_is_due = model.peek(index) != Ok(None);
            assert!(!taker_is_due || self.takers[index].is_well(), "{op:?}: nobody woke the client of device {index}");
            let sender_is_due = model.room(index, CommandCode::Write) != Ok(None);
            assert!(
                !sender_is_due || self.senders[index].is_well(),
                "{op:?}: nobody woke the sender of device {index}"
            );
            if let Some(sending) = &self.sending[index] {
                assert!(
                    !sender_is_due || sending.is_woken(),
                    "{op:?}: nobody woke who waits to send to device {index}"
                );
            }
        }
        if let Some(agent) = &self.agent {
            let is_due = model.is_agent_running && model.is_agent_due();
            assert!(!is_due || agent.is_woken(), "{op:?}: nobody woke the agent");
        }
        if let Some(fetching) = &self.fetching {
            let is_due = model.peek_configuration() != Ok(None);
            assert!(!is_due || fetching.is_woken(), "{op:?}: nobody woke who waits for the configuration");
        }
        if let Some((closing, _)) = &self.closing {
            assert!(!model.is_closed || closing.is_woken(), "{op:?}: nobody woke who waits for the closing");
        }
        assert_eq!(place.hub.names().len(), usize::from(model.is_named), "{op:?}");
        assert_eq!(place.budget.reserved(), model.capacity * BLOCK as u64, "{op:?}");
        assert_eq!(place.budget.used(), model.peak * BLOCK as u64, "{op:?}");
    }

    fn compare_answers(&mut self, op: &Op) {
        assert_eq!(self.recipients.len(), self.model.commands.len());
        for (number, recipient) in self.recipients.iter_mut().enumerate() {
            let expected = self.model.answer_of(number);
            match recipient {
                Recipient::Gone => {}
                Recipient::Future(future) => {
                    let polled = match future.poll_unpin(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(completion) => Some(answer(&completion)),
                        Poll::Pending => None,
                    };
                    assert_eq!(polled, expected, "{op:?}: command {number}");
                    if polled.is_some() {
                        let again = future.poll_unpin(&mut Context::from_waker(Waker::noop()));
                        assert!(again.is_pending(), "{op:?}: command {number} was answered twice");
                        *recipient = Recipient::Gone;
                    }
                }
                Recipient::Callback(calls) => {
                    let calls = calls.lock().unwrap();
                    assert_eq!(*calls, Vec::from_iter(expected), "{op:?}: command {number}");
                }
            }
        }
    }

    /// Ends the set in one of several ways; nothing may be left.
    fn finish(mut self, place: &Place, seen: &mut Seen) {
        let ways: [&[Op]; 5] = [
            &[Op::CloseSecondary, Op::CloseServer, Op::PollAgent, Op::PollClose, Op::CloseClient],
            &[Op::CloseServer, Op::PollAgent, Op::PollClose, Op::CloseClient],
            &[Op::CloseClient, Op::PollAgent, Op::CloseServer, Op::PollAgent, Op::PollClose],
            &[Op::DropAgent, Op::DropServer, Op::DropSecondary, Op::DropClient],
            &[Op::DropServer, Op::PollAgent, Op::DropClient],
        ];
        for op in ways[self.model.commands.len() % ways.len()] {
            self.step(*op, place, seen);
        }
        for op in [Op::DropClient, Op::DropServer, Op::PollAgent, Op::DropAgent, Op::DropSecondary] {
            self.step(op, place, seen);
        }
        let is_answered = self.model.commands.iter().all(|command| command.is_answered);
        assert!(is_answered, "accepted and not answered: {:?}", self.model.commands);
        *seen.entry("commands".to_owned()).or_default() += self.model.commands.len() as u64;
        drop(self);
        assert_eq!(place.hub.names(), Vec::<String>::new());
        assert_eq!((place.budget.used(), place.budget.reserved()), (0, 0));
    }
}

/// Somebody who polls, and is to be woken when polling again makes sense.
#[derive(Default)]
struct Waiter {
    is_waiting: bool,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Waiter {
    fn poll<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.woken = Arc::default();
        let waker = Waker::from(Arc::clone(&self.woken));
        let polled = poll(&mut Context::from_waker(&waker));
        self.is_waiting = polled.is_pending();
        polled
    }

    /// It does not wait, or was woken.
    fn is_well(&self) -> bool {
        !self.is_waiting || self.woken.0.load(Ordering::SeqCst)
    }
}

fn answer(completion: &server::Completion) -> Answer {
    Answer {
        code: completion.code,
        bytes: completion.bytes_transferred,
        position: completion.position,
        has_buffer: completion.buffer.is_some(),
        reason: completion.reason.as_ref().map(what_it_says),
    }
}

/// Which of the reasons that there can be it is.
fn what_it_says(reason: &Error) -> &'static str {
    let report = reason.report();
    let said: Vec<_> = REASONS.iter().filter(|said| report.contains(**said)).collect();
    let [said] = said[..] else { panic!("the reason is {report:?}") };
    said
}

fn stop(text: &'static str) -> Error {
    Error::new(ErrorKind::Denied, text)
}

fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().unwrap()
}

trait HasStatus {
    fn status_of(&self) -> Status;
}

impl HasStatus for vdi::Error {
    fn status_of(&self) -> Status {
        if self.status() == Status::Abort {
            assert!(self.reason().is_some(), "an abort has a reason");
        }
        self.status()
    }
}

impl HasStatus for server::SendError {
    fn status_of(&self) -> Status {
        self.error().status_of()
    }
}

fn same<T, U, E: HasStatus>(op: &Op, expected: Result<T, Status>, got: &Result<U, E>) -> String {
    let (expected, got) = (expected.err(), got.as_ref().err().map(HasStatus::status_of));
    assert_eq!(got, expected, "{op:?}");
    got.map_or("ok", Status::name).to_owned()
}

fn same_poll<T>(op: &Op, expected: Result<Option<T>, Status>, got: Poll<Result<(), vdi::Error>>) -> String {
    match (got, expected) {
        (Poll::Pending, Ok(None)) => "waits".to_owned(),
        (Poll::Pending, _) => panic!("{op:?} waits, the model does not"),
        (Poll::Ready(got), Ok(None)) => panic!("{op:?} gives {got:?}, the model waits"),
        (Poll::Ready(got), expected) => same(op, expected, &got),
    }
}

fn as_unit<T>(polled: &Poll<Result<T, vdi::Error>>) -> Poll<Result<(), vdi::Error>> {
    match polled {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.clone())),
    }
}

/// The completion code of a command that was refused.
const REFUSALS: [(Status, u32); 6] = [
    (Status::QueueFull, 1450),
    (Status::IoError, 1117),
    (Status::Protocol, 6),
    (Status::Abort, 995),
    (Status::Invalid, 87),
    (Status::NotSupported, 50),
];
