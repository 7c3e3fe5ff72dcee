//! The no-progress timer: it runs in the completion agent and watches the whole set.

#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use vdi_support::*;
use vdstream::testing::SimClock;
use vdstream::vdi::{Config, LocalHub, ServerConfig, Status, client, server};

const LIMIT: Duration = Duration::from_secs(10);

fn timed() -> (SimClock, Active) {
    let clock = SimClock::new();
    let hub = LocalHub::with_clock(clock.shared());
    let config = Config { server_timeout: LIMIT, ..Config::pipe(2) };
    (clock, open_all(configured_on(hub, config, ServerConfig::default())))
}

/// Statement 15: "serverTimeOut T: no progress aborts after more than 2T, not before; steady slow progress never aborts; no
/// pending requests never aborts."
#[test]
fn spec_15_no_progress_aborts_after_more_than_two_intervals_and_not_before() {
    let (clock, mut active) = timed();
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    clock.advance(LIMIT * 7 / 3);
    assert_pending!(agent.poll());
    let future = active.devices[0].send(server::Command::flush()).unwrap();
    let command = next(&mut active.client_devices[0]);
    clock.advance(LIMIT * 2);
    assert_pending!(agent.poll());
    assert!(!agent.is_woken(), "it waits for the limit, it does not spin");
    clock.advance(Duration::from_nanos(1));
    assert!(agent.is_woken());
    let error = assert_ready!(agent.poll()).unwrap_err();
    assert_eq!(error.status(), Status::Abort);
    assert!(error.reason().unwrap().to_string().contains("20.000000001s"), "{error:?}");
    assert!(now(future).reason.is_some());
    assert_eq!(command.complete(client::Completion::success()).unwrap_err().status(), Status::Abort);
    assert_eq!(next_error(&mut active.client_devices[1]).status(), Status::Abort);
}

#[test]
fn steady_slow_progress_on_any_device_never_aborts() {
    let (clock, mut active) = timed();
    let mut agent = task::spawn(active.pair.server.completion_agent());
    assert_pending!(agent.poll());
    let stuck = active.devices[0].send(server::Command::flush()).unwrap();
    for _ in 0..20 {
        let future = active.devices[1].send(server::Command::flush()).unwrap();
        clock.advance(LIMIT * 2);
        assert_pending!(agent.poll());
        next(&mut active.client_devices[1]).complete(client::Completion::success()).unwrap();
        assert_pending!(agent.poll());
        assert!(now(future).is_success());
    }
    next(&mut active.client_devices[0]).complete(client::Completion::success()).unwrap();
    assert_pending!(agent.poll());
    assert!(now(stuck).is_success());
}

#[test]
fn without_pending_commands_time_does_not_matter() {
    let (clock, active) = timed();
    let mut agent = task::spawn(active.pair.server.completion_agent());
    for _ in 0..20 {
        assert_pending!(agent.poll());
        assert!(!agent.is_woken(), "it does not spin");
        clock.advance(LIMIT * 5);
    }
    assert_pending!(agent.poll());
    drop(active.pair);
    assert!(agent.is_woken());
    let _abort = assert_ready!(agent.poll());
    drop(agent);
    assert_eq!(clock.sleepers(), 0);
}

#[test]
fn a_set_without_the_limit_has_no_timer() {
    let clock = SimClock::new();
    let hub = LocalHub::with_clock(clock.shared());
    let active = open_all(configured_on(hub, Config::pipe(1), ServerConfig::default()));
    let mut agent = task::spawn(active.pair.server.completion_agent());
    let _future = active.devices[0].send(server::Command::flush()).unwrap();
    assert_pending!(agent.poll());
    assert_eq!(clock.sleepers(), 0);
}
