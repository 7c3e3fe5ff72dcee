//! The server of a device set: the database engine. It opens the set, fixes the configuration and sends commands.

mod agent;
mod command;
mod device;
mod set;

pub use super::answer::{CommandFuture, Completion};
pub use super::area::Buffer;
pub use super::state::ServerState as State;
pub use agent::CompletionAgent;
pub use command::{Command, SendError, Whence};
pub use device::Device;
pub use set::DeviceSet;
