//! What must hold of a bucket that a crash leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use super::record::{Run, at_once};
use super::*;
use crate::backup::collection::{self, CollectionReport, DEFAULT_GRACE};
use crate::clock::Clock;
use crate::testing::{Bucket, Contents, Crash, Effect, SimClock, StoredObject};

/// Objects by their names.
type Objects = BTreeMap<String, StoredObject>;

/// How much was checked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) prefixes: usize,
    /// Buckets that a prefix can leave, and those that differ.
    images: usize,
    pub(super) buckets: usize,
    /// Backups that were seen, and those that were verified and restored.
    seen: usize,
    restored: usize,
    /// Those that a further process has resumed.
    resumed: usize,
    /// Objects that collections removed.
    collected: u64,
    /// Uploads without parts that no record names.
    unrecorded: usize,
    /// Effects that came after the collection.
    late: usize,
    /// Crashes in which parts arrived after their uploads were aborted.
    pub(super) late_parts: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} prefixes, {} crashes, {} different buckets, {} backups seen, {} restored, {} resumed, {} objects collected, \
             {} late effects, {} with late parts, {} uploads without parts",
            self.prefixes,
            self.images,
            self.buckets,
            self.seen,
            self.restored,
            self.resumed,
            self.collected,
            self.late,
            self.late_parts,
            self.unrecorded
        )
    }
}

/// What was found of the buckets of one run.
#[derive(Default)]
pub(super) struct Seen {
    found: HashMap<blake3::Hash, Found>,
    /// Buckets after an effect that came late, and those that were resumed from.
    late: HashSet<blake3::Hash>,
    resumed: HashSet<blake3::Hash>,
    /// The objects of each backup that was restored.
    whole: BTreeMap<BackupId, Objects>,
}

/// What was found of one bucket.
#[derive(Clone)]
struct Found {
    visible: BTreeSet<BackupId>,
    /// What is there after the collection.
    collected: Contents,
}

/// What two buckets have in common only if they hold the same.
fn fingerprint(contents: &Contents) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (name, object) in &contents.objects {
        field(name.as_bytes());
        field(&object.modified.as_nanosecond().to_le_bytes());
        field(&object.bytes);
    }
    field(b"uploads");
    for (id, upload) in &contents.uploads {
        field(id.as_bytes());
        field(upload.object.as_bytes());
        field(&(upload.parts.len() as u64).to_le_bytes());
        for (index, part) in &upload.parts {
            field(&(*index as u64).to_le_bytes());
            field(part);
        }
    }
    hasher.finalize()
}

/// Every backup is absent or restores byte for byte; nothing is damaged; what was committed is there. A collection leaves what belongs
/// to the visible backups, byte for byte, and nothing else, neither objects nor uploads that hold data; a second one finds nothing.
///
/// Answers what is there after the collection.
pub(super) async fn check(run: &Run, events: usize, crash: &Crash, seen: &mut Seen, tally: &mut Tally) -> Contents {
    tally.images += 1;
    let note = &crash.note;
    let key = fingerprint(&crash.contents);
    let found = match seen.found.get(&key) {
        Some(found) => found.clone(),
        None => {
            let found = look(run, crash, &mut seen.whole, tally).await;
            seen.found.insert(key, found.clone());
            found
        }
    };
    for id in &found.visible {
        let known = run.backups.iter().find(|known| known.id == *id).unwrap();
        assert!(known.may_exist(events), "{note}: {id} is visible");
    }
    for known in run.backups.iter().filter(|known| known.must_exist(events)) {
        assert!(found.visible.contains(&known.id), "{note}: {} is gone", known.id);
    }
    found.collected
}

/// What does not depend on what was asked before the crash, but only on what it left.
async fn look(run: &Run, crash: &Crash, whole: &mut BTreeMap<BackupId, Objects>, tally: &mut Tally) -> Found {
    tally.buckets += 1;
    let note = &crash.note;
    let clock = SimClock::new();
    clock.advance(run.clock.now() + HOUR);
    let bucket = Bucket::new(crash.contents.clone(), clock.shared());
    let store = on(&bucket, &clock);

    let listing = list(&store, None).await.unwrap();
    assert!(listing.damaged.is_empty(), "{note}: {:?}", listing.damaged);
    let mut expected = Objects::new();
    for summary in &listing.backups {
        let known = run.backups.iter().find(|known| known.id == summary.id);
        let known = known.unwrap_or_else(|| panic!("{note}: {} is visible", summary.id));
        let manifest = find(&store, &summary.series, Select::Id(summary.id)).await.unwrap();
        let names = manifest.names();
        let mut objects = Objects::new();
        for name in manifest.objects().map(|(_, name, _)| name).chain([names.intent(), names.manifest()]) {
            let object = crash.contents.objects.get(&name).unwrap_or_else(|| panic!("{note}: {name} is not there"));
            objects.insert(name, object.clone());
        }
        tally.seen += 1;
        if whole.get(&summary.id) != Some(&objects) {
            is_whole(&store, &manifest, &known.content, note).await;
            tally.restored += 1;
            whole.insert(summary.id, objects.clone());
        }
        expected.append(&mut objects);
    }

    clock.advance(DEFAULT_GRACE);
    tally.collected += collect(&store, note).await;
    is_clean(&bucket, &expected, tally, note);
    let again = collection::plan(&store, None, Duration::ZERO).await.unwrap();
    assert!(again.leftovers.is_empty(), "{note}: the second collection finds {:?}", again.leftovers);

    let visible = listing.backups.iter().map(|summary| summary.id).collect();
    Found { visible, collected: bucket.contents() }
}

async fn is_whole(store: &Store, manifest: &Manifest, content: &[Bytes], note: &str) {
    let options = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).record(false);
    let report = verify(store, manifest, options).await.unwrap();
    assert!(report.is_good(), "{note}: {report:?}");
    assert!(restore(store, manifest).await.unwrap() == content, "{note}: something else is restored");
}

/// Requests that were in flight have their effect after the collection, and the next one finds it.
pub(super) async fn check_late(
    run: &Run,
    events: usize,
    crash: &Crash,
    collected: &Contents,
    seen: &mut Seen,
    tally: &mut Tally,
) {
    let clock = SimClock::new();
    clock.advance(run.clock.now() + 2 * (HOUR + DEFAULT_GRACE));
    let late = run.clock.wall();
    for effect in run.log.in_flight(events) {
        let is_checked = match &effect {
            // What is there already is not created.
            Effect::Put { object, .. } => !object.ends_with("manifest.json") && !collected.objects.contains_key(object),
            // The deletion of a visible backup is meant; that of anything else of it would damage it.
            Effect::Delete { object } => !object.ends_with("manifest.json"),
            _ => true,
        };
        if !is_checked {
            continue;
        }
        let mut contents = collected.clone();
        contents.apply(&effect, late);
        if !seen.late.insert(fingerprint(&contents)) {
            continue;
        }
        tally.late += 1;
        let bucket = Bucket::new(contents, clock.shared());
        collect(&on(&bucket, &clock), &crash.note).await;
        is_clean(&bucket, &collected.objects, tally, &crash.note);
    }
}

/// A further process resumes what can be resumed, and ends it. Then a collection leaves that backup, and nothing else.
pub(super) async fn check_resumed(run: &Run, crash: &Crash, seen: &mut Seen, tally: &mut Tally) {
    if !seen.resumed.insert(fingerprint(&crash.contents)) {
        return;
    }
    let note = &crash.note;
    for known in &run.backups {
        let has = |name: &str| crash.contents.objects.contains_key(&format!("orders/{}/{name}", known.id));
        if has("manifest.json") || !has("intent.json") {
            continue;
        }
        let clock = SimClock::new();
        clock.advance(run.clock.now() + HOUR);
        let bucket = Bucket::new(crash.contents.clone(), clock.shared());
        let store = on(&bucket, &clock);
        let options = BackupOptions::default().pipeline(config());
        let backup = Backup::resume(&store, "orders", known.id, at_once(&options)).await;
        let mut backup = backup.unwrap_or_else(|error| panic!("{note}: {}", error.report()));
        for (stripe, content) in (0..).zip(&known.content) {
            backup.replay(stripe).unwrap();
            backup.stripe_input(stripe, complete(content)).unwrap();
        }
        let report = backup.commit().await.unwrap_or_else(|error| panic!("{note}: {}", error.report()));
        store.wait_idle().await;
        is_whole(&store, &report.manifest, &known.content, note).await;
        let names = report.manifest.names();
        let mut expected = bucket.contents().objects;
        let objects: BTreeSet<String> = report.manifest.objects().map(|(_, name, _)| name).collect();
        expected.retain(|name, _| objects.contains(name) || *name == names.intent() || *name == names.manifest());
        clock.advance(DEFAULT_GRACE);
        collect(&store, note).await;
        is_clean(&bucket, &expected, tally, note);
        tally.resumed += 1;
    }
}

async fn collect(store: &Store, note: &str) -> u64 {
    let plan = collection::plan(store, None, DEFAULT_GRACE).await.unwrap();
    let mut report = CollectionReport::default();
    let applied = collection::apply(store, &plan, &mut report).await;
    applied.unwrap_or_else(|error| panic!("{note}: {}", error.report()));
    assert!(report.kept.is_empty() && report.later.is_empty(), "{note}: {report:?}");
    report.objects
}

fn is_clean(bucket: &Bucket, expected: &Objects, tally: &mut Tally, note: &str) {
    let Contents { objects, uploads } = bucket.contents();
    if objects != *expected {
        let (found, wanted): (Vec<_>, Vec<_>) = (objects.keys().collect(), expected.keys().collect());
        panic!("{note}: there are {found:#?}, wanted are {wanted:#?}");
    }
    for upload in uploads.values() {
        assert!(upload.parts.is_empty(), "{note}: an upload of {} stays", upload.object);
        tally.unrecorded += 1;
    }
}
