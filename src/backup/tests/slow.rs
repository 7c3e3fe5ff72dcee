//! Links and stores that take their time: what comes further goes on, and nobody waits for what waits for him.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::ErrorKind;
use crate::backup::store::PartLimits;
use crate::clock::{Clock, SystemClock};
use crate::testing::fault_store::Operation;
use crate::testing::{Fault, FaultStore, Rule};

type Stored<T> = object_store::Result<T>;

/// A store whose bodies come in 20 pieces: each after some time, from a certain one on never.
#[derive(Debug)]
struct Slow {
    memory: InMemory,
    clock: Arc<dyn Clock>,
    each: Duration,
    pieces: usize,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Stored<PutResult> {
        self.memory.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Stored<Box<dyn MultipartUpload>> {
        self.memory.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Stored<GetResult> {
        let found = self.memory.get_opts(path, options).await?;
        let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
        let (body, clock, each) = (found.bytes().await?, Arc::clone(&self.clock), self.each);
        let piece = body.len().div_ceil(20);
        let pieces: Vec<Bytes> = body.chunks(piece).take(self.pieces).map(Bytes::copy_from_slice).collect();
        let is_all = pieces.len() == 20;
        let pieces = stream::iter(pieces).then(move |piece| {
            let waited = clock.sleep(each);
            async move {
                waited.await;
                Ok(piece)
            }
        });
        let end = if is_all { stream::empty().left_stream() } else { stream::pending().right_stream() };
        let payload = GetResultPayload::Stream(pieces.chain(end).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Stored<Path>>) -> BoxStream<'static, Stored<Path>> {
        self.memory.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Stored<ObjectMeta>> {
        self.memory.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Stored<ListResult> {
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Stored<()> {
        self.memory.copy_opts(from, to, options).await
    }
}

/// Reads a document of which so many of 20 pieces come, each after so many seconds; answers how long it took.
async fn read(each: u64, pieces: usize) -> (Result<Bytes>, Duration) {
    let clock = SystemClock::shared();
    let each = Duration::from_secs(each);
    let slow = Slow { memory: InMemory::new(), clock: Arc::clone(&clock), each, pieces };
    let store = Store::new(Arc::new(slow), "");
    store.create("x", noise(1, 2000)).await.unwrap();
    let begun = clock.now();
    (store.read_small("x", 2000).await, clock.now() - begun)
}

#[tokio::test(start_paused = true)]
async fn a_document_may_be_read_for_as_long_as_it_goes_on() {
    for each in [5, 59] {
        let (content, took) = read(each, 20).await;
        assert_eq!((content.unwrap(), took.as_secs()), (noise(1, 2000), 20 * each));
    }
    // It stands still in its middle, each time at the same place.
    let (content, took) = read(5, 10).await;
    assert_eq!(content.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(took <= Duration::from_secs(50 + 90 + 50 + 60), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_document_may_be_written_for_as_long_as_its_size_needs() {
    const RATE: u64 = 200_000;
    for length in [10_000, 12_000_000, 20_000_000] {
        let faults = FaultStore::memory(0).rule(Rule::new(Fault::Bandwidth(RATE)).on(Operation::Put));
        let (store, clock) = (faults.store(), SystemClock::new());
        store.create("x", noise(1, length)).await.unwrap();
        assert_eq!(clock.now().as_secs(), length as u64 / RATE, "in one attempt");
    }
    // One that failed at the end of its time is made again, and a silent store is given up.
    for (times, is_good) in [(1, true), (u64::MAX, false)] {
        let faults = FaultStore::memory(0).rule(Rule::new(Fault::Hang).on(Operation::Put).times(times));
        let (store, clock) = (faults.store(), SystemClock::new());
        store.list("").await.unwrap();
        let created = store.create("x", noise(1, 16 << 20)).await;
        assert_eq!(created.is_ok(), is_good, "{times}: {created:?}");
        assert!(clock.now() <= Duration::from_secs(2 * (60 + 1024) + 10), "{:?}", clock.now());
    }
}

/// A manifest of many segments.
#[tokio::test(start_paused = true)]
async fn a_backup_with_a_large_manifest_is_committed_on_a_slow_link() {
    let late = Rule::new(Fault::Latency(Duration::from_millis(60_500))).on(Operation::Put).path("manifest.json");
    let store = FaultStore::memory(0).rule(late).store();
    let config = PipelineConfig { segment_bytes: 1, ..config() };
    let mut backup = Backup::begin(&store, "orders", options(1).pipeline(config)).await.unwrap();
    backup.stripe_input(0, complete(&vec![0; 500 * (64 << 10)].into())).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    let bytes = manifest.encode().unwrap().len();
    assert!(bytes > 16 << 10, "it has {bytes} bytes, for which a minute is enough");
}

/// On disk a part is placed when another one was seen, and a store without parts of its own takes them in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_request_at_once_no_part_waits_for_a_part_that_waits_for_its_place() {
    let config = PipelineConfig { concurrency: 1, segment_bytes: 1 << 30, ..config() };
    // A little over one part, so that the last one follows the first at once; and some parts.
    for (round, length) in (0..).zip([(64 << 10) + 10, 500_000].into_iter().cycle()).take(40) {
        let directory = tempfile::tempdir().unwrap();
        let mut stores = vec![Store::new(Arc::new(InMemory::new()), "").part_limits(PartLimits::LOCAL)];
        if cfg!(feature = "fs") {
            stores.push(Store::from_url(directory.path().join("root").to_str().unwrap()).unwrap());
        }
        for store in stores {
            let mut backup = Backup::begin(&store, "orders", options(1).pipeline(config.clone())).await.unwrap();
            backup.stripe_input(0, complete(&noise(round, length))).unwrap();
            let progress = backup.commit().await.unwrap().progress;
            assert_eq!(progress.retries, 0, "{store}, round {round}: an attempt came to its end without an answer");
            store.wait_idle().await;
        }
    }
}
