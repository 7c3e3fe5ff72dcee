//! Every future of a device set, dropped at every point where it waits: afterwards every command that was accepted is
//! answered, every buffer is free, and nothing is left in the hub.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use tokio_test::task::{self, Spawn};
use vdi_support::*;
use vdstream::buffer::MemoryBudget;
use vdstream::clock::timeout;
use vdstream::testing::SimClock;
use vdstream::vdi::client::{self, Completion, Handler};
use vdstream::vdi::server::{self, Command, CommandFuture, CompletionAgent};
use vdstream::vdi::{Config, LocalHub, ServerConfig};

/// Polls a future a number of times and drops it.
struct Cut {
    polls: usize,
}

impl Cut {
    /// What the future gave, if it was ready before its polls were used up. `meanwhile` runs whenever it waits.
    fn run<F: Future>(&mut self, future: F, mut meanwhile: impl FnMut()) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        while self.polls > 0 {
            self.polls -= 1;
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Some(output);
            }
            meanwhile();
        }
        None
    }
}

/// Runs `scenario` with a cut after 0, 1, 2 and more polls, until its future is ready: it returns true then.
fn at_every_await(name: &str, mut scenario: impl FnMut(&mut Cut) -> bool) {
    let cuts = (0..50).take_while(|polls| !scenario(&mut Cut { polls: *polls })).count();
    assert!(cuts < 50, "{name} is never ready");
    assert!(cuts > 0, "{name} was never dropped");
}

struct World {
    hub: LocalHub,
    budget: MemoryBudget,
    clock: SimClock,
    client: client::DeviceSet,
    server: server::DeviceSet,
    input: client::Device,
    output: server::Device,
    agent: Option<Spawn<CompletionAgent>>,
    accepted: Vec<CommandFuture>,
}

/// One device with room for one command, open on both sides, its agent running.
fn world() -> World {
    let mut world = idle_world();
    let mut agent = task::spawn(world.server.completion_agent());
    assert!(agent.poll().is_pending());
    world.agent = Some(agent);
    world
}

/// The same without an agent.
fn idle_world() -> World {
    let (clock, budget) = (SimClock::new(), MemoryBudget::new(1 << 20));
    let hub = LocalHub::with_clock(clock.shared()).with_budget(&budget);
    let config = Config { server_timeout: Duration::from_secs(60), ..Config::pipe(1) };
    let Pair { hub, client, server } =
        configured_on(hub, config, ServerConfig { max_io_depth: 1, ..ServerConfig::default() });
    let (input, output) = (client.open_device("set").unwrap(), server.open_device().unwrap());
    World { hub, budget, clock, client, server, input, output, agent: None, accepted: Vec::new() }
}

impl World {
    fn send(&mut self) {
        self.accepted.push(self.output.send(write(&self.server)).unwrap());
    }

    /// Ends it all, and looks for what is left.
    fn end(self) {
        let Self { hub, budget, clock, client, server, input, output, mut agent, accepted } = self;
        let mut close = task::spawn(server.close());
        if close.poll().is_pending() {
            assert!(agent.as_mut().unwrap().poll().is_ready());
            assert!(close.poll().is_ready());
        }
        for mut future in accepted {
            assert!(poll_once(&mut future).is_ready(), "accepted and not answered");
        }
        let _its_devices_were_open = now(client.close());
        drop((agent, input, output, close));
        assert_empty(&hub);
        assert_eq!((budget.used(), budget.reserved()), (0, 0), "buffers are left");
        assert_eq!(clock.sleepers(), 0, "a timer is left");
    }

    fn end_after(self, is_ready: bool) -> bool {
        self.end();
        is_ready
    }
}

#[test]
fn opening_a_set_on_either_side() {
    at_every_await("open", |cut| {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
        let opened = cut.run(server::DeviceSet::open(&hub, "set"), || {});
        let is_ready = opened.is_some();
        let server = opened.unwrap_or_else(|| now(server::DeviceSet::open(&hub, "set"))).unwrap();
        now(server.close()).unwrap();
        now(client.close()).unwrap();
        assert_empty(&hub);
        is_ready
    });
    at_every_await("open_in_secondary", |cut| {
        let world = world();
        let joined = cut.run(client::DeviceSet::open_in_secondary(&world.hub, "set"), || {});
        let is_ready = joined.is_some();
        drop(joined);
        world.end();
        is_ready
    });
}

#[test]
fn the_configuration_on_either_side() {
    at_every_await("end_configuration", |cut| {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
        let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
        server.begin_configuration(ServerConfig::default()).unwrap();
        let ended = cut.run(server.end_configuration(), || {});
        assert_eq!(ended.is_some(), server.state() == server::State::Initializing);
        now(server.close()).unwrap();
        now(client.close()).unwrap();
        assert_empty(&hub);
        ended.is_some()
    });
    for timeout in [None, Some(Duration::from_secs(5))] {
        at_every_await("configuration", |cut| {
            let clock = SimClock::new();
            let hub = LocalHub::with_clock(clock.shared());
            let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
            let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
            let fetched = cut.run(client.configuration(timeout), || {
                if server.begin_configuration(ServerConfig::default()).is_err() {
                    let _second_round = now(server.end_configuration());
                }
            });
            assert_eq!(fetched.is_some(), client.state() == client::State::Initializing);
            assert_eq!(clock.sleepers(), 0);
            now(server.close()).unwrap();
            now(client.close()).unwrap();
            assert_empty(&hub);
            fetched.is_some()
        });
    }
}

#[test]
fn waiting_for_room_and_sending() {
    at_every_await("send_when_ready", |cut| {
        let mut world = world();
        world.send();
        let free = world.server.query_available_buffers(512, 0).unwrap();
        let sent = cut.run(world.output.send_when_ready(write(&world.server)), || {
            next(&mut world.input).complete(Completion::transferred(512)).unwrap();
        });
        let is_ready = sent.is_some();
        match sent {
            Some(future) => world.accepted.push(future.unwrap()),
            None => {
                assert!(world.server.query_available_buffers(512, 0).unwrap() >= free, "the buffer came back");
                // The place in the line is free: the next sender gets it.
                let _taken = now(world.input.next_command(Some(Duration::ZERO)));
                world.accepted.push(now(world.output.send_when_ready(Command::flush())).unwrap());
            }
        }
        world.end();
        is_ready
    });
}

#[test]
fn waiting_for_an_answer() {
    at_every_await("CommandFuture", |cut| {
        let mut world = world();
        let future = world.output.send(write(&world.server)).unwrap();
        let free = world.server.query_available_buffers(512, 0).unwrap();
        let (input, agent) = (&mut world.input, world.agent.as_mut().unwrap());
        let mut command = None;
        let answered = cut.run(future, || match command.take() {
            None => command = Some(next(input)),
            Some(taken) => {
                client::Command::complete(taken, Completion::transferred(512)).unwrap();
                assert!(agent.poll().is_pending());
            }
        });
        let is_ready = answered.is_some();
        drop(answered);
        drop(command);
        if let Ok(command) = now(world.input.next_command(Some(Duration::ZERO))) {
            command.complete(Completion::transferred(512)).unwrap();
        }
        assert!(world.agent.as_mut().unwrap().poll().is_pending());
        assert_eq!(world.server.query_available_buffers(512, 0).unwrap(), free + 1, "answered, whoever listens");
        world.end();
        is_ready
    });
}

#[test]
fn the_agent_itself() {
    at_every_await("CompletionAgent", |cut| {
        let mut world = idle_world();
        world.send();
        let (input, output) = (&mut world.input, &world.output);
        let returned =
            cut.run(world.server.completion_agent(), || match now(input.next_command(Some(Duration::ZERO))) {
                Ok(command) => command.complete(Completion::transferred(512)).unwrap(),
                Err(_nothing_more) => _ = output.close(),
            });
        world.end_after(returned.is_some())
    });
}

#[test]
fn waiting_for_commands() {
    for timeout in [None, Some(Duration::from_secs(5))] {
        at_every_await("next_command", |cut| {
            let mut world = world();
            let (server, output) = (&world.server, &world.output);
            let mut accepted = Vec::new();
            let taken = cut.run(world.input.next_command(timeout), || {
                if accepted.is_empty() {
                    accepted.push(output.send(write(server)).unwrap());
                }
            });
            let is_ready = taken.is_some();
            if !is_ready && !accepted.is_empty() {
                next(&mut world.input).complete(Completion::transferred(512)).unwrap();
            }
            drop(taken);
            world.accepted.append(&mut accepted);
            world.end();
            is_ready
        });
    }
}

struct SlowHandler {
    waits: usize,
}

#[async_trait]
impl Handler for SlowHandler {
    async fn carry_out(&mut self, command: &mut client::Command) -> Option<Completion> {
        for _ in 0..self.waits {
            tokio::task::yield_now().await;
        }
        Some(Completion::transferred(command.size()))
    }
}

#[test]
fn serving_a_device() {
    at_every_await("serve", |cut| {
        let mut world = world();
        world.send();
        let (output, agent) = (&world.output, world.agent.as_mut().unwrap());
        let mut rounds = 0;
        let mut handler = SlowHandler { waits: 2 };
        let served = cut.run(world.input.serve(&mut handler), || {
            rounds += 1;
            let _waits = agent.poll();
            if rounds == 4 {
                output.close().unwrap();
            }
        });
        world.end_after(served.is_some())
    });
}

#[test]
fn closing_and_waiting_for_it() {
    at_every_await("close", |cut| {
        let mut world = world();
        world.send();
        let (closing, waiting) = (world.server.clone(), world.server.clone());
        let agent = world.agent.as_mut().unwrap();
        let closed = cut.run(closing.close(), || assert!(agent.poll().is_ready()));
        if closed.is_none() && waiting.state() == server::State::DoesNotExist {
            // It goes on by itself, and others see its end.
            let mut end = task::spawn(waiting.wait_closed());
            if end.poll().is_pending() {
                assert!(world.agent.as_mut().unwrap().poll().is_ready());
                assert!(end.is_woken() && end.poll().is_ready());
            }
        }
        for mut future in std::mem::take(&mut world.accepted) {
            assert!(closed.is_none() || poll_once(&mut future).is_ready());
        }
        drop(waiting);
        world.end_after(closed.is_some())
    });
    at_every_await("wait_closed of the server", |cut| {
        let mut world = world();
        world.send();
        let waiting = world.server.clone();
        let (server, agent) = (world.server.clone(), world.agent.as_mut().unwrap());
        let mut close = Some(task::spawn(server.close()));
        let closed = cut.run(waiting.wait_closed(), || {
            if close.as_mut().is_some_and(|closing| closing.poll().is_pending()) {
                assert!(agent.poll().is_ready());
            }
            close = None;
        });
        drop((close, waiting));
        world.end_after(closed.is_some())
    });
    at_every_await("wait_closed of the client", |cut| {
        let mut world = world();
        world.send();
        let client = world.client.clone();
        let closed = cut.run(world.client.wait_closed(), || assert!(now(client.clone().close()).is_err()));
        drop(client);
        world.end_after(closed.is_some())
    });
    at_every_await("close of the client", |cut| {
        let mut world = world();
        world.send();
        let closed = cut.run(world.client.clone().close(), || {});
        world.end_after(closed.is_some())
    });
}

#[test]
fn a_time_limit() {
    at_every_await("timeout", |cut| {
        let clock = SimClock::new();
        let (answer, answered) = tokio::sync::oneshot::channel::<()>();
        let shared = clock.shared();
        let limited = timeout(shared.as_ref(), Some(Duration::from_secs(9)), answered);
        let output = cut.run(limited, || clock.advance(Duration::from_secs(4)));
        assert!(output.as_ref().is_none_or(Result::is_err), "nobody answered");
        assert!(answer.is_closed(), "the future in it is dropped too");
        assert_eq!(clock.sleepers(), 0, "a timer is left");
        output.is_some()
    });
}

/// A future that is dropped before its first poll has done nothing.
#[test]
fn nothing_happens_before_the_first_poll() {
    let world = world();
    drop(world.server.clone().close());
    drop(world.client.clone().close());
    drop(world.output.send_when_ready(write(&world.server)));
    drop(world.server.completion_agent());
    assert_eq!(world.server.state(), server::State::Active);
    assert_eq!(world.client.state(), client::State::Active);
    world.end();
}
