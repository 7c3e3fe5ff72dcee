//! What the manual's page on observing says about spans and metrics is what backups, restores, verifications, deletions and collections
//! tell.

#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use object_store::memory::InMemory;
use vdstream::backup::retention::{self, Descendants};
use vdstream::backup::store::PartLimits;
use vdstream::backup::{
    self, Backup, BackupId, BackupOptions, Restore, RestoreOptions, ResumeOptions, Store, VerifyLevel, VerifyOptions,
};
use vdstream::backup::{collection, doctor};
use vdstream::pipeline::{Ack, Input, PipelineConfig};
use vdstream::testing::fault_store::Operation;
use vdstream::testing::{Fault, FaultStore, Rule};
use vdstream::{Error, ErrorKind};

const STRIPE_BYTES: usize = 300_000;

fn config() -> PipelineConfig {
    PipelineConfig {
        memory_limit: 64 << 20,
        frame_bytes: 64 << 10,
        part_bytes: 64 << 10,
        threads: 1,
        ..PipelineConfig::default()
    }
}

fn noise(stripe: u8) -> Bytes {
    let mut bytes = vec![0; STRIPE_BYTES];
    blake3::Hasher::new().update(&[stripe]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn begun(store: &Store) -> Backup {
    let options = BackupOptions::default().stripes(2).pipeline(config());
    let mut backup = Backup::begin(store, "orders", options).await.unwrap();
    for stripe in 0..2_u8 {
        let end = Input::Complete(Ack::new(|_durable| {}));
        let source = stream::iter([Input::Data(noise(stripe)), end].map(Ok));
        backup.stripe_input(u16::from(stripe), source).unwrap();
    }
    backup
}

/// A store with a backup of one stripe, all of it durable, whose process ended before the commit. That process runs on a thread
/// of its own, before anybody notes what is told.
fn interrupted() -> (Arc<InMemory>, BackupId) {
    let process = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let memory = Arc::new(InMemory::new());
        let store = Store::with_multipart(Arc::<InMemory>::clone(&memory), Arc::<InMemory>::clone(&memory), "")
            .part_limits(PartLimits::LOCAL);
        let backup = runtime.block_on(async {
            let options = BackupOptions::default().pipeline(config());
            let mut backup = Backup::begin(&store, "orders", options).await.unwrap();
            let (durable, is_durable) = futures::channel::oneshot::channel();
            let flush = Input::Flush(Ack::new(move |outcome| durable.send(outcome).unwrap()));
            let source = stream::iter([Input::Data(noise(0)), flush].map(Ok)).chain(stream::pending());
            backup.stripe_input(0, source).unwrap();
            is_durable.await.unwrap().unwrap();
            backup
        });
        let id = backup.id();
        // First the runtime, so that nothing is left which could clean up.
        drop(runtime);
        drop(backup);
        (memory, id)
    };
    std::thread::spawn(process).join().unwrap()
}

/// What was worked on: stored bytes of the backup that was committed, those that were kept of the one that was resumed, and what
/// was collected.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only numbers are compared with it"))]
struct Done {
    stored: u64,
    kept: u64,
    collected: collection::CollectionReport,
}

/// One of each: a backup whose store is busy at first, one that is given up, a restore, verifications, a backup that is resumed and
/// one that cannot be, a deletion, a collection, a look at the store.
async fn work((memory, id): (Arc<InMemory>, BackupId)) -> Done {
    let faults = FaultStore::new(Arc::<InMemory>::clone(&memory), memory, 1);
    faults.add(Rule::new(Fault::SlowDown).on(Operation::Part).times(1));
    let store = faults.store();
    let manifest = begun(&store).await.commit().await.unwrap().manifest;
    begun(&store).await.abort(Error::new(ErrorKind::Aborted, "not wanted")).await.unwrap();

    let restore = Restore::begin(&store, &manifest, RestoreOptions::default().pipeline(config())).unwrap();
    for stripe in 0..2 {
        let bytes = restore.write_to(stripe, &mut tokio::io::sink()).await.unwrap();
        assert_eq!(bytes, STRIPE_BYTES as u64);
    }
    drop(restore);
    for level in [VerifyLevel::Stored, VerifyLevel::Full] {
        let options = VerifyOptions::new(level).pipeline(config());
        assert!(backup::verify(&store, &manifest, options).await.unwrap().is_good());
    }
    let options = || ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
    let mut resumed = Backup::resume(&store, "orders", id, options()).await.unwrap();
    assert_eq!(resumed.offsets(), [STRIPE_BYTES as u64]);
    let end = Input::Complete(Ack::new(|_durable| {}));
    resumed.stripe_input(0, stream::iter([Ok(end)])).unwrap();
    let kept = resumed.commit().await.unwrap().manifest.stored_bytes();
    Backup::resume(&store, "orders", id, options()).await.unwrap_err();

    let plan = retention::plan_deletion(&store, &manifest.series, manifest.id, Descendants::Refuse).await.unwrap();
    retention::apply(&store, &plan, &mut Default::default()).await.unwrap();
    let plan = collection::plan(&store, None, Duration::ZERO).await.unwrap();
    let mut collected = collection::CollectionReport::default();
    collection::apply(&store, &plan, &mut collected).await.unwrap();
    assert!(doctor::examine(&store).await.is_good());
    store.wait_idle().await;
    Done { stored: manifest.stored_bytes(), kept, collected }
}

/// The rows of the table whose first column is `first`: each cell, without its marks.
fn table(first: &str) -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/observing.md")).unwrap();
    let lines = page.lines().skip_while(|line| !line.starts_with(&format!("| {first} |"))).skip(2);
    let rows = lines.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between backticks in a cell.
fn names(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

mod spans {
    use std::sync::{Arc, Mutex};

    use tracing::span::{Attributes, Id};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
    use tracing_subscriber::registry::LookupSpan;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct Seen {
        level: String,
        within: BTreeSet<String>,
        fields: BTreeSet<String>,
    }

    #[derive(Clone, Default)]
    struct Notebook(Arc<Mutex<BTreeMap<String, Seen>>>);

    impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notebook {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            let metadata = attributes.metadata();
            if !metadata.target().starts_with("vdstream") {
                return;
            }
            let parent = context.span(id).unwrap().parent().map(|parent| parent.name().to_owned());
            let mut notes = self.0.lock().unwrap();
            let seen = notes.entry(metadata.name().to_owned()).or_default();
            seen.level = metadata.level().to_string().to_lowercase();
            seen.within.insert(parent.unwrap_or_else(|| "nothing".to_owned()));
            seen.fields.extend(metadata.fields().iter().map(|field| field.name().to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_spans_are_those_of_the_manual() {
        let (notebook, before) = (Notebook::default(), interrupted());
        let subscriber = tracing_subscriber::registry().with(notebook.clone());
        {
            let _guard = tracing::subscriber::set_default(subscriber);
            let caller = tracing::info_span!(target: "caller", "caller");
            tracing::Instrument::instrument(work(before), caller).await;
        }
        let expected: BTreeMap<String, Seen> = table("span")
            .into_iter()
            .map(|row| {
                let [name, level, within, fields, _] = <[String; 5]>::try_from(row).unwrap();
                let within =
                    if within == "the caller's" { BTreeSet::from(["caller".to_owned()]) } else { names(&within) };
                (names(&name).pop_first().unwrap(), Seen { level, within, fields: names(&fields) })
            })
            .collect();
        assert!(expected.len() >= 8);
        assert_eq!(*notebook.0.lock().unwrap(), expected);
    }
}

#[cfg(feature = "metrics")]
mod numbers {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        Unit,
    };

    use super::*;

    /// One metric: its kind, its unit, and its series by their labels.
    #[derive(Default)]
    struct Metric {
        kind: String,
        unit: String,
        what: String,
        series: BTreeMap<Vec<(String, String)>, Arc<Value>>,
    }

    /// What was recorded: a sum, or the last value; times in microseconds.
    #[derive(Default)]
    struct Value {
        sum: AtomicU64,
        records: AtomicU64,
    }

    impl Value {
        fn add(&self, value: f64) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "numbers of a small test")]
            self.sum.fetch_add(value as i64 as u64, Ordering::Relaxed);
            self.records.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl CounterFn for Value {
        fn increment(&self, value: u64) {
            self.sum.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, _value: u64) {
            panic!("nobody sets a counter");
        }
    }

    impl GaugeFn for Value {
        fn increment(&self, value: f64) {
            self.add(value);
        }

        fn decrement(&self, value: f64) {
            self.add(-value);
        }

        fn set(&self, _value: f64) {
            panic!("nobody sets a gauge, which several may share");
        }
    }

    impl HistogramFn for Value {
        fn record(&self, value: f64) {
            self.add(value * 1e6);
        }
    }

    #[derive(Clone, Default)]
    struct Notebook(Arc<Mutex<BTreeMap<String, Metric>>>);

    impl Notebook {
        fn describe(&self, kind: &str, key: &KeyName, unit: Option<Unit>, what: &SharedString) {
            let mut notes = self.0.lock().unwrap();
            let metric = notes.entry(key.as_str().to_owned()).or_default();
            (metric.kind, metric.what) = (kind.to_owned(), what.to_string());
            metric.unit = unit.unwrap().as_str().to_owned();
        }

        fn value(&self, kind: &str, key: &Key) -> Arc<Value> {
            let mut notes = self.0.lock().unwrap();
            let metric = notes.get_mut(key.name()).unwrap_or_else(|| panic!("{} was not described", key.name()));
            assert_eq!(metric.kind, kind, "{}", key.name());
            let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
            Arc::clone(metric.series.entry(labels.collect()).or_default())
        }

        /// The sum over all series of a metric that have these labels.
        fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
            let notes = self.0.lock().unwrap();
            let is_meant = |series: &[(String, String)]| {
                labels.iter().all(|(key, value)| series.iter().any(|(k, v)| (k.as_str(), v.as_str()) == (*key, *value)))
            };
            let series = notes[name].series.iter().filter(|(labels, _)| is_meant(labels));
            series.map(|(_, value)| value.sum.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
        }
    }

    impl Recorder for Notebook {
        fn describe_counter(&self, key: KeyName, unit: Option<Unit>, what: SharedString) {
            self.describe("counter", &key, unit, &what);
        }

        fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, what: SharedString) {
            self.describe("gauge", &key, unit, &what);
        }

        fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, what: SharedString) {
            self.describe("histogram", &key, unit, &what);
        }

        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.value("counter", key))
        }

        fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.value("gauge", key))
        }

        fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.value("histogram", key))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_metrics_are_those_of_the_manual_and_count_what_happened() {
        let (notebook, before) = (Notebook::default(), interrupted());
        let done = {
            let _guard = metrics::set_default_local_recorder(&notebook);
            work(before).await
        };
        let found: Vec<[String; 4]> = {
            let notes = notebook.0.lock().unwrap();
            notes
                .iter()
                .map(|(name, metric)| {
                    let labels: BTreeSet<_> =
                        metric.series.keys().flatten().map(|(label, _)| format!("`{label}`")).collect();
                    let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
                    assert!(!metric.what.is_empty(), "{name}");
                    [format!("`{name}`"), metric.kind.clone(), metric.unit.clone(), labels]
                })
                .collect()
        };
        let expected: Vec<[String; 4]> =
            table("metric").into_iter().map(|row| <[String; 4]>::try_from(row[..4].to_vec()).unwrap()).collect();
        assert_eq!(found, expected);

        let sum = |name: &str, labels: &[(&str, &str)]| notebook.sum(&format!("vdstream.{name}"), labels);
        let raw = 2 * STRIPE_BYTES as u64;
        // Restored once and verified once; the backup that was given up may have taken all of its input, or nothing.
        assert_eq!(sum("pipeline.raw_bytes", &[("direction", "restore")]), 2 * raw);
        assert!((raw..=2 * raw).contains(&sum("pipeline.raw_bytes", &[("direction", "backup")])));
        assert!(sum("pipeline.stored_bytes", &[("direction", "backup")]) >= done.stored);
        assert_eq!(sum("backup.ended_backups", &[("outcome", "committed")]), 2);
        assert_eq!(sum("backup.ended_backups", &[("outcome", "aborted")]), 1);
        assert_eq!(sum("backup.resumed_backups", &[("outcome", "resumed")]), 1);
        assert_eq!(sum("backup.resumed_backups", &[("outcome", "failed")]), 1);
        assert_eq!(sum("backup.kept_bytes", &[]), done.kept);
        assert!(done.collected.objects > 3 && done.kept > 0);
        assert_eq!(sum("collection.removed_objects", &[]), done.collected.objects);
        assert_eq!(sum("collection.refused_objects", &[]), 0);
        assert_eq!(sum("collection.ended_collections", &[("outcome", "complete")]), 1);
        assert_eq!(sum("collection.ended_collections", &[("outcome", "failed")]), 0);
        assert_eq!(sum("verify.ended_verifications", &[("outcome", "good")]), 2);
        assert!(sum("pipeline.attempts", &[("operation", "part"), ("outcome", "throttled")]) >= 1);
        assert!(sum("pipeline.retries", &[("operation", "part")]) >= 1);
        for operation in ["begin", "part", "complete", "read"] {
            assert!(sum("pipeline.attempts", &[("operation", operation), ("outcome", "good")]) >= 1, "{operation}");
        }
        assert!(sum("pipeline.wait_seconds", &[("stage", "pause")]) > 0, "the pause before the second attempt");
        assert!(sum("store.attempts", &[("outcome", "good")]) > 4);
        // Everything has ended, so nothing is held.
        for gauge in [
            "backup.active_backups",
            "backup.active_restores",
            "buffer.held_bytes",
            "buffer.slots_in_use",
            "pipeline.requests_in_flight",
        ] {
            assert_eq!(sum(gauge, &[]), 0, "{gauge}");
        }
    }
}
