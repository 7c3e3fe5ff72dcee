//! Data that is written in several ways, and sent again: a buffer that both sides share is one buffer, however it is reached.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Pair, pair, receive_all, status};
use crate::error::Result;
use crate::stream::{ClientReader, DeviceStream, DeviceWriter, OnFlush};
use crate::vdi::client::{self, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{Config, ServerConfig, Status, Transport};

/// A stream whose writer is given bytes, then a source, and again: across the ends of buffers, and with buffers that come back.
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
pub async fn a_writer_sends_bytes_and_what_it_reads_from_a_source(hub: &dyn Transport) -> Result<()> {
    let name = "suite-writer";
    let Pair { client, server, .. } = pair(hub, name, Config::pipe(1), ServerConfig::default()).await?;
    let (output, input) = (server.open_device()?, client.open_device(name)?);
    let mut writer = DeviceWriter::new(&server, output, 2)?;
    let mut reader = ClientReader::new(DeviceStream::new(&client, input), OnFlush::Acknowledge);
    let pages = numbered(70_001);
    let engine = async {
        for _ in 0..4 {
            writer.write_all(b"header").await?;
            assert_eq!(writer.write_from(&mut &pages[..]).await?, pages.len() as u64);
        }
        Ok::<_, crate::Error>(writer.shutdown().await?)
    };
    let application = async {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await?;
        Ok::<_, crate::Error>(received)
    };
    let (returned, sent, received) = futures::join!(server.completion_agent(), engine, application);
    sent?;
    returned?;
    let expected = [&b"header"[..], &pages[..]].concat().repeat(4);
    let received = received?;
    assert_eq!(received.len(), expected.len());
    assert_eq!(
        received.iter().zip(&expected).position(|(one, other)| one != other),
        None,
        "the first byte that differs"
    );
    server.close().await?;
    client.close().await?;
    Ok(())
}

/// A buffer is filled once and sent three times: its beginning, a longer one, and all of it. Half of it was written without looking.
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
pub async fn a_buffer_that_was_sent_in_part_is_sent_whole_later(hub: &dyn Transport) -> Result<()> {
    let name = "suite-again";
    let Pair { client, server, .. } = pair(hub, name, Config::pipe(1), ServerConfig::default()).await?;
    let (output, mut input) = (server.open_device()?, client.open_device(name)?);
    let data = numbered(2048);
    let engine = async {
        let mut buffer = server.allocate_buffer(data.len(), 0)?;
        buffer.write_at(0, &data[..1024])?;
        assert_eq!(buffer[..1024], data[..1024], "what was written is there");
        buffer[1024..].copy_from_slice(&data[1024..]);
        for len in [512, 1536, data.len()] {
            let done = output.send(Command::write(buffer, len))?.await;
            assert!(done.is_success());
            buffer = done.buffer.expect("a client that lends nothing gives the buffer back");
            assert_eq!(buffer[..], data, "the server's buffer is as it was");
        }
        Ok::<_, crate::Error>(output.close()?)
    };
    let (returned, sent, received) = futures::join!(server.completion_agent(), engine, receive_all(&mut input));
    sent?;
    returned?;
    assert_eq!(received?, [&data[..512], &data[..1536], &data[..]].concat());
    server.close().await?;
    client.close().await?;
    Ok(())
}

/// A client puts bytes into the space of a `Read` with and without looking at it, in both orders.
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
pub async fn a_client_fills_its_space_in_several_ways(hub: &dyn Transport) -> Result<()> {
    let name = "suite-space";
    let config = Config { prefix_zone_size: 16, ..Config::pipe(1) };
    let Pair { client, server, .. } = pair(hub, name, config, ServerConfig::default()).await?;
    let (output, mut input) = (server.open_device()?, client.open_device(name)?);
    let data = numbered(1024);
    let ways: [Way; 4] = [
        |command, data| {
            command.write_at(0, &data[..100])?;
            assert_eq!(command.data()[..100], data[..100], "what was written is there");
            Ok(command.write_at(100, &data[100..])?)
        },
        |command, data| {
            command.write_at(0, &data[..100])?;
            command.data_mut()[100..].copy_from_slice(&data[100..]);
            Ok(())
        },
        |command, data| {
            command.write_at(924, &data[924..])?;
            command.prefix_mut().fill(9);
            command.data_mut()[..924].copy_from_slice(&data[..924]);
            Ok(())
        },
        |command, data| {
            command.data_mut()[..100].copy_from_slice(&data[..100]);
            Ok(command.write_at(100, &data[100..])?)
        },
    ];
    let engine = async {
        for number in 0..ways.len() {
            let mut buffer = server.allocate_buffer(data.len(), 0)?;
            // What was in it before shows whether it is replaced.
            buffer.fill(0);
            read_all(&output, buffer, &data, number).await?;
        }
        Ok::<_, crate::Error>(output.close()?)
    };
    let application = async {
        for way in ways {
            let mut command = input.next_command(None).await?;
            way(&mut command, &data)?;
            command.complete(Completion::transferred(data.len()))?;
        }
        assert_eq!(status(input.next_command(None).await), Some(Status::Close));
        Ok::<_, crate::Error>(())
    };
    let (returned, read, filled) = futures::join!(server.completion_agent(), engine, application);
    read?;
    filled?;
    returned?;
    server.close().await?;
    client.close().await?;
    Ok(())
}

async fn read_all(device: &server::Device, buffer: server::Buffer, data: &[u8], number: usize) -> Result<()> {
    let done = device.send(Command::read(buffer, data.len()))?.await;
    assert_eq!(done.bytes_transferred, data.len(), "way {number}");
    assert_eq!(done.buffer.as_deref(), Some(data), "way {number}");
    Ok(())
}

/// Fills the space of a command with the data.
type Way = fn(&mut client::Command, &[u8]) -> Result<()>;

/// Bytes that tell where they belong.
fn numbered(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}
