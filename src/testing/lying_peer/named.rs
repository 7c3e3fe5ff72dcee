//! Lies that random bytes would hardly find.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use tokio::net::UnixStream;
use tokio_util::codec::Encoder as _;

use super::liar::{File, Liar, choice};
use super::session::{NAME, PATIENCE, WAIT, assert_is_empty, hub, soon};
use crate::buffer::MemoryBudget;
use crate::error::{ErrorKind, Result};
use crate::shm::wire::{Choice, Codec, Message, Place, Reason, Sent};
use crate::shm::{Attached, Directory, Found};
use crate::vdi::client::{self, Command};
use crate::vdi::{CommandCode, Config, Status, server};

/// A process connects as a server, acts as one without having joined, and leaves: another server can still open the set.
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
/// Not cancel-safe: a session that is dropped may leave a name behind.
pub async fn strangers_leave(directory: &Path) -> Result<()> {
    let hub = hub(directory)?;
    let set = client::DeviceSet::create(&hub, NAME, Config::pipe(1))?;
    for lie in [Message::Begun(choice()), Message::Left { is_server: true }, aborted(), Message::Fetched] {
        let mut liar = Liar::new(connect(directory)?, &[])?;
        liar.say(&Message::Hello { is_server: true }, File::None).await;
        liar.say(&lie, File::None).await;
    }
    let opening = async {
        loop {
            match server::DeviceSet::open(&hub, NAME).await {
                // The end of the last stranger may not have been seen yet.
                Err(error) if error.status() == Status::Protocol => tokio::task::yield_now().await,
                opened => return opened,
            }
        }
    };
    let server = soon(opening, "strangers do not keep the set").await?;
    soon(server.close(), "the server's close does not hang").await?;
    soon(set.close(), "the client's close does not hang").await?;
    assert_is_empty(directory)
}

/// Processes send without end, before and after they joined, and may not read: whoever they send to has time for others, and
/// can close.
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
/// Not cancel-safe, as [`strangers_leave`].
pub async fn peers_flood(directory: &Path) -> Result<()> {
    let hub = hub(directory)?;
    for (has_joined, is_deaf) in [(false, false), (true, false), (true, true)] {
        let set = client::DeviceSet::create(&hub, NAME, Config::pipe(1))?;
        let Found::Listening(stream, _) = Directory::open(directory, false)?.find(NAME)? else { return Ok(()) };
        stream.set_nonblocking(false)?;
        let mut greeting = BytesMut::new();
        encode(&Message::Hello { is_server: true }, &mut greeting)?;
        if has_joined {
            encode(&Message::Joined, &mut greeting)?;
        }
        let mut flood = BytesMut::new();
        while flood.len() < 64_000 {
            encode(&Message::Returned(Place { region: 0, offset: 0, len: 1 }), &mut flood)?;
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        #[expect(clippy::disallowed_methods, reason = "it can only be faster than its reader on a thread of its own")]
        let pouring = std::thread::spawn(move || {
            if is_deaf {
                stream.shutdown(std::net::Shutdown::Read)?;
            }
            pour(stream, &greeting, &flood, &flag)
        });
        let _unconfigured = set.configuration(Some(WAIT)).await;
        let _refused = set.abort(crate::Error::new(ErrorKind::Aborted, "enough"));
        let _unconfigured = set.configuration(Some(WAIT)).await;
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        soon(set.close(), "the client's close does not hang").await?;
        is_over.store(true, Ordering::Release);
        let is_dry = pouring.join().is_ok_and(|poured| matches!(poured, Ok(true)));
        assert!(!is_dry, "joined {has_joined}, deaf {is_deaf}: nobody else had a turn until the flood was over");
    }
    assert_is_empty(directory)
}

/// Writes until `is_over`, or the other end is gone. True if it had no more to write before that.
fn pour(mut stream: StdStream, greeting: &[u8], flood: &[u8], is_over: &AtomicBool) -> std::io::Result<bool> {
    stream.write_all(greeting)?;
    for _ in 0..FLOODS {
        if is_over.load(Ordering::Acquire) {
            return Ok(false);
        }
        stream.write_all(flood)?;
    }
    Ok(true)
}

/// A server sends buffers of one byte, each of which would take a whole alignment of private memory: no more is held than the
/// client's memory limit allows.
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
/// Not cancel-safe, as [`strangers_leave`].
pub async fn small_buffers_crowd(directory: &Path) -> Result<()> {
    let budget = MemoryBudget::new(2 * 65_536);
    let hub = hub(directory)?.with_budget(&budget);
    let set = client::DeviceSet::create(&hub, NAME, Config::pipe(1))?;
    let mut liar = Liar::new(connect(directory)?, &[])?;
    let lying = async {
        liar.say(&Message::Hello { is_server: true }, File::None).await;
        liar.say(&Message::Joined, File::None).await;
        liar.say(&Message::Begun(Choice { alignment: 65_536, ..choice() }), File::None).await;
        liar.say(&Message::Grown { len: 65_536 }, File::Region).await;
        liar.say(&Message::Ended { area_size: 65_536 }, File::None).await;
        liar.say(&Message::ServerOpened { device: 0 }, File::None).await;
        for id in 0..4 {
            let place = Some(Place { region: 0, offset: id, len: 1 });
            let code = CommandCode::Write.code();
            let sent = Sent { device: 0, is_short: true, epoch: 0, id, code, size: 1, position: 0, place };
            liar.say(&Message::Sent(sent), File::None).await;
        }
    };
    let holding = async {
        set.configuration(Some(PATIENCE)).await?;
        let mut device = set.open_device(NAME)?;
        let mut held: Vec<Command> = Vec::new();
        loop {
            match device.next_command(Some(PATIENCE)).await {
                Ok(command) => {
                    std::hint::black_box(command.data()[0]);
                    held.push(command);
                }
                Err(error) => return Ok::<_, crate::Error>((held.len(), error)),
            }
            assert!(budget.used() <= 65_536, "one private copy fits");
        }
    };
    let ((), held) = tokio::join!(lying, holding);
    let (_count, ended) = held?;
    let reason = crate::Error::from(ended).report();
    assert!(reason.contains("more buffers than the area has room for"), "{reason}");
    soon(set.close(), "the client's close does not hang").await?;
    assert_is_empty(directory)
}

/// A server announces memory, and sends files that could become shorter, or are none of memory: none of them is mapped.
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
/// Not cancel-safe, as [`strangers_leave`].
pub async fn wrong_files_come(directory: &Path) -> Result<()> {
    let hub = hub(directory)?;
    for (what, file) in wrong_files()? {
        let set = client::DeviceSet::create(&hub, NAME, Config::pipe(1))?;
        let mut liar = Liar::new(connect(directory)?, &[])?;
        for message in [Message::Hello { is_server: true }, Message::Joined, Message::Begun(choice())] {
            liar.say(&message, File::None).await;
        }
        liar.socket.tell_with(&Message::Grown { len: 65_536 }, Attached::File(Arc::new(file)));
        liar.socket.flush();
        let error = soon(set.configuration(None), "the set ends").await.expect_err(what);
        let reason = crate::Error::from(error).report();
        assert!(reason.contains("broke the rules of the device set"), "{what}: {reason}");
        soon(set.close(), "the client's close does not hang").await?;
    }
    assert_is_empty(directory)
}

fn wrong_files() -> Result<Vec<(&'static str, OwnedFd)>> {
    let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let memory = |len: u64, seals: SealFlags| -> std::io::Result<OwnedFd> {
        let file = memfd_create("lie", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len)?;
        fcntl_add_seals(&file, seals)?;
        Ok(file)
    };
    Ok(vec![
        ("a file that can shrink", memory(65_536, SealFlags::GROW | SealFlags::SEAL)?),
        ("a file that can grow", memory(65_536, SealFlags::SHRINK | SealFlags::SEAL)?),
        ("a file without a seal", memory(65_536, SealFlags::empty())?),
        ("a shorter file", memory(65_535, all)?),
        ("a longer file", memory(65_537, all)?),
        ("an empty file", memory(0, all)?),
        ("a file that cannot be written", memory(65_536, all | SealFlags::WRITE)?),
        ("a device", std::fs::File::open("/dev/zero")?.into()),
        ("a directory", std::fs::File::open("/")?.into()),
        ("a program", std::fs::File::open(std::env::current_exe()?)?.into()),
        ("a pipe", std::io::pipe()?.0.into()),
        ("a socket", StdStream::pair()?.0.into()),
    ])
}

pub(super) fn connect(directory: &Path) -> Result<UnixStream> {
    match Directory::open(directory, false)?.find(NAME)? {
        Found::Listening(stream, _) => Ok(UnixStream::from_std(stream)?),
        Found::Nothing | Found::Stale => Err(crate::Error::new(ErrorKind::NotFound, "nobody listens")),
    }
}

fn encode(message: &Message, target: &mut BytesMut) -> Result<()> {
    Ok(Codec.encode(message, target).map_err(std::io::Error::other)?)
}

fn aborted() -> Message {
    Message::Aborted(Reason { kind: "denied".to_owned(), layers: vec!["lie".to_owned()] })
}

/// A hundred megabytes.
const FLOODS: u32 = 1600;
