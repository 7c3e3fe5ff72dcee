//! Every order in which threads can meet in a set, tried by loom.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --release --no-default-features --lib loom
//! ```
//!
//! Each model names its bound where it calls `explore`. `None`: every order in which the threads can meet is tried. A number: every
//! order is tried in which threads are interrupted at most that often where they could have gone on; the number is one with which the model
//! comes to its end in minutes. Either way the search is exhaustive at that bound, and prints how many executions it was;
//! `integration/run-long` fails if one does not come to its end, and then searches on with larger bounds for as long as it may.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use loom::future::block_on;
use loom::thread;

use super::super::answer::{Completion, Recipient};
use super::super::server::Command;
use super::super::{self as vdi, Config, LocalHub, ServerConfig, Status, Transport, client, server};
use crate::sync::explore;

/// Counts answers, by callbacks that may run anywhere, and in which loom switches threads.
#[derive(Clone)]
struct Answers {
    given: Arc<loom::sync::atomic::AtomicUsize>,
}

impl Answers {
    fn new() -> Self {
        Self { given: Arc::new(loom::sync::atomic::AtomicUsize::new(0)) }
    }

    fn given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    /// Sends a flush; true if it was accepted.
    fn send(&self, device: &server::Device) -> bool {
        let given = Arc::clone(&self.given);
        device.send_with(Command::flush(), move |_| _ = given.fetch_add(1, Ordering::SeqCst)).is_ok()
    }
}

struct Pair {
    hub: LocalHub,
    client: client::DeviceSet,
    server: server::DeviceSet,
    input: client::Device,
    output: server::Device,
}

/// One device, open on both sides, with room for `depth` commands.
fn active(depth: u32) -> Pair {
    let hub = LocalHub::new();
    let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
    let server = block_on(server::DeviceSet::open(&hub, "set")).unwrap();
    server.begin_configuration(ServerConfig { max_io_depth: depth, ..ServerConfig::default() }).unwrap();
    block_on(server.end_configuration()).unwrap();
    block_on(client.configuration(None)).unwrap();
    let output = server.open_device().unwrap();
    let input = client.open_device("set").unwrap();
    Pair { hub, client, server, input, output }
}

fn stop(text: &'static str) -> crate::Error {
    crate::Error::new(crate::ErrorKind::Denied, text)
}

fn next(device: &mut client::Device) -> client::Command {
    block_on(device.next_command(None)).unwrap()
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx)
}

#[test]
fn an_answer_reaches_who_waits_for_it() {
    explore("answer against wait", None, || {
        let (recipient, future) = Recipient::future();
        let giver = thread::spawn(move || {
            recipient.answer(Completion { bytes_transferred: 7, ..Completion::default() });
        });
        assert_eq!(block_on(future).bytes_transferred, 7);
        giver.join().unwrap();
    });
}

#[test]
fn an_answer_to_a_future_that_is_being_dropped_is_dropped_once() {
    explore("answer against drop", None, || {
        let (recipient, mut future) = Recipient::future();
        let giver = thread::spawn(move || recipient.answer(Completion::default()));
        let dropper = thread::spawn(move || {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            let _either = std::pin::Pin::new(&mut future).poll(&mut cx);
            drop(future);
        });
        giver.join().unwrap();
        dropper.join().unwrap();
    });
}

#[test]
fn a_sender_that_waits_for_room_and_a_client_that_waits_for_commands_wake_each_other() {
    explore("queue and room", Some(3), || {
        let Pair { client, server, mut input, output, .. } = active(1);
        let engine = thread::spawn(move || {
            for _ in 0..3 {
                drop(block_on(output.send_when_ready(Command::flush())).unwrap());
            }
            output.close().unwrap();
        });
        for _ in 0..3 {
            next(&mut input).complete(client::Completion::success()).unwrap();
        }
        assert_eq!(block_on(input.next_command(None)).unwrap_err().status(), Status::Close);
        engine.join().unwrap();
        drop((client, server));
    });
}

#[test]
fn two_senders_that_wait_for_one_place_both_get_it() {
    explore("two senders", Some(2), || {
        let Pair { client, server, mut input, output, .. } = active(1);
        let output = Arc::new(output);
        let senders = [(); 2].map(|()| {
            let output = Arc::clone(&output);
            thread::spawn(move || drop(block_on(output.send_when_ready(Command::flush())).unwrap()))
        });
        for _ in 0..2 {
            next(&mut input).complete(client::Completion::success()).unwrap();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        drop((client, server));
    });
}

#[test]
fn the_agent_is_woken_for_every_answer_and_for_the_end() {
    explore("agent against client", Some(1), || {
        let Pair { hub, client, server, mut input, output } = active(2);
        let agent = server.completion_agent();
        let application = thread::spawn(move || {
            while let Ok(command) = block_on(input.next_command(None)) {
                command.complete(client::Completion::success()).unwrap();
            }
            drop(input);
            block_on(client.close())
        });
        let engine = thread::spawn(move || {
            let first = output.send(Command::flush()).unwrap();
            assert!(block_on(first).is_success());
            output.close().unwrap();
        });
        block_on(agent).unwrap();
        engine.join().unwrap();
        application.join().unwrap().unwrap();
        block_on(server.close()).unwrap();
        assert_eq!(hub.names().len(), 0);
    });
}

/// The heart of the close contract: whoever comes first, each accepted command is answered once, before close returns.
#[test]
fn close_against_agent_client_and_engine() {
    explore("close against agent, client and engine", Some(2), || {
        let Pair { hub, client, server, mut input, output } = active(2);
        let answers = Answers::new();
        assert!(answers.send(&output));
        let command = next(&mut input);
        let mut agent = server.completion_agent();
        assert!(poll_once(&mut agent).is_pending());
        let agent = thread::spawn(move || block_on(agent));
        let application = thread::spawn(move || _ = command.complete(client::Completion::success()));
        let sender = thread::spawn(move || output.send(Command::flush()).ok());
        assert_eq!(block_on(server.close()).unwrap_err().status(), Status::Protocol);
        assert_eq!(answers.given(), 1, "answered when close returned");
        if let Some(mut late) = sender.join().unwrap() {
            // Accepted means before the close, so the answer is there.
            assert!(poll_once(&mut late).is_ready());
        }
        application.join().unwrap();
        assert_eq!(agent.join().unwrap().unwrap_err().status(), Status::Abort);
        drop((input, client));
        assert_eq!((answers.given(), hub.names().len()), (1, 0));
    });
}

#[test]
fn close_against_abort_and_agent() {
    explore("close against abort and agent", Some(3), || {
        let Pair { hub, client, server, mut input, output } = active(2);
        let answers = Answers::new();
        assert!(answers.send(&output) && answers.send(&output));
        let command = next(&mut input);
        let mut agent = server.completion_agent();
        assert!(poll_once(&mut agent).is_pending());
        let agent = thread::spawn(move || _ = block_on(agent));
        let aborter = thread::spawn(move || {
            client.abort(stop("the client")).unwrap();
            client
        });
        let verdict = block_on(server.close()).map_err(|error| error.status());
        assert!(matches!(verdict, Ok(()) | Err(Status::Protocol)), "aborted before, or open devices");
        assert_eq!(answers.given(), 2);
        let client = aborter.join().unwrap();
        agent.join().unwrap();
        assert!(command.complete(client::Completion::success()).is_err(), "it came too late");
        drop(input);
        block_on(client.close()).unwrap();
        assert_eq!((answers.given(), hub.names().len()), (2, 0));
    });
}

#[test]
fn both_sides_close_at_once() {
    explore("both sides close", None, || {
        let Pair { hub, client, server, input, output } = active(1);
        let answers = Answers::new();
        assert!(answers.send(&output));
        let closer = thread::spawn(move || block_on(client.close()).map_err(|error| error.status()));
        let closed = block_on(server.close()).map_err(|error| error.status());
        assert_eq!(answers.given(), 1);
        let client_closed = closer.join().unwrap();
        // Who comes second finds an aborted set, and that is no error.
        assert!(matches!((closed, client_closed), (Err(Status::Protocol), Ok(())) | (Ok(()), Err(Status::Open))));
        assert_eq!(hub.names().len(), 0);
        drop((input, output));
    });
}

#[test]
fn close_waits_for_the_answers_of_an_agent_that_is_dropped() {
    explore("close against a dropped agent", None, || {
        let Pair { hub, client, server, input, output } = active(2);
        let answers = Answers::new();
        assert!(answers.send(&output) && answers.send(&output));
        let mut agent = server.completion_agent();
        assert!(poll_once(&mut agent).is_pending());
        let dropper = thread::spawn(move || drop(agent));
        let _verdict = block_on(server.close());
        assert_eq!(answers.given(), 2, "all answered when close returned");
        dropper.join().unwrap();
        drop((input, output, client));
        assert_eq!(hub.names().len(), 0);
    });
}

#[test]
fn wait_closed_waits_for_the_answers_whoever_gives_them() {
    explore("wait_closed against a late agent", Some(3), || {
        let Pair { client, server, input, output, .. } = active(2);
        let answers = Answers::new();
        assert!(answers.send(&output) && answers.send(&output));
        // Polled for the first time while the set is closed by somebody else.
        let agent = server.completion_agent();
        let waiting = server.clone();
        let late = thread::spawn(move || _ = block_on(agent));
        let closer = thread::spawn(move || _ = block_on(server.close()));
        block_on(waiting.wait_closed());
        assert_eq!(answers.given(), 2, "all answered when the set was closed");
        late.join().unwrap();
        closer.join().unwrap();
        drop((input, output, client));
    });
}

#[test]
fn an_abort_wakes_a_sender_and_a_client_that_wait() {
    explore("abort against waiters", Some(3), || {
        let Pair { client, server, mut input, output, .. } = active(1);
        drop(output.send(Command::flush()).unwrap());
        let sender = thread::spawn(move || block_on(output.send_when_ready(Command::flush())).map(drop));
        let taker = thread::spawn(move || {
            let first = block_on(input.next_command(None));
            // What it holds is dropped after the second wait, which only a second command or the abort ends.
            let second = block_on(input.next_command(None)).map(drop);
            (first.map(drop), second)
        });
        server.abort(stop("the engine")).unwrap();
        let sent = sender.join().unwrap();
        let (first, second) = taker.join().unwrap();
        for status in [first.err(), second.err()].into_iter().flatten().map(|error| error.status()) {
            assert_eq!(status, Status::Abort);
        }
        assert!(sent.is_ok_and(|()| true) || server.state() == server::State::AbnormallyTerminated);
        drop((client, server));
    });
}

/// Whoever learns of an abort learns why: the reason is there before anybody can see that the set is aborted.
#[test]
fn nobody_sees_an_abort_without_its_reason() {
    explore("abort and its reason", Some(3), || {
        let Pair { client, server, mut input, output, .. } = active(1);
        let answers = Answers::new();
        assert!(answers.send(&output));
        let agent = server.completion_agent();
        let aborter = client.clone();
        let aborter = thread::spawn(move || aborter.abort(stop("the client says why")).unwrap());
        let told = |error: &vdi::Error| {
            assert_eq!(error.status(), Status::Abort);
            let reason = error.reason().map(crate::Error::report).unwrap_or_default();
            assert_eq!(reason, "the client says why");
        };
        // Each of these looks on its own and finds the set active, or aborted with the reason.
        let looker = thread::spawn(move || {
            let taken = block_on(input.next_command(Some(std::time::Duration::ZERO)));
            let sent = output.send(Command::flush()).map(drop);
            (taken, sent, input, output)
        });
        if let Err(error) = server.configuration() {
            told(&error);
        }
        if let Err(error) = block_on(client.configuration(None)) {
            told(&error);
        }
        told(&block_on(agent).unwrap_err());
        let (taken, sent, input, output) = looker.join().unwrap();
        if let Err(error) = &taken
            && error.status() != Status::Timeout
        {
            told(error);
        }
        match sent {
            Err(error) if error.status() == Status::Abort => told(error.error()),
            Err(error) => assert_eq!(error.status(), Status::QueueFull),
            Ok(()) => {}
        }
        aborter.join().unwrap();
        assert_eq!(answers.given(), 1);
        drop((taken, input, output, client, server));
    });
}

#[test]
fn the_last_handles_are_dropped_at_once() {
    explore("drop against drop", None, || {
        let Pair { hub, client, server, input, output } = active(1);
        let answers = Answers::new();
        assert!(answers.send(&output));
        let second = server.clone();
        let droppers = [thread::spawn(move || drop(server)), thread::spawn(move || drop(second))];
        drop((client, input));
        droppers.into_iter().for_each(|dropper| dropper.join().unwrap());
        assert_eq!((answers.given(), hub.names().len()), (1, 0));
        drop(output);
    });
}
