//! What every [`Transport`] must do, whatever lies between the two sides.
//!
//! Each function takes a hub on which nothing else runs, uses sets of its own, leaves nothing, and panics when a promise is
//! broken. [`all`] runs them one after the other.

use std::path::Path;

use futures::future::{join_all, try_join_all};

use super::FileDevice;
use crate::error::{ErrorKind, Result};
use crate::vdi::client::{self, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{CommandCode, CompletionCode, Config, Configuration, Features, ServerConfig, Status, Transport};

/// Runs the whole suite; `directory` is for the media of the reference client.
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
/// Not cancel-safe: a suite that is dropped may leave a set behind.
pub async fn all(hub: &dyn Transport, directory: &Path) -> Result<()> {
    names_are_busy_until_they_are_released(hub).await?;
    both_sides_agree_on_the_configuration(hub).await?;
    data_arrives_in_order_on_every_device(hub).await?;
    a_failed_command_follows_the_error_protocol(hub).await?;
    an_abort_reaches_the_other_side_with_its_reason(hub).await?;
    closing_with_open_devices_answers_everything(hub).await?;
    the_reference_client_restores_what_was_backed_up(hub, directory).await?;
    a_snapshot_comes_after_its_metadata_and_can_be_refused(hub, directory).await?;
    assert_eq!(hub.names(), Vec::<String>::new(), "nothing is left in the hub");
    Ok(())
}

/// A set of both sides on one task, configured.
struct Pair {
    client: client::DeviceSet,
    server: server::DeviceSet,
    configuration: Configuration,
}

async fn pair(hub: &dyn Transport, name: &str, config: Config, server_config: ServerConfig) -> Result<Pair> {
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
/// Not cancel-safe, as [`all`].
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
/// Not cancel-safe, as [`all`].
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
/// Not cancel-safe, as [`all`].
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

fn expected_data(device: usize) -> Vec<u8> {
    (0..20).flat_map(|number| vec![block_byte(device, number); 512 * (number % 4 + 1)]).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
fn block_byte(device: usize, number: usize) -> u8 {
    (device * 31 + number + 1) as u8
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

async fn receive_all(device: &mut client::Device) -> Result<Vec<u8>> {
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
/// Not cancel-safe, as [`all`].
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
/// Not cancel-safe, as [`all`].
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
/// Not cancel-safe, as [`all`].
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

/// Pipe, disk and tape, backed up to files and restored from them with reads of another size.
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
/// Not cancel-safe, as [`all`].
pub async fn the_reference_client_restores_what_was_backed_up(hub: &dyn Transport, directory: &Path) -> Result<()> {
    for (mode, features) in [("pipe", Features::PIPE), ("disk", Features::DISK), ("tape", Features::TAPE)] {
        for media in [Features::WRITE_MEDIA, Features::READ_MEDIA] {
            let name = format!("suite-{mode}");
            let config = Config { features, ..Config::default() };
            let server_config = ServerConfig { features: media, ..ServerConfig::default() };
            let Pair { client, server, configuration } = pair(hub, &name, config, server_config).await?;
            let output = server.open_device()?;
            let mut input = client.open_device(&name)?;
            let mut files = FileDevice::open(directory, &name, &configuration, None)?;
            let engine = async {
                if media == Features::WRITE_MEDIA {
                    back_up(&server, &output).await?;
                } else {
                    restore(&server, &output).await?;
                }
                Ok::<_, crate::Error>(output.close()?)
            };
            let (returned, worked, served) = futures::join!(server.completion_agent(), engine, input.serve(&mut files));
            worked?;
            served?;
            returned?;
            server.close().await?;
            client.close().await?;
        }
    }
    Ok(())
}

/// Metadata, `PrepareToFreeze`, `Snapshot`; then metadata and `MountSnapshot`. A client without a volume refuses.
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
/// Not cancel-safe, as [`all`].
pub async fn a_snapshot_comes_after_its_metadata_and_can_be_refused(
    hub: &dyn Transport,
    directory: &Path,
) -> Result<()> {
    let volume = directory.join("suite-volume");
    let config = Config { features: Features::SNAPSHOT_PREPARE, ..Config::default() };
    let freeze = [CommandCode::PrepareToFreeze, CommandCode::Snapshot];
    let aborted = CompletionCode::OperationAborted;
    let success = CompletionCode::Success;
    for (media, has_volume, commands, last) in [
        (Features::WRITE_MEDIA, true, &freeze[..], success),
        (Features::READ_MEDIA, true, &[CommandCode::MountSnapshot], success),
        (Features::WRITE_MEDIA, false, &freeze, aborted),
    ] {
        let before = if media == Features::WRITE_MEDIA { "the database" } else { "something else" };
        std::fs::write(&volume, before)?;
        let name = format!("suite-snapshot-{has_volume}");
        let server_config = ServerConfig { features: media, ..ServerConfig::default() };
        let Pair { client, server, configuration } = pair(hub, &name, config.clone(), server_config).await?;
        let output = server.open_device()?;
        let mut input = client.open_device(&name)?;
        let mut files = FileDevice::open(directory, &name, &configuration, None)?;
        if has_volume {
            files = files.with_volume(&volume);
        }
        let engine = async {
            if media == Features::WRITE_MEDIA {
                back_up(&server, &output).await?;
            } else {
                restore(&server, &output).await?;
                // The end of the metadata is an error like any other.
                assert!(output.send(Command::clear_error())?.await.is_success());
            }
            let mut codes = Vec::new();
            for code in commands {
                codes.push(output.send(Command::from_code(*code))?.await.code);
            }
            assert_eq!(codes.pop(), Some(last));
            assert!(codes.iter().all(|code| code.is_success()));
            Ok::<_, crate::Error>(output.close()?)
        };
        let (returned, worked, served) = futures::join!(server.completion_agent(), engine, input.serve(&mut files));
        worked?;
        served?;
        returned?;
        server.close().await?;
        client.close().await?;
        assert_eq!(std::fs::read_to_string(&volume)?, "the database");
    }
    let Pair { client, server, .. } =
        pair(hub, "suite-snapshot", Config { device_count: 2, ..config }, ServerConfig::default()).await?;
    let output = server.open_device()?;
    for code in freeze {
        let refused = output.send(Command::from_code(code)).err();
        assert_eq!(refused.map(|error| error.status()), Some(Status::NotSupported), "a snapshot takes one device");
    }
    assert_eq!(status(server.close().await), Some(Status::Protocol));
    client.close().await?;
    Ok(())
}

async fn back_up(server: &server::DeviceSet, device: &server::Device) -> Result<()> {
    let mut position = 0;
    for number in 0..20 {
        let len = 512 * (number % 4 + 1);
        let mut buffer = server.allocate_buffer(len, 0)?;
        buffer.fill(block_byte(0, number));
        let done = device.send(Command::write(buffer, len).at(position))?.await;
        assert_eq!((done.code, done.bytes_transferred), (CompletionCode::Success, len));
        position += len as u64;
    }
    assert!(device.send(Command::flush())?.await.is_success());
    Ok(())
}

async fn restore(server: &server::DeviceSet, device: &server::Device) -> Result<()> {
    let mut restored = Vec::new();
    loop {
        let buffer = server.allocate_buffer(1536, 0)?;
        let done = device.send(Command::read(buffer, 1536).at(restored.len() as u64))?.await;
        let buffer = done.buffer.as_deref().unwrap_or_default();
        restored.extend_from_slice(&buffer[..done.bytes_transferred]);
        match done.code {
            CompletionCode::Success => {}
            CompletionCode::HandleEof | CompletionCode::NoDataDetected => break,
            other => assert_eq!(other, CompletionCode::Success),
        }
    }
    assert_eq!(restored, expected_data(0));
    Ok(())
}

fn status<T>(result: std::result::Result<T, crate::vdi::Error>) -> Option<Status> {
    result.err().map(|error| error.status())
}
