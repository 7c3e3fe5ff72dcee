//! Names, configuration, data, errors and endings.

use futures::future::{join_all, try_join_all};

use super::support::{Pair, block_byte, expected_data, pair, receive_all, status};
use crate::error::{ErrorKind, Result};
use crate::vdi::client::{self, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{CompletionCode, Config, Features, ServerConfig, Status, Transport};

/// A name is used once at a time, and free after close.
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
pub async fn names_are_busy_until_they_are_released(hub: &dyn Transport) -> Result<()> {
    let first = client::DeviceSet::create(hub, "suite-names", Config::pipe(1))?;
    assert_eq!(hub.names(), ["suite-names"]);
    assert_eq!(status(client::DeviceSet::create(hub, "suite-names", Config::pipe(1))), Some(Status::Protocol));
    assert_eq!(status(server::DeviceSet::open(hub, "suite-unknown").await), Some(Status::Invalid));
    assert_eq!(status(client::DeviceSet::open_in_secondary(hub, "suite-names").await), Some(Status::Protocol));
    first.close().await?;
    assert_eq!(hub.names(), Vec::<String>::new());
    let second = client::DeviceSet::create(hub, "suite-names", Config::pipe(1))?;
    let server = server::DeviceSet::open(hub, "suite-names").await?;
    assert_eq!(status(server::DeviceSet::open(hub, "suite-names").await), Some(Status::Protocol));
    server.close().await?;
    assert_eq!(status(second.configuration(None).await), Some(Status::Abort));
    second.close().await?;
    Ok(())
}

/// Wishes and choices meet; both sides see the same.
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
pub async fn both_sides_agree_on_the_configuration(hub: &dyn Transport) -> Result<()> {
    let config = Config { prefix_zone_size: 24, alignment: 2048, ..Config::pipe(3) };
    let server_config = ServerConfig { block_size: 1024, max_transfer_size: 131_072, ..ServerConfig::default() };
    let Pair { client, server, configuration } = pair(hub, "suite-config", config, server_config).await?;
    assert_eq!(configuration.device_names, ["suite-config", "suite-config-2", "suite-config-3"]);
    assert_eq!((configuration.alignment, configuration.block_size), (2048, 1024));
    assert_eq!((configuration.prefix_zone_size, configuration.max_transfer_size), (24, 131_072));
    assert!(configuration.features.contains(Features::COMPLETE_ENABLED | Features::WRITE_MEDIA));
    server.close().await?;
    client.close().await?;
    Ok(())
}

/// Writes of 1 to 4 blocks on 1 and 3 devices, with flushes between, then `Complete`.
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
pub async fn data_arrives_in_order_on_every_device(hub: &dyn Transport) -> Result<()> {
    for devices in [1, 3] {
        let Pair { client, server, .. } =
            pair(hub, "suite-data", Config::pipe(devices), ServerConfig::default()).await?;
        let agent = server.completion_agent();
        let engine = async {
            let outputs = (0..devices).map(|_| server.open_device()).collect::<std::result::Result<Vec<_>, _>>()?;
            join_all(outputs.iter().map(|device| write_all(&server, device))).await.into_iter().collect()
        };
        let application = async {
            let mut inputs = client.open_all()?;
            let received = try_join_all(inputs.iter_mut().map(receive_all)).await?;
            for (index, bytes) in received.iter().enumerate() {
                assert_eq!(*bytes, expected_data(index), "device {index}");
            }
            Ok::<_, crate::Error>(())
        };
        let (returned, sent, received): (_, Result<()>, _) = futures::join!(agent, engine, application);
        sent?;
        received?;
        returned?;
        server.close().await?;
        client.close().await?;
    }
    Ok(())
}

async fn write_all(server: &server::DeviceSet, device: &server::Device) -> Result<()> {
    let mut answers = Vec::new();
    for number in 0..20 {
        let len = 512 * (number % 4 + 1);
        let mut buffer = server.allocate_buffer(len, 0)?;
        buffer.fill(block_byte(device.index(), number));
        answers.push(device.send_when_ready(Command::write(buffer, len)).await?);
        if number % 7 == 0 {
            answers.push(device.send_when_ready(Command::flush()).await?);
        }
        if answers.len() > 4 {
            assert!(answers.remove(0).await.is_success());
        }
    }
    answers.push(device.send_when_ready(Command::complete()).await?);
    for answer in answers {
        assert!(answer.await.is_success());
    }
    Ok(device.close()?)
}

/// A failure drops the queue, `ClearError` waits for what is out, and the device works again.
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
pub async fn a_failed_command_follows_the_error_protocol(hub: &dyn Transport) -> Result<()> {
    let Pair { client, server, .. } = pair(hub, "suite-error", Config::pipe(1), ServerConfig::default()).await?;
    let mut input = client.open_device("suite-error")?;
    let output = server.open_device()?;
    let work = async {
        let first = output.send(Command::flush())?;
        let second = output.send(Command::flush())?;
        let (failing, held) = (input.next_command(None).await?, input.next_command(None).await?);
        let queued = output.send(Command::flush())?;
        failing.fail(CompletionCode::DiskFull, crate::Error::new(ErrorKind::Exhausted, "no space"))?;
        let failed = first.await;
        assert_eq!(failed.code, CompletionCode::DiskFull);
        assert!(failed.reason.is_some_and(|reason| reason.report().contains("no space")));
        assert_eq!(queued.await.code, CompletionCode::IoDevice);
        assert_eq!(output.send(Command::flush()).err().map(|error| error.status()), Some(Status::IoError));
        let cleared = output.send(Command::clear_error())?;
        held.complete(Completion::success())?;
        assert!(second.await.is_success());
        input.next_command(None).await?.complete(Completion::success())?;
        assert!(cleared.await.is_success());
        let after = output.send(Command::flush())?;
        input.next_command(None).await?.complete(Completion::success())?;
        assert!(after.await.is_success());
        output.close()?;
        assert_eq!(status(input.next_command(None).await), Some(Status::Close));
        Ok::<_, crate::Error>(())
    };
    let (returned, worked) = futures::join!(server.completion_agent(), work);
    worked?;
    returned?;
    server.close().await?;
    client.close().await?;
    Ok(())
}

/// Either side aborts; both learn why, and every command is answered.
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
pub async fn an_abort_reaches_the_other_side_with_its_reason(hub: &dyn Transport) -> Result<()> {
    for by_client in [true, false] {
        let Pair { client, server, .. } = pair(hub, "suite-abort", Config::pipe(1), ServerConfig::default()).await?;
        let mut input = client.open_device("suite-abort")?;
        let output = server.open_device()?;
        let work = async {
            let delivered = output.send(Command::flush())?;
            let queued = output.send(Command::flush())?;
            let held = input.next_command(None).await?;
            let reason = crate::Error::new(ErrorKind::Denied, "the key expired");
            if by_client { client.abort(reason) } else { server.abort(reason) }?;
            for answer in [delivered, queued] {
                let completion = answer.await;
                assert_eq!(completion.code, CompletionCode::OperationAborted);
                assert!(completion.reason.is_some_and(|reason| reason.report().contains("the key expired")));
            }
            // Between processes a command may come that was sent before; then the client learns of the abort.
            let error = loop {
                match input.next_command(None).await {
                    Ok(late) => drop(late),
                    Err(error) => break crate::Error::from(error),
                }
            };
            assert!(error.report().contains("the key expired"));
            assert_eq!(status(held.complete(Completion::success())), Some(Status::Abort));
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

/// Closing on either side with commands out: the named status, every answer, nothing left.
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
pub async fn closing_with_open_devices_answers_everything(hub: &dyn Transport) -> Result<()> {
    for by_client in [true, false] {
        let Pair { client, server, .. } = pair(hub, "suite-close", Config::pipe(4), ServerConfig::default()).await?;
        let _inputs = client.open_all()?;
        let outputs = (0..4).map(|_| server.open_device()).collect::<std::result::Result<Vec<_>, _>>()?;
        let mut answers = Vec::new();
        for output in outputs.iter().cycle().take(16) {
            answers.push(output.send(Command::flush())?);
        }
        let agent = server.completion_agent();
        let ending = async {
            if by_client {
                assert_eq!(status(client.close().await), Some(Status::Open));
                for answer in answers {
                    assert_eq!(answer.await.code, CompletionCode::OperationAborted);
                }
                server.close().await?;
            } else {
                assert_eq!(status(server.close().await), Some(Status::Protocol));
                for answer in answers {
                    assert_eq!(answer.await.code, CompletionCode::OperationAborted);
                }
                client.close().await?;
            }
            Ok::<_, crate::Error>(())
        };
        let (returned, ended) = futures::join!(agent, ending);
        ended?;
        assert_eq!(status(returned), Some(Status::Abort));
        assert_eq!(hub.names(), Vec::<String>::new());
    }
    Ok(())
}
