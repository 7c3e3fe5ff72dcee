//! The close contract: every command answered once, nothing left behind, no hang, whatever the ending.

#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use futures::future::join_all;
use tokio_test::{assert_pending, assert_ready, task};
use vdi_support::*;
use vdstream::buffer::MemoryBudget;
use vdstream::vdi::{CompletionCode, Config, LocalHub, ServerConfig, Status, client, server};
use vdstream::{Error, ErrorKind};

const DEVICES: u32 = 64;
const DEPTH: usize = 4;

/// 64 devices with 4 commands each: two of them with the client, two in the queue.
fn in_flight(active: &mut Active) -> (Vec<server::CommandFuture>, Vec<client::Command>) {
    let mut futures = Vec::new();
    let mut held = Vec::new();
    for (device, client) in active.devices.iter().zip(&mut active.client_devices) {
        for number in 0..DEPTH {
            futures.push(device.send(write(&active.pair.server)).unwrap());
            if number < DEPTH / 2 {
                held.push(next(client));
            }
        }
    }
    (futures, held)
}

/// Each answer is there, aborted, with a reason, exactly once; a queued command has its buffer back.
fn assert_all_aborted(futures: Vec<server::CommandFuture>) {
    let mut buffers = 0;
    for mut future in futures {
        let Poll::Ready(completion) = poll_once(&mut future) else { panic!("every command is answered") };
        assert_eq!(completion.code, CompletionCode::OperationAborted);
        assert!(completion.reason.is_some());
        buffers += usize::from(completion.buffer.is_some());
        assert!(poll_once(&mut future).is_pending(), "resolves once");
    }
    assert_eq!(buffers, DEVICES as usize * DEPTH / 2);
}

/// Statement 13: "Close while Active on each side: named code, no leak, no hang, agent returns." The server's side.
#[test]
fn spec_13_close_answers_64_devices_with_4_commands_each_through_the_agent() {
    let mut active = active(DEVICES);
    let (futures, held) = in_flight(&mut active);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let server = active.pair.server.clone();
    let mut close = task::spawn(active.pair.server.close());
    assert_pending!(close.poll());
    assert!(agent.is_woken());
    let ended = assert_ready!(agent.poll());
    assert_eq!(ended.unwrap_err().status(), Status::Abort);
    assert!(close.is_woken());
    let error = assert_ready!(close.poll()).unwrap_err();
    assert_eq!(error.status(), Status::Protocol);
    assert!(error.to_string().contains("set-64"), "{error}");
    assert_all_aborted(futures);
    assert_empty(&active.pair.hub);
    now(server.wait_closed());
    for command in held {
        assert_eq!(command.data().len(), 512, "memory stays valid");
        let late = command.complete(client::Completion::transferred(512)).unwrap_err();
        assert_eq!(late.status(), Status::Abort);
    }
}

#[test]
fn close_gives_the_answers_if_the_agent_never_started() {
    for created in [false, true] {
        let mut active = active(DEVICES);
        let (futures, _held) = in_flight(&mut active);
        let agent = created.then(|| active.pair.server.completion_agent());
        assert_eq!(now(active.pair.server.close()).unwrap_err().status(), Status::Protocol);
        assert_all_aborted(futures);
        assert_empty(&active.pair.hub);
        if let Some(agent) = agent {
            assert_eq!(now(agent).unwrap_err().status(), Status::Abort, "started too late, it returns at once");
        }
    }
}

#[test]
fn an_agent_dropped_half_way_leaves_no_command_unanswered() {
    let mut active = active(DEVICES);
    let (futures, _held) = in_flight(&mut active);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    drop(agent);
    assert!(now(active.pair.server.close()).is_ok(), "the set was aborted by then");
    assert_all_aborted(futures);
    assert_empty(&active.pair.hub);
}

/// Whoever gives the answers, close returns after the last of them, on every thread but the one that gives them.
#[test]
fn close_waits_for_the_callbacks_that_run_while_the_agent_is_dropped() {
    let active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let (entered, is_entered) = std::sync::mpsc::sync_channel(0);
    let (leave, may_leave) = std::sync::mpsc::sync_channel::<()>(0);
    let server = active.pair.server.clone();
    let callback = move |_completion| {
        entered.send(now(server.close()).unwrap_err().status()).unwrap();
        may_leave.recv().unwrap();
    };
    active.devices[0].send_with(server::Command::flush(), callback).unwrap();
    let waiting = active.pair.server.clone();
    std::thread::scope(|scope| {
        let dropper = scope.spawn(move || drop(agent));
        assert_eq!(is_entered.recv().unwrap(), Status::Busy);
        let mut closed = task::spawn(waiting.wait_closed());
        assert_pending!(closed.poll(), "a callback runs");
        leave.send(()).unwrap();
        dropper.join().unwrap();
        assert!(closed.is_woken());
        assert_ready!(closed.poll());
    });
}

/// The agent gives way to other tasks after some batches of answers. A close from such a task is not one from a callback.
#[test]
fn close_waits_for_an_agent_that_was_busy_before() {
    let mut active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let chain =
        Arc::new(Chain { device: active.devices.remove(0), input: Mutex::new(active.client_devices.remove(0)) });
    chain.go_on(1000);
    // Each answer causes the next one, so this poll ends in the middle of the chain.
    assert_pending!(agent.poll());
    assert!(agent.is_woken(), "there was more to do");
    let mut close = task::spawn(active.pair.server.close());
    assert_pending!(close.poll(), "the agent has not returned");
    assert!(assert_ready!(agent.poll()).is_err());
    assert_eq!(assert_ready!(close.poll()).unwrap_err().status(), Status::Protocol);
    assert_empty(&active.pair.hub);
}

/// A waker is called as soon as the set is aborted. What its task sees then has the reason with it, in every kind of wait.
#[test]
fn whoever_is_woken_by_an_abort_finds_its_reason() {
    let mut active = active(2);
    let (server, seen) = (active.pair.server.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = Arc::clone(&seen);
    let waker = Waker::from(Arc::new(OnWake(move || {
        let error = server.configuration().unwrap_err();
        noted.lock().unwrap().push((error.status(), error.reason().map(Error::report)));
    })));
    let mut cx = Context::from_waker(&waker);
    let mut agent = active.pair.server.completion_agent();
    assert!(Pin::new(&mut agent).poll(&mut cx).is_pending());
    for _ in 0..DEPTH {
        drop(active.devices[1].send(server::Command::flush()).unwrap());
    }
    assert!(active.devices[1].poll_ready(&mut cx).is_pending());
    assert!(active.client_devices[0].poll_next_command(&mut cx).is_pending());
    let pair = active.pair;
    let waiting = pair.client.clone();
    let mut closed = pin!(waiting.wait_closed());
    assert!(closed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    pair.client.abort(reason("the disk is on fire")).unwrap();
    let told = (Status::Abort, Some("the disk is on fire".to_owned()));
    assert_eq!(*seen.lock().unwrap(), [told.clone(), told.clone(), told], "the agent, the client, the sender");
}

struct OnWake<F>(F);

impl<F: Fn() + Send + Sync> Wake for OnWake<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

#[test]
fn close_waits_for_an_agent_whose_panic_was_caught() {
    let active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let mut input = active.client_devices.into_iter().next().unwrap();
    active.devices[0].send_with(server::Command::flush(), |_| panic!("the callback fails")).unwrap();
    let answered = active.devices[0].send(server::Command::flush()).unwrap();
    for _ in 0..2 {
        next(&mut input).complete(client::Completion::success()).unwrap();
    }
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| agent.poll())).is_err());
    let mut close = task::spawn(active.pair.server.close());
    assert_pending!(close.poll(), "the agent was not dropped");
    assert!(assert_ready!(agent.poll()).is_err());
    assert_eq!(assert_ready!(close.poll()).unwrap_err().status(), Status::Protocol);
    assert!(now(answered).is_success());
}

struct Chain {
    device: server::Device,
    input: Mutex<client::Device>,
}

impl Chain {
    /// Sends a command whose callback sends the next, and completes it at once.
    fn go_on(self: &Arc<Self>, count: usize) {
        let chain = Arc::clone(self);
        let sent = self.device.send_with(server::Command::flush(), move |completion| {
            if completion.is_success() && count > 0 {
                chain.go_on(count - 1);
            }
        });
        if sent.is_ok() {
            next(&mut self.input.lock().unwrap()).complete(client::Completion::success()).unwrap();
        }
    }
}

#[tokio::test]
async fn an_agent_whose_task_panicked_leaves_no_command_unanswered() {
    let mut active = active(DEVICES);
    let (futures, mut held) = in_flight(&mut active);
    let answered = Arc::new(AtomicUsize::new(0));
    for (device, client) in active.devices.iter().zip(&mut active.client_devices) {
        held.push(next(client));
        let answered = Arc::clone(&answered);
        device
            .send_with(server::Command::flush(), move |completion| {
                answered.fetch_add(1, Ordering::SeqCst);
                assert!(!completion.is_success(), "panics on the agent");
            })
            .unwrap();
    }
    let agent = tokio::spawn(active.pair.server.completion_agent());
    // The third command of the first device is a write; the flush comes after it.
    held.push(next(&mut active.client_devices[0]));
    let flush = next(&mut active.client_devices[0]);
    flush.complete(client::Completion::success()).unwrap();
    assert!(agent.await.unwrap_err().is_panic());
    assert_eq!(answered.load(Ordering::SeqCst), DEVICES as usize);
    active.pair.server.close().await.unwrap();
    for future in futures {
        assert_eq!(future.await.code, CompletionCode::OperationAborted);
    }
    assert_empty(&active.pair.hub);
}

#[test]
fn a_callback_that_panics_in_close_does_not_keep_the_others_from_their_answers() {
    let active = active(2);
    let answered = Arc::new(AtomicUsize::new(0));
    for device in &active.devices {
        for _ in 0..DEPTH {
            let answered = Arc::clone(&answered);
            let callback = move |_| {
                answered.fetch_add(1, Ordering::SeqCst);
                panic!("callback");
            };
            device.send_with(server::Command::flush(), callback).unwrap();
        }
    }
    let server = active.pair.server.clone();
    std::panic::catch_unwind(AssertUnwindSafe(|| now(active.pair.server.close()))).unwrap_err();
    assert_eq!(answered.load(Ordering::SeqCst), 2 * DEPTH);
    now(server.wait_closed());
    assert_empty(&active.pair.hub);
}

#[test]
fn close_in_order_waits_for_the_agent_and_reports_success() {
    let mut active = active(3);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let futures: Vec<_> =
        active.devices.iter().map(|device| device.send(write(&active.pair.server)).unwrap()).collect();
    for device in &active.devices {
        device.close().unwrap();
    }
    assert_eq!(active.pair.server.state(), server::State::NormallyTerminated);
    for client in &mut active.client_devices {
        // What was queued before the close is still delivered.
        next(client).complete(client::Completion::transferred(512)).unwrap();
        assert_eq!(next_error(client).status(), Status::Close);
        assert_eq!(next_error(client).status(), Status::Protocol);
    }
    assert_eq!(active.pair.client.state(), client::State::NormallyTerminated);
    assert!(agent.is_woken());
    assert_ready!(agent.poll()).unwrap();
    for completion in now(join_all(futures)) {
        assert_eq!((completion.code, completion.bytes_transferred), (CompletionCode::Success, 512));
    }
    now(active.pair.server.close()).unwrap();
    now(active.pair.client.close()).unwrap();
    assert_empty(&active.pair.hub);
}

#[test]
fn closing_from_a_completion_callback_reports_busy_and_goes_on() {
    let mut active = active(2);
    let server = active.pair.server;
    let mut agent = task::spawn(server.completion_agent());
    assert_pending!(agent.poll());
    let seen = Arc::new(Mutex::new(None));
    let (inside, report) = (server.clone(), Arc::clone(&seen));
    let callback = move |_| *report.lock().unwrap() = Some(inside.close().now_or_never());
    active.devices[0].send_with(server::Command::flush(), callback).unwrap();
    let other = active.devices[1].send(server::Command::flush()).unwrap();
    next(&mut active.client_devices[0]).complete(client::Completion::success()).unwrap();
    let mut closed = task::spawn(server.wait_closed());
    assert_pending!(closed.poll());
    assert_eq!(assert_ready!(agent.poll()).unwrap_err().status(), Status::Abort);
    let verdict = seen.lock().unwrap().take().unwrap().expect("close does not wait on the agent");
    assert_eq!(verdict.unwrap_err().status(), Status::Busy);
    assert!(closed.is_woken());
    assert_ready!(closed.poll());
    assert_eq!(now(other).code, CompletionCode::OperationAborted);
    assert_empty(&active.pair.hub);
}

#[test]
fn dropping_the_close_future_does_not_stop_the_closing() {
    let mut active = active(2);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let future = active.devices[0].send(write(&active.pair.server)).unwrap();
    let held = next(&mut active.client_devices[0]);
    let server = active.pair.server.clone();
    let mut close = task::spawn(active.pair.server.close());
    assert_pending!(close.poll());
    drop(close);
    let mut closed = task::spawn(server.wait_closed());
    assert_pending!(closed.poll());
    assert_empty(&active.pair.hub);
    let _abort = assert_ready!(agent.poll());
    assert!(closed.is_woken());
    assert_ready!(closed.poll());
    assert_eq!(now(future).code, CompletionCode::OperationAborted);
    drop(held);
}

/// A client must not take a part for the whole.
#[test]
fn a_server_that_leaves_devices_unopened_aborts_the_client() {
    let pair = configured(Config::pipe(2), ServerConfig::default());
    let mut devices = pair.client.open_all().unwrap();
    pair.server.open_device().unwrap().close().unwrap();
    assert_eq!(next_error(&mut devices[0]).status(), Status::Close);
    now(pair.server.close()).unwrap();
    let error = next_error(&mut devices[1]);
    assert_eq!(error.status(), Status::Abort);
    assert!(error.reason().unwrap().to_string().contains("before every device"), "{error:?}");
    now(pair.client.close()).unwrap();
    assert_empty(&pair.hub);
}

#[test]
fn a_close_that_is_never_polled_is_a_drop() {
    let active = active(1);
    drop(active.pair.server.close());
    assert_empty(&active.pair.hub);
    let error = active.devices[0].send(server::Command::flush()).unwrap_err();
    assert_eq!(error.status(), Status::Protocol);
}

#[test]
fn dropping_a_set_without_close_answers_everything_and_leaves_nothing() {
    for with_agent in [false, true] {
        let mut active = active(DEVICES);
        let (futures, _held) = in_flight(&mut active);
        let mut agent = task::spawn(active.pair.server.completion_agent());
        if with_agent {
            assert_pending!(agent.poll());
        }
        drop(active.pair.server);
        assert_eq!(assert_ready!(agent.poll()).unwrap_err().status(), Status::Abort);
        assert_all_aborted(futures);
        assert_empty(&active.pair.hub);
        let error = next_error(&mut active.client_devices[0]);
        assert_eq!(error.status(), Status::Abort);
        assert!(error.reason().unwrap().to_string().contains("dropped"), "{error:?}");
    }
}

#[test]
fn dropping_the_clients_set_aborts_the_server() {
    let active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let future = active.devices[0].send(write(&active.pair.server)).unwrap();
    drop((active.client_devices, active.pair.client));
    let error = assert_ready!(agent.poll()).unwrap_err();
    assert_eq!(error.status(), Status::Abort);
    assert!(now(future).reason.is_some());
    assert_empty(&active.pair.hub);
    now(active.pair.server.close()).unwrap();
}

#[test]
fn dropping_a_device_that_the_server_has_not_closed_aborts() {
    let mut active = active(2);
    drop(active.client_devices.remove(1));
    let error = active.devices[0].send(server::Command::flush()).unwrap_err();
    assert_eq!(error.status(), Status::Abort);
    assert!(error.error().reason().unwrap().to_string().contains("set-2"));
}

#[test]
fn dropping_a_device_that_the_server_has_closed_aborts_nothing() {
    let mut active = active(2);
    active.devices[1].close().unwrap();
    drop(active.client_devices.remove(1));
    assert!(active.devices[0].send(server::Command::flush()).is_ok());
}

/// Statement 13, the client's side.
#[test]
fn spec_13_the_client_closing_with_open_devices_is_told_and_everything_is_released() {
    let mut active = active(DEVICES);
    let (futures, _held) = in_flight(&mut active);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let client = active.pair.client.clone();
    let error = now(active.pair.client.close()).unwrap_err();
    assert_eq!(error.status(), Status::Open);
    assert!(error.to_string().contains("set-64"));
    now(client.wait_closed());
    assert_empty(&active.pair.hub);
    let _abort = assert_ready!(agent.poll());
    assert_all_aborted(futures);
    assert_eq!(now(client.close()).unwrap_err().status(), Status::Protocol);
    assert_eq!(next_error(&mut active.client_devices[0]).status(), Status::Protocol);
    now(active.pair.server.close()).unwrap();
}

#[test]
fn a_closed_set_answers_every_call_with_a_status() {
    let active = active(1);
    let server = active.pair.server.clone();
    let buffer = server.allocate_buffer(512, 0).unwrap();
    active.devices[0].close().unwrap();
    now(active.pair.server.close()).unwrap();
    assert_eq!(now(server.clone().close()).unwrap_err().status(), Status::Protocol);
    assert_eq!(server.abort(reason("late")).unwrap_err().status(), Status::Protocol);
    assert_eq!(server.open_device().unwrap_err().status(), Status::Protocol);
    assert_eq!(server.allocate_buffer(512, 0).unwrap_err().status(), Status::Protocol);
    assert_eq!(server.configuration().unwrap_err().status(), Status::Protocol);
    assert_eq!(now(server.end_configuration()).unwrap_err().status(), Status::Protocol);
    assert_eq!(now(server.completion_agent()).unwrap_err().status(), Status::Protocol);
    assert!(!server.is_shared_buffer(&buffer));
    let error = active.devices[0].send(server::Command::write(buffer, 512)).unwrap_err();
    assert_eq!(error.status(), Status::Protocol);
    assert_eq!(error.into_command().into_buffer().unwrap().len(), 512);
    let error = now(active.devices[0].send_when_ready(server::Command::flush())).unwrap_err();
    assert_eq!(error.status(), Status::Protocol);
    assert_eq!(active.devices[0].close().unwrap_err().status(), Status::Protocol);
    assert_eq!(server.state(), server::State::DoesNotExist);
}

#[test]
fn abort_is_idempotent_and_the_first_reason_reaches_both_sides() {
    for by_client in [false, true] {
        let mut active = active(1);
        let mut agent = task::spawn(active.pair.server.completion_agent());
        assert_pending!(agent.poll());
        let future = active.devices[0].send(server::Command::flush()).unwrap();
        if by_client {
            active.pair.client.abort(reason("first")).unwrap();
        } else {
            active.pair.server.abort(reason("first")).unwrap();
        }
        active.pair.client.abort(reason("second")).unwrap();
        active.pair.server.abort(reason("third")).unwrap();
        let first = |error: vdstream::vdi::Error| {
            assert_eq!(error.status(), Status::Abort);
            assert_eq!(error.reason().unwrap().to_string(), "first");
            assert_eq!(Error::from(error).report(), "the device set was aborted: first");
        };
        first(assert_ready!(agent.poll()).unwrap_err());
        let completion = now(future);
        assert_eq!(completion.code, CompletionCode::OperationAborted);
        assert_eq!(completion.reason.unwrap().to_string(), "first");
        first(next_error(&mut active.client_devices[0]));
        first(active.devices[0].send(server::Command::flush()).unwrap_err().into_error());
        first(active.devices[0].close().unwrap_err());
        first(now(active.pair.client.configuration(None)).unwrap_err());
        first(active.pair.server.allocate_buffer(512, 0).unwrap_err());
        now(active.pair.client.close()).unwrap();
        now(active.pair.server.close()).unwrap();
        assert_empty(&active.pair.hub);
    }
}

#[test]
fn abort_wakes_whoever_waits_in_every_state() {
    // Waiting for the configuration, with no server, a connected one, one that configures.
    for stage in 0..3 {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
        let server = (stage > 0).then(|| now(server::DeviceSet::open(&hub, "set")).unwrap());
        if stage == 2 {
            server.as_ref().unwrap().begin_configuration(ServerConfig::default()).unwrap();
        }
        let mut waiting = task::spawn(client.configuration(None));
        assert_pending!(waiting.poll());
        match &server {
            Some(server) => server.abort(reason("stop")).unwrap(),
            None => client.abort(reason("stop")).unwrap(),
        }
        assert!(waiting.is_woken());
        assert_eq!(assert_ready!(waiting.poll()).unwrap_err().status(), Status::Abort);
        if server.is_none() {
            let late = now(server::DeviceSet::open(&hub, "set")).unwrap_err();
            assert_eq!((late.status(), late.reason().unwrap().kind()), (Status::Abort, ErrorKind::Denied));
        }
    }
    // Waiting for a command and for room in the queue.
    let mut active = active(2);
    for _ in 0..DEPTH {
        let _unanswered = active.devices[0].send(server::Command::flush()).unwrap();
    }
    let mut room = task::spawn(active.devices[0].send_when_ready(server::Command::flush()));
    assert_pending!(room.poll());
    let mut command = task::spawn(active.client_devices[1].next_command(None));
    assert_pending!(command.poll());
    active.pair.client.abort(reason("stop")).unwrap();
    assert!(room.is_woken() && command.is_woken());
    assert_eq!(assert_ready!(room.poll()).unwrap_err().status(), Status::Abort);
    assert_eq!(assert_ready!(command.poll()).unwrap_err().status(), Status::Abort);
}

#[test]
fn memory_that_somebody_holds_outlives_the_set_and_is_not_counted() {
    let budget = MemoryBudget::new(1 << 20);
    let hub = LocalHub::new().with_budget(&budget);
    let mut active = open_all(configured_on(hub, Config::pipe(1), ServerConfig::default()));
    let kept = active.pair.server.allocate_buffer(512, 0).unwrap();
    let _future = active.devices[0].send(write(&active.pair.server)).unwrap();
    let held = next(&mut active.client_devices[0]);
    assert_eq!(budget.used(), 1024);
    let _protocol = now(active.pair.server.close());
    assert_eq!((budget.used(), budget.reserved()), (0, 0));
    assert_eq!((kept.len(), held.data().len()), (512, 512));
    drop((kept, held));
    assert_eq!((budget.used(), budget.reserved()), (0, 0));
}

#[test]
fn a_dropped_command_future_does_not_withdraw_the_command() {
    let mut active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let available = active.pair.server.query_available_buffers(512, 0).unwrap();
    drop(active.devices[0].send(write(&active.pair.server)).unwrap());
    let command = next(&mut active.client_devices[0]);
    assert_eq!(active.pair.server.query_available_buffers(512, 0).unwrap(), available - 1);
    command.complete(client::Completion::transferred(512)).unwrap();
    assert_pending!(agent.poll());
    assert_eq!(active.pair.server.query_available_buffers(512, 0).unwrap(), available);
}

/// Answered, and nobody looked: the answer goes with its future, and the buffer in it goes home.
#[test]
fn a_command_future_that_is_dropped_with_its_answer_gives_the_buffer_back() {
    let mut active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let available = active.pair.server.query_available_buffers(512, 0).unwrap();
    let future = active.devices[0].send(write(&active.pair.server)).unwrap();
    next(&mut active.client_devices[0]).complete(client::Completion::transferred(512)).unwrap();
    assert_pending!(agent.poll());
    assert_eq!(active.pair.server.query_available_buffers(512, 0).unwrap(), available - 1, "the answer holds it");
    drop(future);
    assert_eq!(active.pair.server.query_available_buffers(512, 0).unwrap(), available);
}

#[test]
fn a_command_dropped_by_the_client_is_answered_as_aborted() {
    let mut active = active(1);
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let future = active.devices[0].send(write(&active.pair.server)).unwrap();
    drop(next(&mut active.client_devices[0]));
    assert_pending!(agent.poll());
    let completion = now(future);
    assert_eq!(completion.code, CompletionCode::OperationAborted);
    assert!(completion.buffer.is_some() && completion.reason.is_some());
}

/// Engines, clients, an abort and a close at once, on threads: every accepted command is answered exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_that_race_with_an_ending_are_answered_exactly_once() {
    for round in 0..200usize {
        let Active { pair, devices, client_devices } = active(4);
        let agent = tokio::spawn(pair.server.completion_agent());
        let (accepted, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for device in devices {
            let (accepted, answered) = (Arc::clone(&accepted), Arc::clone(&answered));
            tasks.push(tokio::spawn(async move {
                for _ in 0..200 {
                    let counter = Arc::clone(&answered);
                    let callback = move |_| _ = counter.fetch_add(1, Ordering::SeqCst);
                    match device.send_with(server::Command::flush(), callback) {
                        Ok(()) => accepted.fetch_add(1, Ordering::SeqCst),
                        // A refused command has called back as well.
                        Err(_) => answered.fetch_sub(1, Ordering::SeqCst),
                    };
                    match device.send_when_ready(server::Command::flush()).await {
                        Ok(future) => _ = future.await,
                        Err(_) => return,
                    }
                }
            }));
        }
        for mut device in client_devices {
            tasks.push(tokio::spawn(async move {
                while let Ok(command) = device.next_command(None).await {
                    let _late = command.complete(client::Completion::success());
                }
            }));
        }
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let (client, server) = (pair.client, pair.server);
        match round % 4 {
            0 => drop(server),
            1 => _ = server.close().await,
            2 => _ = client.close().await,
            _ => client.abort(reason("stop")).unwrap(),
        }
        join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
        let _aborted = agent.await.unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst), "round {round}");
    }
}
