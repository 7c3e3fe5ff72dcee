//! What the lock guards, and the steps that every side shares.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::super::answer::{Completion, Recipient};
use super::super::area::{Area, Buffer};
use super::super::client::{BufferHandle, Slot};
use super::super::code::{CommandCode, CompletionCode};
use super::super::config::{Config, Configuration};
use super::super::device_state::{CommandId, DevicePhase, DeviceState, Dropped};
use super::super::state::{ServerState, SetState};
use super::super::status::{Error, Status};
use super::super::transport::Home;
use super::super::waiters::{Waiters, Wakes};
use super::links::Links;
use crate::clock::Clock;
use crate::sync::{Mutex, MutexGuard, ThreadId, current_thread};

/// A device set: created by its client, found by its name, alive until its last handle is gone.
pub(crate) struct Core {
    pub(super) name: String,
    pub(super) home: Box<dyn Home>,
    pub(super) area: Arc<Area>,
    /// The no-progress limit; zero is none. Fixed at creation, so that untimed sets never read the clock.
    pub(super) server_timeout: Duration,
    inner: Mutex<Inner>,
}

impl Core {
    pub(crate) fn create(home: Box<dyn Home>, name: &str, config: &Config) -> Self {
        let area = Area::new(home.budget().cloned());
        Self::with_area(home, name, config, area)
    }

    pub(super) fn with_area(home: Box<dyn Home>, name: &str, config: &Config, area: Area) -> Self {
        let configuration = Configuration::wished(name, config);
        let devices = (0..config.device_count).map(|_| Device::new()).collect();
        Self {
            name: name.to_owned(),
            home,
            area: Arc::new(area),
            server_timeout: config.server_timeout,
            inner: Mutex::new(Inner {
                set: SetState::created(),
                reason: None,
                configuration,
                devices,
                next_id: 0,
                pending: 0,
                last_progress: Duration::ZERO,
                answers: VecDeque::new(),
                agent: Agent::Absent,
                answering: Vec::new(),
                is_server_done: false,
                secondaries: Vec::new(),
                handles: HashMap::new(),
                links: Default::default(),
                #[cfg(feature = "shm")]
                stranded: Vec::new(),
                configured: Waiters::default(),
                client_closed: Waiters::default(),
                server_closed: Waiters::default(),
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.home.clock()
    }

    pub(crate) fn home(&self) -> &dyn Home {
        self.home.as_ref()
    }

    pub(crate) fn device_phase(&self, index: usize) -> DevicePhase {
        self.lock().devices[index].state.phase()
    }

    pub(crate) fn device_name(&self, index: usize) -> String {
        self.lock().configuration.device_names[index].clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// The time, if this set needs it. Read before locking, because a clock is foreign code.
    pub(super) fn now(&self) -> Duration {
        if self.server_timeout.is_zero() { Duration::ZERO } else { self.clock().now() }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock();
        f.debug_struct("Core")
            .field("name", &self.name)
            .field("client", &inner.set.client())
            .field("server", &inner.set.server())
            .field("pending", &inner.pending)
            .finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) set: SetState,
    /// Why the set was aborted; the first cause stays.
    pub(super) reason: Option<crate::Error>,
    pub(super) configuration: Configuration,
    pub(super) devices: Vec<Device>,
    pub(super) next_id: u64,
    /// Commands accepted and not yet ended, of all devices.
    pub(super) pending: usize,
    /// When a command last ended, or when the first of the pending ones was sent.
    pub(super) last_progress: Duration,
    /// Commands that have ended and wait for the agent; as many as were accepted at most.
    pub(super) answers: VecDeque<Ready>,
    pub(super) agent: Agent,
    /// Threads that give answers in place of the agent: whoever closes, or drops the agent. The closing waits for them.
    pub(super) answering: Vec<ThreadId>,
    /// The server's closing has come to its end.
    pub(super) is_server_done: bool,
    /// Clients that have joined and not left.
    pub(super) secondaries: Vec<Member>,
    /// Buffers of commands that the client holds and has lent.
    pub(super) handles: HashMap<BufferHandle, Arc<Slot>>,
    /// The other processes that hold a part of the set.
    pub(super) links: Links,
    /// Buffers whose command has ended while a client still has them mapped.
    #[cfg(feature = "shm")]
    pub(super) stranded: Vec<Buffer>,
    pub(super) configured: Waiters,
    pub(super) client_closed: Waiters,
    pub(super) server_closed: Waiters,
}

/// A client of the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    /// The one that created it.
    Primary,
    /// One that joined, by a number that is used once.
    Secondary(u64),
}

/// A device and the commands that the server waits for.
pub(super) struct Device {
    pub(super) state: DeviceState,
    /// The client that opened it.
    pub(super) opened_by: Option<Member>,
    /// The number of the last command that was sent to it.
    #[cfg(feature = "shm")]
    pub(super) last_id: Option<u64>,
    pub(super) entries: Vec<Entry>,
    /// The client's task that waits for a command; a device has one driver.
    pub(super) client: Option<Waker>,
    /// Tasks of the server that wait for room in the queue.
    pub(super) room: Waiters,
}

impl Device {
    fn new() -> Self {
        Self {
            state: DeviceState::new(),
            opened_by: None,
            #[cfg(feature = "shm")]
            last_id: None,
            entries: Vec::new(),
            client: None,
            room: Waiters::default(),
        }
    }
}

/// A command that was accepted and has not ended.
pub(super) struct Entry {
    pub(super) id: CommandId,
    pub(super) code: CommandCode,
    pub(super) size: usize,
    pub(super) position: u64,
    /// Here while the command is queued; with the client after that. A client in another process has only the place.
    pub(super) buffer: Option<Buffer>,
    #[cfg(feature = "shm")]
    pub(super) is_short: bool,
    /// The command is with a client in another process.
    #[cfg(feature = "shm")]
    pub(super) is_out: bool,
    /// The buffer was mapped beyond the end of the command, and is free again; of the end nothing was told yet.
    #[cfg(feature = "shm")]
    pub(super) is_returned: bool,
    pub(super) recipient: Recipient,
}

impl Entry {
    /// After an abort a client in another process may still use the memory, so the server does not get it back.
    fn forget_what_is_out(&mut self) {
        #[cfg(feature = "shm")]
        if self.is_out {
            self.buffer = None;
        }
    }

    /// True if the answer is told to the server's process, which gives it.
    #[cfg(feature = "shm")]
    fn is_remote(&self) -> bool {
        matches!(self.recipient, Recipient::Remote)
    }
}

/// An answer on its way.
pub(crate) struct Ready {
    pub(super) recipient: Recipient,
    pub(super) completion: Completion,
}

/// The completion agent of a set.
pub(super) enum Agent {
    /// Never polled, or dropped before its end.
    Absent,
    Running {
        waker: Option<Waker>,
        /// The thread on which it runs callbacks right now.
        delivering: Option<ThreadId>,
    },
    Returned,
}

impl Inner {
    /// An error of this set; it tells why the set was aborted, if it was.
    pub(super) fn error(&self, status: Status) -> Error {
        Error::from(status).because(self.reason.clone())
    }

    /// Abort processing. Every accepted command ends here; the agent, or whoever closes, gives the answers.
    pub(super) fn abort(&mut self, reason: crate::Error, wakes: &mut Wakes) -> bool {
        if !self.set.on_abort() {
            return false;
        }
        for device in &mut self.devices {
            device.state.on_aborted();
            for mut entry in device.entries.drain(..) {
                entry.forget_what_is_out();
                #[cfg(feature = "shm")]
                if entry.is_remote() {
                    continue;
                }
                self.answers.push_back(Ready {
                    recipient: entry.recipient,
                    completion: Completion {
                        code: CompletionCode::OperationAborted,
                        buffer: entry.buffer,
                        reason: Some(reason.clone()),
                        ..Completion::default()
                    },
                });
            }
            wakes.push_from(&mut device.client);
            device.room.wake_into(wakes);
        }
        self.pending = 0;
        self.links.aborted(&reason, wakes);
        self.reason = Some(reason);
        self.configured.wake_into(wakes);
        self.wake_agent(wakes);
        true
    }

    /// Ends a command of a device.
    pub(super) fn record(&mut self, entry: Entry, completion: Completion) {
        self.pending -= 1;
        #[cfg(feature = "shm")]
        if entry.is_remote() {
            return;
        }
        self.answers.push_back(Ready { recipient: entry.recipient, completion });
    }

    /// Ends commands that the client will never see.
    pub(super) fn record_dropped(&mut self, index: usize, dropped: Dropped, code: CompletionCode) {
        for id in dropped.0 {
            if let Some(mut entry) = self.take_entry(index, id) {
                let buffer = entry.buffer.take();
                self.record(entry, Completion { code, buffer, ..Completion::default() });
            }
        }
    }

    pub(super) fn take_entry(&mut self, index: usize, id: CommandId) -> Option<Entry> {
        let entries = &mut self.devices[index].entries;
        let position = entries.iter().position(|entry| entry.id == id)?;
        Some(entries.swap_remove(position))
    }

    /// True on the stack of a completion callback: waiting there for the end of the closing would never end.
    pub(super) fn is_answering_here(&self) -> bool {
        let here = current_thread().id();
        self.answering.contains(&here)
            || matches!(self.agent, Agent::Running { delivering: Some(thread), .. } if thread == here)
    }

    /// The closing is over once the server has left and nobody gives answers any more.
    pub(super) fn note_server_done(&mut self, wakes: &mut Wakes) {
        let is_quiet = self.answering.is_empty() && !matches!(self.agent, Agent::Running { .. });
        if is_quiet && self.set.server() == ServerState::DoesNotExist {
            self.is_server_done = true;
            self.server_closed.wake_into(wakes);
        }
    }

    pub(super) fn wake_agent(&mut self, wakes: &mut Wakes) {
        if let Agent::Running { waker, .. } = &mut self.agent {
            wakes.push_from(waker);
        }
    }
}
