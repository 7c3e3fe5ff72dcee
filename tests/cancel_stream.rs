//! Every call of a stream dropped at every point where it waits, and every stream abandoned after every poll.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_test::task::{self, Spawn};
use vdi_support::*;
use vdstream::buffer::MemoryBudget;
use vdstream::stream::{ClientReader, ClientWriter, DeviceItem, DeviceReader, DeviceStream, DeviceWriter, OnFlush};
use vdstream::vdi::server::{self, CompletionAgent};
use vdstream::vdi::{Config, Features, LocalHub, ServerConfig, client};
use vdstream::{Error, ErrorKind};

const TRANSFER: usize = 65_536;
/// Of a stream.
const BUFFERS: usize = 2;
/// Of the set.
const AREA: usize = 3;

struct World {
    hub: LocalHub,
    budget: MemoryBudget,
    client: client::DeviceSet,
    server: server::DeviceSet,
    /// Until it returns.
    agent: Option<Spawn<CompletionAgent>>,
}

/// A set whose one device is open on both sides, its agent running.
fn world() -> (World, server::Device, client::Device) {
    let budget = MemoryBudget::new(1 << 20);
    let hub = LocalHub::new().with_budget(&budget);
    let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    let features = Features::WRITE_MEDIA | Features::READ_MEDIA | Features::COMPLETE_ENABLED;
    server.begin_configuration(ServerConfig { features, ..ServerConfig::default() }).unwrap();
    server.request_buffers(TRANSFER, 0, AREA).unwrap();
    now(server.end_configuration()).unwrap();
    now(client.configuration(None)).unwrap();
    let (output, input) = (server.open_device().unwrap(), client.open_device("set").unwrap());
    let mut agent = task::spawn(server.completion_agent());
    assert!(agent.poll().is_pending());
    (World { hub, budget, client, server, agent: Some(agent) }, output, input)
}

impl World {
    /// Lets the agent give its answers.
    fn answer(&mut self) {
        if self.agent.as_mut().is_some_and(|agent| agent.poll().is_ready()) {
            self.agent = None;
        }
    }

    /// Closes both sides and looks for what is left.
    fn end(mut self) {
        let mut close = task::spawn(self.server.close());
        if close.poll().is_pending() {
            assert!(self.agent.as_mut().unwrap().poll().is_ready());
            assert!(close.poll().is_ready());
        }
        let _its_devices_may_be_open = now(self.client.close());
        drop(self.agent);
        assert_empty(&self.hub);
        assert_eq!((self.budget.used(), self.budget.reserved()), (0, 0), "buffers are left");
    }
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

/// Polls a new future once and drops it, again and again, until one of them is ready at its first poll.
fn impatient<T>(mut future: impl FnMut() -> Option<T>, mut meanwhile: impl FnMut()) -> T {
    for _ in 0..10_000 {
        if let Some(output) = future() {
            return output;
        }
        meanwhile();
    }
    panic!("dropped at every wait, it makes no progress");
}

#[test]
fn a_backup_whose_every_call_is_dropped_at_every_wait_comes_through_whole() {
    let (mut world, output, input) = world();
    let mut writer = DeviceWriter::new(&world.server, output, BUFFERS).unwrap();
    let mut stream = DeviceStream::new(&world.client, input);
    let sent = data(5 * TRANSFER + 17);
    let mut received = Vec::new();
    // One step of the other side, itself impatient.
    let mut step = || {
        match stream.next().now_or_never() {
            Some(Some(Ok(DeviceItem::Data(bytes)))) => received.extend_from_slice(&bytes),
            Some(Some(Ok(DeviceItem::Flush(ack) | DeviceItem::Complete(ack)))) => ack.answer(Ok(())),
            Some(Some(Err(error))) => panic!("{error:?}"),
            Some(None) | None => {}
        }
        world.answer();
    };
    let (written, copied) = sent.split_at(3 * TRANSFER + 5);
    let mut position = 0;
    while position < written.len() {
        let rest = &written[position..];
        position += impatient(|| writer.write(rest).now_or_never(), &mut step).unwrap();
    }
    impatient(|| writer.flush().now_or_never(), &mut step).unwrap();
    let mut source = copied;
    impatient(|| writer.write_from(&mut source).now_or_never(), &mut step).unwrap();
    assert_eq!(writer.position(), sent.len() as u64);
    impatient(|| writer.shutdown().now_or_never(), &mut step).unwrap();
    step();
    assert!(received == sent, "changed on the way");
    drop((writer, stream));
    world.end();
}

#[test]
fn buffers_taken_and_given_back_at_every_wait() {
    for is_writers in [true, false] {
        hand_in_buffers(is_writers);
    }
}

/// Buffers that the writer gave, or others of the set, for which it has no room at times.
fn hand_in_buffers(is_writers: bool) {
    let (mut world, output, input) = world();
    let server = world.server.clone();
    let mut writer = DeviceWriter::new(&world.server, output, BUFFERS).unwrap();
    let mut stream = DeviceStream::new(&world.client, input);
    let sent = data(5 * TRANSFER + 17);
    let mut received = Vec::new();
    let mut step = || {
        match stream.next().now_or_never() {
            Some(Some(Ok(DeviceItem::Data(bytes)))) => received.extend_from_slice(&bytes),
            Some(Some(Ok(DeviceItem::Flush(ack) | DeviceItem::Complete(ack)))) => ack.answer(Ok(())),
            Some(Some(Err(error))) => panic!("{error:?}"),
            Some(None) | None => {}
        }
        world.answer();
    };
    let mut waits = 0;
    for piece in sent.chunks(TRANSFER) {
        // A write that was dropped has given its buffer back, so the next attempt takes another.
        let written = impatient(
            || {
                let mut buffer = if is_writers {
                    writer.next_buffer().now_or_never()?.unwrap()
                } else {
                    server.allocate_buffer(TRANSFER, 0).unwrap()
                };
                buffer[..piece.len()].copy_from_slice(piece);
                let before = writer.position();
                let outcome = writer.write_buffer(buffer, piece.len()).now_or_never();
                let moved = if outcome.is_some() { piece.len() as u64 } else { 0 };
                assert_eq!(writer.position(), before + moved);
                waits += usize::from(outcome.is_none());
                outcome
            },
            &mut step,
        );
        written.unwrap();
    }
    assert_eq!(waits > 0, !is_writers, "{waits} writes waited for room");
    impatient(|| writer.shutdown().now_or_never(), &mut step).unwrap();
    step();
    assert!(received == sent, "changed on the way");
    drop((writer, stream, server));
    world.end();
}

#[test]
fn a_restore_whose_every_call_is_dropped_at_every_wait_comes_through_whole() {
    let (mut world, output, input) = world();
    let mut reader = DeviceReader::new(&world.server, output, BUFFERS).unwrap();
    let mut writer = ClientWriter::new(&world.client, input);
    let sent = data(5 * TRANSFER + 17);
    let mut received = Vec::new();
    let mut step = || {
        let mut piece = [0; 10_007];
        match reader.read(&mut piece).now_or_never() {
            Some(count) => received.extend_from_slice(&piece[..count.unwrap()]),
            None => world.answer(),
        }
    };
    let mut position = 0;
    while position < sent.len() {
        let rest = &sent[position..];
        position += impatient(|| writer.write(rest).now_or_never(), &mut step).unwrap();
        if position % 3 == 0 {
            impatient(|| writer.flush().now_or_never(), &mut step).unwrap();
        }
    }
    impatient(|| writer.shutdown().now_or_never(), &mut step).unwrap();
    assert!(received == sent, "changed on the way");
    drop((reader, writer));
    world.end();
}

type Job = BoxFuture<'static, std::io::Result<u64>>;

async fn write_all(mut writer: DeviceWriter) -> std::io::Result<u64> {
    let bytes = data(7 * TRANSFER + 5);
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    writer.write_from(&mut &bytes[..]).await?;
    writer.shutdown().await?;
    Ok(writer.position())
}

async fn take_all(mut stream: DeviceStream) -> std::io::Result<u64> {
    let mut count = 0;
    while let Some(item) = stream.next().await {
        match item? {
            DeviceItem::Data(bytes) => count += bytes.len() as u64,
            DeviceItem::Flush(ack) | DeviceItem::Complete(ack) => ack.answer(Ok(())),
        }
    }
    Ok(count)
}

async fn read_all(mut reader: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<u64> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await?;
    Ok(bytes.len() as u64)
}

async fn feed_all(mut writer: ClientWriter) -> std::io::Result<u64> {
    writer.write_all(&data(7 * TRANSFER + 5)).await?;
    writer.flush().await?;
    writer.write_all(&data(TRANSFER + 1)).await?;
    writer.shutdown().await?;
    Ok(writer.position())
}

#[derive(Debug, Clone, Copy)]
enum Way {
    BackupItems,
    BackupBytes,
    Restore,
}

/// The engine's job and the agent's.
fn jobs(way: Way, world: &World, output: server::Device, input: client::Device) -> [Job; 2] {
    let stream = |input| DeviceStream::new(&world.client, input);
    match way {
        Way::BackupItems => [
            write_all(DeviceWriter::new(&world.server, output, BUFFERS).unwrap()).boxed(),
            take_all(stream(input)).boxed(),
        ],
        Way::BackupBytes => [
            write_all(DeviceWriter::new(&world.server, output, BUFFERS).unwrap()).boxed(),
            read_all(ClientReader::new(stream(input), OnFlush::Acknowledge)).boxed(),
        ],
        Way::Restore => [
            read_all(DeviceReader::new(&world.server, output, BUFFERS).unwrap()).boxed(),
            feed_all(ClientWriter::new(&world.client, input)).boxed(),
        ],
    }
}

fn poll(job: &mut Option<Job>) -> Option<std::io::Result<u64>> {
    let polled = job.as_mut()?.poll_unpin(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(result) => {
            *job = None;
            Some(result)
        }
        Poll::Pending => None,
    }
}

/// Abandons one side's job after `polls` polls of it; true if it was ready before.
fn abandon(way: Way, side: usize, polls: usize) -> bool {
    let (mut world, output, input) = world();
    let [engine, agent] = jobs(way, &world, output, input);
    let (mut quitter, mut other) = if side == 0 { (Some(engine), Some(agent)) } else { (Some(agent), Some(engine)) };
    let (mut ended, mut outcome) = (None, None);
    for _ in 0..polls {
        ended = ended.or_else(|| poll(&mut quitter));
        outcome = outcome.or_else(|| poll(&mut other));
        world.answer();
    }
    let is_ready = ended.is_some();
    drop(quitter);
    for _ in 0..3 {
        world.answer();
        outcome = outcome.or_else(|| poll(&mut other));
    }
    let outcome = outcome.unwrap_or_else(|| panic!("{way:?}: abandoned after {polls} polls, the other side hangs"));
    match ended {
        Some(ended) => assert_eq!(ended.unwrap(), outcome.unwrap(), "{way:?}: both saw the same bytes"),
        // The engine's end is the end; an agent may leave without having looked at it.
        None => match outcome {
            Ok(_) => assert_eq!(side, 1, "{way:?}, {polls}: a part was taken for the whole"),
            Err(error) => {
                let error = Error::from(error);
                assert_eq!(error.kind(), ErrorKind::Aborted, "{way:?}, {polls}: {error:?}");
                assert!(error.report().contains("was dropped"), "{way:?}, {polls}: {error:?}");
            }
        },
    }
    drop(other);
    world.end();
    is_ready
}

#[test]
fn a_stream_abandoned_after_any_poll_is_an_abort_that_leaves_nothing() {
    for way in [Way::BackupItems, Way::BackupBytes, Way::Restore] {
        for side in [0, 1] {
            let waits = (0..1000).take_while(|polls| !abandon(way, side, *polls)).count();
            assert!((6..1000).contains(&waits), "{way:?}: {waits} points to leave at");
        }
    }
}
