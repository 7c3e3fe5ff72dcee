//! The engine's side of a backup stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure;
use crate::error::{Error, ErrorKind, Result};
use crate::vdi::server::{Buffer, Command, CommandFuture, Completion, Device, DeviceSet};
use crate::vdi::{CompletionCode, Features, Status};

/// Writes one stripe into a device: `AsyncWrite` over `Write`, `Flush` and `Complete` commands, several in flight.
///
/// * `poll_write` fills a device buffer and sends it when it is full. It waits while all buffers are with the client: a slow
///   store slows the producer down, and memory does not grow.
/// * `poll_flush` is ready when everything written so far is **durable**: the client has answered a `Flush` command.
/// * `poll_shutdown` flushes, sends `Complete` where the set has it enabled, and closes the device. Both may be polled again
///   after they were ready.
///
/// After the first error every call returns that error; a mistake in how buffers are taken and handed in ends nothing. Dropping
/// the writer before its shutdown aborts the device set: a producer that dies in the middle must never look like one that ended.
///
/// # Cancel safety
///
/// `write` and `write_buffer` are cancel-safe: if one is dropped, nothing of that call was written. `flush` and `shutdown` can be dropped and called
/// again. `write_all` is not: [`DeviceWriter::position`] tells how much of it went in.
pub struct DeviceWriter {
    set: DeviceSet,
    device: Device,
    transfer_bytes: usize,
    /// The set has `Complete`.
    has_complete: bool,
    /// Buffers that may exist at once, those included that `next_buffer` gave away; no more than the queue holds.
    limit: usize,
    /// Buffers of the writer: filling, in flight or free. Never more than `limit`, so the queue always has room for them.
    existing: usize,
    /// Each buffer that `next_buffer` gave away keeps a clone until it is written or dropped.
    lease: Arc<()>,
    free: Vec<Buffer>,
    filling: Option<Filling>,
    in_flight: FuturesUnordered<CommandFuture>,
    /// Bytes sent that no answer counts as written.
    unwritten: u64,
    phase: Phase,
    /// Bytes accepted from the producer.
    position: u64,
    /// Bytes accepted since the last answered `Flush`, including those.
    is_dirty: bool,
    /// Told to whoever must know that the writer was shut down.
    closed: Arc<AtomicBool>,
}

struct Filling {
    buffer: Buffer,
    len: usize,
}

enum Phase {
    Open,
    Flushing(CommandFuture),
    Completing(CommandFuture),
    /// A write was answered with a failure that was not seen yet. The error is what a later one was refused with.
    Failing(Error),
    Closed,
    Failed(Error),
}

impl DeviceWriter {
    /// Takes an open device of `set`. Up to `buffers` transfers of the set's largest size are in use at once, at least one;
    /// their space must have been requested before. More than the queue holds are of no use.
    ///
    /// # Errors
    ///
    /// The reason, with its kind, if the set was aborted; `Invalid` if it was closed.
    pub fn new(set: &DeviceSet, device: Device, buffers: usize) -> Result<Self> {
        let configuration = set.configuration()?;
        let (depth, transfer_bytes) = (configuration.max_io_depth as usize, configuration.max_transfer_size as usize);
        Ok(Self {
            set: set.clone(),
            device,
            transfer_bytes,
            has_complete: configuration.features.contains(Features::COMPLETE_ENABLED),
            limit: buffers.clamp(1, depth.max(1)),
            existing: 0,
            lease: Arc::new(()),
            free: Vec::new(),
            filling: None,
            in_flight: FuturesUnordered::new(),
            unwritten: 0,
            phase: Phase::Open,
            position: 0,
            is_dirty: false,
            closed: Arc::default(),
        })
    }

    /// Bytes written so far; not all of them are durable before a flush.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// True once the writer was shut down.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// True once the writer was shut down; outlives the writer.
    pub(crate) fn closed_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }

    /// Moves everything that `source` delivers into the device, reading straight into device buffers.
    ///
    /// Returns the number of bytes moved. The writer stays open: the end of a source is not the end of the stripe.
    ///
    /// # Errors
    ///
    /// What the source or the device set failed with. A failing source leaves the writer open, for the caller to decide.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: bytes taken from the source are in the device's buffers; call it again to go on.
    pub async fn write_from(&mut self, source: &mut (impl AsyncRead + Unpin + ?Sized)) -> io::Result<u64> {
        let start = self.position;
        std::future::poll_fn(|cx| self.poll_write_from(cx, Pin::new(&mut *source))).await?;
        Ok(self.position - start)
    }

    /// Waits for an empty device buffer, for a producer that can fill one in place: hand it in with
    /// [`DeviceWriter::write_buffer`]. It may travel to another thread and back meanwhile.
    ///
    /// Its content is arbitrary. Dropping it gives it back. It is one of the writer's `buffers`: while all of them are taken,
    /// nothing else can be written.
    ///
    /// # Errors
    ///
    /// What the device set failed with; `Closed` after the shutdown; `Exhausted` if so many are taken that none is left, and the
    /// writer goes on when one of them is written or dropped.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: nothing is taken.
    pub async fn next_buffer(&mut self) -> Result<Buffer> {
        std::future::poll_fn(|cx| self.poll_next_buffer(cx)).await
    }

    /// Writes the first `len` bytes of `buffer`, which [`DeviceWriter::next_buffer`] gave, without copying them.
    ///
    /// Another buffer of the set will do if it has the size of the largest transfer. This waits while as many writes are with
    /// the client as the writer has buffers.
    ///
    /// # Errors
    ///
    /// What the device set failed with; `Closed` after the shutdown. `Invalid` if `len` is more than the buffer has, or the buffer
    /// has another size or is another set's; the writer goes on then. The buffer was given back in each case.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe in this respect: if it is dropped, nothing was written and the buffer was given back.
    pub async fn write_buffer(&mut self, buffer: Buffer, len: usize) -> Result<()> {
        let (size, expected) = (buffer.len(), self.transfer_bytes);
        if len > size || size != expected {
            let message = format!("{len} bytes of a buffer of {size}, where each has {expected}");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        std::future::poll_fn(|cx| self.poll_room(cx)).await?;
        if len == 0 {
            return Ok(());
        }
        self.send_write(buffer.with_lease(None), len)?;
        // If it was refused because an earlier one failed, that one's answer says why.
        std::future::poll_fn(|cx| self.poll_open(cx)).await?;
        if self.existing == self.limit {
            // It takes the place of one of ours.
            if self.free.pop().is_none() {
                self.filling = None;
            }
        } else {
            self.existing += 1;
        }
        self.position += len as u64;
        self.is_dirty = true;
        Ok(())
    }

    /// Buffers that are with the caller.
    fn taken(&self) -> usize {
        Arc::strong_count(&self.lease) - 1
    }

    /// Ready when everything before was sent and the queue has room for another write.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_open(cx))?;
        if self.filling.as_ref().is_some_and(|filling| filling.len > 0) {
            self.send_filling()?;
            ready!(self.poll_open(cx))?;
        }
        while self.in_flight.len() >= self.limit {
            ready!(self.poll_reap(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready with a buffer that the writer no longer counts as its own.
    fn poll_next_buffer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Buffer>> {
        loop {
            if self.filling.as_ref().is_some_and(|filling| filling.len > 0) {
                self.send_filling()?;
            }
            ready!(self.poll_buffer(cx))?;
            if let Some(Filling { buffer, .. }) = self.filling.take_if(|filling| filling.len == 0) {
                self.existing -= 1;
                return Poll::Ready(Ok(buffer.with_lease(Some(&self.lease))));
            }
        }
    }

    fn poll_write_from(
        &mut self,
        cx: &mut Context<'_>,
        mut source: Pin<&mut (impl AsyncRead + ?Sized)>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_buffer(cx))?;
            let Some(filling) = &mut self.filling else { continue };
            let mut spare = ReadBuf::new(&mut filling.buffer[filling.len..self.transfer_bytes]);
            ready!(source.as_mut().poll_read(cx, &mut spare))?;
            let count = spare.filled().len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            filling.len += count;
            self.account(count)?;
        }
    }

    /// Counts bytes that are in the filling buffer, and sends it if it is full.
    fn account(&mut self, count: usize) -> Result<()> {
        self.position += count as u64;
        self.is_dirty = true;
        let is_full = self.filling.as_ref().is_some_and(|filling| filling.len == self.transfer_bytes);
        if is_full { self.send_filling() } else { Ok(()) }
    }

    /// Ready when bytes may be written: a flush in flight has been answered.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match &self.phase {
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Failed(error) => Poll::Ready(Err(error.clone())),
            Phase::Flushing(_) | Phase::Failing(_) => self.poll_answer(cx),
            Phase::Completing(_) | Phase::Closed => Poll::Ready(Err(Error::new(
                ErrorKind::Closed,
                format!("device {}: written to after its shutdown", self.device.name()),
            ))),
        }
    }

    /// Ready when the filling buffer has room.
    fn poll_buffer(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_open(cx))?;
        while self.filling.is_none() {
            let taken = self.taken();
            if let Some(buffer) = self.free.pop() {
                self.filling = Some(Filling { buffer, len: 0 });
            } else if self.existing + taken < self.limit {
                match self.set.allocate_buffer(self.transfer_bytes, 0) {
                    Ok(buffer) => {
                        self.existing += 1;
                        self.filling = Some(Filling { buffer, len: 0 });
                    }
                    // Less space than asked for: do with what there is.
                    Err(error) if error.status() == Status::Memory && self.existing > 0 => {
                        self.limit = self.existing + taken;
                    }
                    Err(error) if error.status() == Status::Memory && taken > 0 => {
                        return Poll::Ready(Err(error.into()));
                    }
                    Err(error) => return Poll::Ready(Err(self.fail(error.into()))),
                }
            } else if self.in_flight.is_empty() {
                let message = format!("device {}: all {taken} buffers are taken", self.device.name());
                return Poll::Ready(Err(Error::new(ErrorKind::Exhausted, message)));
            } else {
                ready!(self.poll_reap(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when one write in flight has been answered, or none is in flight.
    fn poll_reap(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match ready!(self.in_flight.poll_next_unpin(cx)) {
            Some(completion) if !completion.is_success() => Poll::Ready(Err(self.fail_write(completion, cx))),
            Some(Completion { buffer, bytes_transferred, .. }) => {
                self.unwritten = self.unwritten.saturating_sub(bytes_transferred as u64);
                match buffer {
                    Some(buffer) => self.free.push(buffer),
                    None => self.existing -= 1,
                }
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }

    /// A write that failed takes those behind it along. It was answered before them, but theirs may be seen first.
    fn fail_write(&mut self, seen: Completion, cx: &mut Context<'_>) -> Error {
        let mut first = seen;
        while first.reason.is_none()
            && first.code == CompletionCode::IoDevice
            && let Poll::Ready(Some(other)) = self.in_flight.poll_next_unpin(cx)
        {
            if !other.is_success() {
                first = other;
            }
        }
        self.fail(failure::of_completion(self.device.name(), "write", &first))
    }

    fn send_filling(&mut self) -> Result<()> {
        match self.filling.take() {
            Some(Filling { buffer, len }) => self.send_write(buffer, len),
            None => Ok(()),
        }
    }

    /// Sends a write, unless an earlier one has failed: the writer is `Failing` then.
    fn send_write(&mut self, buffer: Buffer, len: usize) -> Result<()> {
        match self.device.send(Command::write(buffer, len).short()) {
            Ok(future) => {
                self.in_flight.push(future);
                self.unwritten += len as u64;
                Ok(())
            }
            Err(error) if error.status() == Status::IoError && !self.in_flight.is_empty() => {
                self.phase = Phase::Failing(error.into_error().into());
                Ok(())
            }
            // The caller's buffer cannot be sent; what was written before is untouched.
            Err(error) if error.status() == Status::Invalid => Err(error.into_error().into()),
            Err(error) => Err(self.fail(error.into_error().into())),
        }
    }

    fn send(&mut self, command: Command) -> Result<CommandFuture> {
        match self.device.send(command) {
            Ok(future) => Ok(future),
            Err(error) => Err(self.fail(error.into_error().into())),
        }
    }

    /// Latches the first error; later ones are its consequences.
    fn fail(&mut self, error: Error) -> Error {
        if let Phase::Failed(first) = &self.phase {
            return first.clone();
        }
        self.phase = Phase::Failed(error.clone());
        error
    }

    /// Ready when everything written has been answered by the client, successfully.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.filling.as_ref().is_some_and(|filling| filling.len > 0) {
            self.send_filling()?;
        }
        while !self.in_flight.is_empty() {
            ready!(self.poll_reap(cx))?;
        }
        if self.unwritten > 0 {
            let error = failure::short_write(self.device.name(), self.unwritten);
            return Poll::Ready(Err(self.fail(error)));
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the `Flush` or `Complete` in flight has been answered, or the write that failed.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Phase::Failing(refusal) = &self.phase {
            let refusal = refusal.clone();
            while !self.in_flight.is_empty() {
                ready!(self.poll_reap(cx))?;
            }
            return Poll::Ready(Err(self.fail(refusal)));
        }
        let (future, what) = match &mut self.phase {
            Phase::Flushing(future) => (future, "flush"),
            Phase::Completing(future) => (future, "complete"),
            _ => return Poll::Ready(Ok(())),
        };
        let completion = ready!(Pin::new(future).poll(cx));
        if !completion.is_success() {
            return Poll::Ready(Err(self.fail(failure::of_completion(self.device.name(), what, &completion))));
        }
        if matches!(self.phase, Phase::Completing(_)) {
            return Poll::Ready(self.close());
        }
        self.phase = Phase::Open;
        self.is_dirty = false;
        Poll::Ready(Ok(()))
    }

    fn close(&mut self) -> Result<()> {
        self.free.clear();
        self.filling = None;
        match self.device.close() {
            Ok(()) => {
                self.phase = Phase::Closed;
                self.closed.store(true, Ordering::Release);
                Ok(())
            }
            Err(error) => Err(self.fail(error.into())),
        }
    }

    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &self.phase {
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
                Phase::Flushing(_) | Phase::Completing(_) | Phase::Failing(_) => ready!(self.poll_answer(cx))?,
                Phase::Open if !self.is_dirty => return Poll::Ready(Ok(())),
                Phase::Open => {
                    ready!(self.poll_drain(cx))?;
                    self.phase = Phase::Flushing(self.send(Command::flush())?);
                }
            }
        }
    }

    fn poll_shutdown_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &self.phase {
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
                Phase::Flushing(_) | Phase::Completing(_) | Phase::Failing(_) => ready!(self.poll_answer(cx))?,
                Phase::Open if self.has_complete => {
                    // Everything before `Complete` is durable when it is answered, so a flush before it would add nothing.
                    ready!(self.poll_drain(cx))?;
                    self.phase = Phase::Completing(self.send(Command::complete())?);
                }
                Phase::Open => {
                    ready!(self.poll_flush_all(cx))?;
                    self.close()?;
                }
            }
        }
    }
}

impl AsyncWrite for DeviceWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, source: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if source.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.poll_buffer(cx))?;
        let Some(filling) = &mut this.filling else { return Poll::Ready(Ok(0)) };
        let count = source.len().min(this.transfer_bytes - filling.len);
        filling.buffer.write_at(filling.len, &source[..count]).map_err(Error::from)?;
        filling.len += count;
        this.account(count)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_all(cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_shutdown_all(cx).map_err(io::Error::from)
    }
}

impl Drop for DeviceWriter {
    fn drop(&mut self) {
        if !self.is_closed() {
            let reason = match &self.phase {
                Phase::Failed(error) | Phase::Failing(error) => error.clone(),
                _ => failure::dropped("writer", self.device.name()),
            };
            // An error means that the set has ended already.
            let _ended = self.set.abort(reason);
        }
    }
}

impl fmt::Debug for DeviceWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceWriter")
            .field("device", &self.device.name())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
