//! What must hold of a bucket that a crash leaves.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::record::Run;
use super::*;
use crate::backup::collection::{self, DEFAULT_GRACE};
use crate::clock::Clock;
use crate::testing::{Bucket, Contents, Crash, Effect, SimClock, StoredObject};

/// Objects by their names.
type Objects = BTreeMap<String, StoredObject>;

/// How much was checked.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) prefixes: usize,
    pub(super) images: usize,
    /// Backups that were seen, and those that were verified and restored.
    seen: usize,
    restored: usize,
    /// Their objects.
    whole: BTreeMap<BackupId, Objects>,
    /// Objects that collections removed.
    collected: u64,
    /// Uploads without parts that no record names.
    unrecorded: usize,
    /// Effects that came after the collection.
    late: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} prefixes, {} buckets, {} backups seen and {} restored, {} objects collected, {} late effects, \
             {} uploads without parts",
            self.prefixes, self.images, self.seen, self.restored, self.collected, self.late, self.unrecorded
        )
    }
}

/// Every backup is absent or restores byte for byte; nothing is damaged; what was committed is there. A collection leaves what belongs
/// to the visible backups, byte for byte, and nothing else, neither objects nor uploads that hold data; a second one finds nothing.
///
/// Answers what is there after the collection.
pub(super) async fn check(run: &Run, events: usize, crash: &Crash, tally: &mut Tally) -> Contents {
    tally.images += 1;
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
        assert!(known.may_exist(events), "{note}: {} is visible", summary.id);
        let manifest = find(&store, &summary.series, Select::Id(summary.id)).await.unwrap();
        let names = manifest.names();
        let mut objects = Objects::new();
        for name in manifest.objects().map(|(_, name, _)| name).chain([names.intent(), names.manifest()]) {
            let object = crash.contents.objects.get(&name).unwrap_or_else(|| panic!("{note}: {name} is not there"));
            objects.insert(name, object.clone());
        }
        tally.seen += 1;
        if tally.whole.get(&summary.id) != Some(&objects) {
            let options = VerifyOptions::new(VerifyLevel::Full).pipeline(config()).record(false);
            let report = verify(&store, &manifest, options).await.unwrap();
            assert!(report.is_good(), "{note}: {report:?}");
            assert_eq!(restore(&store, &manifest).await.unwrap(), known.content, "{note}");
            tally.restored += 1;
            tally.whole.insert(summary.id, objects.clone());
        }
        expected.append(&mut objects);
    }
    for known in run.backups.iter().filter(|known| known.must_exist(events)) {
        assert!(listing.backups.iter().any(|summary| summary.id == known.id), "{note}: {} is gone", known.id);
    }

    clock.advance(DEFAULT_GRACE);
    tally.collected += collect(&store, note).await;
    is_clean(&bucket, &expected, tally, note);
    let again = collection::plan(&store, None, Duration::ZERO).await.unwrap();
    assert!(again.leftovers.is_empty(), "{note}: the second collection finds {:?}", again.leftovers);

    bucket.contents()
}

/// Requests that were in flight have their effect after the collection, and the next one finds it.
pub(super) async fn check_late(run: &Run, events: usize, crash: &Crash, collected: &Contents, tally: &mut Tally) {
    let clock = SimClock::new();
    clock.advance(run.clock.now() + 2 * (HOUR + DEFAULT_GRACE));
    let late = run.clock.wall();
    for effect in run.log.in_flight(events) {
        let is_manifest = matches!(&effect, Effect::Put { object, .. } if object.ends_with("manifest.json"));
        let is_there = matches!(&effect, Effect::Put { object, .. } | Effect::Delete { object } if collected.objects.contains_key(object));
        if is_manifest || is_there {
            continue;
        }
        tally.late += 1;
        let mut contents = collected.clone();
        contents.apply(&effect, late);
        let bucket = Bucket::new(contents, clock.shared());
        collect(&on(&bucket, &clock), &crash.note).await;
        is_clean(&bucket, &collected.objects, tally, &crash.note);
    }
}

async fn collect(store: &Store, note: &str) -> u64 {
    let plan = collection::plan(store, None, DEFAULT_GRACE).await.unwrap();
    let report = collection::apply(store, &plan).await.unwrap_or_else(|error| panic!("{note}: {}", error.report()));
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
