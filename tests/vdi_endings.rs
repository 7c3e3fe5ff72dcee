//! Every ending of a set, in every state, against everybody who may be waiting then: who waits is woken, and learns why.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::any::Any;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_test::task::{self, Spawn};
use vdi_support::*;
use vdstream::testing::SimClock;
use vdstream::vdi::client::{self, Completion};
use vdstream::vdi::server::{self, Command};
use vdstream::vdi::{Config, Error, LocalHub, ServerConfig, Status};

const LIMIT: Duration = Duration::from_secs(10);

/// Where the set is when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Created, no server.
    Alone,
    Connected,
    Configurable,
    Initializing,
    /// Commands are queued, held, and withheld.
    Active,
    /// The server has closed every device; the client still holds a command.
    Terminated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    AbortByClient,
    AbortByServer,
    CloseClient,
    CloseServer,
    DropClient,
    DropServer,
    /// Nobody makes progress.
    Timer,
    DropAgent,
    DropClientDevice,
}

const STAGES: [Stage; 6] =
    [Stage::Alone, Stage::Connected, Stage::Configurable, Stage::Initializing, Stage::Active, Stage::Terminated];
const ENDINGS: [Ending; 9] = [
    Ending::AbortByClient,
    Ending::AbortByServer,
    Ending::CloseClient,
    Ending::CloseServer,
    Ending::DropClient,
    Ending::DropServer,
    Ending::Timer,
    Ending::DropAgent,
    Ending::DropClientDevice,
];

impl Ending {
    fn is_possible(self, stage: Stage) -> bool {
        match self {
            Self::AbortByServer | Self::CloseServer | Self::DropServer => stage != Stage::Alone,
            Self::Timer => matches!(stage, Stage::Active | Stage::Terminated),
            Self::DropAgent | Self::DropClientDevice => stage == Stage::Active,
            Self::AbortByClient | Self::CloseClient | Self::DropClient => true,
        }
    }

    /// What the reason says.
    fn reason(self) -> &'static str {
        match self {
            Self::AbortByClient => "the client said stop",
            Self::AbortByServer => "the server said stop",
            Self::CloseClient => "the client closed the device set",
            Self::CloseServer => "the server closed the device set",
            Self::DropClient => "the client dropped the device set",
            Self::DropServer => "the server dropped the device set",
            Self::Timer => "none ended for 20.000000001s",
            Self::DropAgent => "the completion agent was dropped",
            Self::DropClientDevice => "the client dropped device \"set-3\"",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// What a wait gave, and what must not be dropped yet.
type Waited = (Option<Error>, Box<dyn Any + Send>);

struct Waiter {
    name: &'static str,
    side: Side,
    future: Spawn<BoxFuture<'static, Waited>>,
}

impl Waiter {
    fn new(name: &'static str, side: Side, future: impl Future<Output = Waited> + Send + 'static) -> Self {
        let mut future = task::spawn(future.boxed());
        assert!(future.poll().is_pending(), "{name} does not wait");
        Self { name, side, future }
    }
}

struct Scene {
    clock: SimClock,
    client: Option<client::DeviceSet>,
    server: Option<server::DeviceSet>,
    hub: LocalHub,
    agent: Option<Spawn<server::CompletionAgent>>,
    /// What a program would keep.
    kept: Vec<Box<dyn Any + Send>>,
    idle: Option<client::Device>,
    accepted: Vec<server::CommandFuture>,
    waiters: Vec<Waiter>,
}

impl Scene {
    fn at(stage: Stage, ending: Ending) -> Self {
        let clock = SimClock::new();
        let hub = LocalHub::with_clock(clock.shared());
        let config = Config { server_timeout: LIMIT, ..Config::pipe(3) };
        let client = client::DeviceSet::create(&hub, "set", config).unwrap();
        let mut scene = Self {
            clock,
            client: Some(client),
            server: None,
            hub,
            agent: None,
            kept: Vec::new(),
            idle: None,
            accepted: Vec::new(),
            waiters: Vec::new(),
        };
        if stage != Stage::Alone {
            scene.server = Some(now(server::DeviceSet::open(&scene.hub, "set")).unwrap());
        }
        if !matches!(stage, Stage::Alone | Stage::Connected) {
            scene.server().begin_configuration(ServerConfig { max_io_depth: 1, ..ServerConfig::default() }).unwrap();
        }
        if matches!(stage, Stage::Initializing | Stage::Active | Stage::Terminated) {
            now(scene.server().end_configuration()).unwrap();
            now(scene.client().configuration(None)).unwrap();
        } else if ending != Ending::DropClient {
            // Who waits for the configuration holds the set.
            let client = scene.client().clone();
            scene.wait("configuration", Side::Client, async move {
                (client.configuration(None).await.err(), Box::new(client) as _)
            });
        }
        if matches!(stage, Stage::Active | Stage::Terminated) {
            scene.open_devices(stage);
        }
        // So does who waits for the close.
        if ending != Ending::DropClient {
            let client = scene.client().clone();
            scene.wait("wait_closed of the client", Side::Client, async move {
                client.wait_closed().await;
                (None, Box::new(client) as _)
            });
        }
        if let Some(server) = scene.server.clone().filter(|_| ending != Ending::DropServer) {
            scene.wait("wait_closed of the server", Side::Server, async move {
                server.wait_closed().await;
                (None, Box::new(server) as _)
            });
        }
        scene
    }

    fn client(&self) -> &client::DeviceSet {
        self.client.as_ref().unwrap()
    }

    fn server(&self) -> &server::DeviceSet {
        self.server.as_ref().unwrap()
    }

    fn wait(&mut self, name: &'static str, side: Side, future: impl Future<Output = Waited> + Send + 'static) {
        self.waiters.push(Waiter::new(name, side, future));
    }

    /// The first device is full, the second in error, the third idle; somebody waits at each.
    fn open_devices(&mut self, stage: Stage) {
        let mut agent = task::spawn(self.server().completion_agent());
        assert!(agent.poll().is_pending());
        self.agent = Some(agent);
        let mut inputs = self.client().open_all().unwrap();
        let outputs: Vec<_> = inputs.iter().map(|_| self.server().open_device().unwrap()).collect();
        let [full, failed, idle] = <[_; 3]>::try_from(outputs).unwrap();

        self.accepted.push(full.send(Command::flush()).unwrap());
        self.kept.push(Box::new(next(&mut inputs[0])));
        if stage == Stage::Terminated {
            for device in [&full, &failed, &idle] {
                device.close().unwrap();
            }
            for input in &mut inputs {
                assert_eq!(next_error(input).status(), Status::Close);
            }
            self.kept.push(Box::new((inputs, full, failed, idle)));
            return;
        }
        self.accepted.push(full.send(Command::flush()).unwrap());
        self.wait("send_when_ready", Side::Server, async move {
            (full.send_when_ready(Command::flush()).await.err().map(Into::into), Box::new(full) as _)
        });

        self.accepted.push(failed.send(Command::flush()).unwrap());
        let held = next(&mut inputs[1]);
        self.accepted.push(failed.send(Command::flush()).unwrap());
        drop(next(&mut inputs[1]));
        self.accepted.push(failed.send(Command::clear_error()).unwrap());
        self.kept.push(Box::new((held, failed, idle)));
        self.idle = inputs.pop();
        let mut withheld = inputs.pop().unwrap();
        self.wait("next_command that is withheld", Side::Client, async move {
            (withheld.next_command(None).await.err(), Box::new(withheld) as _)
        });
        self.kept.push(Box::new(inputs));
    }

    /// The third device has somebody who waits for a command, unless it is dropped.
    fn wait_at_the_idle_device(&mut self, ending: Ending) {
        if ending == Ending::DropClientDevice {
            return;
        }
        if let Some(mut idle) = self.idle.take() {
            self.wait("next_command", Side::Client, async move {
                (idle.next_command(None).await.err(), Box::new(idle) as _)
            });
        }
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::AbortByClient => self.client().abort(reason("the client said stop")).unwrap(),
            Ending::AbortByServer => self.server().abort(reason("the server said stop")).unwrap(),
            Ending::CloseClient => _ = now(self.client.take().unwrap().close()),
            Ending::CloseServer => {
                let mut close = task::spawn(self.server.take().unwrap().close());
                if close.poll().is_pending() {
                    self.poll_agent();
                    assert!(close.is_woken() && close.poll().is_ready());
                }
            }
            Ending::DropClient => drop(self.client.take()),
            Ending::DropServer => drop(self.server.take()),
            Ending::Timer => {
                self.clock.advance(LIMIT * 2);
                assert!(self.agent.as_mut().unwrap().poll().is_pending(), "not before");
                self.clock.advance(Duration::from_nanos(1));
            }
            Ending::DropAgent => drop(self.agent.take()),
            Ending::DropClientDevice => drop(self.idle.take()),
        }
    }

    /// The agent is woken and returns.
    fn poll_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        assert!(agent.is_woken(), "nobody woke the agent");
        let ended = match agent.poll() {
            std::task::Poll::Ready(ended) => ended,
            std::task::Poll::Pending => panic!("the agent goes on"),
        };
        assert_eq!(ended.unwrap_err().status(), Status::Abort);
    }
}

#[test]
fn every_ending_in_every_state_wakes_everybody_who_waits() {
    let mut waits = 0;
    for stage in STAGES {
        for ending in ENDINGS.into_iter().filter(|ending| ending.is_possible(stage)) {
            let mut scene = Scene::at(stage, ending);
            scene.wait_at_the_idle_device(ending);
            scene.end(ending);
            scene.poll_agent();
            let left_by = match ending {
                Ending::CloseClient | Ending::DropClient => Some(Side::Client),
                Ending::CloseServer | Ending::DropServer => Some(Side::Server),
                _ => None,
            };
            for mut waiter in std::mem::take(&mut scene.waiters) {
                let what = format!("{ending:?} in {stage:?}: {}", waiter.name);
                waits += 1;
                if waiter.name.starts_with("wait_closed") && left_by != Some(waiter.side) {
                    assert!(waiter.future.poll().is_pending(), "{what}: nobody closed that side");
                    scene.waiters.push(waiter);
                    continue;
                }
                assert!(waiter.future.is_woken(), "{what} is not woken");
                let std::task::Poll::Ready((error, kept)) = waiter.future.poll() else { panic!("{what} goes on") };
                scene.kept.push(kept);
                if waiter.name.starts_with("wait_closed") {
                    continue;
                }
                let error = error.unwrap_or_else(|| panic!("{what} succeeds"));
                // A side that has left has no set any more.
                let expected = if left_by == Some(waiter.side) { Status::Protocol } else { Status::Abort };
                assert_eq!(error.status(), expected, "{what}");
                let said = error.reason().map(vdstream::Error::report).unwrap_or_default();
                // Without a server there was nothing to abort.
                let is_told = said.contains(ending.reason()) || (said.is_empty() && stage == Stage::Alone);
                assert!(is_told, "{what}: {said:?}");
            }
            let mut dropped_before = 0;
            for mut future in std::mem::take(&mut scene.accepted) {
                let std::task::Poll::Ready(answer) = poll_once(&mut future) else { panic!("{ending:?}: unanswered") };
                assert_eq!(answer.code.code(), 995);
                let told = answer.reason.map(|told| told.report()).unwrap_or_default();
                if told.contains("dropped the command unanswered") {
                    dropped_before += 1;
                } else {
                    assert!(told.contains(ending.reason()), "{ending:?} in {stage:?}: {told}");
                }
            }
            assert_eq!(dropped_before, usize::from(stage == Stage::Active), "the one that failed its device");
            // Whatever is left goes in any order.
            if let Some(server) = scene.server.take() {
                let _either = now(server.close());
            }
            if let Some(client) = scene.client.take() {
                let _either = now(client.close());
            }
            assert_empty(&scene.hub);
            for mut waiter in std::mem::take(&mut scene.waiters) {
                assert!(waiter.future.is_woken() && waiter.future.poll().is_ready(), "{} after close", waiter.name);
            }
            drop(scene.kept);
            assert_eq!(scene.clock.sleepers(), 0, "a timer is left");
        }
    }
    assert!(waits > 80, "only {waits} waits were looked at");
}

/// What the client still completes after any ending is ignored, and says so.
#[test]
fn a_completion_after_any_ending_is_ignored() {
    for ending in ENDINGS.into_iter().filter(|ending| ending.is_possible(Stage::Terminated)) {
        let mut scene = Scene::at(Stage::Terminated, ending);
        let held = scene.kept.remove(0).downcast::<client::Command>().unwrap();
        scene.waiters.clear();
        scene.end(ending);
        scene.poll_agent();
        let late = held.complete(Completion::success()).unwrap_err();
        let is_left = matches!(ending, Ending::CloseClient | Ending::DropClient);
        assert_eq!(late.status(), if is_left { Status::Protocol } else { Status::Abort }, "{ending:?}");
        let answer = poll_once(&mut scene.accepted[0]);
        let std::task::Poll::Ready(answer) = answer else { panic!("{ending:?}: unanswered") };
        assert_eq!(answer.code.code(), 995);
    }
}
