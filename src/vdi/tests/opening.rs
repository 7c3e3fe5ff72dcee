//! A server that found a set by its name, and opens it when the name is free again.

use super::super::core::{Core, Member};
use super::super::state::ServerState;
use super::super::status::Error;
use super::super::{Config, LocalHub, ServerConfig, Status};

fn found() -> Core {
    Core::create(Box::new(LocalHub::new()), "set", &Config::pipe(1))
}

fn stop() -> crate::Error {
    crate::Error::new(crate::ErrorKind::Denied, "stop")
}

/// The set is as it was: nobody has opened it.
fn refused(core: &Core) -> Error {
    let error = core.server_open().unwrap_err();
    assert_eq!(core.server_state(), ServerState::DoesNotExist);
    error
}

#[test]
fn a_set_that_its_client_has_closed_is_not_opened() {
    let core = found();
    core.client_close(Member::Primary).unwrap();
    assert_eq!(refused(&core).status(), Status::Invalid);
}

#[test]
fn a_set_that_was_aborted_is_not_opened_and_says_why() {
    let core = found();
    core.client_abort(Member::Primary, stop()).unwrap();
    assert_eq!(refused(&core).status(), Status::Abort);
    core.client_close(Member::Primary).unwrap();
    let late = refused(&core);
    assert_eq!(late.status(), Status::Invalid);
    assert!(crate::Error::from(late).report().contains("stop"));
}

/// A second server would find devices that are closed, and its client nobody new.
#[test]
fn a_set_that_a_server_has_used_is_not_opened_again() {
    for is_fetched in [false, true] {
        let core = found();
        core.server_open().unwrap();
        assert_eq!(core.server_open().unwrap_err().status(), Status::Protocol, "one server at a time");
        core.begin_configuration(ServerConfig::default()).unwrap();
        core.end_configuration().unwrap();
        if is_fetched {
            let fetched = core.poll_configuration(Member::Primary, &mut Default::default(), std::task::Waker::noop());
            assert!(matches!(fetched, std::task::Poll::Ready(Ok(_))));
        }
        let device = core.server_open_device().unwrap();
        core.server_close_device(device).unwrap();
        core.server_close().unwrap().unwrap();
        assert_eq!(refused(&core).status(), Status::Invalid);
    }
}
