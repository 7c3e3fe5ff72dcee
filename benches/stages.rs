//! The stages of the pipeline, each made the slowest one of a run into a store that keeps nothing, beside the library that it uses.

// A program for people who measure, not a library.
#![allow(missing_docs, clippy::disallowed_methods, clippy::unwrap_used)]

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use vdstream::backup::{Backup, BackupOptions, Restore, RestoreOptions, Store};
use vdstream::buffer::{BufferPool, MemoryBudget};
use vdstream::clock::SystemClock;
use vdstream::pipeline::{Ack, Input, Pipeline, PipelineConfig, SegmentId, SegmentStore, SegmentUpload};
use vdstream::{Error, ErrorKind, Result};

const MIB: usize = 1 << 20;
const TOTAL: usize = 64 * MIB;

/// A store that is infinitely fast and forgets everything.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl SegmentStore for Nowhere {
    fn min_part_bytes(&self) -> u64 {
        1
    }

    fn max_parts(&self) -> u32 {
        10_000
    }

    async fn put(&self, _: SegmentId, _: Vec<Bytes>) -> Result<()> {
        Ok(())
    }

    async fn begin(&self, _: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        Ok(Box::new(Self))
    }

    async fn read(&self, _: SegmentId, _: Range<u64>) -> Result<Bytes> {
        Err(Error::new(ErrorKind::NotFound, "nothing is kept"))
    }
}

#[async_trait]
impl SegmentUpload for Nowhere {
    async fn put_part(&self, _: u32, _: Vec<Bytes>) -> Result<()> {
        Ok(())
    }

    async fn complete(&self, _: u32, _: u64) -> Result<()> {
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        Ok(())
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().enable_all().build().unwrap()
}

/// One stripe of `data` in pieces of `piece` bytes.
fn back_up(runtime: &Runtime, config: &PipelineConfig, data: &Bytes, piece: usize) {
    run(runtime, Pipeline::for_backup(config.clone(), 1, Arc::new(Nowhere), SystemClock::shared()), data, piece);
}

fn run(runtime: &Runtime, pipeline: Result<Pipeline>, data: &Bytes, piece: usize) {
    let pipeline = pipeline.unwrap();
    let pieces: Vec<Result<Input>> =
        (0..data.len()).step_by(piece).map(|at| Ok(Input::Data(data.slice(at..data.len().min(at + piece))))).collect();
    let summary = runtime.block_on(pipeline.backup_stripe(0, stream::iter(pieces))).unwrap();
    assert_eq!(summary.raw_bytes, data.len() as u64);
}

/// Words in an order that a compressor finds about as hard as text.
fn text(len: usize) -> Bytes {
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(format!("{:x} ", (state >> 33) % 4096).as_bytes());
    }
    out.truncate(len);
    out.into()
}

fn noise(len: usize) -> Bytes {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

fn pool(criterion: &mut Criterion) {
    let budget = MemoryBudget::new(16 << 20);
    let pool = BufferPool::new(&budget, MIB, 4).unwrap();
    criterion.bench_function("buffer pool: take a slot and give it back", |bencher| {
        bencher.iter(|| pool.try_acquire().unwrap());
    });
}

/// Zeros cost a compressor next to nothing, so what remains is how the frames come together.
fn framing(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("framing");
    group.sample_size(20).throughput(Throughput::Bytes(TOTAL as u64));
    let zeros = Bytes::from(vec![0; TOTAL]);
    let config = PipelineConfig { depth: 0, level: -7, ..PipelineConfig::default() };
    for piece in [64 << 10, MIB, 4 * MIB] {
        let name = if piece < config.frame_bytes { "copied" } else { "lent" };
        group.bench_with_input(BenchmarkId::new(name, piece), &piece, |bencher, piece| {
            bencher.iter(|| back_up(&runtime, &config, &zeros, *piece));
        });
    }
    group.finish();
}

fn zstd_frames(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("zstd frames");
    group.sample_size(10).throughput(Throughput::Bytes(TOTAL as u64));
    let data = text(TOTAL);
    for frame_bytes in [256 << 10, MIB, 4 * MIB, 16 * MIB] {
        let config = PipelineConfig { depth: 0, threads: 1, frame_bytes, ..PipelineConfig::default() };
        group.bench_with_input(BenchmarkId::new("one thread", frame_bytes), &config, |bencher, config| {
            bencher.iter(|| back_up(&runtime, config, &data, config.frame_bytes));
        });
        group.bench_with_input(BenchmarkId::new("zstd alone", frame_bytes), &frame_bytes, |bencher, frame_bytes| {
            let mut context = zstd::bulk::Compressor::new(3).unwrap();
            context.include_checksum(true).unwrap();
            let mut out = vec![0; zstd::zstd_safe::compress_bound(*frame_bytes)];
            bencher.iter(|| {
                data.chunks(*frame_bytes)
                    .map(|frame| context.compress_to_buffer(frame, &mut out).unwrap())
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

/// The in-order stage: what a second thread brings.
fn reorder(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("reorder");
    group.sample_size(10).throughput(Throughput::Bytes(TOTAL as u64));
    let data = text(TOTAL);
    for threads in [1, 2] {
        let config = PipelineConfig { depth: 0, threads, ..PipelineConfig::default() };
        group.bench_with_input(BenchmarkId::new("threads", threads), &config, |bencher, config| {
            bencher.iter(|| back_up(&runtime, config, &data, config.frame_bytes));
        });
    }
    group.finish();
}

/// Noise is stored as it is, and hashed twice: what went in and what is stored.
fn hashing(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("hashing");
    group.sample_size(20).throughput(Throughput::Bytes(TOTAL as u64));
    let data = noise(TOTAL);
    let config = PipelineConfig { depth: 0, level: -7, threads: 1, ..PipelineConfig::default() };
    group.bench_function("noise, one thread", |bencher| {
        bencher.iter(|| back_up(&runtime, &config, &data, config.frame_bytes));
    });
    group.bench_function("BLAKE3 alone, once", |bencher| bencher.iter(|| blake3::hash(&data)));
    group.finish();
}

/// The same as above with every part sealed for one public key, beside what seals alone.
#[cfg(feature = "encryption")]
fn sealing(criterion: &mut Criterion) {
    use chacha20poly1305::aead::AeadInPlace as _;
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
    use vdstream::pipeline::Recipients;

    let runtime = runtime();
    let mut recipients = Recipients::new();
    recipients.add("age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj").unwrap();
    let mut group = criterion.benchmark_group("sealing");
    group.sample_size(20).throughput(Throughput::Bytes(TOTAL as u64));
    let data = noise(TOTAL);
    for threads in [1, 2] {
        let config = PipelineConfig { depth: 0, level: -7, threads, ..PipelineConfig::default() };
        group.bench_function(BenchmarkId::new("plain", threads), |bencher| {
            bencher.iter(|| back_up(&runtime, &config, &data, config.frame_bytes));
        });
        group.bench_function(BenchmarkId::new("sealed", threads), |bencher| {
            bencher.iter(|| {
                let (store, clock) = (Arc::new(Nowhere), SystemClock::shared());
                let pipeline = Pipeline::for_encrypted_backup(config.clone(), 1, store, clock, recipients.clone());
                run(&runtime, pipeline, &data, config.frame_bytes);
            });
        });
    }
    group.bench_function("ChaCha20-Poly1305 alone", |bencher| {
        let cipher = ChaCha20Poly1305::new(&[7; 32].into());
        let mut chunk = data[..64 << 10].to_vec();
        bencher.iter(|| {
            for number in 0..TOTAL / chunk.len() {
                let mut nonce = [0; 12];
                nonce[..8].copy_from_slice(&number.to_le_bytes());
                cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), &[], &mut chunk).unwrap();
            }
        });
    });
    group.finish();
}

#[cfg(not(feature = "encryption"))]
fn sealing(_: &mut Criterion) {}

/// From devices to local disk and back, with every sync.
fn local(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::from_url(&format!("file://{}", directory.path().display())).unwrap();
    let mut group = criterion.benchmark_group("local round trip");
    group.sample_size(10);
    for size in [1 << 10, 64 * MIB] {
        let data = text(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &data, |bencher, data| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let mut backup = Backup::begin(&store, "bench", BackupOptions::default()).await.unwrap();
                    let items = [Ok(Input::Data(data.clone())), Ok(Input::Complete(Ack::new(|_durable| {})))];
                    backup.stripe_input(0, stream::iter(items)).unwrap();
                    let manifest = backup.commit().await.unwrap().manifest;
                    let restore = Restore::begin(&store, &manifest, RestoreOptions::default()).unwrap();
                    let mut pieces = std::pin::pin!(restore.stripe(0));
                    let mut count = 0;
                    while let Some(piece) = pieces.next().await {
                        count += piece.unwrap().len();
                    }
                    assert_eq!(count, data.len());
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pool, framing, zstd_frames, hashing, sealing, reorder, local);
criterion_main!(benches);
