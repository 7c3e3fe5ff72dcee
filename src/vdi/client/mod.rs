//! The client of a device set: the backup application. It creates the set and carries out commands.

mod command;
mod device;
mod set;

pub use super::state::ClientState as State;
pub use command::{Command, Completion};
pub use device::Device;
pub use set::DeviceSet;
