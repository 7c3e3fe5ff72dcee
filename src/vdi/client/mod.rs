//! The client of a device set: the backup application. It creates the set and carries out commands.

mod command;
mod device;
mod handler;
mod mapping;
mod set;

pub use super::state::ClientState as State;
pub use command::{Command, Completion};
pub use device::Device;
pub use handler::Handler;
pub(crate) use mapping::Slot;
pub use mapping::{BufferHandle, MappedBuffer};
pub use set::DeviceSet;
