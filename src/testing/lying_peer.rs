//! A peer that lies to a device set between processes, driven by bytes: for fuzzers, and for tests with seeds.
//!
//! The honest side is the real one. The liar has a socket and shared memory of its own, behaves for as long as the first byte says,
//! and then says whatever the bytes make of it. Whatever that is: nobody panics, the honest side closes in time, every command is
//! answered, and nothing is left.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::Decoder as _;

use crate::clock::{SystemClock, timeout};
use crate::error::{ErrorKind, Result};
use crate::shm::wire::{Choice, Codec, Completed, Message, Place, Reason, Sent, Wishes};
use crate::shm::{Attached, Directory, Found, Inbox, Received, Region, Socket};
use crate::vdi::client::{self, Completion};
use crate::vdi::server::{self, Command};
use crate::vdi::{CommandCode, Config, ServerConfig, ShmHub, ShmOptions, Status};

/// Reads `bytes` as control messages, as they would come from a socket in pieces.
pub fn decode(bytes: &[u8]) {
    let piece = bytes.first().map_or(1, |first| usize::from(*first).max(1));
    let mut buffer = BytesMut::new();
    for chunk in bytes.chunks(piece) {
        buffer.extend_from_slice(chunk);
        loop {
            match Codec.decode(&mut buffer) {
                Ok(Some(_message)) => {}
                Ok(None) => break,
                Err(_refused) => return,
            }
        }
    }
}

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
    let place = |number: u64| Place { region: 0, offset: number * 4096, len: 512 };
    let write = |number: u64, code: CommandCode| {
        Message::Sent(Sent {
            device: 0,
            is_short: false,
            epoch: 0,
            id: number,
            code: code.code(),
            size: 512,
            position: 0,
            place: Some(place(number)),
        })
    };
    let honest = [
        (Message::Hello { is_server: true }, false),
        (Message::Joined, false),
        (Message::Begun(choice()), false),
        (Message::Grown { len: region.len() as u64 }, true),
        (Message::Ended { area_size: 8192 }, false),
        (Message::ServerOpened { device: 0 }, false),
        (write(0, CommandCode::Write), false),
        (write(1, CommandCode::Read), false),
        (Message::ServerOpened { device: 1 }, false),
        (write(2, CommandCode::Write), false),
        (Message::ServerClosed { device: 0 }, false),
        (Message::ServerClosed { device: 1 }, false),
        (Message::Left { is_server: true }, false),
    ];
    liar.run(&honest).await
}

async fn lie_as_client(stream: UnixStream, bytes: &[u8]) -> Result<()> {
    let mut liar = Liar::new(stream, bytes)?;
    let completed = |id| {
        Message::Completed(Completed {
            device: 0,
            id,
            code: 0,
            bytes: 512,
            position: 0,
            has_buffer: true,
            reason: None,
        })
    };
    let wishes = Wishes {
        device_count: 1,
        features: 0,
        prefix_zone_size: 0,
        alignment: 0,
        soft_file_mark_block_size: 0,
        eom_warning_size: 0,
        server_timeout_millis: 0,
    };
    let honest = [
        (Message::Welcome(wishes), false),
        (Message::Fetched, false),
        (Message::ClientOpened { device: 0 }, false),
        (Message::Taken { device: 0, id: 0 }, false),
        (completed(0), false),
        (Message::Taken { device: 0, id: 1 }, false),
        (completed(1), false),
    ];
    liar.run(&honest).await
}

fn choice() -> Choice {
    Choice {
        features: 0x5_0000,
        alignment: 0,
        block_size: 512,
        max_transfer_size: 65_536,
        max_io_depth: 4,
        device_names: Vec::new(),
    }
}

struct Liar<'a> {
    socket: Arc<Socket>,
    inbox: Inbox,
    region: Arc<Region>,
    bytes: Bytes<'a>,
}

impl<'a> Liar<'a> {
    fn new(stream: UnixStream, bytes: &'a [u8]) -> Result<Self> {
        let region = Region::create(65_536).map_err(std::io::Error::other)?;
        Ok(Self { socket: Socket::new(stream), inbox: Inbox::new(), region: Arc::new(region), bytes: Bytes(bytes) })
    }

    /// Says the honest messages up to a point, and then lies; stays or goes.
    async fn run(&mut self, honest: &[(Message, bool)]) -> Result<()> {
        let truths = usize::from(self.bytes.byte()) % (honest.len() + 1);
        for (message, has_file) in &honest[..truths] {
            self.say(message, *has_file).await;
        }
        while !self.bytes.0.is_empty() {
            let (message, has_file) = self.bytes.message();
            self.say(&message, has_file).await;
        }
        if truths.is_multiple_of(2) {
            // Says nothing more and keeps the connection: the other side must not wait for it.
            for _ in 0..64 {
                self.listen().await;
            }
        }
        Ok(())
    }

    async fn say(&mut self, message: &Message, has_file: bool) {
        if has_file {
            self.socket.tell_with(message, Attached::Region(Arc::clone(&self.region)));
        } else {
            self.socket.tell(message);
        }
        self.socket.flush();
        // It also writes to the memory that it shares, whoever owns it now.
        let noise = [self.bytes.byte(); 64];
        let written = self.region.write(usize::from(self.bytes.byte()) * 64, &noise);
        debug_assert!(written.is_ok(), "the liar's own region");
        self.listen().await;
    }

    /// Reads what the other side says and lets it run.
    async fn listen(&mut self) {
        while let Ok(Received::Bytes) = self.inbox.receive(&self.socket) {
            while let Ok(Some(_message)) = self.inbox.next() {}
        }
        tokio::task::yield_now().await;
    }
}

/// Takes choices from bytes; zero when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// Small numbers mostly, and the edges of each width.
    fn number(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..200 => u64::from(byte % 8),
            200..220 => 512 * u64::from(self.byte()),
            220..230 => 65_536 - u64::from(self.byte() % 4),
            230..240 => u64::from(u32::MAX) - u64::from(self.byte() % 2),
            _ => u64::MAX - u64::from(self.byte() % 2),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any value will do")]
    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn place(&mut self) -> Place {
        Place { region: self.small(), offset: self.number(), len: self.small() }
    }

    fn reason(&mut self) -> Reason {
        let layers = (0..self.byte() % 4).map(|_| "lie ".repeat(usize::from(self.byte()))).collect();
        Reason { kind: "denied".to_owned(), layers }
    }

    fn message(&mut self) -> (Message, bool) {
        let device = self.byte() % 4;
        let has_file = self.byte() < 16;
        let message = match self.byte() % 20 {
            0 => Message::Hello { is_server: device == 0 },
            1 => Message::Welcome(Wishes {
                device_count: self.small(),
                features: self.small(),
                prefix_zone_size: self.small(),
                alignment: self.small(),
                soft_file_mark_block_size: self.small(),
                eom_warning_size: self.small(),
                server_timeout_millis: self.small(),
            }),
            2 => Message::Refused { status: self.small(), reason: self.reason() },
            3 => Message::Joined,
            4 => Message::Begun(Choice {
                features: self.small(),
                alignment: self.small(),
                block_size: self.small(),
                max_transfer_size: self.small(),
                max_io_depth: self.small(),
                device_names: (0..self.byte() % 3).map(|_| "x".repeat(usize::from(self.byte()))).collect(),
            }),
            5 => Message::Grown { len: self.number() },
            6 => return (Message::Grown { len: 65_536 }, true),
            7 => Message::Ended { area_size: self.small() },
            8 => Message::ServerOpened { device },
            9..12 => Message::Sent(Sent {
                device,
                is_short: self.byte() > 127,
                epoch: self.small(),
                id: self.number(),
                code: u32::from(self.byte() % 24),
                size: self.small(),
                position: self.number(),
                place: (self.byte() < 200).then(|| self.place()),
            }),
            12 => Message::ServerClosed { device },
            13 => Message::ClientOpened { device },
            14 => Message::Taken { device, id: self.number() },
            15 => Message::SawClose { device },
            16 => Message::Completed(Completed {
                device,
                id: self.number(),
                code: self.small(),
                bytes: self.small(),
                position: self.number(),
                has_buffer: self.byte() > 50,
                reason: (self.byte() > 200).then(|| self.reason()),
            }),
            17 => Message::Returned(self.place()),
            18 => Message::Aborted(self.reason()),
            _ => Message::Left { is_server: device == 0 },
        };
        (message, has_file)
    }
}

fn hub(directory: &Path) -> Result<ShmHub> {
    ShmHub::open(ShmOptions { directory: Some(directory.to_owned()), ..ShmOptions::default() })
}

async fn soon<T>(future: impl Future<Output = T>, promise: &str) -> T {
    timeout(&SystemClock::new(), Some(PATIENCE), future).await.expect(promise)
}

fn assert_is_empty(directory: &Path) -> Result<()> {
    assert_eq!(std::fs::read_dir(directory)?.count(), 0, "a name is left");
    Ok(())
}

const NAME: &str = "lies";
const WAIT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);
