//! Virtual device sets: an engine (server) and a backup application (client) exchange data through shared buffers.
//!
//! The model is SQL Server's Virtual Device Interface. A client creates a named set of 1 to 64 devices on a hub; a server opens
//! it, fixes the configuration, opens the devices and sends commands; the client carries them out and completes them; the
//! completion agent, a future that the server drives, gives the answers.
//!
//! ```
//! use vdstream::vdi::{Config, LocalHub, ServerConfig, client, server};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> vdstream::Result<()> {
//! let hub = LocalHub::new();
//! let application = client::DeviceSet::create(&hub, "nightly", Config::pipe(1))?;
//!
//! let engine = server::DeviceSet::open(&hub, "nightly").await?;
//! engine.begin_configuration(ServerConfig::default())?.request_buffers(65_536, 0, 4)?.end_configuration().await?;
//! let agent = tokio::spawn(engine.completion_agent());
//! let output = engine.open_device()?;
//! let mut buffer = engine.allocate_buffer(65_536, 0)?;
//! buffer[..5].copy_from_slice(b"pages");
//! let answer = output.send(server::Command::write(buffer, 512))?;
//!
//! application.configuration(None).await?;
//! let mut input = application.open_device("nightly")?;
//! let command = input.next_command(None).await?;
//! assert_eq!(&command.data()[..5], b"pages");
//! command.complete(client::Completion::transferred(512))?;
//!
//! assert!(answer.await.is_success());
//! output.close()?;
//! engine.close().await?;
//! agent.await.expect("the agent does not panic")?;
//! drop(input);
//! application.close().await?;
//! # Ok(())
//! # }
//! ```

mod answer;
mod area;
pub mod client;
mod code;
mod config;
mod core;
mod device_state;
mod features;
pub mod server;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod transport;
mod waiters;

pub use code::{CommandCode, CompletionCode};
pub use config::{Config, Configuration, ServerConfig};
pub use device_state::DevicePhase;
pub use features::Features;
pub use status::{Error, Status};
pub use transport::{LocalHub, Transport};
