//! Devices in process: how long one command takes there and back, and how many bytes pass, beside what the machine can do at best.

// A program for people who measure, not a library.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use vdstream::vdi::client::Completion;
use vdstream::vdi::{Config, Features, LocalHub, ServerConfig, client, server};

const MIB: usize = 1 << 20;
const DEPTH: usize = 4;

/// Both ends of a set with one device, the client in a task of its own that completes whatever comes.
struct Pair {
    server: server::DeviceSet,
    device: server::Device,
    client: JoinHandle<()>,
    agent: JoinHandle<()>,
}

impl Pair {
    async fn open() -> Self {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "bench", Config::pipe(1)).unwrap();
        let server = server::DeviceSet::open(&hub, "bench").await.unwrap();
        let most = u32::try_from(MIB).unwrap();
        let config =
            ServerConfig { features: Features::WRITE_MEDIA, max_transfer_size: most, ..ServerConfig::default() };
        server.begin_configuration(config).unwrap().request_buffers(MIB, 0, DEPTH).unwrap();
        server.end_configuration().await.unwrap();
        client.configuration(None).await.unwrap();
        let agent = server.completion_agent();
        let agent = tokio::spawn(async move { drop(agent.await) });
        let device = server.open_device().unwrap();
        let mut other = client.open_all().unwrap().remove(0);
        let client = tokio::spawn(async move {
            while let Ok(command) = other.next_command(None).await {
                let size = command.data().len();
                black_box(command.data());
                command.complete(Completion::transferred(size)).unwrap();
            }
            client.close().await.unwrap();
        });
        Self { server, device, client, agent }
    }

    async fn close(self) {
        self.device.close().unwrap();
        self.server.close().await.unwrap();
        self.client.await.unwrap();
        self.agent.await.unwrap();
    }
}

fn runtimes() -> [(&'static str, Runtime); 2] {
    [
        ("one thread", Builder::new_current_thread().enable_all().build().unwrap()),
        ("two threads", Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()),
    ]
}

fn round_trip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip of an empty command");
    for (name, runtime) in runtimes() {
        group.bench_function(format!("device, {name}"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(async { tokio::spawn(commands(count)).await.unwrap() }));
        });
        group.bench_function(format!("mpsc and oneshot, {name}"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(async { tokio::spawn(messages(count)).await.unwrap() }));
        });
    }
    group.finish();
}

async fn commands(count: u64) -> Duration {
    let pair = Pair::open().await;
    let start = Instant::now();
    for _ in 0..count {
        let done = pair.device.send(server::Command::flush()).unwrap().await;
        assert!(done.is_success());
    }
    let elapsed = start.elapsed();
    pair.close().await;
    elapsed
}

async fn messages(count: u64) -> Duration {
    let (sender, mut receiver) = mpsc::channel::<oneshot::Sender<u64>>(DEPTH);
    let other = tokio::spawn(async move {
        while let Some(answer) = receiver.recv().await {
            answer.send(1).unwrap();
        }
    });
    let start = Instant::now();
    for _ in 0..count {
        let (answer, answered) = oneshot::channel();
        sender.send(answer).await.unwrap();
        black_box(answered.await.unwrap());
    }
    let elapsed = start.elapsed();
    drop(sender);
    other.await.unwrap();
    elapsed
}

fn throughput(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1 MiB transfers");
    group.throughput(Throughput::Bytes(MIB as u64));
    let source = vec![7_u8; MIB];
    for (name, runtime) in runtimes() {
        let source = source.clone();
        group.bench_function(format!("device, {name}"), |bencher| {
            bencher.iter_custom(|count| {
                let work = transfers(source.clone(), count);
                runtime.block_on(async { tokio::spawn(work).await.unwrap() })
            });
        });
    }
    group.bench_function("memcpy", |bencher| {
        bencher.iter_custom(|count| {
            let mut buffers = vec![vec![1_u8; MIB]; DEPTH];
            let start = Instant::now();
            for nth in 0..count {
                let buffer = &mut buffers[usize::try_from(nth).unwrap() % DEPTH];
                buffer.copy_from_slice(black_box(&source));
                black_box(&buffer);
            }
            start.elapsed()
        });
    });
    group.finish();
}

/// Copies the source into a device buffer, sends it, and goes on while others are under way.
async fn transfers(source: Vec<u8>, count: u64) -> Duration {
    let pair = Pair::open().await;
    let mut free: Vec<_> = (0..DEPTH).map(|_| pair.server.allocate_buffer(MIB, 0).unwrap()).collect();
    free.iter_mut().for_each(|buffer| buffer.fill(1));
    let mut in_flight = std::collections::VecDeque::new();
    let start = Instant::now();
    for _ in 0..count {
        let mut buffer = match free.pop() {
            Some(buffer) => buffer,
            None => {
                let done: server::Completion =
                    in_flight.pop_front().map(|sent: server::CommandFuture| sent).unwrap().await;
                done.buffer.unwrap()
            }
        };
        buffer.copy_from_slice(black_box(&source));
        in_flight.push_back(pair.device.send(server::Command::write(buffer, MIB)).unwrap());
    }
    while let Some(sent) = in_flight.pop_front() {
        assert!(sent.await.is_success());
    }
    let elapsed = start.elapsed();
    drop(free);
    pair.close().await;
    elapsed
}

criterion_group!(benches, round_trip, throughput);
criterion_main!(benches);
