//! A connection to another process of the set, and what is said of that process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::status::Error;
use super::inner::Member;
use crate::shm::{Inbox, Received, ShmError, Socket};
use crate::sync::Mutex;

/// A connection to another process of the set.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Arc<Socket>,
    pub(crate) peer: Peer,
    pub(super) inbox: Mutex<Inbox>,
    /// The peer said that it is leaving: the end of the connection is no death.
    pub(super) has_left: AtomicBool,
    pub(super) has_joined: AtomicBool,
}

/// The process at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) part: Part,
    /// None for a process in another process namespace.
    pub(crate) pid: Option<u32>,
}

/// What the other process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Server,
    Primary,
    Secondary(Member),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.part {
            Part::Server => "the server",
            Part::Primary => "the primary client",
            Part::Secondary(_) => "a secondary client",
        })?;
        match self.pid {
            Some(pid) => write!(f, " (process {pid})"),
            None => f.write_str(" (a process that is not visible from here)"),
        }
    }
}

impl Link {
    pub(crate) fn new(socket: Arc<Socket>, peer: Peer, inbox: Inbox) -> Arc<Self> {
        let (has_left, has_joined) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { socket, peer, inbox: Mutex::new(inbox), has_left, has_joined })
    }

    /// True once the peer has said that its end is up.
    pub(crate) fn has_joined(&self) -> bool {
        self.has_joined.load(Ordering::Acquire)
    }

    /// True for a process that connected to the primary client and has not joined yet: nothing here counts on it.
    pub(super) fn is_stranger(&self) -> bool {
        self.peer.part != Part::Primary && !self.has_joined()
    }

    /// Waits until the peer has closed its end. What it says until then has no meaning any more.
    pub(crate) async fn hung_up(&self) {
        loop {
            let received = self.inbox.lock().discard(&self.socket);
            match received {
                Ok(Received::Bytes) => tokio::task::yield_now().await,
                Ok(Received::Nothing) => {
                    if self.socket.woken().await.is_err() {
                        return;
                    }
                }
                Ok(Received::End) | Err(_) => return,
            }
        }
    }
}

/// What came of reading a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Everything that had arrived is done.
    Idle,
    /// There may be more; others should run first.
    More,
    /// Nothing follows.
    Ended,
    /// Nothing follows, and the peer had not said that it leaves.
    Died,
}

/// Why a message is not believed.
pub(super) enum Doubt {
    Lie(String),
    Trouble(Error),
}

impl From<ShmError> for Doubt {
    fn from(error: ShmError) -> Self {
        Self::Lie(error.to_string())
    }
}

impl From<&str> for Doubt {
    fn from(text: &str) -> Self {
        Self::Lie(text.to_owned())
    }
}
