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
//!
//! # Words
//!
//! | the VDI specification | here |
//! |---|---|
//! | `IClientVirtualDeviceSet2::CreateEx` | [`client::DeviceSet::create`]; again after close: [`client::DeviceSet::create_again`] |
//! | `GetConfiguration` (client) | [`client::DeviceSet::configuration`] |
//! | `OpenDevice` (client), until `VD_E_OPEN` | [`client::DeviceSet::open_device`], [`client::DeviceSet::open_all`] |
//! | `OpenInSecondaryEx` | [`client::DeviceSet::open_in_secondary`] |
//! | `GetBufferHandle`, `MapBufferHandle` | [`client::Command::buffer_handle`], [`client::DeviceSet::map_buffer`] |
//! | `GetCommand` | [`client::Device::next_command`], [`client::Device::poll_next_command`] |
//! | `CompleteCommand` | [`client::Command::complete`], by value; dropping the command answers it as aborted |
//! | `IServerVirtualDeviceSet2::Open` | [`server::DeviceSet::open`] |
//! | `GetConfiguration` (server) | [`server::DeviceSet::configuration`] |
//! | `BeginConfiguration` | [`server::DeviceSet::begin_configuration`], with named fields: the published sources disagree on the order |
//! | `RequestBuffers`, `QueryAvailableBuffers` | [`server::DeviceSet::request_buffers`], [`server::DeviceSet::query_available_buffers`] |
//! | `EndConfiguration` | [`server::DeviceSet::end_configuration`] |
//! | `AllocateBuffer`, `FreeBuffer`, `IsSharedBuffer` | [`server::DeviceSet::allocate_buffer`], drop or [`server::DeviceSet::free_buffer`], [`server::DeviceSet::is_shared_buffer`] |
//! | `ExecuteCompletionAgent` | [`server::DeviceSet::completion_agent`]: a future; it starts no thread and no task |
//! | `OpenDevice` (server) | [`server::DeviceSet::open_device`] |
//! | `SendCommand` | [`server::Device::send`] gives a future, [`server::Device::send_with`] takes a callback |
//! | `CloseDevice` | [`server::Device::close`] |
//! | `SignalAbort` | `abort` of either set, with a reason that reaches everybody |
//! | `Close` | `close` of either set |
//! | `VD_E_*` | [`Status`] |
//! | `VDC_*` | [`CommandCode`] |
//! | `VDF_*` | [`Features`] |
//! | `ERROR_*` completion codes | [`CompletionCode`] |
//! | `VDConfig` | [`Config`] (the client's wishes), [`ServerConfig`] (the server's choice), [`Configuration`] (what is agreed) |
//!
//! # States of a set
//!
//! Each side has its view of the one state. `-` is [`Status::Protocol`]; an arrow names the state that a call leads to.
//! Cells marked `*` are decisions, because the specification is silent or contradicts itself there.
//!
//! The client's view, [`client::State`]:
//!
//! | call | does not exist | configurable | initializing | active | normally terminated | aborted |
//! |---|---|---|---|---|---|---|
//! | create | → configurable | - | - | - | - | - |
//! | configuration | - | waits, → initializing | ok | ok | ok | `Abort` |
//! | open device | - | - | → active | ok `*1` | - | `Abort` |
//! | next command | - | - | - | ok, or `Close` `*2` | - | `Abort` |
//! | complete | - | - | - | ok | - | `Abort` |
//! | abort | - | → aborted | → aborted | → aborted | → aborted | ok |
//! | close | - | gone `*3` | gone `*3` | gone `*3`; `Open` if devices were open | gone | gone |
//!
//! The server's view, [`server::State`]:
//!
//! | call | does not exist | connected | configurable | initializing | active | normally terminated | aborted |
//! |---|---|---|---|---|---|---|---|
//! | open | → connected `*6` | - | - | - | - | - | - |
//! | configuration | - | ok | ok | ok | ok | ok | `Abort` |
//! | begin configuration | - | → configurable | - | - | - | - | - |
//! | request buffers | - | - | ok | ok | ok | - | - |
//! | query available buffers | - | - | ok | ok | ok | - | - |
//! | end configuration | - | - | → initializing | - | - | - | `Abort` `*` |
//! | open device | - | - | - | → active | ok, then `Open` | - `*` | `Abort` `*` |
//! | completion agent | - | - | - | → active | ok | - `*4` | `Abort` `*4` |
//! | allocate buffer | - | - | - | ok | ok | - `*` | `Abort` `*` |
//! | free buffer | - | - | - | ok | ok | ok `*` | ok `*` |
//! | send | - | - | - | - | ok | - `*` | `Abort` `*` |
//! | close device | - | - | - | - | ok, or `Close` | `Close` | `Abort` |
//! | abort | - | → aborted | → aborted | → aborted | → aborted | → aborted `*` | ok `*` |
//! | close | - | gone `*3` | gone `*3` | gone `*3` | gone `*3`; `Protocol` if devices were open | gone | gone |
//!
//! Decisions:
//!
//! 1. A set becomes active with the first open; further devices open until none is left, then `Open`.
//! 2. `Close` comes once per device, after every command that was queued before it. What the client still holds then is still
//!    to be completed. The client's set is normally terminated when it was told of every device's close and holds no command.
//! 3. A side that leaves before every device was opened and closed aborts the set for the other side, so that nobody takes a
//!    part for the whole. Without open devices its own close succeeds. A client that leaves while it holds commands does the
//!    same, for nobody would answer them; so does a secondary, for its own.
//! 4. An agent that was created in time and polled only later still gives every answer before it returns.
//! 5. A set is normally terminated for the server when *every* device of it was opened and closed. Commands that are out then
//!    are still answered, and the agent returns after the last of them.
//! 6. A set is released by name when either side closes it; after an abort the name stays until then. A server that opens a
//!    set which its client has aborted gets `Abort` with the reason; one that found it by its name just before it was released
//!    gets `Invalid`, as if it had come later; between processes `Unexpected`, if the client had not seen its connection yet.
//! 7. Commands may be sent before the client has opened its end of the device; they wait in the queue.
//! 8. The queue depth counts commands that the client has not taken. At most 1,024 more may be with the client unanswered.
//! 9. `Read` and `Write` need a size of 1 byte at least, a multiple of the block size. A transfer marked
//!    [`short`](server::Command::short) may have any size up to the limit: streams of any length end with one.
//! 10. A command that the configuration excludes (`Complete`, `PrepareToFreeze`, snapshots of several devices) or that is
//!     malformed is refused with `NotSupported` or `Invalid`, its callback with the code 50 or 87. Every other command reaches
//!     the client, whatever the mode.
//! 11. A client that drops a device which the server has not closed aborts the set: nobody would answer.
//! 12. An agent that is dropped while devices are open aborts the set, and gives the answers while it is dropped.
//! 13. A count of bytes beyond the command's size is an I/O error for the server and `Invalid` for the client.
//! 14. A device is named like its set, the further ones `<set>-2`, `<set>-3`, unless the server names them.
//! 15. An alignment of 0 means the block size, or the client's wish if that is stricter.
//!
//! # States of a device
//!
//! [`DevicePhase`] in a picture; an abort leads from everywhere to `Aborted`:
//!
//! ```text
//!                both sides open                    a command fails (not EndOfMedia *)
//!   Unopened ---------------------> Active ------------------------------------------> IoError
//!                                   |    ^                                             |    |
//!                                   |    '------------ ClearError succeeds ------------'    |
//!                                   |                                                       |
//!                                   '---- the server closes ----> Closed <------------------'
//! ```
//!
//! When a command fails, the commands that the client has not taken end with `IoDevice`, and it never sees them. What it has
//! taken it must still complete; `ClearError` comes only after that. Everything else the server sends is refused with
//! [`Status::IoError`]. A `ClearError` that fails leaves the device in error, and another may follow (decision). Closing
//! such a device answers a withheld `ClearError` as aborted (decision).
//!
//! # The close contract
//!
//! 1. Every command that was accepted is answered exactly once. What is outstanding at close gets `OperationAborted`; what
//!    the client completes after that is ignored.
//! 2. If the completion agent runs, it gives the answers, and close returns after it. An agent that was never started, was
//!    dropped, or panicked never makes close wait. An agent that is kept without being polled does.
//! 3. If devices are open, close says so, aborts, and releases everything all the same: no task, no waiter, no name.
//! 4. Buffers that somebody holds stay valid; they are no longer counted, and freed with their holder.
//!    What belongs to a closed set answers every call with a status.
//! 5. A close that is dropped goes on; `wait_closed` of any handle sees its end. Called in a completion callback it reports
//!    [`Status::Busy`] and goes on.
//! 6. Dropping a set without closing it does the same, without waiting.
//! 7. An abort is immediate, may be repeated, and carries a reason, which is the source of every error that it causes.

mod answer;
mod area;
pub mod client;
mod code;
mod config;
mod core;
mod device_state;
mod features;
pub mod server;
#[cfg(feature = "shm")]
mod shared_area;
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
#[cfg(feature = "shm")]
pub use transport::{ShmHub, ShmOptions};
