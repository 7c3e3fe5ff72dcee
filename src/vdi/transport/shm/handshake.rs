//! How two processes of a set meet.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::super::super::config::Config;
use super::super::super::core::{Core, Link, Member, Part, Peer, Pumped, config_of, error_of, reason, wishes};
use super::super::super::status::{Error, Status};
use super::connection;
use super::home::SetHome;
use super::hub::ShmHub;
use crate::clock;
use crate::error::ErrorKind;
use crate::shm::wire::{Message, Reason};
use crate::shm::{Control, Entry, Inbox, Received, ShmError, Socket};

/// Lets processes in until the name of the set is released.
pub(super) async fn accept(core: Arc<Core>, listener: Arc<UnixListener>, home: SetHome, config: Config) {
    let waiting = Arc::new(tokio::sync::Semaphore::new(MAX_WAITING));
    loop {
        let accepted = tokio::select! {
            biased;
            () = home.released.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Whoever connects and says nothing must not cost more than a few sockets.
                let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else { continue };
                let (core, home, config) = (Arc::clone(&core), home.clone(), config.clone());
                home.tasks.clone().spawn(async move {
                    let greeted = greet(&core, stream, &home, &config).await;
                    drop(permit);
                    if let Some(link) = greeted {
                        connection::run(core, link, home).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(set = core.name(), %error, "a connection could not be accepted");
                home.hub.clock().sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The primary client's side of a meeting. None if nothing came of it.
async fn greet(core: &Core, stream: UnixStream, home: &SetHome, config: &Config) -> Option<Arc<Link>> {
    let socket = Socket::new(stream);
    let greeting = async {
        let credentials = socket.credentials().map_err(Error::from_shm)?;
        home.hub.admit(credentials)?;
        let mut inbox = Inbox::new();
        let first = first(&socket, &mut inbox).await.map_err(Error::from_shm)?;
        let Message::Hello { is_server } = first else {
            return Err(Error::new(Status::Protocol, "the first message was another one than expected"));
        };
        let welcome = Message::Welcome(wishes(config));
        let pid = credentials.pid;
        let link = if is_server {
            let link = Link::new(Arc::clone(&socket), Peer { part: Part::Server, pid }, inbox);
            core.admit_server(&link, &welcome)?;
            link
        } else {
            let connect =
                |member: Member| Link::new(Arc::clone(&socket), Peer { part: Part::Secondary(member), pid }, inbox);
            core.admit_secondary(&welcome, connect)?.0
        };
        socket.flush();
        Ok(link)
    };
    let clock = home.hub.clock().as_ref();
    let greeted = tokio::select! {
        biased;
        greeted = clock::timeout(clock, Some(GREETING), greeting) => greeted,
        // A close does not wait for somebody who has not said who it is.
        () = home.released.cancelled() => Ok(Err(Error::new(Status::Invalid, "the device set is over"))),
    };
    let link = match greeted {
        Ok(Ok(link)) => link,
        Ok(Err(error)) => {
            socket.tell(&refusal(&error));
            socket.flush();
            return None;
        }
        Err(_elapsed) => return None,
    };
    // Its answer says that it has not been dropped meanwhile.
    let dismissed = Dismissed { core, link: Some(&link) };
    let joined = async {
        while !link.has_joined() {
            if socket.is_closing() {
                return false;
            }
            match core.pump(&link) {
                Pumped::Ended | Pumped::Died => return false,
                // Whoever sends without end takes turns with others from the first message on.
                Pumped::More => tokio::task::yield_now().await,
                Pumped::Idle if link.has_joined() => {}
                Pumped::Idle => {
                    if socket.woken().await.is_err() {
                        return false;
                    }
                    socket.flush_ready();
                }
            }
        }
        true
    };
    let is_joined = clock::timeout(clock, Some(GREETING), joined).await.unwrap_or(false);
    if !is_joined {
        drop(dismissed);
        return None;
    }
    dismissed.keep();
    Some(link)
}

/// Takes back what was prepared for a process that does not join.
struct Dismissed<'a> {
    core: &'a Core,
    link: Option<&'a Link>,
}

impl Dismissed<'_> {
    fn keep(mut self) {
        self.link = None;
    }
}

impl Drop for Dismissed<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link {
            self.core.dismiss(link);
        }
    }
}

/// The server's side: opens the set.
pub(super) async fn open(hub: &ShmHub, name: &str, stream: UnixStream, found: Entry) -> Result<Arc<Core>, Error> {
    let Met { socket, config, inbox, pid, .. } = meet(hub, stream, true).await?;
    let link = Link::new(socket, Peer { part: Part::Primary, pid }, inbox);
    let home = SetHome::of_finder(hub, found);
    let core = Arc::new(Core::server(Box::new(home.clone()), name, &config, &link)?);
    // No wait lies between the welcome and this: the primary client now counts on this process.
    link.socket.tell(&Message::Joined);
    link.socket.flush();
    home.tasks.clone().spawn(connection::run(Arc::clone(&core), link, home));
    Ok(core)
}

/// Another client's side: joins the set.
pub(super) async fn join(
    hub: &ShmHub,
    name: &str,
    stream: UnixStream,
    found: Entry,
) -> Result<(Arc<Core>, Member), Error> {
    let Met { socket, config, mut inbox, pid } = meet(hub, stream, false).await?;
    let control = inbox.file().and_then(Control::adopt).map_err(Error::from_shm)?;
    let link = Link::new(socket, Peer { part: Part::Primary, pid }, inbox);
    let home = SetHome::of_finder(hub, found);
    let (core, member) = Core::secondary(Box::new(home.clone()), name, &config, &link, control)?;
    let core = Arc::new(core);
    let told = async {
        while !link.has_joined() {
            match core.pump(&link) {
                Pumped::Ended | Pumped::Died => return,
                Pumped::More => tokio::task::yield_now().await,
                Pumped::Idle if link.has_joined() => return,
                Pumped::Idle => {
                    if link.socket.woken().await.is_err() {
                        return;
                    }
                }
            }
        }
    };
    let _elapsed = clock::timeout(hub.clock().as_ref(), Some(MEETING), told).await;
    if !link.has_joined() {
        return Err(core.join_failed());
    }
    // Nothing that this client does counts before it has said this.
    link.socket.tell(&Message::Joined);
    core.finish_join(member)?;
    link.socket.flush();
    home.tasks.clone().spawn(connection::run(Arc::clone(&core), link, home));
    Ok((core, member))
}

/// A primary client that has welcomed this process.
struct Met {
    socket: Arc<Socket>,
    config: Config,
    inbox: Inbox,
    pid: Option<u32>,
}

async fn meet(hub: &ShmHub, stream: UnixStream, is_server: bool) -> Result<Met, Error> {
    let socket = Socket::new(stream);
    let credentials = socket.credentials().map_err(Error::from_shm)?;
    hub.admit(credentials)?;
    socket.tell(&Message::Hello { is_server });
    socket.flush();
    let mut inbox = Inbox::new();
    let first = clock::timeout(hub.clock().as_ref(), Some(MEETING), first(&socket, &mut inbox)).await;
    let first = first.map_err(|_elapsed| {
        let message = format!("the primary client did not answer for {MEETING:?}");
        Error::new(Status::Timeout, message)
    })?;
    match first.map_err(Error::from_shm)? {
        Message::Welcome(wishes) => Ok(Met { socket, config: config_of(&wishes)?, inbox, pid: credentials.pid }),
        Message::Refused { status, reason } => Err(refused(status, reason)),
        _ => Err(Error::new(Status::Protocol, "the first message was another one than expected")),
    }
}

async fn first(socket: &Socket, inbox: &mut Inbox) -> Result<Message, ShmError> {
    loop {
        if let Some(message) = inbox.next()? {
            return Ok(message);
        }
        match inbox.receive(socket)? {
            Received::Bytes => {}
            Received::Nothing => _ = socket.woken().await?,
            Received::End => return Err(ShmError::Io(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn refusal(error: &Error) -> Message {
    let mut text = Reason { kind: ErrorKind::Invalid.as_str().to_owned(), layers: vec![error.to_string()] };
    if let Some(cause) = error.reason() {
        let cause = reason(cause);
        text.kind = cause.kind;
        text.layers.extend(cause.layers);
    }
    Message::Refused { status: error.status().code(), reason: text }
}

fn refused(status: u32, mut reason: Reason) -> Error {
    let status = Status::from_code(status).unwrap_or(Status::Protocol);
    let message = if reason.layers.is_empty() { "refused".to_owned() } else { reason.layers.remove(0) };
    let cause = (!reason.layers.is_empty()).then(|| error_of(reason));
    Error::new(status, message).because(cause)
}

impl Error {
    fn from_shm(error: ShmError) -> Self {
        let (status, kind) = match &error {
            ShmError::Io(_) => (Status::Unexpected, ErrorKind::Unavailable),
            ShmError::Version { .. } => (Status::NotSupported, ErrorKind::Invalid),
            _ => (Status::Protocol, ErrorKind::Invalid),
        };
        let cause = crate::Error::new(kind, error.to_string());
        Self::new(status, "the two processes of the device set could not meet").because(Some(cause))
    }
}

/// How long a process that connected may take to say who it is, and to join.
const GREETING: Duration = Duration::from_secs(5);
/// How long a process that connected waits for the primary client.
const MEETING: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Processes that have connected and not joined yet.
const MAX_WAITING: usize = 16;
