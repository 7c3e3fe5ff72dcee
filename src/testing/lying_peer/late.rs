//! Strangers that connect before the client closes, and speak after that, or never.

use std::path::Path;
use std::pin::pin;

use super::named::connect;
use super::session::{NAME, assert_is_empty, hub, soon};
use crate::error::Result;
use crate::shm::wire::Message;
use crate::shm::{Inbox, Received, ShmError, Socket};
use crate::testing::SimClock;
use crate::vdi::{Config, Status, client};

/// A process is connected when the client closes the set. It says nothing, or that it is the server: the close does not wait
/// for it, the set is not opened, and it is told.
///
/// # Errors
///
/// Of the system.
///
/// # Panics
///
/// If the promise is broken.
///
/// # Cancel safety
///
/// Not cancel-safe, as [`super::strangers_leave`].
pub async fn strangers_come_late(directory: &Path) -> Result<()> {
    for speaks in [false, true] {
        // Nobody moves this clock: what ends, ends without a limit of time.
        let clock = SimClock::new();
        let hub = hub(directory)?.with_clock(clock.shared());
        let set = client::DeviceSet::create(&hub, NAME, Config::pipe(1))?;
        let stranger = Socket::new(connect(directory)?);
        let accepted = async {
            // Its time to say who it is runs.
            while clock.sleepers() == 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(accepted, "whoever connects is let in").await;
        let mut close = pin!(set.close());
        assert!(futures::poll!(close.as_mut()).is_pending(), "the tasks of the set end first");
        if speaks {
            stranger.tell(&Message::Hello { is_server: true });
            stranger.tell(&Message::Joined);
            stranger.flush();
        }
        soon(close, "the client's close does not wait for a stranger").await?;
        let told = soon(first(&stranger), "the stranger is told").await.map_err(std::io::Error::other)?;
        let is_refused = matches!(told, Some(Message::Refused { status, .. }) if status == Status::Invalid.code());
        assert!(is_refused, "there is no such set any more: {told:?}");
    }
    assert_is_empty(directory)
}

/// The first message; none if the other end is closed before.
async fn first(socket: &Socket) -> std::result::Result<Option<Message>, ShmError> {
    let mut inbox = Inbox::new();
    loop {
        if let Some(message) = inbox.next()? {
            return Ok(Some(message));
        }
        match inbox.receive(socket)? {
            Received::Bytes => {}
            Received::Nothing => _ = socket.woken().await?,
            Received::End => return Ok(None),
        }
    }
}
