//! What goes wrong, and what each side is told.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_test::{assert_pending, task};

use super::super::*;
use super::{Pair, TRANSFER, data};
use crate::error::{Error, ErrorKind};
use crate::vdi::client::Completion;
use crate::vdi::{CompletionCode, Config};

/// A client fills a read through its own mapping, and answers before it unmaps: the bytes stay with it. A restore must not go
/// on without them.
#[tokio::test]
async fn bytes_whose_buffer_does_not_come_back_are_not_skipped() {
    for code in [CompletionCode::Success, CompletionCode::HandleEof] {
        let pair = Pair::pipe().await;
        let (engine, mut agent) = pair.devices();
        let mut reader = DeviceReader::new(&pair.server, engine, 1).unwrap();
        let (read, ()) = tokio::join!(async move { reader.read_to_end(&mut Vec::new()).await }, async {
            let mut command = agent.next_command(None).await.unwrap();
            let mut mapped = pair.client.map_buffer(command.buffer_handle().unwrap()).unwrap();
            mapped[..5].copy_from_slice(b"bytes");
            command.complete(Completion { code, ..Completion::transferred(5) }).unwrap();
            drop(mapped);
            while let Ok(command) = agent.next_command(None).await {
                command.complete(Completion::failed(CompletionCode::HandleEof)).unwrap();
            }
        });
        let error = Error::from(read.expect_err("five bytes are lost"));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.report().contains("a read of 5 bytes while their buffer was mapped"), "{}", error.report());
    }
}

/// A client says that it has taken less than it was sent: what is missing is not flushed, and the end is no success.
#[tokio::test]
async fn a_write_that_is_taken_in_part_is_no_success() {
    for taken in [0, 1, 299, 300] {
        let pair = Pair::pipe().await;
        let (engine, mut agent) = pair.devices();
        let mut writer = DeviceWriter::new(&pair.server, engine, 2).unwrap();
        let (written, ()) = tokio::join!(
            async {
                writer.write_all(&data(300)).await?;
                writer.flush().await
            },
            async {
                agent.next_command(None).await.unwrap().complete(Completion::transferred(taken)).unwrap();
                if taken == 300 {
                    agent.next_command(None).await.unwrap().complete(Completion::default()).unwrap();
                }
            }
        );
        if taken == 300 {
            written.unwrap();
            continue;
        }
        let error = Error::from(written.expect_err("some bytes are lost"));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.report().contains(&format!("did not take {} of their bytes", 300 - taken)), "{}", error.report());
        assert!(writer.shutdown().await.is_err(), "it is not forgotten");
    }
}

#[tokio::test]
async fn an_abort_is_told_to_every_read() {
    let pair = Pair::pipe().await;
    let (_engine, agent) = pair.devices();
    let mut reader = ClientReader::new(DeviceStream::new(&pair.client, agent), OnFlush::Acknowledge);
    pair.server.abort(Error::new(ErrorKind::Denied, "the key expired")).unwrap();
    for _ in 0..3 {
        let error = reader.read(&mut [0; 8]).await.expect_err("an abort is no end");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        assert_eq!(Error::from(error).report(), "the device set was aborted: the key expired");
    }
}

/// A failed write puts the device in error, so the next one is refused. The answer to the first one has the cause.
#[tokio::test]
async fn a_failed_write_is_told_with_its_cause_also_if_the_next_one_meets_it_first() {
    for in_place in [false, true] {
        let pair = Pair::pipe().await;
        let (engine, mut agent) = pair.devices();
        let mut writer = DeviceWriter::new(&pair.server, engine, 4).unwrap();
        writer.write_all(&data(TRANSFER)).await.unwrap();
        let buffer = writer.next_buffer().await.unwrap();
        let command = agent.next_command(None).await.unwrap();
        command.fail(CompletionCode::DiskFull, Error::new(ErrorKind::Exhausted, "the tape has no space")).unwrap();
        let error = if in_place {
            writer.write_buffer(buffer, TRANSFER).await.unwrap_err()
        } else {
            drop(buffer);
            Error::from(writer.write_all(&data(2 * TRANSFER)).await.unwrap_err())
        };
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
        assert!(error.report().contains("the tape has no space"), "{}", error.report());
        let again = Error::from(writer.flush().await.unwrap_err());
        assert_eq!(again.report(), error.report());
    }
}

/// The client fails the second write. The third one, which it had not taken, is dropped with it, and its answer is seen first.
#[tokio::test]
async fn a_failed_write_is_told_with_its_cause_also_if_one_behind_it_is_seen_first() {
    let pair = Pair::pipe().await;
    let (engine, mut agent) = pair.devices();
    let mut writer = DeviceWriter::new(&pair.server, engine, 2).unwrap();
    writer.write_all(&data(2 * TRANSFER)).await.unwrap();
    assert_pending!(task::spawn(writer.write(b"more")).poll(), "it waits for both");
    let (first, second) = (agent.next_command(None).await.unwrap(), agent.next_command(None).await.unwrap());
    first.complete(Completion::transferred(TRANSFER)).unwrap();
    writer.write_all(&data(TRANSFER)).await.unwrap();
    second.fail(CompletionCode::DiskFull, Error::new(ErrorKind::Exhausted, "the tape has no space")).unwrap();
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let error = Error::from(writer.write_all(b"more").await.unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
    assert!(error.report().contains("the tape has no space"), "{}", error.report());
}

#[tokio::test]
async fn a_set_that_has_ended_has_no_more_streams() {
    for (is_aborted, kind) in [(true, ErrorKind::Denied), (false, ErrorKind::Invalid)] {
        let pair = Pair::open(Config::pipe(2), 4).await;
        let (first, second) = (pair.server.open_device().unwrap(), pair.server.open_device().unwrap());
        let agents = pair.client.open_all().unwrap();
        if is_aborted {
            pair.client.abort(Error::new(ErrorKind::Denied, "the key expired")).unwrap();
        } else {
            first.close().unwrap();
            second.close().unwrap();
            pair.server.clone().close().await.unwrap();
        }
        assert_eq!(DeviceWriter::new(&pair.server, first, 4).unwrap_err().kind(), kind);
        assert_eq!(DeviceReader::new(&pair.server, second, 4).unwrap_err().kind(), kind);
        drop(agents);
    }
}
