//! What a client's process says that its client did, judged and repeated here.

use super::super::client;
use super::super::code::{CommandCode, CompletionCode};
use super::super::device_state::{CommandId, Take};
use super::super::state::ClientCall;
use super::super::waiters::Wakes;
use super::inner::{Core, Member};
use super::link::{Doubt, Part};
use super::links::{Role, sent};
use super::translate::error_of;
use crate::shm::wire::Completed;

impl Core {
    pub(super) fn peer_opened(&self, member: Member, index: usize) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::OpenDevice) {
            drop(inner);
            return self.judge_client("opening of a device", Err(error));
        }
        if inner.devices[index].state.is_opened_by_client() {
            return Err("a device that a client has open".into());
        }
        inner.devices[index].state.on_client_opened();
        inner.devices[index].opened_by = Some(member);
        inner.set.on_client_device_opened();
        inner.links.client_opened(index, &mut wakes);
        if inner.links.role == Role::Primary {
            // Commands that were sent before wait here; from here on they are passed on as they come.
            let device = &inner.devices[index];
            let waiting: Vec<_> = device
                .state
                .queued()
                .filter_map(|id| device.entries.iter().find(|entry| entry.id == id))
                .map(|entry| sent(index, device, entry))
                .collect();
            for message in waiting {
                inner.links.tell_member(member, &message, &mut wakes);
            }
        }
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(super) fn peer_took(&self, member: Member, index: usize, id: CommandId) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::NextCommand) {
            drop(inner);
            return self.judge_client("taking of a command", Err(error));
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        if device.state.is_next(id) {
            let _command = device.state.on_take();
            if let Some(entry) = device.entries.iter_mut().find(|entry| entry.id == id) {
                entry.is_out = true;
            }
            device.room.wake_into(&mut wakes);
            inner.links.taken(index, id);
            drop(inner);
            wakes.wake();
            return Ok(());
        }
        device.check_late(id)
    }

    pub(super) fn peer_saw_close(&self, member: Member, index: usize) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit_client(member, ClientCall::NextCommand) {
            drop(inner);
            return self.judge_client("end of a device", Err(error));
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        if !device.state.is_close_due() || device.state.on_take() != Ok(Take::Closed) {
            return Err("the end of a device that is open".into());
        }
        inner.note_finished();
        inner.links.saw_close(index, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(super) fn peer_completed(&self, member: Member, completed: Completed) -> Result<(), Doubt> {
        let Completed { device, id, code, bytes, position, has_buffer, reason } = completed;
        let (index, id, bytes) = (self.index(device)?, CommandId(id), bytes as usize);
        let mut inner = self.lock();
        if inner.is_over_for_clients() {
            return Ok(());
        }
        let device = &mut inner.devices[index];
        device.check_opened_by(member)?;
        let is_delivered = device.state.is_delivered(id);
        let (mut buffer, is_returned) = match device.entries.iter_mut().find(|entry| entry.id == id) {
            Some(entry) if is_delivered => {
                if entry.code.is_transfer() && bytes > entry.size {
                    return Err("a transfer of more bytes than the command has".into());
                }
                let mut buffer = entry.buffer.take();
                if entry.code == CommandCode::Read
                    && let Some(buffer) = &mut buffer
                {
                    buffer.returned(bytes);
                }
                (buffer, entry.is_returned)
            }
            _ => return device.check_late(id),
        };
        if !has_buffer && let Some(buffer) = buffer.take() {
            if is_returned {
                // Whoever had it mapped was faster than this.
                drop(buffer);
            } else {
                inner.stranded.push(buffer);
            }
        }
        drop(inner);
        let completion =
            client::Completion { code: CompletionCode::from_code(code), bytes_transferred: bytes, position };
        // An error says that the set was aborted meanwhile.
        let _late = self.complete(index, id, buffer, completion, reason.map(error_of));
        Ok(())
    }

    pub(super) fn peer_client_left(&self, part: Part) {
        let role = self.lock().links.role;
        if let (Role::Secondary(_), Part::Primary) = (role, part) {
            let mut wakes = Wakes::default();
            let mut inner = self.lock();
            inner.secondaries.clear();
            inner.set.on_client_closed();
            inner.configured.wake_into(&mut wakes);
            inner.client_closed.wake_into(&mut wakes);
            for device in &mut inner.devices {
                wakes.push_from(&mut device.client);
            }
            inner.links.client_left(Member::Primary, &mut wakes);
            drop(inner);
            wakes.wake();
            return;
        }
        let member = if let Part::Secondary(member) = part { member } else { Member::Primary };
        // What it left open aborts the set here as well; there is nobody to tell.
        let _verdict = self.client_close(member);
    }

    /// A side's own close gives its memory back; commands that it still holds keep theirs.
    pub(super) fn detach_client(&self, member: Member) {
        let role = self.lock().links.role;
        if role == Role::Secondary(member) || (role, member) == (Role::Primary, Member::Primary) {
            self.area.detach();
        }
    }
}

impl super::inner::Device {
    fn check_opened_by(&self, member: Member) -> Result<(), Doubt> {
        if self.opened_by == Some(member) { Ok(()) } else { Err("a device that this client does not have open".into()) }
    }

    /// The client's process may have taken or completed a command just before it learned that the command had ended.
    fn check_late(&self, id: CommandId) -> Result<(), Doubt> {
        let was_sent = self.last_id.is_some_and(|last| id.0 <= last);
        if was_sent && !self.entries.iter().any(|entry| entry.id == id) {
            return Ok(());
        }
        Err("an answer to a command that this client does not hold".into())
    }
}
