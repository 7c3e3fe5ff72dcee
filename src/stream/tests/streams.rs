//! Bytes, flushes and ends, as they should be.

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_test::{assert_pending, task};

use super::super::*;
use super::{Pair, TRANSFER, data};
use crate::error::{Error, ErrorKind};

const SIZES: [usize; 9] = [0, 1, 511, 512, TRANSFER - 1, TRANSFER, TRANSFER + 1, 4 * TRANSFER, 9 * TRANSFER + 17];

#[tokio::test]
async fn what_an_engine_writes_is_what_an_agent_reads_at_every_boundary() {
    for size in SIZES {
        let pair = Pair::pipe().await;
        let (engine, agent) = pair.devices();
        let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
        let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
        let sent = data(size);
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            async {
                writer.write_all(&sent).await?;
                writer.shutdown().await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut received),
        );
        written.unwrap();
        assert_eq!(read.unwrap(), size);
        assert!(received == sent, "{size} bytes came through changed");
        assert_eq!(writer.position(), size as u64);
        drop((writer, reader));
        pair.close().await;
    }
}

#[tokio::test]
async fn what_an_agent_writes_is_what_an_engine_reads_at_every_boundary() {
    for size in SIZES {
        let pair = Pair::pipe().await;
        let (engine, agent) = pair.devices();
        let mut reader = DeviceReader::new(&pair.server, engine, 4).unwrap();
        let mut writer = ClientWriter::new(&pair.client, agent);
        let sent = data(size);
        let mut received = Vec::new();
        let (written, read) = tokio::join!(
            async {
                for piece in sent.chunks(10_007) {
                    writer.write_all(piece).await?;
                    writer.flush().await?;
                }
                writer.shutdown().await?;
                writer.shutdown().await
            },
            reader.read_to_end(&mut received),
        );
        written.unwrap();
        assert_eq!(read.unwrap(), size);
        assert!(received == sent, "{size} bytes came through changed");
        drop((writer, reader));
        pair.close().await;
    }
}

#[tokio::test]
async fn a_source_is_read_straight_into_device_buffers() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 2).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    let (first, second) = (data(3 * TRANSFER + 5), data(70_001));
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            assert_eq!(writer.write_from(&mut &first[..]).await?, first.len() as u64);
            assert_eq!(writer.write_from(&mut &second[..]).await?, second.len() as u64);
            writer.shutdown().await
        },
        reader.read_to_end(&mut received),
    );
    written.unwrap();
    read.unwrap();
    assert!(received == [first, second].concat());
    drop((writer, reader));
    pair.close().await;
}

#[tokio::test]
async fn a_flush_is_ready_only_when_the_client_said_durable() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
    let mut stream = DeviceStream::new(&pair.client, agent);
    writer.write_all(b"precious").await.unwrap();
    let mut flush = task::spawn(async { writer.flush().await });
    assert_pending!(flush.poll());
    let Some(Ok(DeviceItem::Data(bytes))) = stream.next().await else { panic!("no data") };
    assert_eq!(&bytes[..], b"precious");
    tokio::task::yield_now().await;
    assert_pending!(flush.poll());
    drop(bytes);
    for _ in 0..8 {
        tokio::task::yield_now().await;
        assert_pending!(flush.poll());
    }
    let Some(Ok(DeviceItem::Flush(ack))) = stream.next().await else { panic!("no flush") };
    assert_pending!(flush.poll());
    ack.answer(Ok(()));
    flush.await.unwrap();
    // Nothing was written since: there is nothing to ask for.
    writer.flush().await.unwrap();
    assert!(stream.next().now_or_never_is_none());
    drop((writer, stream));
    pair.client.close().await.unwrap();
    pair.server.close().await.unwrap();
    pair.agent.await.unwrap();
}

trait NowOrNever {
    fn now_or_never_is_none(self) -> bool;
}

impl<F: Future> NowOrNever for F {
    fn now_or_never_is_none(self) -> bool {
        futures::FutureExt::now_or_never(self).is_none()
    }
}

#[tokio::test]
async fn more_data_may_follow_a_flush() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            for piece in [&b"one "[..], b"two ", b"three"] {
                writer.write_all(piece).await?;
                writer.flush().await?;
            }
            writer.shutdown().await
        },
        reader.read_to_end(&mut received),
    );
    written.unwrap();
    read.unwrap();
    assert_eq!(received, b"one two three");
    drop((writer, reader));
    pair.close().await;
}

#[tokio::test]
async fn a_failed_complete_fails_the_shutdown_with_its_cause() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
    let mut stream = DeviceStream::new(&pair.client, agent);
    let (written, ()) = tokio::join!(writer.shutdown(), async {
        let Some(Ok(DeviceItem::Complete(ack))) = stream.next().await else { panic!("no complete") };
        ack.answer(Err(Error::new(ErrorKind::Denied, "the bucket refused the last part")));
    });
    let error = Error::from(written.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.report().contains("the bucket refused the last part"), "{}", error.report());
    // The first error is the answer to everything that follows.
    let again = Error::from(writer.write(b"x").await.unwrap_err());
    assert_eq!(again.report(), error.report());
}

#[tokio::test]
async fn a_dropped_writer_is_an_abort_that_the_other_side_can_explain() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    writer.write_all(&data(100)).await.unwrap();
    drop(writer);
    let error = reader.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    assert!(Error::from(error).report().contains("writer of device set was dropped"));
    drop(reader);
    pair.client.close().await.unwrap();
    pair.server.close().await.unwrap();
    pair.agent.await.unwrap();
}

#[tokio::test]
async fn a_dropped_client_writer_fails_the_engine_instead_of_ending_its_data() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut reader = DeviceReader::new(&pair.server, engine, 4).unwrap();
    let mut writer = ClientWriter::new(&pair.client, agent);
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(reader.read_to_end(&mut received), async move {
        writer.write_all(&data(TRANSFER + 3)).await.unwrap();
    });
    let error = Error::from(read.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert!(error.report().contains("writer of device set was dropped"), "{}", error.report());
}

#[tokio::test]
async fn a_client_abort_reaches_a_writer_that_waits_for_a_buffer() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 1).unwrap();
    let stream = DeviceStream::new(&pair.client, agent);
    let client = pair.client.clone();
    let (written, ()) = tokio::join!(async { writer.write_all(&data(3 * TRANSFER)).await }, async {
        tokio::task::yield_now().await;
        client.abort(Error::new(ErrorKind::Exhausted, "disk full")).unwrap();
    },);
    let error = Error::from(written.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.report().ends_with("disk full"), "{}", error.report());
    drop(stream);
}

#[tokio::test]
async fn an_engine_that_closes_early_is_an_error_for_who_feeds_it() {
    let pair = Pair::pipe().await;
    let (engine, agent) = pair.devices();
    let mut writer = ClientWriter::new(&pair.client, agent);
    engine.close().unwrap();
    let error = Error::from(writer.write_all(b"more").await.unwrap_err());
    assert!(error.report().contains("before the end of the data"), "{}", error.report());
}
