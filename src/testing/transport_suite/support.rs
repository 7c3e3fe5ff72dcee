//! Both sides of a set, and the data that they exchange.

use crate::error::Result;
use crate::vdi::client::Completion;
use crate::vdi::{Config, Configuration, ServerConfig, Status, Transport, client, server};

/// A set of both sides on one task, configured.
pub(super) struct Pair {
    pub(super) client: client::DeviceSet,
    pub(super) server: server::DeviceSet,
    pub(super) configuration: Configuration,
}

pub(super) async fn pair(hub: &dyn Transport, name: &str, config: Config, server_config: ServerConfig) -> Result<Pair> {
    let buffers = config.device_count as usize * 8;
    let client = client::DeviceSet::create(hub, name, config)?;
    let server = server::DeviceSet::open(hub, name).await?;
    let size = server_config.max_transfer_size as usize;
    server.begin_configuration(server_config)?.request_buffers(size, 0, buffers)?;
    let agreed = server.end_configuration().await?;
    let configuration = client.configuration(None).await?;
    assert_eq!(agreed, configuration);
    Ok(Pair { client, server, configuration })
}

/// What the server writes to a device until it closes it.
pub(super) async fn receive_all(device: &mut client::Device) -> Result<Vec<u8>> {
    let mut received = Vec::new();
    loop {
        match device.next_command(None).await {
            Ok(command) => {
                received.extend_from_slice(command.data());
                let size = command.size();
                command.complete(Completion::transferred(size))?;
            }
            Err(error) if error.status() == Status::Close => return Ok(received),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn expected_data(device: usize) -> Vec<u8> {
    (0..20).flat_map(|number| vec![block_byte(device, number); 512 * (number % 4 + 1)]).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
pub(super) fn block_byte(device: usize, number: usize) -> u8 {
    (device * 31 + number + 1) as u8
}

pub(super) fn status<T>(result: std::result::Result<T, crate::vdi::Error>) -> Option<Status> {
    result.err().map(|error| error.status())
}
