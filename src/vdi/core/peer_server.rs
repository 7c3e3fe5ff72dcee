//! What the server's process says that its server did, judged and repeated here.

use super::super::answer::Recipient;
use super::super::code::CommandCode;
use super::super::device_state::CommandId;
use super::super::server::Command;
use super::super::state::{ServerCall, ServerState};
use super::super::status::Error;
use super::super::waiters::Wakes;
use super::inner::{Core, Entry};
use super::link::Doubt;
use crate::error::ErrorKind;
use crate::shm::wire::Sent;

impl Core {
    pub(super) fn peer_ended(&self, area_size: u32) -> Result<(), Doubt> {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if let Err(error) = inner.admit(ServerCall::EndConfiguration) {
            drop(inner);
            return self.judge_server("end of the configuration", Err(error));
        }
        if u64::from(area_size) > self.area.inner.lock().capacity {
            return Err("a buffer area larger than its regions".into());
        }
        inner.configuration.buffer_area_size = area_size;
        inner.set.on_configuration_ended();
        inner.configured.wake_into(&mut wakes);
        inner.links.ended(area_size, &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(super) fn peer_sent(&self, sent: Sent) -> Result<(), Doubt> {
        let Sent { device, is_short, epoch, id, code, size, position, place } = sent;
        let (index, code, size) = (self.index(device)?, CommandCode::from_code(code), size as usize);
        let now = self.now();
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        let arrived = inner
            .admit(ServerCall::SendCommand)
            .and_then(|()| inner.devices[index].state.check_arrived(code, epoch).map_err(Error::from));
        match arrived {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                drop(inner);
                return self.judge_server("command", Err(error));
            }
        }
        if inner.devices[index].last_id.is_some_and(|last| last >= id) {
            return Err("a command with a number that was used".into());
        }
        let buffer = match place {
            Some(place) if code.is_transfer() => {
                Some(self.area.view(place, if code == CommandCode::Write { size } else { 0 })?)
            }
            Some(_) => return Err("a buffer with a command that has none".into()),
            None => None,
        };
        let mut command = Command::told(code, size, position, buffer, is_short);
        inner.check_command(&command, self).map_err(|error| Doubt::Lie(error.to_string()))?;
        if inner.pending == 0 {
            inner.last_progress = now;
        }
        inner.pending += 1;
        let device = &mut inner.devices[index];
        device.last_id = Some(id);
        device.state.on_arrived(CommandId(id), code);
        device.entries.push(Entry {
            id: CommandId(id),
            code,
            size,
            position,
            is_short,
            is_out: false,
            is_returned: false,
            buffer: command.take_buffer(),
            recipient: Recipient::Remote,
        });
        if device.state.is_deliverable() {
            wakes.push_from(&mut device.client);
        }
        inner.links.sent(index, &inner.devices[index], &mut wakes);
        drop(inner);
        wakes.wake();
        Ok(())
    }

    pub(super) fn peer_server_left(&self) {
        let mut wakes = Wakes::default();
        let mut inner = self.lock();
        if inner.set.server() == ServerState::DoesNotExist {
            return;
        }
        if !inner.set.is_aborted() && inner.set.server() != ServerState::NormallyTerminated {
            let message = "the server closed the device set before every device was opened and closed";
            inner.abort(crate::Error::new(ErrorKind::Aborted, message), &mut wakes);
        }
        inner.set.on_server_closed();
        for device in &mut inner.devices {
            device.state.on_server_gone();
            wakes.push_from(&mut device.client);
        }
        inner.links.server_left(&mut wakes);
        drop(inner);
        self.home.release(self);
        wakes.wake();
    }
}
