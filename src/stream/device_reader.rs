//! The engine's side of a restore stream.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::failure;
use crate::error::{Error, Result};
use crate::vdi::server::{Buffer, Command, CommandFuture, Device, DeviceSet};
use crate::vdi::{CompletionCode, Status};

/// Reads one stripe from a device: `AsyncRead` over `Read` commands, several in flight.
///
/// Short reads are normal and handed on as they come. The stream ends when the client answers a read with the end of data;
/// the device is closed then. Dropping the reader before that aborts the device set.
///
/// A client that answers a read while it still has the buffer mapped keeps the bytes: that is an error, and nothing is skipped.
///
/// # Cancel safety
///
/// `read` is cancel-safe: no byte is lost.
pub struct DeviceReader {
    set: DeviceSet,
    device: Device,
    transfer_bytes: usize,
    limit: usize,
    existing: usize,
    free: Vec<Buffer>,
    /// Reads in the order of their bytes.
    in_flight: VecDeque<CommandFuture>,
    current: Option<Filled>,
    position: u64,
    phase: Phase,
}

struct Filled {
    buffer: Buffer,
    start: usize,
    end: usize,
}

enum Phase {
    Open,
    /// The client reported the end; the reads behind it are answered without data.
    Draining,
    Closed,
    Failed(Error),
}

impl DeviceReader {
    /// Takes an open device of `set`. Up to `buffers` transfers of the set's largest size are in use at once, at least one;
    /// their space must have been requested before.
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
            limit: buffers.clamp(1, depth.max(1)),
            existing: 0,
            free: Vec::new(),
            in_flight: VecDeque::new(),
            current: None,
            position: 0,
            phase: Phase::Open,
        })
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Keeps the queue filled with reads.
    fn send_reads(&mut self) -> Result<()> {
        loop {
            let buffer = match self.free.pop() {
                Some(buffer) => buffer,
                None if self.existing < self.limit => match self.set.allocate_buffer(self.transfer_bytes, 0) {
                    Ok(buffer) => {
                        self.existing += 1;
                        buffer
                    }
                    Err(error) if error.status() == Status::Memory && self.existing > 0 => {
                        self.limit = self.existing;
                        return Ok(());
                    }
                    Err(error) => return Err(self.fail(error.into())),
                },
                None => return Ok(()),
            };
            match self.device.send(Command::read(buffer, self.transfer_bytes)) {
                Ok(future) => self.in_flight.push_back(future),
                // The device is in error since a read was answered that we have not seen yet: with the end of the data, or
                // with a failure. That answer says which.
                Err(error) if error.status() == Status::IoError && !self.in_flight.is_empty() => {
                    self.free.extend(error.into_command().into_buffer());
                    return Ok(());
                }
                Err(error) => return Err(self.fail(error.into_error().into())),
            }
        }
    }

    /// Takes the answer to the oldest read.
    fn poll_oldest(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Some(oldest) = self.in_flight.front_mut() else { return Poll::Ready(Ok(())) };
        let completion = ready!(Pin::new(oldest).poll(cx));
        self.in_flight.pop_front();
        let is_end = matches!(completion.code, CompletionCode::HandleEof | CompletionCode::NoDataDetected);
        match self.phase {
            // Whatever the reads behind the end are answered with, there is nothing left to read.
            Phase::Draining => {
                if completion.code == CompletionCode::OperationAborted {
                    return Poll::Ready(Err(self.fail(failure::of_completion(
                        self.device.name(),
                        "read",
                        &completion,
                    ))));
                }
                return Poll::Ready(Ok(()));
            }
            _ if is_end => self.phase = Phase::Draining,
            _ if completion.is_success() => {}
            _ => return Poll::Ready(Err(self.fail(failure::of_completion(self.device.name(), "read", &completion)))),
        }
        match completion.buffer {
            Some(buffer) if completion.bytes_transferred > 0 => {
                self.current = Some(Filled { buffer, start: 0, end: completion.bytes_transferred });
            }
            Some(buffer) => self.free.push(buffer),
            None if completion.bytes_transferred > 0 => {
                return Poll::Ready(Err(self.fail(failure::without_buffer(self.device.name(), &completion))));
            }
            None => self.existing -= 1,
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: Error) -> Error {
        if let Phase::Failed(first) = &self.phase {
            return first.clone();
        }
        self.phase = Phase::Failed(error.clone());
        error
    }

    /// Ready when there are bytes to hand out, or at the end of the stream.
    fn poll_filled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while self.current.is_none() {
            match &self.phase {
                Phase::Failed(error) => return Poll::Ready(Err(error.clone())),
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Open => {
                    self.send_reads()?;
                    ready!(self.poll_oldest(cx))?;
                }
                Phase::Draining if self.in_flight.is_empty() => {
                    self.free.clear();
                    if let Err(error) = self.device.close() {
                        return Poll::Ready(Err(self.fail(error.into())));
                    }
                    self.phase = Phase::Closed;
                }
                Phase::Draining => ready!(self.poll_oldest(cx))?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for DeviceReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, target: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if target.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_filled(cx))?;
        if let Some(filled) = &mut this.current {
            let count = target.remaining().min(filled.end - filled.start);
            filled.buffer.read_at(filled.start, target.initialize_unfilled_to(count)).map_err(Error::from)?;
            target.advance(count);
            filled.start += count;
            this.position += count as u64;
        }
        if let Some(Filled { buffer, .. }) = this.current.take_if(|filled| filled.start == filled.end) {
            this.free.push(buffer);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for DeviceReader {
    fn drop(&mut self) {
        let reason = match &self.phase {
            Phase::Closed => return,
            Phase::Failed(error) => error.clone(),
            Phase::Open | Phase::Draining => failure::dropped("reader", self.device.name()),
        };
        // An error means that the set has ended already.
        let _ended = self.set.abort(reason);
    }
}

impl fmt::Debug for DeviceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceReader")
            .field("device", &self.device.name())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
