//! The buffers that a producer fills itself.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::*;
use super::{Pair, TRANSFER, data};
use crate::error::{Error, ErrorKind};

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
