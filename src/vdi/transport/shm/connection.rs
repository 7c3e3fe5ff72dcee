//! The task of one connection: it reads what the other process tells, and writes what could not be written at once.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::core::{Core, Link, Part, Pumped};
use super::home::SetHome;
use crate::clock;
use crate::shm::Found;

/// Serves a connection until one of the processes leaves or dies.
pub(super) async fn run(core: Arc<Core>, link: Arc<Link>, home: SetHome) {
    let guard = Guard { core: &core, link: &link };
    let socket = &link.socket;
    let mut pumped = Pumped::More;
    while !socket.is_closing() {
        match pumped {
            Pumped::Ended | Pumped::Died => break,
            Pumped::More => tokio::task::yield_now().await,
            Pumped::Idle => {
                if socket.woken().await.is_err() {
                    break;
                }
            }
        }
        socket.flush_ready();
        pumped = core.pump(&link);
        if socket.is_broken() && pumped == Pumped::Idle {
            // Its end of the connection is closed. What it said before comes first: it may have told why.
            pumped = core.pump(&link);
            while pumped == Pumped::More {
                tokio::task::yield_now().await;
                pumped = core.pump(&link);
            }
            if pumped == Pumped::Idle {
                pumped = core.peer_gone(&link, None);
            }
            break;
        }
    }
    let last_words = async {
        while !socket.is_flushed() && socket.woken().await.is_ok() {
            socket.flush_ready();
        }
    };
    let clock = home.hub.clock();
    // A peer that was stopped gets no more than this; it sees the end of the connection when it goes on.
    let _said = clock::timeout(clock.as_ref(), Some(LAST_WORDS), last_words).await;
    drop(guard);
    if pumped == Pumped::Died && link.peer.part == Part::Primary {
        remove_name(&core, &link, &home).await;
    }
}

/// Removes the name of a set whose primary client died. The kernel may close its listening socket a moment later than this
/// connection.
async fn remove_name(core: &Core, link: &Link, home: &SetHome) {
    for _ in 0..NAME_TRIES {
        let directory = home.hub.directory();
        match directory.find(core.name()) {
            Ok(Found::Listening(stream)) => {
                let other = tokio::net::UnixStream::from_std(stream).and_then(|stream| stream.peer_cred());
                let is_dead =
                    other.is_ok_and(|other| other.pid().and_then(|pid| u32::try_from(pid).ok()) == link.peer.pid);
                if !is_dead {
                    return;
                }
            }
            Ok(Found::Nothing) => return,
            Ok(Found::Stale) | Err(_) => {
                if directory.remove_stale(core.name()).is_ok() {
                    return;
                }
            }
        }
        home.hub.clock().sleep(NAME_PAUSE).await;
    }
}

/// If the task is dropped with its runtime, the set must not wait for a peer that nobody listens to.
struct Guard<'a> {
    core: &'a Core,
    link: &'a Link,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.link.socket.is_closing() {
            self.core.connection_lost(self.link, "its task has ended");
        }
    }
}

const LAST_WORDS: Duration = Duration::from_millis(300);
const NAME_PAUSE: Duration = Duration::from_millis(5);
const NAME_TRIES: u32 = 40;
