//! Who has left, and what the others find then.

use super::support::status;
use crate::error::Result;
use crate::vdi::{Config, ServerConfig, Status, Transport, client, server};

/// A server that has nothing to say has left before its client asks for the configuration: the client finds everything in order.
///
/// # Errors
///
/// Of a call that should have succeeded.
///
/// # Panics
///
/// If the transport breaks a promise.
///
/// # Cancel safety
///
/// Not cancel-safe, as [`super::all`].
pub async fn a_client_finds_what_a_server_that_has_left_agreed(hub: &dyn Transport) -> Result<()> {
    let name = "suite-late";
    let client = client::DeviceSet::create(hub, name, Config::pipe(1))?;
    let server = server::DeviceSet::open(hub, name).await?;
    server.begin_configuration(ServerConfig::default())?.end_configuration().await?;
    server.open_device()?.close()?;
    server.close().await?;
    assert_eq!(client.configuration(None).await?.block_size, ServerConfig::default().block_size);
    let mut input = client.open_device(name)?;
    assert_eq!(status(input.next_command(None).await), Some(Status::Close));
    client.close().await?;
    Ok(())
}
