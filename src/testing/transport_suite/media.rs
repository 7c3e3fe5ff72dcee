//! The modes of the interface, with the reference client that keeps its media in files.

use std::path::Path;

use super::support::{Pair, block_byte, expected_data, pair, status};
use crate::error::Result;
use crate::testing::FileDevice;
use crate::vdi::server::{self, Command, Whence};
use crate::vdi::{CommandCode, CompletionCode, Config, Features, ServerConfig, Status, Transport};

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
/// Not cancel-safe, as [`super::all`].
pub async fn the_reference_client_restores_what_was_backed_up(hub: &dyn Transport, directory: &Path) -> Result<()> {
    for (mode, features) in [("pipe", Features::PIPE), ("disk", Features::DISK), ("tape", Features::TAPE)] {
        for media in [Features::WRITE_MEDIA, Features::READ_MEDIA] {
            let engine = if media == Features::WRITE_MEDIA { Engine::BackUp } else { Engine::Restore };
            run(hub, directory, &format!("suite-{mode}"), features, media, engine).await?;
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
/// Not cancel-safe, as [`super::all`].
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

/// Small media that are filled, with two writes out when the warning comes, and loaded one after the other; then read the same way.
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
pub async fn removable_media_are_loaded_as_they_fill(hub: &dyn Transport, directory: &Path) -> Result<()> {
    let modes = [
        ("pipes", Features::PIPE | Features::REMOVABLE),
        ("disks", Features::DISK | Features::REMOVABLE),
        ("tapes", Features::TAPE),
    ];
    for (mode, features) in modes {
        for media in [Features::WRITE_MEDIA, Features::READ_MEDIA] {
            let engine = if media == Features::WRITE_MEDIA { Engine::FillMedia } else { Engine::EmptyMedia };
            run(hub, directory, &format!("suite-{mode}"), features, media, engine).await?;
        }
    }
    Ok(())
}

/// File marks and block addresses, forwards and backwards, and again after the medium was put away.
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
pub async fn a_tape_keeps_its_marks_and_positions(hub: &dyn Transport, directory: &Path) -> Result<()> {
    let (tape, name) = (Features::TAPE, "suite-marks");
    let starts = run(hub, directory, name, tape, Features::WRITE_MEDIA, Engine::WriteMarks).await?;
    run(hub, directory, name, tape, Features::READ_MEDIA, Engine::FindMarks(starts)).await?;
    Ok(())
}

/// What the server does with its device.
enum Engine {
    BackUp,
    Restore,
    FillMedia,
    EmptyMedia,
    WriteMarks,
    /// The block addresses that were noted while the marks were written.
    FindMarks(Vec<u64>),
}

impl Engine {
    /// Returns the block addresses that it noted.
    async fn work(self, server: &server::DeviceSet, device: &server::Device) -> Result<Vec<u64>> {
        match self {
            Self::BackUp => back_up(server, device).await?,
            Self::Restore => restore(server, device).await?,
            Self::FillMedia => fill_media(server, device).await?,
            Self::EmptyMedia => empty_media(server, device).await?,
            Self::WriteMarks => return write_marks(server, device).await,
            Self::FindMarks(starts) => find_marks(server, device, &starts).await?,
        }
        Ok(Vec::new())
    }
}

/// A set of one device with the reference client, whose media are small if they are removable.
async fn run(
    hub: &dyn Transport,
    directory: &Path,
    name: &str,
    features: Features,
    media: Features,
    engine: Engine,
) -> Result<Vec<u64>> {
    let config = Config { features, eom_warning_size: 512, ..Config::default() };
    let server_config = ServerConfig { features: media, ..ServerConfig::default() };
    let Pair { client, server, configuration } = pair(hub, name, config, server_config).await?;
    let output = server.open_device()?;
    let mut input = client.open_device(name)?;
    let capacity = matches!(engine, Engine::FillMedia).then_some(4 * BLOCK as u64);
    let mut files = FileDevice::open(directory, name, &configuration, capacity)?;
    let engine = async {
        let noted = engine.work(&server, &output).await?;
        output.close()?;
        Ok::<_, crate::Error>(noted)
    };
    let (returned, noted, served) = futures::join!(server.completion_agent(), engine, input.serve(&mut files));
    let noted = noted?;
    served?;
    returned?;
    server.close().await?;
    client.close().await?;
    Ok(noted)
}

/// Three blocks with a mark after each.
async fn write_marks(server: &server::DeviceSet, device: &server::Device) -> Result<Vec<u64>> {
    let mut starts = Vec::new();
    for number in 0..3 {
        let at = device.send(Command::get_position())?.await;
        assert!(at.is_success());
        starts.push(at.position);
        assert_eq!(write_block(server, device, number, 0).await?, CompletionCode::Success);
        assert!(device.send(Command::write_mark())?.await.is_success());
    }
    assert!(device.send(Command::flush())?.await.is_success());
    Ok(starts)
}

/// Backwards by addresses, then forwards by marks.
async fn find_marks(server: &server::DeviceSet, device: &server::Device, starts: &[u64]) -> Result<()> {
    for (number, start) in starts.iter().enumerate().rev() {
        let moved = device.send(Command::set_position(*start, Whence::Beginning))?.await;
        assert_eq!((moved.code, moved.position), (CompletionCode::Success, *start));
        assert_eq!(read_block(server, device, 0).await?, (CompletionCode::Success, Some(number)));
    }
    assert_eq!(read_block(server, device, 0).await?, (CompletionCode::FilemarkDetected, None));
    clear(device).await?;
    assert!(device.send(Command::skip_blocks(1))?.await.is_success());
    assert!(device.send(Command::skip_marks(1))?.await.is_success());
    assert_eq!(read_block(server, device, 0).await?, (CompletionCode::Success, Some(2)));
    assert!(device.send(Command::rewind())?.await.is_success());
    assert_eq!(read_block(server, device, 0).await?, (CompletionCode::Success, Some(0)));
    assert!(device.send(Command::skip_blocks(-1))?.await.is_success());
    assert_eq!(read_block(server, device, 0).await?, (CompletionCode::Success, Some(0)));
    assert!(device.send(Command::skip_marks(3))?.await.is_success());
    assert_eq!(read_block(server, device, 0).await?, (CompletionCode::NoDataDetected, None));
    clear(device).await
}

/// Ten blocks, two at a time: the warning comes with the third of a medium, and the fourth is stored all the same.
async fn fill_media(server: &server::DeviceSet, device: &server::Device) -> Result<()> {
    let mut position = 0;
    for number in (0..10).step_by(2) {
        let first = write_block(server, device, number, position);
        let second = write_block(server, device, number + 1, position + BLOCK as u64);
        let (first, second) = futures::try_join!(first, second)?;
        assert_eq!(first, second, "what is pending at the warning is stored, with a warning");
        position += 2 * BLOCK as u64;
        if first == CompletionCode::EndOfMedia {
            assert!(device.send(Command::load())?.await.is_success());
            position = 0;
        } else {
            assert_eq!(first, CompletionCode::Success);
        }
    }
    assert!(device.send(Command::flush())?.await.is_success());
    Ok(())
}

/// Reads medium after medium until there is none.
async fn empty_media(server: &server::DeviceSet, device: &server::Device) -> Result<()> {
    let (mut found, mut position) = (Vec::new(), 0);
    loop {
        match read_block(server, device, position).await? {
            (CompletionCode::Success, number) => {
                found.extend(number);
                position += BLOCK as u64;
            }
            (code, _) => {
                assert_eq!(code, CompletionCode::NoDataDetected);
                clear(device).await?;
                position = 0;
                if !device.send(Command::load())?.await.is_success() {
                    break;
                }
            }
        }
    }
    clear(device).await?;
    assert_eq!(found, Vec::from_iter(0..10));
    Ok(())
}

async fn clear(device: &server::Device) -> Result<()> {
    assert!(device.send(Command::clear_error())?.await.is_success());
    Ok(())
}

async fn write_block(
    server: &server::DeviceSet,
    device: &server::Device,
    number: usize,
    position: u64,
) -> Result<CompletionCode> {
    let mut buffer = server.allocate_buffer(BLOCK, 0)?;
    buffer.fill(block_byte(0, number));
    Ok(device.send(Command::write(buffer, BLOCK).at(position))?.await.code)
}

/// How a read ended, and the number of the block that it gave.
async fn read_block(
    server: &server::DeviceSet,
    device: &server::Device,
    position: u64,
) -> Result<(CompletionCode, Option<usize>)> {
    let buffer = server.allocate_buffer(BLOCK, 0)?;
    let done = device.send(Command::read(buffer, BLOCK).at(position))?.await;
    let data = &done.buffer.as_deref().unwrap_or_default()[..done.bytes_transferred];
    let number = (0..20).find(|number| data == [block_byte(0, *number); BLOCK]);
    assert_eq!(number.is_some(), !data.is_empty(), "a block as it was written");
    Ok((done.code, number))
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

/// Bytes of a block.
const BLOCK: usize = 512;
