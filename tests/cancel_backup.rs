//! Every future of a backup and of a restore, dropped after every step: nothing is visible that should not be, no upload
//! stays open, no memory counted, no task running, no name in the hub.

#![allow(clippy::disallowed_methods, clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test may")]

mod cut_support;

use std::time::Duration;

use bytes::Bytes;
use cut_support::{Cut, Gate, all_arrived, at_every_step, cut, quiet};
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use vdstream::backup::collection::{self, CollectionReport};
use vdstream::backup::doctor;
use vdstream::backup::retention::{self, DeletionReport, Descendants, RetentionPolicy};
use vdstream::backup::{
    self, Backup, BackupOptions, Manifest, Restore, RestoreOptions, ResumeOptions, Select, Series, Store, VerifyLevel,
    VerifyOptions,
};
use vdstream::buffer::MemoryBudget;
use vdstream::pipeline::{Ack, Input, PipelineConfig};
use vdstream::stream::{DeviceReader, DeviceWriter};
use vdstream::vdi::{Config, Features, LocalHub, ServerConfig, Transport, client, server};
use vdstream::{Error, ErrorKind, Result};

/// Two segments: the first in several parts, the second in one put.
const BYTES: usize = 300_000;

fn config() -> PipelineConfig {
    PipelineConfig {
        memory_limit: 64 << 20,
        transfer_bytes: 64 << 10,
        frame_bytes: 64 << 10,
        part_bytes: 64 << 10,
        segment_bytes: 200_000,
        threads: 1,
        concurrency: 2,
        ..PipelineConfig::default()
    }
}

fn options(stripes: u16) -> BackupOptions {
    BackupOptions::default().stripes(stripes).pipeline(config())
}

fn series() -> Series {
    "orders".parse().unwrap()
}

/// Bytes that do not compress.
fn content(stripe: u16) -> Bytes {
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().update(&stripe.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn source(stripe: u16) -> impl Stream<Item = Result<Input>> + Send + 'static {
    let pieces: Vec<Bytes> = content(stripe).chunks(50_000).map(Bytes::copy_from_slice).collect();
    let end = Input::Complete(Ack::new(|_durable| {}));
    stream::iter(pieces.into_iter().map(Input::Data).chain([end]).map(Ok))
}

/// A backup of two stripes that both have their whole input.
async fn begun(store: &Store) -> Backup {
    let mut backup = Backup::begin(store, "orders", options(2)).await.unwrap();
    for stripe in 0..2 {
        backup.stripe_input(stripe, source(stripe)).unwrap();
    }
    backup
}

async fn committed(store: &Store) -> Manifest {
    begun(store).await.commit().await.unwrap().manifest
}

fn given_up() -> Error {
    Error::new(ErrorKind::Denied, "the test gives up")
}

/// Restores everything and compares.
async fn is_whole(store: &Store, manifest: &Manifest) {
    for stripe in 0..u16::try_from(manifest.stripes.len()).unwrap() {
        let mut bytes = Vec::new();
        Restore::begin(store, manifest, RestoreOptions::default().pipeline(config()))
            .unwrap()
            .write_to(stripe, &mut bytes)
            .await
            .unwrap();
        assert!(bytes == content(stripe), "stripe {stripe} is not what was written");
    }
}

/// Lets everything end. Then nothing is there but, if `may_exist`, a backup that is whole. True if there is one.
async fn settled(gate: &Gate, store: &Store, may_exist: bool) -> bool {
    gate.open();
    store.wait_idle().await;
    // Requests that were given up may still have their effect.
    all_arrived().await;
    assert_eq!(gate.uploads(), 0, "uploads are left");
    assert!(store.take_leftovers().is_none(), "the clean-up failed");
    let listing = backup::list(store, None).await.unwrap();
    assert_eq!((listing.uncommitted.len(), listing.damaged.len()), (0, 0));
    if listing.backups.is_empty() {
        assert_eq!(gate.names().await, [""; 0], "objects are left");
        return false;
    }
    assert!(may_exist, "a backup is visible that nobody committed");
    let manifest = backup::find(store, &series(), Select::Latest).await.unwrap();
    is_whole(store, &manifest).await;
    let expected = manifest.segments() + 2;
    assert_eq!(gate.names().await.len(), expected, "segments, the intent and the manifest, and nothing else");
    true
}

fn assert_free(budget: &MemoryBudget) {
    assert_eq!((budget.used(), budget.reserved()), (0, 0), "memory is still counted");
}

#[tokio::test(start_paused = true)]
async fn begin() {
    at_every_step("Backup::begin", 2, async |at| {
        let (gate, store) = Gate::new();
        gate.shut();
        let begun = cut(&gate, at, Backup::begin(&store, "orders", options(2))).await;
        let is_ready = begun.is_some();
        drop(begun);
        if at.lingers {
            // A first request that hangs is not waited for. It may still arrive, and a collection finds the intent.
            gate.open();
            store.wait_idle().await;
            all_arrived().await;
            assert_eq!(gate.uploads(), 0);
            let names = gate.names().await;
            assert!(names.iter().all(|name| name.ends_with("/intent.json")));
            assert!(names.is_empty() || store.take_leftovers().is_some(), "an intent is left, and nobody is told");
        } else {
            assert!(!settled(&gate, &store, false).await);
        }
        is_ready
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn resuming() {
    let at_once = || ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
    at_every_step("Backup::resume", 5, async |at| {
        let (gate, store) = Gate::new();
        let mut first = begun(&store).await;
        let id = first.id();
        first.wait_stripes().await.unwrap();
        // As a process that has died: it never ends the backup.
        std::mem::forget(first);
        gate.shut();
        let resumed = cut(&gate, at, Backup::resume(&store, "orders", id, at_once())).await;
        let is_ready = resumed.is_some();
        drop(resumed);
        gate.open();
        store.wait_idle().await;
        all_arrived().await;
        let mut again = Backup::resume(&store, "orders", id, at_once()).await.unwrap();
        for stripe in 0..2 {
            again.replay(stripe).unwrap();
            again.stripe_input(stripe, source(stripe)).unwrap();
        }
        let manifest = again.commit().await.unwrap().manifest;
        store.wait_idle().await;
        assert_eq!(gate.uploads(), 0, "uploads are left");
        is_whole(&store, &manifest).await;
        is_ready
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn wait_stripes() {
    // The stripes go on: another wait sees their end, or the backup is dropped in the middle of them.
    for commits in [true, false] {
        at_every_step("Backup::wait_stripes", 20, async |at| {
            let (gate, store) = Gate::new();
            let mut backup = begun(&store).await;
            let budget = backup.pipeline().budget().clone();
            gate.shut();
            let waited = cut(&gate, at, backup.wait_stripes()).await;
            if commits {
                gate.open();
                backup.wait_stripes().await.unwrap();
                backup.commit().await.unwrap();
            } else {
                drop(backup);
            }
            assert_eq!(settled(&gate, &store, commits).await, commits);
            assert_free(&budget);
            waited.is_some()
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn commit() {
    let mut outcomes = [0, 0];
    at_every_step("Backup::commit", 20, async |at| {
        let (gate, store) = Gate::new();
        let backup = begun(&store).await;
        let (id, budget) = (backup.id(), backup.pipeline().budget().clone());
        gate.shut();
        let report = cut(&gate, at, backup.commit()).await;
        let exists = settled(&gate, &store, true).await;
        assert!(exists || report.is_none(), "committed and not there");
        assert_eq!(backup::find(&store, &series(), Select::Id(id)).await.is_ok(), exists, "the catalog tells");
        assert_free(&budget);
        outcomes[usize::from(exists)] += 1;
        report.is_some()
    })
    .await;
    assert!(outcomes.iter().all(|count| *count > 2), "both outcomes were seen: {outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn abort() {
    // Begun at every stage of the stripes, given up after every step.
    for progress in [0, 5, 10, 100] {
        at_every_step("Backup::abort", 3, async |at| {
            let (gate, store) = Gate::new();
            let mut backup = begun(&store).await;
            let budget = backup.pipeline().budget().clone();
            gate.shut();
            let _so_far = cut(&gate, Cut::after(progress), backup.wait_stripes()).await;
            let aborted = cut(&gate, at, backup.abort(given_up())).await;
            assert!(!settled(&gate, &store, false).await);
            assert_free(&budget);
            aborted.is_some()
        })
        .await;
    }
}

/// The clean-up waits for a segment that is on its way: else it would arrive after everything was removed.
#[tokio::test(start_paused = true)]
async fn a_segment_that_nobody_waits_for_any_more() {
    let (gate, store) = Gate::new();
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    gate.shut();
    let end = Input::Complete(Ack::new(|_durable| {}));
    let small = Input::Data(content(0).slice(..50_000));
    backup.stripe_input(0, stream::iter([small, end].map(Ok))).unwrap();
    quiet().await;
    assert_eq!(gate.waiting(), 1, "the only segment is being put");
    drop(backup);
    quiet().await;
    assert_eq!(gate.waiting(), 1, "the clean-up lists before the segment is there");
    assert!(!settled(&gate, &store, false).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_to_a_writer() {
    at_every_step("take_writers", 12, async |at| {
        let (gate, store) = Gate::new();
        let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
        let budget = backup.pipeline().budget().clone();
        let mut writer = backup.take_writers().unwrap().remove(0);
        gate.shut();
        let written = cut(&gate, at, async move {
            writer.write_all(&content(0)).await?;
            writer.shutdown().await
        })
        .await;
        let is_ready = written.is_some();
        gate.open();
        match backup.commit().await {
            Ok(_) => assert!(is_ready, "a part was taken for the whole"),
            Err(error) => {
                let told = error.report();
                // The commit may look before the stripe has seen its writer go.
                assert!(told.contains("dropped before its end") || told.contains("was not shut down"), "{told}");
            }
        }
        assert_eq!(settled(&gate, &store, true).await, is_ready);
        assert_free(&budget);
        is_ready
    })
    .await;
}

/// The engine's side of a set: it writes `content(0)` and shuts down, or reads everything.
fn engine(hub: &LocalHub, direction: Features) -> JoinHandle<std::io::Result<Vec<u8>>> {
    let hub = hub.clone();
    tokio::spawn(async move {
        let set = server::DeviceSet::open(&hub, "nightly").await.map_err(Error::from)?;
        let features = direction | Features::COMPLETE_ENABLED;
        set.begin_configuration(ServerConfig { features, ..ServerConfig::default() }).map_err(Error::from)?;
        set.request_buffers(65_536, 0, 2).map_err(Error::from)?;
        set.end_configuration().await.map_err(Error::from)?;
        let agent = set.completion_agent();
        let work = async {
            let device = set.open_device().map_err(Error::from)?;
            let mut bytes = Vec::new();
            if direction == Features::WRITE_MEDIA {
                let mut writer = DeviceWriter::new(&set, device, 2)?;
                writer.write_all(&content(0)).await?;
                writer.shutdown().await?;
            } else {
                DeviceReader::new(&set, device, 2)?.read_to_end(&mut bytes).await?;
            }
            Ok(bytes)
        };
        let (worked, _ended) = tokio::join!(work, agent);
        worked
    })
}

#[tokio::test(start_paused = true)]
async fn serving_an_engine_that_backs_up() {
    at_every_step("Backup::serve", 20, async |at| {
        let ((gate, store), hub) = (Gate::new(), LocalHub::new());
        let features = Features::PIPE | Features::REQUEST_COMPLETE;
        let set = client::DeviceSet::create(&hub, "nightly", Config { features, ..Config::pipe(1) }).unwrap();
        let backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
        let budget = backup.pipeline().budget().clone();
        let engine = engine(&hub, Features::WRITE_MEDIA);
        gate.shut();
        let served = cut(&gate, at, backup.serve(set)).await;
        let exists = settled(&gate, &store, true).await;
        let written = engine.await.unwrap();
        match &served {
            Some(report) => assert!(report.is_ok() && exists),
            None => assert!(written.is_ok() || !exists, "committed, and the engine was told that it failed"),
        }
        if let Err(error) = written {
            let error = Error::from(error).report();
            // Either the set was aborted, or it was gone before the engine came.
            assert!(error.contains("drop") || error.contains("no device set"), "{error}");
        }
        assert_eq!(hub.names(), [""; 0]);
        assert_free(&budget);
        served.is_some()
    })
    .await;
}

fn restore(store: &Store, manifest: &Manifest) -> Restore {
    Restore::begin(store, manifest, RestoreOptions::default().pipeline(config())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn serving_an_engine_that_restores() {
    let (gate, store) = Gate::new();
    let mut backup = Backup::begin(&store, "orders", options(1)).await.unwrap();
    backup.stripe_input(0, source(0)).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    at_every_step("Restore::serve", 8, async |at| {
        let hub = LocalHub::new();
        let set = client::DeviceSet::create(&hub, "nightly", Config::pipe(1)).unwrap();
        let restore = restore(&store, &manifest);
        let budget = restore.pipeline().budget().clone();
        let engine = engine(&hub, Features::READ_MEDIA);
        gate.shut();
        let served = cut(&gate, at, restore.serve(set)).await;
        gate.open();
        let read = engine.await.unwrap();
        match (&served, read) {
            (Some(served), read) => assert!(served.is_ok() && read.unwrap() == content(0)),
            (None, Ok(read)) => assert!(read == content(0), "a part was taken for the whole"),
            (None, Err(_told)) => {}
        }
        quiet().await;
        assert_eq!(hub.names(), [""; 0]);
        assert_free(&budget);
        served.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn writing_a_stripe_out() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    at_every_step("Restore::write_to", 8, async |at| {
        let restore = restore(&store, &manifest);
        let budget = restore.pipeline().budget().clone();
        let mut bytes = Vec::new();
        gate.shut();
        let written = cut(&gate, at, restore.write_to(1, &mut bytes)).await;
        gate.open();
        assert!(content(1).starts_with(&bytes), "no wrong byte comes first");
        restore.pipeline().wait_idle().await;
        // The same restore can be asked again, from the start.
        let mut again = Vec::new();
        assert_eq!(restore.write_to(1, &mut again).await.unwrap(), BYTES as u64);
        assert!(again == content(1));
        drop(restore);
        assert_free(&budget);
        written.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_stripe() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    at_every_step("Restore::stripe", 8, async |at| {
        let restore = restore(&store, &manifest);
        let budget = restore.pipeline().budget().clone();
        let mut frames = Box::pin(restore.stripe(0));
        let mut bytes = Vec::new();
        gate.shut();
        // Each wait for an item is dropped after one poll; no item is lost by that.
        let read = cut(&gate, at, async {
            loop {
                match frames.next().now_or_never() {
                    Some(Some(frame)) => bytes.extend_from_slice(&frame.unwrap()),
                    Some(None) => break,
                    None => futures::pending!(),
                }
            }
        })
        .await;
        gate.open();
        drop(frames);
        assert!(content(0).starts_with(&bytes));
        assert!(read.is_none() || bytes.len() == BYTES);
        // Waiting for what is left behind may be given up and taken up again.
        let _either = cut(&gate, Cut::after(1), restore.pipeline().wait_idle()).await;
        restore.pipeline().wait_idle().await;
        drop(restore);
        assert_free(&budget);
        read.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn finishing_the_readers() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    at_every_step("Restore::finish", 8, async |at| {
        let mut restore = restore(&store, &manifest);
        let budget = restore.pipeline().budget().clone();
        let readers = restore.take_readers().unwrap();
        let read: Vec<JoinHandle<Vec<u8>>> = readers
            .into_iter()
            .map(|mut reader| {
                tokio::spawn(async move {
                    let mut bytes = Vec::new();
                    reader.read_to_end(&mut bytes).await.unwrap();
                    bytes
                })
            })
            .collect();
        gate.shut();
        let finished = cut(&gate, at, restore.finish()).await;
        gate.open();
        for (stripe, read) in (0..).zip(read) {
            assert!(read.await.unwrap() == content(stripe), "the readers go on");
        }
        store.wait_idle().await;
        assert_free(&budget);
        finished.map(Result::unwrap).is_some()
    })
    .await;
}

/// Drops a call that only reads after every step; afterwards everything is as it was, and the same call gives `expected`.
async fn only_reads<T>(
    name: &str,
    least: usize,
    gate: &Gate,
    call: impl AsyncFn() -> Result<T>,
    expected: impl Fn(&T) -> bool,
) {
    let before = gate.names().await;
    at_every_step(name, least, async |at| {
        gate.shut();
        let output = cut(gate, at, call()).await;
        gate.open();
        quiet().await;
        assert_eq!((gate.names().await, gate.uploads()), (before.clone(), 0), "{name} changed something");
        assert!(expected(&call().await.unwrap()), "{name} gives something else after it was dropped");
        output.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_only_read() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    let (series, id) = (series(), manifest.id);
    let verify = |level| backup::verify(&store, &manifest, VerifyOptions::new(level).pipeline(config()).record(false));
    only_reads("list", 3, &gate, async || backup::list(&store, None).await, |listing| listing.backups.len() == 1).await;
    only_reads("series_of", 2, &gate, async || backup::series_of(&store).await, |all| *all == [series.clone()]).await;
    let find = async || backup::find(&store, &series, Select::Latest).await;
    only_reads("find", 3, &gate, find, |found| found.id == id).await;
    let latest = async || backup::latest(&store, &series).await;
    only_reads("latest", 3, &gate, latest, |found| found.manifest.id == id).await;
    let intent = async || backup::intent(&store, &series, id).await;
    only_reads("intent", 2, &gate, intent, |intent| intent.id == id).await;
    let verifications = async || backup::verifications(&store, &manifest).await;
    only_reads("verifications", 1, &gate, verifications, |found| found.is_empty()).await;
    let standing = async || backup::standing(&store, &manifest).await;
    only_reads("standing", 1, &gate, standing, |found| found.verified.is_none()).await;
    let policy = RetentionPolicy::new().keep_last(1);
    let plan = async || retention::plan(&store, &series, &policy).await;
    only_reads("plan", 3, &gate, plan, |plan| plan.kept().count() == 1).await;
    let plan = async || retention::plan_deletion(&store, &series, id, Descendants::Refuse).await;
    only_reads("plan_deletion", 3, &gate, plan, |plan| plan.removed().count() == 1).await;
    let plan = async || collection::plan(&store, None, Duration::ZERO).await;
    only_reads("collection::plan", 4, &gate, plan, |plan| plan.leftovers.is_empty()).await;
    for (level, least) in [(VerifyLevel::Quick, 1), (VerifyLevel::Stored, 8), (VerifyLevel::Full, 16)] {
        only_reads("verify", least, &gate, async || verify(level).await, |report| report.is_good()).await;
    }
}

/// The record of a verification is there or not; a second verification adds its own.
#[tokio::test(start_paused = true)]
async fn verifying_on_record() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    let verify = || backup::verify(&store, &manifest, VerifyOptions::new(VerifyLevel::Quick).pipeline(config()));
    at_every_step("verify, on record", 3, async |at| {
        let before = backup::verifications(&store, &manifest).await.unwrap().len();
        gate.shut();
        let verified = cut(&gate, at, verify()).await;
        gate.open();
        all_arrived().await;
        let after = backup::verifications(&store, &manifest).await.unwrap().len();
        assert!(after == before + 1 || (after == before && verified.is_none()));
        assert!(verify().await.unwrap().is_good());
        verified.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleting_by_a_plan() {
    at_every_step("retention::apply", 4, async |at| {
        let (gate, store) = Gate::new();
        let manifest = committed(&store).await;
        let (series, id) = (series(), manifest.id);
        let plan = retention::plan_deletion(&store, &series, id, Descendants::Refuse).await.unwrap();
        gate.shut();
        let mut report = DeletionReport::default();
        let applied = cut(&gate, at, retention::apply(&store, &plan, &mut report)).await;
        gate.open();
        all_arrived().await;
        match backup::find(&store, &series, Select::Id(id)).await {
            Ok(manifest) => {
                assert!(applied.is_none() && report.deleted.is_empty());
                is_whole(&store, &manifest).await;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(report.deleted == [id] || report.in_doubt == Some(id), "{report:?}");
            }
        }
        retention::apply(&store, &plan, &mut report).await.unwrap();
        assert_eq!((&report.deleted[..], report.in_doubt), (&[id][..], None));
        assert_eq!(backup::list(&store, None).await.unwrap().backups.len(), 0, "the same plan can be applied again");
        applied.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn collecting_what_is_left() {
    at_every_step("collection::apply", 8, async |at| {
        let (gate, store) = Gate::new();
        let kept = committed(&store).await;
        let manifest = committed(&store).await;
        let (series, id) = (series(), manifest.id);
        let deletion = retention::plan_deletion(&store, &series, id, Descendants::Refuse).await.unwrap();
        retention::apply(&store, &deletion, &mut DeletionReport::default()).await.unwrap();
        let plan = collection::plan(&store, None, Duration::ZERO).await.unwrap();
        assert_eq!(plan.removed().count(), 1);
        gate.shut();
        let mut report = CollectionReport::default();
        let applied = cut(&gate, at, collection::apply(&store, &plan, &mut report)).await;
        gate.open();
        all_arrived().await;
        is_whole(&store, &kept).await;
        // The same plan can be applied again, and then a new one finds what the cut has left behind.
        collection::apply(&store, &plan, &mut report).await.unwrap();
        let rest = collection::plan(&store, None, Duration::ZERO).await.unwrap();
        collection::apply(&store, &rest, &mut report).await.unwrap();
        assert_eq!(gate.names().await.len(), kept.segments() + 2, "only the other backup is there");
        applied.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn asking_whether_a_store_keeps_create_only() {
    at_every_step("Store::create_only", 4, async |at| {
        let (gate, store) = Gate::new();
        gate.shut();
        let answered = cut(&gate, at, store.create_only()).await;
        gate.open();
        quiet().await;
        for name in gate.names().await {
            assert!(answered.is_none() && name.starts_with(".vdstream/probe-"), "{name} stays");
        }
        assert_eq!(backup::list(&store, None).await.unwrap().backups, []);
        assert!(store.create_only().await.unwrap(), "and the answer is found out later");
        answered.is_some()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_store() {
    at_every_step("Store::wait_idle", 5, async |at| {
        let (gate, store) = Gate::new();
        let mut backup = begun(&store).await;
        gate.shut();
        let _so_far = cut(&gate, Cut::after(8), backup.wait_stripes()).await;
        drop(backup);
        let waited = cut(&gate, at, store.wait_idle()).await;
        assert!(waited.is_none() || gate.names().await.is_empty(), "idle too early");
        assert!(!settled(&gate, &store, false).await, "the work goes on without the wait");
        waited.is_some()
    })
    .await;
}

/// What may stay is small, hidden, and no backup; the next trial is whole.
#[tokio::test(start_paused = true)]
async fn trying_a_store() {
    let (gate, store) = Gate::new();
    let manifest = committed(&store).await;
    at_every_step("doctor::examine", 12, async |at| {
        gate.shut();
        let diagnosis = cut(&gate, at, doctor::examine(&store)).await;
        gate.open();
        all_arrived().await;
        assert_eq!(backup::list(&store, None).await.unwrap().backups.len(), 1);
        is_whole(&store, &manifest).await;
        assert!(doctor::examine(&store).await.is_good());
        diagnosis.is_some()
    })
    .await;
}

#[cfg(feature = "encryption")]
#[tokio::test(start_paused = true)]
async fn unlocking_a_backup() {
    use vdstream::pipeline::Passphrase;

    let (gate, store) = Gate::new();
    let options = BackupOptions::default().pipeline(config()).passphrase(Passphrase::new("open sesame").unwrap());
    let mut backup = Backup::begin(&store, "orders", options).await.unwrap();
    backup.stripe_reader(0, std::io::Cursor::new(b"rows".to_vec())).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    let passphrase = Passphrase::new("open sesame").unwrap();
    let unlock = async || backup::unlock(&store, &manifest, &passphrase).await;
    only_reads("unlock", 1, &gate, unlock, |identities| !identities.is_empty()).await;
}
