//! Every (state, call) pair of both sides.

use super::super::state::ServerState as S;
use super::super::state::{ClientCall, ClientState as C, ServerCall, SetState};
use super::super::status::Status;

/// The client's table. A cell is what a call reports, and the state it leads to where that is another one.
const CLIENT: &str = "
    call          | DNE              | Configurable     | Initializing | Active  | Normally | Abort
    Create        | OK>Configurable  | PROT             | PROT         | PROT    | PROT     | PROT
    Configuration | PROT             | OK>Initializing  | OK           | OK      | OK       | ABORT
    OpenDevice    | PROT             | PROT             | OK>Active    | OK      | PROT     | ABORT
    NextCommand   | PROT             | PROT             | PROT         | OK      | PROT     | ABORT
    Complete      | PROT             | PROT             | PROT         | OK      | PROT     | ABORT
    Abort         | PROT             | OK>Abort         | OK>Abort     | OK>Abort| OK>Abort | OK
    Close         | PROT             | OK>DNE           | OK>DNE       | OK>DNE  | OK>DNE   | OK>DNE
";

/// The server's table.
const SERVER: &str = "
    call            | DNE          | Connected       | Configurable    | Initializing | Active   | Normally | Abort
    Open            | OK>Connected | PROT            | PROT            | PROT         | PROT     | PROT     | PROT
    Configuration   | PROT         | OK              | OK              | OK           | OK       | OK       | ABORT
    Begin           | PROT         | OK>Configurable | PROT            | PROT         | PROT     | PROT     | PROT
    Request         | PROT         | PROT            | OK              | OK           | OK       | PROT     | PROT
    Query           | PROT         | PROT            | OK              | OK           | OK       | PROT     | PROT
    End             | PROT         | PROT            | OK>Initializing | PROT         | PROT     | PROT     | ABORT
    OpenDevice      | PROT         | PROT            | PROT            | OK>Active    | OK       | PROT     | ABORT
    CompletionAgent | PROT         | PROT            | PROT            | OK>Active    | OK       | PROT     | ABORT
    Allocate        | PROT         | PROT            | PROT            | OK           | OK       | PROT     | ABORT
    Free            | PROT         | PROT            | PROT            | OK           | OK       | OK       | OK
    Send            | PROT         | PROT            | PROT            | PROT         | OK       | PROT     | ABORT
    CloseDevice     | PROT         | PROT            | PROT            | PROT         | OK       | CLOSE    | ABORT
    Abort           | PROT         | OK>Abort        | OK>Abort        | OK>Abort     | OK>Abort | OK>Abort | OK
    Close           | PROT         | OK>DNE          | OK>DNE          | OK>DNE       | OK>DNE   | OK>DNE   | OK>DNE
";

/// Calls `check` with row, column and cell of a table.
fn walk(table: &str, mut check: impl FnMut(&str, &str, &str)) -> usize {
    let mut lines = table.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let states = lines.next().unwrap();
    let mut pairs = 0;
    for row in lines {
        assert_eq!(row.len(), states.len(), "{row:?}");
        for (state, cell) in states.iter().zip(&row).skip(1) {
            check(row[0], state, cell);
            pairs += 1;
        }
    }
    pairs
}

fn status(cell: &str) -> Result<Option<&str>, Status> {
    match cell {
        "OK" => Ok(None),
        "PROT" => Err(Status::Protocol),
        "ABORT" => Err(Status::Abort),
        "CLOSE" => Err(Status::Close),
        moved => Ok(Some(moved.strip_prefix("OK>").expect("a cell of the table"))),
    }
}

fn client_state(name: &str) -> C {
    match name {
        "DNE" => C::DoesNotExist,
        "Configurable" => C::Configurable,
        "Initializing" => C::Initializing,
        "Active" => C::Active,
        "Normally" => C::NormallyTerminated,
        "Abort" => C::Aborted,
        other => panic!("no client state {other}"),
    }
}

fn server_state(name: &str) -> S {
    match name {
        "DNE" => S::DoesNotExist,
        "Connected" => S::Connected,
        "Configurable" => S::Configurable,
        "Initializing" => S::Initializing,
        "Active" => S::Active,
        "Normally" => S::NormallyTerminated,
        "Abort" => S::AbnormallyTerminated,
        other => panic!("no server state {other}"),
    }
}

/// A set in which the client is in this state, reached by the events that lead there.
fn set_with_client(state: C) -> SetState {
    let mut set = SetState::created();
    if matches!(state, C::Initializing | C::Active | C::NormallyTerminated) {
        set = set_with_server(if state == C::NormallyTerminated { S::NormallyTerminated } else { S::Initializing });
        set.on_configuration_fetched();
    }
    if matches!(state, C::Active | C::NormallyTerminated) {
        set.on_client_device_opened();
    }
    match state {
        C::NormallyTerminated => set.on_all_close_seen(),
        C::Aborted => assert!(set.on_abort()),
        C::DoesNotExist => set.on_client_closed(),
        _ => {}
    }
    assert_eq!(set.client(), state);
    set
}

/// A set in which the server is in this state.
fn set_with_server(state: S) -> SetState {
    let order = [S::Connected, S::Configurable, S::Initializing, S::Active, S::NormallyTerminated];
    let target = order.iter().position(|other| *other == state).unwrap_or(0);
    let mut set = SetState::created();
    let steps = [
        SetState::on_opened as fn(&mut SetState),
        SetState::on_configuration_begun,
        SetState::on_configuration_ended,
        SetState::on_server_activity,
        SetState::on_all_closed,
    ];
    for step in &steps[..=target] {
        step(&mut set);
    }
    match state {
        S::AbnormallyTerminated => assert!(set.on_abort()),
        S::DoesNotExist => set.on_server_closed(),
        _ => {}
    }
    assert_eq!(set.server(), state);
    set
}

/// Statement 1: "Every cell".
#[test]
fn spec_01_every_call_of_the_client_in_every_state_does_what_the_table_says() {
    let pairs = walk(CLIENT, |row, column, cell| {
        let (call, event): (_, fn(&mut SetState)) = match row {
            "Create" => (ClientCall::Create, |set| *set = SetState::created()),
            "Configuration" => (ClientCall::Configuration, SetState::on_configuration_fetched),
            "OpenDevice" => (ClientCall::OpenDevice, SetState::on_client_device_opened),
            "NextCommand" => (ClientCall::NextCommand, |_| {}),
            "Complete" => (ClientCall::Complete, |_| {}),
            "Abort" => (ClientCall::Abort, |set| _ = set.on_abort()),
            "Close" => (ClientCall::Close, SetState::on_client_closed),
            other => panic!("no call {other}"),
        };
        let mut set = set_with_client(client_state(column));
        let expected = status(cell);
        assert_eq!(set.client().admit(call), expected.map(|_| ()), "{row} in {column}");
        if let Ok(moved) = expected {
            event(&mut set);
            assert_eq!(set.client(), client_state(moved.unwrap_or(column)), "{row} in {column}");
        }
    });
    assert_eq!(pairs, 7 * 6);
}

/// Statement 1, the server's side.
#[test]
fn spec_01_every_call_of_the_server_in_every_state_does_what_the_table_says() {
    let pairs = walk(SERVER, |row, column, cell| {
        let (call, event): (_, fn(&mut SetState)) = match row {
            "Open" => (ServerCall::Open, SetState::on_opened),
            "Configuration" => (ServerCall::Configuration, |_| {}),
            "Begin" => (ServerCall::BeginConfiguration, SetState::on_configuration_begun),
            "Request" => (ServerCall::RequestBuffers, |_| {}),
            "Query" => (ServerCall::QueryAvailableBuffers, |_| {}),
            "End" => (ServerCall::EndConfiguration, SetState::on_configuration_ended),
            "OpenDevice" => (ServerCall::OpenDevice, SetState::on_server_activity),
            "CompletionAgent" => (ServerCall::CompletionAgent, SetState::on_server_activity),
            "Allocate" => (ServerCall::AllocateBuffer, |_| {}),
            "Free" => (ServerCall::FreeBuffer, |_| {}),
            "Send" => (ServerCall::SendCommand, |_| {}),
            "CloseDevice" => (ServerCall::CloseDevice, |_| {}),
            "Abort" => (ServerCall::Abort, |set| _ = set.on_abort()),
            "Close" => (ServerCall::Close, SetState::on_server_closed),
            other => panic!("no call {other}"),
        };
        let mut set = set_with_server(server_state(column));
        let expected = status(cell);
        assert_eq!(set.server().admit(call), expected.map(|_| ()), "{row} in {column}");
        if let Ok(moved) = expected {
            event(&mut set);
            assert_eq!(set.server(), server_state(moved.unwrap_or(column)), "{row} in {column}");
        }
    });
    assert_eq!(pairs, 14 * 7);
}
