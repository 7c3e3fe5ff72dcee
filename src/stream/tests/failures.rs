//! What goes wrong, and what each side is told.

use tokio::io::AsyncReadExt as _;

use super::super::*;
use super::Pair;
use crate::error::{Error, ErrorKind};
use crate::vdi::CompletionCode;
use crate::vdi::client::Completion;

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
