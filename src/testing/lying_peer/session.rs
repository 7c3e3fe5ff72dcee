//! Whole sessions with a liar in one of the parts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::liar::{File, Liar, choice};
use crate::clock::{SystemClock, timeout};
use crate::error::{ErrorKind, Result};
use crate::shm::wire::{Completed, Message, Place, Sent, Wishes};
use crate::shm::{Directory, Found};
use crate::vdi::client::{self, BufferHandle, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{CommandCode, Config, ServerConfig, ShmHub, ShmOptions, Status};

/// A client meets a server that lies. `directory` is used for a hub and is empty again afterwards.
///
/// # Errors
///
/// Of the system.
///
/// # Panics
///
/// If the client does, or hangs, or leaves something.
///
/// # Cancel safety
///
/// Not cancel-safe: a session that is dropped may leave a name behind.
pub async fn server_lies(directory: &Path, bytes: &[u8]) -> Result<()> {
    let hub = hub(directory)?;
    let set = client::DeviceSet::create(&hub, NAME, Config::pipe(2))?;
    let lying = lie_as_server(directory, bytes);
    let honest = async {
        let _lied_to = client_session(&set).await;
        let _lied_to = soon(set.close(), "the client's close does not hang").await;
    };
    let (lied, ()) = tokio::join!(lying, honest);
    lied?;
    assert_is_empty(directory)
}

/// A server meets a primary client that lies. `directory` is used for a hub and is empty again afterwards.
///
/// # Errors
///
/// Of the system.
///
/// # Panics
///
/// If the server does, or hangs, or leaves something.
///
/// # Cancel safety
///
/// Not cancel-safe, as [`server_lies`].
pub async fn client_lies(directory: &Path, bytes: &[u8]) -> Result<()> {
    let hub = hub(directory)?;
    let names = Directory::open(directory, false)?;
    let Some(listener) = names.bind(NAME, false)? else {
        return Err(crate::Error::new(ErrorKind::Conflict, "the name of the lying client is in use"));
    };
    let lying = async {
        let (stream, _) = UnixListener::from_std(listener)?.accept().await?;
        lie_as_client(stream, bytes).await
    };
    let honest = async {
        let Ok(set) = soon(server::DeviceSet::open(&hub, NAME), "the server's open does not hang").await else {
            return;
        };
        let _lied_to = server_session(&set).await;
        let _lied_to = soon(set.close(), "the server's close does not hang").await;
    };
    let (lied, ()) = tokio::join!(lying, honest);
    lied?;
    names.remove(NAME)?;
    assert_is_empty(directory)
}

/// A primary client and its server meet a secondary client that lies. `directory` is used for a hub and is empty again afterwards.
///
/// # Errors
///
/// Of the system.
///
/// # Panics
///
/// If one of them does, or hangs, or leaves something.
///
/// # Cancel safety
///
/// Not cancel-safe, as [`server_lies`].
pub async fn secondary_lies(directory: &Path, bytes: &[u8]) -> Result<()> {
    let hub = hub(directory)?;
    let client = client::DeviceSet::create(&hub, NAME, Config::pipe(2))?;
    let server = server::DeviceSet::open(&hub, NAME).await?;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let lying = async {
        let _configured: Result<(), _> = is_ready.await;
        lie_as_secondary(directory, bytes).await
    };
    let honest = async {
        let _configured = client.configuration(Some(PATIENCE)).await;
        let _lying_side: Result<(), ()> = ready.send(());
        let _lied_to = lending_session(&client).await;
        let _lied_to = soon(client.close(), "the client's close does not hang").await;
    };
    let serving = async {
        let _lied_to = server_session(&server).await;
        let _lied_to = soon(server.close(), "the server's close does not hang").await;
    };
    let (lied, (), ()) = tokio::join!(lying, honest, serving);
    lied?;
    assert_is_empty(directory)
}

/// A secondary client meets a primary client that lies. `directory` is used for a hub and is empty again afterwards.
///
/// # Errors
///
/// Of the system.
///
/// # Panics
///
/// If the secondary client does, or hangs, or leaves something.
///
/// # Cancel safety
///
/// Not cancel-safe, as [`server_lies`].
pub async fn primary_lies_to_secondary(directory: &Path, bytes: &[u8]) -> Result<()> {
    let hub = hub(directory)?;
    let names = Directory::open(directory, false)?;
    let Some(listener) = names.bind(NAME, false)? else {
        return Err(crate::Error::new(ErrorKind::Conflict, "the name of the lying client is in use"));
    };
    let lying = async {
        let (stream, _) = UnixListener::from_std(listener)?.accept().await?;
        lie_to_secondary(stream, bytes).await
    };
    let honest = async {
        let joining = client::DeviceSet::open_in_secondary(&hub, NAME);
        let Ok(set) = soon(joining, "the client's joining does not hang").await else { return };
        let _lied_to = lending_session(&set).await;
        let _lied_to = soon(set.close(), "the client's close does not hang").await;
    };
    let (lied, ()) = tokio::join!(lying, honest);
    lied?;
    names.remove(NAME)?;
    assert_is_empty(directory)
}

/// The session of an honest client: it takes what comes, looks at it and answers.
async fn client_session(set: &client::DeviceSet) -> Result<(), crate::vdi::Error> {
    set.configuration(Some(WAIT)).await?;
    let mut devices = set.open_all()?;
    for _ in 0..32 {
        for device in &mut devices {
            let mut command = match device.next_command(Some(Duration::ZERO)).await {
                Ok(command) => command,
                Err(error) if error.status() == Status::Timeout => {
                    // Lets the connection's task run.
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let size = command.size();
            let moved = match command.code() {
                CommandCode::Write => {
                    std::hint::black_box(command.data().iter().map(|byte| u64::from(*byte)).sum::<u64>());
                    size
                }
                CommandCode::Read => {
                    command.data_mut().fill(9);
                    size
                }
                _ => 0,
            };
            command.complete(Completion::transferred(moved))?;
        }
    }
    Ok(())
}

/// The session of an honest client that shares its devices and its buffers with others.
async fn lending_session(set: &client::DeviceSet) -> Result<(), crate::vdi::Error> {
    set.configuration(Some(WAIT)).await?;
    let mut devices = set.open_all()?;
    for round in 0..32 {
        // Handles that nobody gave, or that another client scribbled.
        if let Ok(mut mapped) = set.map_buffer(BufferHandle::from_number(round)) {
            mapped.fill(7);
        }
        for device in &mut devices {
            let Ok(mut command) = device.next_command(Some(Duration::ZERO)).await else {
                tokio::task::yield_now().await;
                continue;
            };
            let size = command.size();
            if command.code().is_transfer() {
                let handle = command.buffer_handle()?;
                tokio::task::yield_now().await;
                if let Ok(mut mapped) = set.map_buffer(handle) {
                    mapped.fill(9);
                }
            }
            command.complete(Completion::transferred(size))?;
        }
    }
    Ok(())
}

/// The session of an honest server: it sends, and waits for the answers with an end to its patience.
async fn server_session(set: &server::DeviceSet) -> Result<(), crate::vdi::Error> {
    set.begin_configuration(ServerConfig::default())?.request_buffers(512, 0, 8)?;
    set.end_configuration().await?;
    let agent = set.completion_agent();
    let work = async {
        let device = set.open_device()?;
        let mut answers = Vec::new();
        for number in 0..6 {
            let command = match number % 3 {
                0 => Command::write(set.allocate_buffer(512, 0)?, 512),
                1 => Command::read(set.allocate_buffer(512, 0)?, 512),
                _ => Command::flush(),
            };
            let size = command.size();
            match device.send(command) {
                Ok(answer) => answers.push((size, answer)),
                // The set has ended, or the queue is full.
                Err(_refused) => {}
            }
            tokio::task::yield_now().await;
        }
        let clock = SystemClock::new();
        let waiting = async {
            for (size, answer) in answers {
                let completion = answer.await;
                assert!(completion.bytes_transferred <= size, "no more bytes than the command has");
                std::hint::black_box(completion.buffer.as_deref().map(<[u8]>::to_vec));
            }
        };
        // A client that says nothing is the server's to give up on; each command is answered all the same.
        if timeout(&clock, Some(WAIT), waiting).await.is_err() {
            set.abort(crate::Error::new(ErrorKind::Aborted, "the client does not answer"))?;
        }
        Ok(())
    };
    let (_returned, worked) = tokio::join!(agent, async {
        let worked: Result<(), crate::vdi::Error> = work.await;
        // The agent ends with the set.
        let _ended = set.abort(crate::Error::new(ErrorKind::Aborted, "the session is over"));
        worked
    });
    worked
}

async fn lie_as_server(directory: &Path, bytes: &[u8]) -> Result<()> {
    let Found::Listening(stream, _) = Directory::open(directory, false)?.find(NAME)? else { return Ok(()) };
    let mut liar = Liar::new(UnixStream::from_std(stream)?, bytes)?;
    let region = Arc::clone(&liar.region);
    let honest = [
        (Message::Hello { is_server: true }, File::None),
        (Message::Joined, File::None),
        (Message::Begun(choice()), File::None),
        (Message::Grown { len: region.len() as u64 }, File::Region),
        (Message::Ended { area_size: 8192 }, File::None),
        (Message::ServerOpened { device: 0 }, File::None),
        (write(0, CommandCode::Write), File::None),
        (write(1, CommandCode::Read), File::None),
        (Message::ServerOpened { device: 1 }, File::None),
        (write(2, CommandCode::Write), File::None),
        (Message::ServerClosed { device: 0 }, File::None),
        (Message::ServerClosed { device: 1 }, File::None),
        (Message::Left { is_server: true }, File::None),
    ];
    liar.run(&honest).await;
    Ok(())
}

async fn lie_as_client(stream: UnixStream, bytes: &[u8]) -> Result<()> {
    let mut liar = Liar::new(stream, bytes)?;
    let honest = [
        (Message::Welcome(wishes()), File::None),
        (Message::Fetched, File::None),
        (Message::ClientOpened { device: 0 }, File::None),
        (Message::Taken { device: 0, id: 0 }, File::None),
        (completed(0, 0), File::None),
        (Message::Taken { device: 0, id: 1 }, File::None),
        (completed(0, 1), File::None),
    ];
    liar.run(&honest).await;
    Ok(())
}

async fn lie_as_secondary(directory: &Path, bytes: &[u8]) -> Result<()> {
    let Found::Listening(stream, _) = Directory::open(directory, false)?.find(NAME)? else { return Ok(()) };
    let mut liar = Liar::new(UnixStream::from_std(stream)?, bytes)?;
    let honest = [
        (Message::Hello { is_server: false }, File::None),
        (Message::Joined, File::None),
        (Message::ClientOpened { device: 1 }, File::None),
        (Message::Taken { device: 1, id: 1 }, File::None),
        (completed(1, 1), File::None),
        (Message::SawClose { device: 1 }, File::None),
        (Message::Left { is_server: false }, File::None),
    ];
    liar.run(&honest).await;
    Ok(())
}

async fn lie_to_secondary(stream: UnixStream, bytes: &[u8]) -> Result<()> {
    let mut liar = Liar::new(stream, bytes)?;
    let honest = [
        (Message::Welcome(wishes()), File::Control),
        (Message::Begun(choice()), File::None),
        (Message::Grown { len: liar.region.len() as u64 }, File::Region),
        (Message::Ended { area_size: 8192 }, File::None),
        (Message::ServerOpened { device: 0 }, File::None),
        (Message::Joined, File::None),
        (write(0, CommandCode::Write), File::None),
        (write(1, CommandCode::Read), File::None),
        (Message::ServerClosed { device: 0 }, File::None),
        (Message::Left { is_server: true }, File::None),
        (Message::Left { is_server: false }, File::None),
    ];
    liar.run(&honest).await;
    Ok(())
}

/// A command as an honest server sends it.
fn write(number: u64, code: CommandCode) -> Message {
    Message::Sent(Sent {
        device: 0,
        is_short: false,
        epoch: 0,
        id: number,
        code: code.code(),
        size: 512,
        position: 0,
        place: Some(Place { region: 0, offset: number * 4096, len: 512 }),
    })
}

fn completed(device: u8, id: u64) -> Message {
    Message::Completed(Completed { device, id, code: 0, bytes: 512, position: 0, has_buffer: true, reason: None })
}

/// What an honest client wishes.
fn wishes() -> Wishes {
    Wishes {
        device_count: 1,
        features: 0,
        prefix_zone_size: 0,
        alignment: 0,
        soft_file_mark_block_size: 0,
        eom_warning_size: 0,
        server_timeout_millis: 0,
    }
}

pub(super) fn hub(directory: &Path) -> Result<ShmHub> {
    ShmHub::open(ShmOptions { directory: Some(directory.to_owned()), ..ShmOptions::default() })
}

pub(super) async fn soon<T>(future: impl Future<Output = T>, promise: &str) -> T {
    timeout(&SystemClock::new(), Some(PATIENCE), future).await.expect(promise)
}

pub(super) fn assert_is_empty(directory: &Path) -> Result<()> {
    assert_eq!(std::fs::read_dir(directory)?.count(), 0, "a name is left");
    Ok(())
}

pub(super) const NAME: &str = "lies";
pub(super) const WAIT: Duration = Duration::from_millis(20);
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
