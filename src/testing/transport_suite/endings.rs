//! Who has left, and what the others find then.

use super::support::{Pair, pair, status};
use crate::error::Result;
use crate::vdi::client::{self, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{CompletionCode, Config, ServerConfig, Status, Transport};

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

/// A secondary client leaves while it holds a command of a device that the server has closed: the command is answered.
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
pub async fn a_secondary_that_leaves_answers_what_it_holds(hub: &dyn Transport) -> Result<()> {
    let name = "suite-holding";
    for closes in [true, false] {
        let Pair { client, server, .. } = pair(hub, name, Config::pipe(1), ServerConfig::default()).await?;
        let second = client::DeviceSet::open_in_secondary(hub, name).await?;
        let (output, mut input) = (server.open_device()?, second.open_device(name)?);
        let work = async {
            let answer = output.send(Command::flush())?;
            let held = input.next_command(None).await?;
            output.close()?;
            assert_eq!(status(input.next_command(None).await), Some(Status::Close));
            if closes {
                // Its device is through: nothing is wrong with the call.
                second.close().await?;
            } else {
                drop(second);
            }
            let answered = answer.await;
            assert_eq!(answered.code, CompletionCode::OperationAborted);
            let reason = answered.reason.map(|reason| reason.report()).unwrap_or_default();
            assert!(reason.contains("while 1 commands were outstanding"), "{reason}");
            assert_eq!(status(held.complete(Completion::success())), Some(Status::Abort), "too late");
            Ok::<_, crate::Error>(())
        };
        let (returned, worked) = futures::join!(server.completion_agent(), work);
        worked?;
        assert_eq!(status(returned), Some(Status::Abort));
        server.close().await?;
        client.close().await?;
    }
    Ok(())
}
