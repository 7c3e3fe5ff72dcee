//! One end of a connection between two processes of a set: bytes and files.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};

use bytes::{Buf as _, BytesMut};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::wire::{Codec, Message};
use super::{Control, Region, ShmError};
use crate::sync::Mutex;

/// A connected socket with what waits to be written to it.
///
/// Messages are told in the order in which things happen, so under the lock of the set; they are written after it was
/// released, by waking [`Socket::flusher`]. What the socket does not take waits for the connection's task.
pub(crate) struct Socket {
    stream: UnixStream,
    outbox: Mutex<Outbox>,
    work: Notify,
}

#[derive(Default)]
struct Outbox {
    bytes: BytesMut,
    /// Files, each with the number of bytes that go before it.
    files: VecDeque<(usize, Attached)>,
    is_closing: bool,
    is_broken: bool,
}

/// A file that goes with a message.
#[derive(Debug, Clone)]
pub(crate) enum Attached {
    Region(Arc<Region>),
    Control(Arc<Control>),
    /// Of a peer that lies.
    #[cfg(feature = "testing")]
    File(Arc<OwnedFd>),
}

impl Attached {
    fn file(&self) -> BorrowedFd<'_> {
        match self {
            Self::Region(region) => region.file(),
            Self::Control(control) => control.file(),
            #[cfg(feature = "testing")]
            Self::File(file) => file.as_fd(),
        }
    }
}

/// Why the task of a connection was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Woken {
    Readable,
    /// There is something to write, or the socket takes more.
    Writable,
}

impl Socket {
    pub(crate) fn new(stream: UnixStream) -> Arc<Self> {
        Arc::new(Self { stream, outbox: Mutex::new(Outbox::default()), work: Notify::new() })
    }

    /// Queues a message; it is written by the next flush.
    pub(crate) fn tell(&self, message: &Message) {
        self.queue(message, None);
    }

    /// Queues a message and the file that belongs to it.
    pub(crate) fn tell_with(&self, message: &Message, file: Attached) {
        self.queue(message, Some(file));
    }

    /// Queues a message that can wait until the connection's task runs, or until something more urgent is written.
    pub(crate) fn tell_later(&self, message: &Message) {
        self.queue(message, None);
        self.work.notify_one();
    }

    fn queue(&self, message: &Message, file: Option<Attached>) {
        let mut outbox = self.outbox.lock();
        if outbox.is_broken {
            return;
        }
        if let Some(file) = file {
            let before = outbox.bytes.len();
            outbox.files.push_back((before, file));
        }
        let is_told = Codec.encode(message, &mut outbox.bytes).is_ok();
        // A peer that does not read must not cost memory without end. What is outstanding in a set of the largest size fits.
        if !is_told || outbox.bytes.len() > MAX_OUTBOX {
            outbox.break_off();
            self.work.notify_one();
        }
    }

    /// Writes what the socket takes now.
    pub(crate) fn flush(&self) {
        let mut outbox = self.outbox.lock();
        while !outbox.is_broken && !outbox.bytes.is_empty() {
            match outbox.write_some(&self.stream) {
                Ok(()) => {}
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.work.notify_one();
                    return;
                }
                // The reading side sees the end of the connection and says so.
                Err(_) => {
                    outbox.break_off();
                    self.work.notify_one();
                }
            }
        }
    }

    /// Waking it writes what was told.
    pub(crate) fn flusher(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Nothing follows what was told: the connection's task writes it and ends.
    pub(crate) fn close(&self) {
        self.outbox.lock().is_closing = true;
        self.work.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.outbox.lock().is_closing
    }

    /// True if everything was written, or cannot be.
    pub(crate) fn is_flushed(&self) -> bool {
        let outbox = self.outbox.lock();
        outbox.is_broken || outbox.bytes.is_empty()
    }

    /// True if the connection cannot be written to any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.outbox.lock().is_broken
    }

    /// Waits for something to do: `Readable` may be told too often, never too rarely.
    pub(crate) async fn woken(&self) -> Result<Woken, ShmError> {
        let interest = if self.is_flushed() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        tokio::select! {
            biased;
            () = self.work.notified() => Ok(Woken::Writable),
            ready = self.stream.ready(interest) => {
                let ready = ready?;
                Ok(if ready.is_readable() || ready.is_read_closed() { Woken::Readable } else { Woken::Writable })
            }
        }
    }

    /// Writes after `woken` said so, in a way that makes it wait when the socket is full.
    pub(crate) fn flush_ready(&self) {
        let mut outbox = self.outbox.lock();
        while !outbox.is_broken && !outbox.bytes.is_empty() {
            let written = self
                .stream
                .try_io(Interest::WRITABLE, || outbox.write_some(&self.stream).map_err(std::io::Error::from));
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => outbox.break_off(),
            }
        }
    }

    /// The process at the other end.
    pub(crate) fn credentials(&self) -> Result<Credentials, ShmError> {
        let cred = self.stream.peer_cred()?;
        // The kernel says 0 for a process that this one cannot see, in another process namespace.
        let pid = cred.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        Ok(Credentials { pid, user: cred.uid(), group: cred.gid() })
    }
}

impl Outbox {
    fn write_some(&mut self, stream: &UnixStream) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let mut files = self.files.iter();
        let mut end = self.bytes.len();
        let file = match files.next() {
            Some((0, file)) => {
                // A second file must not travel with the first one's bytes.
                end = files.next().map_or(end, |(before, _)| *before);
                Some([file.file()])
            }
            Some((before, _)) => {
                end = *before;
                None
            }
            None => None,
        };
        if let Some(file) = &file {
            ancillary.push(SendAncillaryMessage::ScmRights(file));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let count = sendmsg(stream.as_fd(), &[IoSlice::new(&self.bytes[..end])], &mut ancillary, flags)?;
        if file.is_some() {
            self.files.pop_front();
        }
        self.bytes.advance(count);
        for (before, _) in &mut self.files {
            *before -= count;
        }
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Ok(())
    }

    fn break_off(&mut self) {
        *self = Self { is_broken: true, is_closing: self.is_closing, ..Self::default() };
    }
}

impl Wake for Socket {
    fn wake(self: Arc<Self>) {
        self.flush();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flush();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) pid: Option<u32>,
    pub(crate) user: u32,
    pub(crate) group: u32,
}

/// What was received and not yet understood.
#[derive(Debug)]
pub(crate) struct Inbox {
    chunk: Box<[u8]>,
    bytes: BytesMut,
    files: VecDeque<OwnedFd>,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes,
    /// Nothing more for now.
    Nothing,
    /// The other end is closed.
    End,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { chunk: vec![0; CHUNK].into(), bytes: BytesMut::new(), files: VecDeque::new() }
    }

    /// Reads once, without waiting.
    pub(crate) fn receive(&mut self, socket: &Socket) -> Result<Received, ShmError> {
        let Self { chunk, bytes, files } = self;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let was_asked = Cell::new(false);
        let mut read = || {
            was_asked.set(true);
            let mut target = [IoSliceMut::new(chunk)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            recvmsg(socket.stream.as_fd(), &mut target, &mut ancillary, flags).map_err(std::io::Error::from)
        };
        let mut received = socket.stream.try_io(Interest::READABLE, &mut read);
        if !was_asked.get() {
            // The runtime has not heard of anything yet, which does not mean that nothing has arrived.
            received = read();
        }
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                return match error.kind() {
                    std::io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                    std::io::ErrorKind::Interrupted => Ok(Received::Bytes),
                    // The peer is gone with bytes of ours unread.
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => Ok(Received::End),
                    _ => Err(error.into()),
                };
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights);
            }
        }
        if files.len() > MAX_FILES || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ShmError::TooManyFiles);
        }
        if received.bytes == 0 {
            return Ok(Received::End);
        }
        bytes.extend_from_slice(&chunk[..received.bytes]);
        Ok(Received::Bytes)
    }

    /// Reads once, without waiting, and keeps nothing.
    pub(crate) fn discard(&mut self, socket: &Socket) -> Result<Received, ShmError> {
        let received = self.receive(socket);
        self.bytes.clear();
        self.files.clear();
        received
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, ShmError> {
        let message = Codec.decode(&mut self.bytes)?;
        if message.is_none() && self.bytes.is_empty() && !self.files.is_empty() {
            return Err(ShmError::TooManyFiles);
        }
        Ok(message)
    }

    /// The file that belongs to the message that came last.
    pub(crate) fn file(&mut self) -> Result<OwnedFd, ShmError> {
        self.files.pop_front().ok_or(ShmError::NoFile)
    }
}

/// Bytes of one read: dozens of messages.
const CHUNK: usize = 16 * 1024;
/// Files that may be under way at once.
const MAX_FILES: usize = 16;
/// All commands that 64 devices can have outstanding fit in it.
const MAX_OUTBOX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pair() -> (Arc<Socket>, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Socket::new(UnixStream::from_std(ours).unwrap()), theirs)
    }

    /// The runtime learns of arrivals when it next looks. A peer that says why it leaves, and leaves, was taken for dead when a
    /// write to it failed before that.
    #[tokio::test]
    async fn what_has_arrived_is_read_before_the_runtime_knows_of_it() {
        let (socket, mut peer) = pair();
        let mut inbox = Inbox::new();
        assert_eq!(inbox.receive(&socket).unwrap(), Received::Nothing);
        let mut bytes = BytesMut::new();
        Codec.encode(&Message::Joined, &mut bytes).unwrap();
        peer.write_all(&bytes).unwrap();
        drop(peer);
        assert_eq!(inbox.receive(&socket).unwrap(), Received::Bytes);
        assert_eq!(inbox.next().unwrap(), Some(Message::Joined));
        assert_eq!(inbox.receive(&socket).unwrap(), Received::End);
    }

    #[tokio::test]
    async fn a_write_that_fails_wakes_whoever_reads() {
        let (socket, peer) = pair();
        peer.shutdown(std::net::Shutdown::Read).unwrap();
        socket.tell(&Message::Joined);
        socket.flush();
        assert!(socket.is_broken());
        assert_eq!(socket.woken().await.unwrap(), Woken::Writable);
    }
}
