//! The task of one connection: it reads what the other process tells, and writes what could not be written at once.

use std::sync::Arc;
use std::time::Duration;

use super::super::super::core::{Core, Link, Part, Pumped};
use super::home::SetHome;
use crate::clock;

/// Serves a connection until one of the processes leaves or dies.
pub(super) async fn run(core: Arc<Core>, link: Arc<Link>, home: SetHome) {
    let guard = Guard { core: &core, link: &link };
    let socket = &link.socket;
    let mut pumped = Pumped::More;
    let mut last_reads = 0;
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
        if socket.is_broken() {
            // What it said before comes first: it may have told why. Whoever is not gone then, or goes on without end, does
            // not listen.
            last_reads += 1;
            if pumped == Pumped::Idle || last_reads == MAX_LAST_READS {
                core.connection_lost(&link, "it does not read what it is told");
                break;
            }
        }
    }
    let clock = home.hub.clock();
    let is_server = link.peer.part == Part::Primary && core.is_server();
    let last_words = async {
        while !socket.is_flushed() && socket.woken().await.is_ok() {
            socket.flush_ready();
        }
        if is_server && socket.is_closing() {
            // The primary client frees the name when it learns that the server has closed, and hangs up after that.
            link.hung_up().await;
        }
    };
    // A peer that was stopped gets no more than this; it sees the end of the connection when it goes on.
    let is_said = clock::timeout(clock.as_ref(), Some(LAST_WORDS), last_words).await.is_ok();
    drop(guard);
    if pumped == Pumped::Died || is_server && is_said {
        remove_name(&core, &home).await;
    }
}

/// Removes what is left of the name after its primary client is gone: nothing, unless it died. The kernel may close its
/// listening socket a moment later than this connection.
async fn remove_name(core: &Core, home: &SetHome) {
    let Some(found) = home.found else { return };
    for _ in 0..NAME_TRIES {
        if let Ok(true) = home.hub.directory().remove_stale(core.name(), found) {
            return;
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

/// More than a socket holds.
const MAX_LAST_READS: u32 = 8;
const LAST_WORDS: Duration = Duration::from_millis(300);
const NAME_PAUSE: Duration = Duration::from_millis(5);
const NAME_TRIES: u32 = 40;
