//! The completion agent between two polls: it gives way, it is polled again after a panic, and close always knows whether it is
//! called in a completion callback.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use tokio_test::{assert_pending, assert_ready, task};
use vdi_support::*;
use vdstream::vdi::{Status, client, server};

type Agent = task::Spawn<server::CompletionAgent>;

fn running_agent(server: &server::DeviceSet) -> Agent {
    let mut agent = task::spawn(server.completion_agent());
    assert_pending!(agent.poll());
    agent
}

/// What a close reported, if it was called; `None` inside if it waits.
type Verdict = Arc<Mutex<Option<Option<Result<(), Status>>>>>;

/// Closes the set and notes at once what that gave.
fn close_and_note(server: &server::DeviceSet, verdict: &Verdict) {
    let closed = server.clone().close().now_or_never();
    *verdict.lock().unwrap() = Some(closed.map(|result| result.map_err(|error| error.status())));
}

/// Each answer causes the next one, and the last one closes the set.
struct Chain {
    device: server::Device,
    input: Mutex<client::Device>,
    server: server::DeviceSet,
    verdict: Verdict,
}

impl Chain {
    fn go_on(self: &Arc<Self>, left: usize) {
        let chain = Arc::clone(self);
        let callback = move |_completion| match left {
            0 => close_and_note(&chain.server, &chain.verdict),
            _ => chain.go_on(left - 1),
        };
        self.device.send_with(server::Command::flush(), callback).unwrap();
        next(&mut self.input.lock().unwrap()).complete(client::Completion::success()).unwrap();
    }
}

/// The agent gives way after some batches of answers. In whichever answer close is called, before, at and after that point, it
/// knows that it runs in a callback: to wait there would be to wait for ever.
#[test]
fn close_reports_busy_in_every_answer_of_a_busy_agent() {
    let mut longest = 0;
    for number in 0..100 {
        let mut active = active(1);
        let mut agent = running_agent(&active.pair.server);
        let chain = Arc::new(Chain {
            device: active.devices.remove(0),
            input: Mutex::new(active.client_devices.remove(0)),
            server: active.pair.server.clone(),
            verdict: Verdict::default(),
        });
        chain.go_on(number);
        let mut polls = 0;
        while chain.verdict.lock().unwrap().is_none() {
            assert!(agent.is_woken(), "answer {number} is never given");
            let _gives_way_or_returns = agent.poll();
            polls += 1;
        }
        longest = longest.max(polls);
        assert_eq!(chain.verdict.lock().unwrap().take(), Some(Some(Err(Status::Busy))), "close in answer {number}");
        assert_empty(&active.pair.hub);
    }
    assert!(longest > 2, "the agent gave way more than once: {longest}");
}

/// What the agent has taken and not given, because a callback panicked, is given while the agent is dropped.
#[test]
fn an_answer_that_a_panic_had_delayed_is_given_when_the_agent_is_dropped() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    active.devices[0].send_with(server::Command::flush(), |_| panic!("the callback fails")).unwrap();
    let mut delayed = active.devices[0].send(server::Command::flush()).unwrap();
    for _ in 0..2 {
        next(&mut active.client_devices[0]).complete(client::Completion::success()).unwrap();
    }
    assert!(catch_unwind(AssertUnwindSafe(|| agent.poll())).is_err());
    assert!(poll_once(&mut delayed).is_pending());
    drop(agent);
    assert!(now(delayed).is_success(), "as it was completed, before the agent was dropped");
}

/// Somebody catches the panic of a callback and polls the agent again: it goes on with the answers that it had taken, and they
/// are as much in a callback as the others.
#[test]
fn close_reports_busy_in_an_answer_that_a_panic_had_delayed() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    let verdict = Verdict::default();
    let (inside, noted) = (active.pair.server.clone(), Arc::clone(&verdict));
    active.devices[0].send_with(server::Command::flush(), |_| panic!("the callback fails")).unwrap();
    active.devices[0].send_with(server::Command::flush(), move |_| close_and_note(&inside, &noted)).unwrap();
    for _ in 0..2 {
        next(&mut active.client_devices[0]).complete(client::Completion::success()).unwrap();
    }
    assert!(catch_unwind(AssertUnwindSafe(|| agent.poll())).is_err());
    assert_eq!(*verdict.lock().unwrap(), None, "not answered yet");
    // The panic ended the callback, so this one waits.
    let mut waiting = task::spawn(active.pair.server.wait_closed());
    assert_pending!(waiting.poll());
    assert_eq!(assert_ready!(agent.poll()).unwrap_err().status(), Status::Abort);
    assert_eq!(verdict.lock().unwrap().take(), Some(Some(Err(Status::Busy))));
    assert!(waiting.is_woken());
    assert_ready!(waiting.poll());
    assert_empty(&active.pair.hub);
}
