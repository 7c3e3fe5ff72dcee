//! The state tables through the public interface: each call in each state of a real set.
//!
//! A cell is `ok`, a status, or `type` where the types have no way to make the call: a device exists once it is open.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use vdi_support::*;
use vdstream::vdi::client::{self, Completion, State as ClientState};
use vdstream::vdi::server::{self, Command, State as ServerState};
use vdstream::vdi::{Config, Error, LocalHub, ServerConfig, Status};

const CLIENT: &str = "
    call          | DoesNotExist | Configurable | Initializing | Active | NormallyTerminated | Aborted
    Create        | ok           | PROTOCOL     | PROTOCOL     | PROTOCOL | PROTOCOL         | PROTOCOL
    Configuration | PROTOCOL     | TIMEOUT      | ok           | ok     | ok                 | ABORT
    OpenDevice    | PROTOCOL     | PROTOCOL     | ok           | ok     | PROTOCOL           | ABORT
    NextCommand   | PROTOCOL     | type         | type         | ok     | PROTOCOL           | ABORT
    Complete      | PROTOCOL     | type         | type         | ok     | type               | ABORT
    Abort         | PROTOCOL     | ok           | ok           | ok     | ok                 | ok
    Close         | PROTOCOL     | ok           | ok           | OPEN   | ok                 | ok
";

const SERVER: &str = "
    call            | DoesNotExist | Connected | Configurable | Initializing | Active | NormallyTerminated | AbnormallyTerminated
    Open            | INVALID      | PROTOCOL  | PROTOCOL     | PROTOCOL     | PROTOCOL | PROTOCOL         | PROTOCOL
    Configuration   | PROTOCOL     | ok        | ok           | ok           | ok     | ok                 | ABORT
    Begin           | PROTOCOL     | ok        | PROTOCOL     | PROTOCOL     | PROTOCOL | PROTOCOL         | PROTOCOL
    Request         | PROTOCOL     | PROTOCOL  | ok           | ok           | ok     | PROTOCOL           | PROTOCOL
    Query           | PROTOCOL     | PROTOCOL  | ok           | ok           | ok     | PROTOCOL           | PROTOCOL
    End             | PROTOCOL     | PROTOCOL  | ok           | PROTOCOL     | PROTOCOL | PROTOCOL         | ABORT
    OpenDevice      | PROTOCOL     | PROTOCOL  | PROTOCOL     | ok           | ok     | PROTOCOL           | ABORT
    CompletionAgent | PROTOCOL     | PROTOCOL  | PROTOCOL     | ok           | ok     | PROTOCOL           | ABORT
    Allocate        | PROTOCOL     | PROTOCOL  | PROTOCOL     | ok           | ok     | PROTOCOL           | ABORT
    Free            | PROTOCOL     | type      | type         | ok           | ok     | ok                 | ok
    Send            | PROTOCOL     | type      | type         | type         | ok     | PROTOCOL           | ABORT
    CloseDevice     | PROTOCOL     | type      | type         | type         | ok     | CLOSE              | ABORT
    Abort           | PROTOCOL     | ok        | ok           | ok           | ok     | ok                 | ok
    Close           | PROTOCOL     | ok        | ok           | ok           | PROTOCOL | ok               | ok
";

/// A set of two devices, and whatever of it the state allows to hold.
struct Set {
    hub: LocalHub,
    client: client::DeviceSet,
    server: server::DeviceSet,
    client_devices: Vec<client::Device>,
    devices: Vec<server::Device>,
    command: Option<client::Command>,
    buffer: Option<server::Buffer>,
}

impl Set {
    fn created() -> Self {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "set", Config::pipe(2)).unwrap();
        let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
        Self { hub, client, server, client_devices: vec![], devices: vec![], command: None, buffer: None }
    }

    fn begin(&self) {
        self.server.begin_configuration(ServerConfig::default()).unwrap();
    }

    fn configured() -> Self {
        let mut set = Self::created();
        set.begin();
        set.server.request_buffers(512, 0, 4).unwrap();
        now(set.server.end_configuration()).unwrap();
        now(set.client.configuration(None)).unwrap();
        set.buffer = Some(set.server.allocate_buffer(512, 0).unwrap());
        set
    }

    /// One device is open on both sides, and the client holds a command of it.
    fn active() -> Self {
        let mut set = Self::configured();
        set.devices.push(set.server.open_device().unwrap());
        set.client_devices.push(set.client.open_device("set").unwrap());
        let _future = set.devices[0].send(Command::flush()).unwrap();
        set.command = Some(next(&mut set.client_devices[0]));
        let _queued = set.devices[0].send(Command::flush()).unwrap();
        set
    }

    fn terminated() -> Self {
        let mut set = Self::configured();
        set.client_devices = set.client.open_all().unwrap();
        for device in &mut set.client_devices {
            set.devices.push(set.server.open_device().unwrap());
            set.devices.last().unwrap().close().unwrap();
            assert_eq!(next_error(device).status(), Status::Close);
        }
        set
    }

    fn aborted() -> Self {
        let set = Self::active();
        set.server.abort(reason("stop")).unwrap();
        set
    }

    fn in_client_state(name: &str) -> Self {
        let set = match name {
            "DoesNotExist" => {
                let set = Self::active();
                assert!(now(set.client.clone().close()).is_err());
                set
            }
            "Configurable" => Self::created(),
            "Initializing" => Self::configured(),
            "Active" => Self::active(),
            "NormallyTerminated" => Self::terminated(),
            "Aborted" => Self::aborted(),
            other => panic!("no state {other}"),
        };
        assert_eq!(format!("{:?}", set.client.state()), name);
        set
    }

    fn in_server_state(name: &str) -> Self {
        let set = match name {
            "DoesNotExist" => {
                let set = Self::active();
                assert!(now(set.server.clone().close()).is_err());
                set
            }
            "Connected" => Self::created(),
            "Configurable" => {
                let set = Self::created();
                set.begin();
                set
            }
            "Initializing" => Self::configured(),
            "Active" => Self::active(),
            "NormallyTerminated" => Self::terminated(),
            "AbnormallyTerminated" => Self::aborted(),
            other => panic!("no state {other}"),
        };
        assert_eq!(format!("{:?}", set.server.state()), name);
        set
    }

    fn client_call(&mut self, call: &str) -> Result<(), Error> {
        match call {
            "Create" => client::DeviceSet::create(&self.hub, "set", Config::pipe(1)).map(drop),
            "Configuration" => now(self.client.configuration(Some(std::time::Duration::ZERO))).map(drop),
            // A device that is dropped at once would abort the set.
            "OpenDevice" => self.client.open_device("set-2").map(|device| self.client_devices.push(device)),
            "NextCommand" => {
                now(self.client_devices[0].next_command(None)).map(|command| drop(self.command.replace(command)))
            }
            "Complete" => self.command.take().unwrap().complete(Completion::success()),
            "Abort" => self.client.abort(reason("call")),
            "Close" => now(self.client.clone().close()),
            other => panic!("no call {other}"),
        }
    }

    fn server_call(&mut self, call: &str) -> Result<(), Error> {
        match call {
            "Open" => now(server::DeviceSet::open(&self.hub, "set")).map(drop),
            "Configuration" => self.server.configuration().map(drop),
            "Begin" => self.server.begin_configuration(ServerConfig::default()).map(drop),
            "Request" => self.server.request_buffers(512, 0, 1).map(drop),
            "Query" => self.server.query_available_buffers(512, 0).map(drop),
            "End" => now(self.server.end_configuration()).map(drop),
            "OpenDevice" => self.server.open_device().map(drop),
            "CompletionAgent" => match poll_once(&mut self.server.completion_agent()) {
                std::task::Poll::Ready(result) => result,
                std::task::Poll::Pending => Ok(()),
            },
            "Allocate" => self.server.allocate_buffer(512, 0).map(drop),
            "Free" => self.server.free_buffer(self.buffer.take().unwrap()),
            "Send" => self.devices[0].send(Command::flush()).map(drop).map_err(Error::from),
            "CloseDevice" => self.devices[0].close(),
            "Abort" => self.server.abort(reason("call")),
            "Close" => now(self.server.clone().close()),
            other => panic!("no call {other}"),
        }
    }
}

fn walk(table: &str, mut check: impl FnMut(&str, &str, &str)) {
    let mut lines = table.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let states = lines.next().unwrap();
    for row in lines {
        assert_eq!(row.len(), states.len(), "{row:?}");
        for (state, cell) in states.iter().zip(&row).skip(1).filter(|(_, cell)| **cell != "type") {
            check(row[0], state, cell);
        }
    }
}

fn cell(result: &Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.status().name().trim_start_matches("VD_E_").to_owned(),
    }
}

#[test]
fn every_call_of_the_client_in_every_state_of_a_set() {
    walk(CLIENT, |call, state, expected| {
        let mut set = Set::in_client_state(state);
        let result = set.client_call(call);
        assert_eq!(cell(&result), expected, "{call} in {state}");
        match call {
            "Abort" if result.is_ok() => assert_eq!(set.client.state(), ClientState::Aborted),
            "Close" => assert_eq!(set.client.state(), ClientState::DoesNotExist),
            _ => {}
        }
    });
}

#[test]
fn every_call_of_the_server_in_every_state_of_a_set() {
    walk(SERVER, |call, state, expected| {
        let mut set = Set::in_server_state(state);
        let result = set.server_call(call);
        assert_eq!(cell(&result), expected, "{call} in {state}");
        match call {
            "Abort" if result.is_ok() => assert_eq!(set.server.state(), ServerState::AbnormallyTerminated),
            "Close" => {
                assert_eq!(set.server.state(), ServerState::DoesNotExist);
                assert_empty(&set.hub);
            }
            _ => {}
        }
    });
}
