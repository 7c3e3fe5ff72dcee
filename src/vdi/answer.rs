//! How the answer to a command reaches whoever sent it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::area::Buffer;
use super::code::CompletionCode;
use super::waiters::register_one;
use crate::sync::{Arc, Mutex};

/// How a command ended, for the server that sent it.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Completion {
    /// Zero is success; anything else puts the device in error.
    pub code: CompletionCode,
    /// Bytes moved by `Read` or `Write`; at most the command's size.
    pub bytes_transferred: usize,
    /// The position, for `GetPosition` and `SetPosition`.
    pub position: u64,
    /// The command's buffer, if it had one and the client does not hold it any more. After an abort the client may.
    pub buffer: Option<Buffer>,
    /// Why, if somebody said: the reason of an abort, or the client's own error.
    pub reason: Option<crate::Error>,
}

impl Completion {
    /// True if the command succeeded.
    pub fn is_success(&self) -> bool {
        self.code.is_success()
    }
}

/// The answer to one command that was sent.
///
/// Resolves once, when the completion agent (or the closing of the set) answers the command. Dropping it does not withdraw
/// the command: it is answered to nobody, and its buffer comes back then.
#[must_use = "the answer of the command says whether it succeeded"]
pub struct CommandFuture {
    cell: Arc<Mutex<Cell>>,
}

impl Future for CommandFuture {
    type Output = Completion;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Completion> {
        // Declared before the guard: a waker is dropped only after unlocking.
        let _replaced;
        let mut cell = self.cell.lock();
        match &mut *cell {
            Cell::Empty(slot) => {
                _replaced = register_one(slot, cx.waker());
                return Poll::Pending;
            }
            // Polled again after it was ready: there is nothing more to come.
            Cell::Taken | Cell::Abandoned => return Poll::Pending,
            Cell::Answered(_) => {}
        }
        match std::mem::replace(&mut *cell, Cell::Taken) {
            Cell::Answered(completion) => Poll::Ready(completion),
            _ => Poll::Pending,
        }
    }
}

impl Drop for CommandFuture {
    fn drop(&mut self) {
        let old = std::mem::replace(&mut *self.cell.lock(), Cell::Abandoned);
        drop(old);
    }
}

impl fmt::Debug for CommandFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CommandFuture")
    }
}

enum Cell {
    Empty(Option<Waker>),
    Answered(Completion),
    Taken,
    Abandoned,
}

/// Who gets the answer. Consumed by giving it, so that nobody gets two.
pub(crate) enum Recipient {
    Future(Waiting),
    Callback(Box<dyn FnOnce(Completion) + Send>),
    /// The server's process, which was told by a message.
    #[cfg(feature = "shm")]
    Remote,
}

/// The other end of a [`CommandFuture`].
pub(crate) struct Waiting(Arc<Mutex<Cell>>);

impl Recipient {
    pub(crate) fn future() -> (Self, CommandFuture) {
        let cell = Arc::new(Mutex::new(Cell::Empty(None)));
        (Self::Future(Waiting(Arc::clone(&cell))), CommandFuture { cell })
    }

    /// Gives the answer. Callbacks run here, so no lock may be held.
    pub(crate) fn answer(self, completion: Completion) {
        match self {
            Self::Callback(callback) => callback(completion),
            #[cfg(feature = "shm")]
            Self::Remote => drop(completion),
            Self::Future(Waiting(cell)) => {
                let mut guard = cell.lock();
                if matches!(*guard, Cell::Abandoned) {
                    drop(guard);
                    // The buffer goes back to the set here.
                    drop(completion);
                    return;
                }
                let old = std::mem::replace(&mut *guard, Cell::Answered(completion));
                drop(guard);
                if let Cell::Empty(Some(waker)) = old {
                    waker.wake();
                }
            }
        }
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Future(_) => "Future",
            Self::Callback(_) => "Callback",
            #[cfg(feature = "shm")]
            Self::Remote => "Remote",
        })
    }
}
