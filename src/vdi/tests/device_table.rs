//! Every (phase, event) pair of a device.

use super::super::code::{CommandCode, CompletionCode};
use super::super::device_state::{CommandId, DevicePhase as Phase, DeviceState, Dropped, Take};
use super::super::status::Status;

const PHASES: [Phase; 5] = [Phase::Unopened, Phase::Active, Phase::IoError, Phase::Closed, Phase::Aborted];

/// A device in this phase. Command 0 has failed in `IoError`.
fn device_in(phase: Phase) -> DeviceState {
    let mut device = DeviceState::new();
    device.set_depth(4);
    if phase != Phase::Unopened {
        device.on_server_opened();
        device.on_client_opened();
    }
    match phase {
        Phase::IoError => fail_one(&mut device),
        Phase::Closed => assert_eq!(device.on_closed(), Ok(Dropped(vec![]))),
        Phase::Aborted => device.on_aborted(),
        Phase::Unopened | Phase::Active => {}
    }
    assert_eq!(device.phase(), phase);
    device
}

fn send(device: &mut DeviceState, id: u64, code: CommandCode) -> Result<(), Status> {
    device.check_send(code)?;
    device.on_sent(CommandId(id), code);
    Ok(())
}

fn fail_one(device: &mut DeviceState) {
    send(device, 0, CommandCode::Write).unwrap();
    assert_eq!(device.on_take(), Ok(Take::Command(CommandId(0))));
    assert_eq!(device.on_completed(CommandId(0), CompletionCode::DiskFull), Ok(Dropped(vec![])));
}

#[test]
fn opening_by_both_sides_in_either_order_makes_a_device_active() {
    for server_first in [true, false] {
        let mut device = DeviceState::new();
        let steps: [fn(&mut DeviceState); 2] = [DeviceState::on_server_opened, DeviceState::on_client_opened];
        steps[usize::from(!server_first)](&mut device);
        assert_eq!(device.phase(), Phase::Unopened);
        steps[usize::from(server_first)](&mut device);
        assert_eq!(device.phase(), Phase::Active);
    }
}

#[test]
fn sending_an_ordinary_command_is_possible_in_an_active_device_only() {
    for phase in PHASES {
        let expected = match phase {
            Phase::Active => Ok(()),
            Phase::IoError => Err(Status::IoError),
            // The set refuses every send after an abort, before the device is asked.
            Phase::Aborted => continue,
            Phase::Unopened | Phase::Closed => Err(Status::Protocol),
        };
        let mut device = device_in(phase);
        assert_eq!(send(&mut device, 9, CommandCode::Flush), expected, "{phase:?}");
        assert_eq!(device.phase(), phase);
    }
}

#[test]
fn clear_error_is_accepted_in_error_and_its_success_makes_the_device_active() {
    let mut device = device_in(Phase::IoError);
    send(&mut device, 1, CommandCode::ClearError).unwrap();
    assert_eq!(device.phase(), Phase::IoError);
    assert_eq!(device.on_take(), Ok(Take::Command(CommandId(1))));
    assert_eq!(device.phase(), Phase::IoError);
    assert_eq!(device.on_completed(CommandId(1), CompletionCode::Success), Ok(Dropped(vec![])));
    assert_eq!(device.phase(), Phase::Active);
    send(&mut device, 2, CommandCode::Write).unwrap();
}

#[test]
fn a_clear_error_that_fails_leaves_the_device_in_error_and_another_may_follow() {
    let mut device = device_in(Phase::IoError);
    for id in 1..4 {
        send(&mut device, id, CommandCode::ClearError).unwrap();
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(id))));
        assert_eq!(device.on_completed(CommandId(id), CompletionCode::NotSupported), Ok(Dropped(vec![])));
        assert_eq!(device.phase(), Phase::IoError);
    }
}

#[test]
fn every_failure_but_the_end_of_a_medium_puts_the_device_in_error() {
    for code in CompletionCode::ALL.into_iter().chain([CompletionCode::Other(1)]) {
        let mut device = device_in(Phase::Active);
        send(&mut device, 1, CommandCode::Write).unwrap();
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(1))));
        assert_eq!(device.on_completed(CommandId(1), code), Ok(Dropped(vec![])));
        let stays = code.is_success() || code == CompletionCode::EndOfMedia;
        assert_eq!(device.phase(), if stays { Phase::Active } else { Phase::IoError }, "{code}");
    }
}

#[test]
fn closing_is_possible_once() {
    for phase in PHASES {
        let expected = match phase {
            Phase::Active | Phase::IoError => Ok(Dropped(vec![])),
            Phase::Closed => Err(Status::Close),
            Phase::Unopened => Err(Status::Protocol),
            // The set refuses it after an abort.
            Phase::Aborted => continue,
        };
        assert_eq!(device_in(phase).on_closed(), expected, "{phase:?}");
    }
}

#[test]
fn an_abort_ends_every_phase() {
    for phase in PHASES {
        let mut device = device_in(phase);
        device.on_aborted();
        assert_eq!(device.phase(), Phase::Aborted);
    }
}

#[test]
fn a_failure_drops_the_queue_and_withholds_clear_error_until_what_was_out_is_completed() {
    let mut device = device_in(Phase::Active);
    for id in 0..4 {
        send(&mut device, id, CommandCode::Write).unwrap();
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(id))));
    }
    for id in 4..7 {
        send(&mut device, id, CommandCode::Write).unwrap();
    }
    let dropped = device.on_completed(CommandId(2), CompletionCode::DiskFull);
    assert_eq!(dropped, Ok(Dropped(vec![CommandId(4), CommandId(5), CommandId(6)])));
    send(&mut device, 7, CommandCode::ClearError).unwrap();
    for id in [3, 0, 1] {
        assert_eq!(device.on_take(), Ok(Take::Nothing));
        assert!(!device.is_deliverable());
        // How they end makes no difference any more.
        let end = if id == 0 { CompletionCode::DiskFull } else { CompletionCode::Success };
        assert_eq!(device.on_completed(CommandId(id), end), Ok(Dropped(vec![])));
    }
    assert!(device.is_deliverable());
    assert_eq!(device.on_take(), Ok(Take::Command(CommandId(7))));
}

#[test]
fn closing_a_failed_device_drops_a_withheld_clear_error_and_the_client_sees_the_close() {
    let mut device = device_in(Phase::Active);
    for id in 0..2 {
        send(&mut device, id, CommandCode::Write).unwrap();
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(id))));
    }
    assert_eq!(device.on_completed(CommandId(0), CompletionCode::DiskFull), Ok(Dropped(vec![])));
    send(&mut device, 2, CommandCode::ClearError).unwrap();
    assert_eq!(device.on_closed(), Ok(Dropped(vec![CommandId(2)])));
    assert_eq!(device.on_take(), Ok(Take::Closed));
    assert_eq!(device.on_take(), Err(Status::Protocol));
    assert!(!device.is_finished_at_client());
    assert_eq!(device.on_completed(CommandId(1), CompletionCode::Success), Ok(Dropped(vec![])));
    assert!(device.is_finished_at_client());
}

#[test]
fn a_queue_takes_as_many_commands_as_it_is_deep() {
    for depth in [1, 2, 4, 256] {
        let mut device = device_in(Phase::Active);
        device.set_depth(depth);
        for id in 0..depth as u64 {
            send(&mut device, id, CommandCode::Flush).unwrap();
        }
        assert_eq!(send(&mut device, 999, CommandCode::Flush), Err(Status::QueueFull));
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(0))));
        send(&mut device, 999, CommandCode::Flush).unwrap();
    }
}

#[test]
fn what_a_client_can_hold_unanswered_is_bounded() {
    let mut device = device_in(Phase::Active);
    let mut accepted = 0;
    while send(&mut device, accepted, CommandCode::Flush).is_ok() {
        assert_eq!(device.on_take(), Ok(Take::Command(CommandId(accepted))));
        accepted += 1;
    }
    assert_eq!(accepted, 1024);
    assert_eq!(device.on_completed(CommandId(7), CompletionCode::Success), Ok(Dropped(vec![])));
    send(&mut device, accepted, CommandCode::Flush).unwrap();
}

#[test]
fn completing_what_is_not_with_the_client_is_invalid() {
    let mut device = device_in(Phase::Active);
    send(&mut device, 1, CommandCode::Flush).unwrap();
    for id in [1, 2] {
        assert_eq!(device.on_completed(CommandId(id), CompletionCode::Success), Err(Status::Invalid));
    }
    assert_eq!(device.on_take(), Ok(Take::Command(CommandId(1))));
    assert_eq!(device.on_completed(CommandId(1), CompletionCode::Success), Ok(Dropped(vec![])));
    assert_eq!(device.on_completed(CommandId(1), CompletionCode::Success), Err(Status::Invalid));
}
