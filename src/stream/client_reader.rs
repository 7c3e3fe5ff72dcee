//! The agent's side of a backup stream, as plain bytes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::Stream as _;
use tokio::io::{AsyncRead, ReadBuf};

use super::device_stream::{DeviceItem, DeviceStream};
use crate::error::{Error, ErrorKind};

/// What a [`ClientReader`] answers to `Flush` and `Complete`, which promise the engine that its data is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFlush {
    /// Success, once all bytes before it were read and more are asked for. Choose this only if reading *is* keeping: the
    /// engine may discard its own copy on this answer.
    Acknowledge,
    /// Refuse: the backup fails unless the engine can do without. For readers that cannot promise anything.
    Refuse,
}

/// Reads what an engine writes to one device: `AsyncRead` over a [`DeviceStream`].
///
/// The end of the bytes means that the engine closed the device. An abort is an error that carries the reason and has its kind;
/// every read after it returns it again. Use [`DeviceStream`] where durability must be answered truly.
///
/// # Cancel safety
///
/// `read` is cancel-safe: no byte is lost.
pub struct ClientReader {
    stream: DeviceStream,
    current: Bytes,
    on_flush: OnFlush,
    /// The stream tells it once and ends.
    failed: Option<Error>,
}

impl ClientReader {
    /// Reads `stream`; flushes are answered as `on_flush` says.
    pub fn new(stream: DeviceStream, on_flush: OnFlush) -> Self {
        Self { stream, current: Bytes::new(), on_flush, failed: None }
    }

    fn outcome(&self) -> Result<(), Error> {
        match self.on_flush {
            OnFlush::Acknowledge => Ok(()),
            OnFlush::Refuse => Err(Error::new(ErrorKind::Invalid, "this reader cannot promise that data is durable")),
        }
    }
}

impl AsyncRead for ClientReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if target.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        while this.current.is_empty() {
            if let Some(error) = &this.failed {
                return Poll::Ready(Err(error.clone().into()));
            }
            match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                Some(Ok(DeviceItem::Data(bytes))) => this.current = bytes,
                Some(Ok(DeviceItem::Flush(ack) | DeviceItem::Complete(ack))) => ack.answer(this.outcome()),
                Some(Err(error)) => this.failed = Some(error),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = target.remaining().min(this.current.len());
        target.put_slice(&this.current[..count]);
        this.current.advance(count);
        if this.current.is_empty() {
            // Completes the command now rather than at the next read.
            this.current = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ClientReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientReader").field("stream", &self.stream).finish_non_exhaustive()
    }
}
