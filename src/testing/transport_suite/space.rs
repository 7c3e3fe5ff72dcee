//! The buffer area.

use super::support::status;
use crate::error::Result;
use crate::vdi::{Config, ServerConfig, Status, Transport, client, server};

/// As many buffers as the set says can be allocated now can be, and not one more; those that were declared among them.
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
pub async fn what_is_available_can_be_allocated(hub: &dyn Transport) -> Result<()> {
    for (size, count) in [(512, 1), (512, 8), (513, 3), (65_536, 2)] {
        let client = client::DeviceSet::create(hub, "suite-available", Config::pipe(1))?;
        let server = server::DeviceSet::open(hub, "suite-available").await?;
        server.begin_configuration(ServerConfig::default())?.request_buffers(size, 0, count)?;
        assert_eq!(server.query_available_buffers(size, 0)?, 0, "nothing is there before the configuration ended");
        server.end_configuration().await?;
        client.configuration(None).await?;
        assert_eq!(server.query_available_buffers(size, 0)?, count);
        for (size, alignment) in [(size, 0), (1, 0), (512, 4096), (65_536, 0)] {
            let available = server.query_available_buffers(size, alignment)?;
            let buffers: Vec<_> = (0..available)
                .map(|_| server.allocate_buffer(size, alignment))
                .collect::<std::result::Result<_, _>>()?;
            assert_eq!(status(server.allocate_buffer(size, alignment)), Some(Status::Memory), "after {available}");
            assert_eq!(server.query_available_buffers(size, alignment)?, 0);
            drop(buffers);
            assert_eq!(server.query_available_buffers(size, alignment)?, available);
        }
        server.close().await?;
        client.close().await?;
    }
    Ok(())
}
