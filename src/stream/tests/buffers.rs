//! The buffers that a producer fills itself.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::*;
use super::{Pair, TRANSFER, data};
use crate::error::{Error, ErrorKind};
use crate::vdi::Config;

#[tokio::test]
async fn buffers_filled_in_place_are_written_in_order_with_everything_else() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 2).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    let sent = data(8 * TRANSFER);
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            let mut rest = &sent[..];
            for len in [0, 1, TRANSFER - 1, TRANSFER, 17, TRANSFER, TRANSFER] {
                let (piece, after) = rest.split_at(len);
                let mut buffer = writer.next_buffer().await?;
                assert_eq!(buffer.len(), TRANSFER);
                buffer[..len].copy_from_slice(piece);
                // What was copied into another buffer meanwhile comes first.
                let (copied, after) = after.split_at(100);
                writer.write_buffer(buffer, len).await?;
                writer.write_all(copied).await?;
                rest = after;
            }
            writer.write_all(rest).await?;
            writer.shutdown().await?;
            assert_eq!(writer.position(), sent.len() as u64);
            assert_eq!(writer.next_buffer().await.unwrap_err().kind(), ErrorKind::Closed);
            Ok::<_, Error>(())
        },
        reader.read_to_end(&mut received),
    );
    written.unwrap();
    read.unwrap();
    assert!(received == sent);
    drop((writer, reader));
    pair.close().await;
}

#[tokio::test]
async fn a_buffer_that_was_taken_and_dropped_is_not_lost() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 2).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            for _ in 0..20 {
                drop((writer.next_buffer().await?, writer.next_buffer().await?));
                let mut buffer = writer.next_buffer().await?;
                buffer.fill(7);
                let too_many = buffer.len() + 1;
                let other = writer.next_buffer().await?;
                assert_eq!(writer.write_buffer(other, too_many).await.unwrap_err().kind(), ErrorKind::Invalid);
                writer.write_buffer(buffer, TRANSFER).await?;
            }
            Ok::<_, Error>(writer.shutdown().await?)
        },
        reader.read_to_end(&mut received),
    );
    written.unwrap();
    read.unwrap();
    assert!(received == vec![7; 20 * TRANSFER]);
    drop((writer, reader));
    pair.close().await;
}

#[tokio::test]
async fn a_buffer_of_another_size_or_set_is_refused_and_the_backup_goes_on() {
    let (pair, other) = (Pair::open(Config::pipe(1), 8).await, Pair::pipe().await);
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    let (first, second) = (data(10), data(TRANSFER + 3));
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            writer.write_all(&first).await?;
            for (set, size, len) in [(&pair, 512, 512), (&pair, 2 * TRANSFER, 512), (&other, TRANSFER, 512)] {
                let buffer = set.server.allocate_buffer(size, 0)?;
                let before = (set.server.query_available_buffers(TRANSFER, 0)?, writer.position());
                let refused = writer.write_buffer(buffer, len).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
                assert!(set.server.query_available_buffers(TRANSFER, 0)? > before.0, "the buffer was given back");
                assert_eq!(writer.position(), before.1);
            }
            writer.write_from(&mut &second[..]).await?;
            Ok::<_, Error>(writer.shutdown().await?)
        },
        reader.read_to_end(&mut received),
    );
    written.unwrap();
    read.unwrap();
    assert!(received == [first, second].concat());
    drop((writer, reader));
    pair.close().await;
}

/// The space beyond is that of other devices, or there is none. Either way the writer goes on when a buffer is back.
#[tokio::test]
async fn no_more_buffers_are_taken_than_the_writer_has() {
    for (area, buffers) in [(8, 2), (2, 4)] {
        let pair = Pair::open(Config::pipe(1), area).await;
        let (engine, agent) = pair.devices();
        let mut writer = DeviceWriter::new(&pair.server, engine, buffers).unwrap();
        let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
        let (mut first, second) = (writer.next_buffer().await.unwrap(), writer.next_buffer().await.unwrap());
        for _ in 0..2 {
            assert_eq!(writer.next_buffer().await.unwrap_err().kind(), ErrorKind::Exhausted);
            assert_eq!(Error::from(writer.write(b"more").await.unwrap_err()).kind(), ErrorKind::Exhausted);
        }
        assert_eq!(pair.server.query_available_buffers(TRANSFER, 0).unwrap(), area - 2);
        drop(second);
        let mut third = writer.next_buffer().await.unwrap();
        first.fill(1);
        third.fill(3);
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            async {
                writer.write_buffer(third, 5).await?;
                writer.write_buffer(first, TRANSFER).await?;
                writer.write_all(b"more").await?;
                Ok::<_, Error>(writer.shutdown().await?)
            },
            reader.read_to_end(&mut received),
        );
        written.unwrap();
        read.unwrap();
        assert!(received == [&[3; 5][..], &[1; TRANSFER], b"more"].concat(), "{area} in the area");
        drop((writer, reader));
        pair.close().await;
    }
}

/// Buffers of the set's own making, handed in faster than the client takes them: first by a writer that has made none, then
/// by one whose buffers are all free.
#[tokio::test]
async fn more_buffers_than_the_queue_holds_are_written_as_it_has_room() {
    const DEPTH: usize = 4;
    for (before, count) in [(0, DEPTH + 1), (DEPTH, DEPTH)] {
        let pair = Pair::open(Config::pipe(1), 2 * DEPTH).await;
        let (engine, agent) = pair.devices();
        let mut writer = DeviceWriter::new(&pair.server, engine, 2 * DEPTH).unwrap();
        let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
        let sent = data((before + count + 2) * TRANSFER + 17);
        let mut received = Vec::new();
        let (server, pieces) = (&pair.server, &sent);
        let (written, read) = tokio::join!(
            async move {
                let (copied, rest) = pieces.split_at(before * TRANSFER);
                writer.write_all(copied).await?;
                writer.flush().await?;
                let (filled, rest) = rest.split_at(count * TRANSFER);
                let mut buffers = Vec::new();
                for piece in filled.chunks(TRANSFER) {
                    let mut buffer = server.allocate_buffer(TRANSFER, 0)?;
                    buffer.copy_from_slice(piece);
                    buffers.push(buffer);
                }
                for buffer in buffers {
                    writer.write_buffer(buffer, TRANSFER).await?;
                }
                writer.write_all(rest).await?;
                writer.flush().await?;
                let available = server.query_available_buffers(TRANSFER, 0)?;
                assert!(available >= DEPTH, "the writer keeps no more buffers than it may have");
                Ok::<_, Error>(writer.shutdown().await?)
            },
            reader.read_to_end(&mut received),
        );
        written.unwrap();
        read.unwrap();
        assert!(received == sent, "{count} buffers after {before}");
        drop(reader);
        pair.close().await;
    }
}
