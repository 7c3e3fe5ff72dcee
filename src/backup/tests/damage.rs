//! Every way to damage a small backup: found by `stored` and by `full`, and no wrong byte is ever delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::ErrorKind;
#[cfg(feature = "encryption")]
use crate::pipeline::{Identities, Passphrase};

type Objects = BTreeMap<String, Bytes>;

/// What a store holds, byte for byte.
async fn snapshot(memory: &InMemory) -> Objects {
    let mut objects = Objects::new();
    let listed: Vec<_> = memory.list(None).try_collect().await.unwrap();
    for meta in listed {
        let bytes = memory.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location.to_string(), bytes);
    }
    objects
}

async fn opened(objects: &Objects) -> (Arc<InMemory>, Store) {
    let memory = Arc::new(InMemory::new());
    for (name, bytes) in objects {
        memory.put(&Path::from(name.as_str()), bytes.clone().into()).await.unwrap();
    }
    let shared: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&memory);
    let store = Store::with_multipart(shared, Arc::<InMemory>::clone(&memory) as _, "");
    (memory, store.part_limits(store::PartLimits::LOCAL))
}

/// Tiny pieces, so that a few hundred bytes have frames, segments and stripes.
fn tiny() -> PipelineConfig {
    PipelineConfig { segment_bytes: 1, level: 19, ..config() }
}

fn contents() -> [Bytes; 2] {
    // Two segments that compress to little, and one that does not.
    let mut first = vec![7; 65_536];
    first.extend_from_slice(&noise(1, 40));
    [first.into(), noise(2, 100)]
}

/// A backup as it was made.
#[derive(Debug, Clone)]
struct Whole {
    manifest: Manifest,
    contents: Vec<Bytes>,
    /// What opens it.
    #[cfg(feature = "encryption")]
    identities: Identities,
}

impl Whole {
    fn to_verify(&self, level: VerifyLevel) -> VerifyOptions {
        let options = VerifyOptions::new(level).pipeline(tiny());
        #[cfg(feature = "encryption")]
        let options = options.identities(self.identities.clone());
        options
    }

    fn to_restore(&self) -> RestoreOptions {
        let options = RestoreOptions::default().pipeline(tiny());
        #[cfg(feature = "encryption")]
        let options = options.identities(self.identities.clone());
        options
    }
}

/// One backup of these contents in `series`, verified once.
async fn make(store: &Store, series: &str, contents: &[Bytes]) -> Whole {
    make_with(store, series, contents, BackupOptions::default()).await
}

async fn make_with(store: &Store, series: &str, contents: &[Bytes], options: BackupOptions) -> Whole {
    let options = options.stripes(u16::try_from(contents.len()).unwrap()).pipeline(tiny());
    let mut backup = Backup::begin(store, series, options).await.unwrap();
    for (stripe, content) in (0..).zip(contents) {
        backup.stripe_input(stripe, complete(content)).unwrap();
    }
    let whole = Whole {
        manifest: backup.commit().await.unwrap().manifest,
        contents: contents.to_vec(),
        #[cfg(feature = "encryption")]
        identities: Identities::new(),
    };
    store.wait_idle().await;
    whole
}

/// Verifies a backup, so that there is a record of it.
async fn verify_once(store: &Store, whole: &Whole) {
    let report = verify(store, &whole.manifest, whole.to_verify(VerifyLevel::Full)).await.unwrap();
    assert!(report.is_good() && report.record.is_some(), "{report:?}");
    store.wait_idle().await;
}

/// A store that was changed.
#[derive(Debug, Default)]
struct Change {
    what: String,
    objects: Objects,
    /// The objects that differ.
    names: Vec<String>,
    /// The byte that differs, if it is one.
    byte: Option<usize>,
    /// Only `stored` looks at it, which reads all that `full` reads of a document.
    is_brief: bool,
}

/// What the levels and a restore say about a store that was changed.
#[derive(Debug, Default)]
struct Seen {
    stored: Vec<String>,
    full: Vec<String>,
    /// The restore ended with an error.
    refused: bool,
}

/// Where in `object` a finding says that something is wrong: from, to, expected, found.
fn place<'a>(finding: &'a str, object: &str) -> Option<(usize, usize, &'a str, &'a str)> {
    let (_, rest) = finding.split_once(&format!("InMemory/{object}, offset "))?;
    let (range, rest) = rest.split_once(": ")?;
    let (from, to) = match range.split_once(" to ") {
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => (range.parse().ok()?, range.parse::<usize>().ok()? + 1),
    };
    let (_, rest) = rest.split_once("expected ")?;
    let (expected, found) = rest.split_once(", found ")?;
    Some((from, to, expected, found))
}

/// Some finding is about an object that was changed; if that is one byte, about some bytes of it that contain this one.
fn names_the_place(level: VerifyLevel, findings: &[String], change: &Change, refused: bool) {
    let Change { what, objects, names, byte, .. } = change;
    let Some(byte) = *byte else {
        let names_one = |finding: &String| names.iter().any(|name| finding.contains(&format!("InMemory/{name}")));
        assert!(findings.iter().any(names_one), "{what}: {level} names none of {names:?}: {findings:?}");
        return;
    };
    let object = &names[0];
    let all = objects[object].len();
    let places: Vec<_> = findings.iter().filter_map(|finding| place(finding, object)).collect();
    assert!(!places.is_empty(), "{what}: {level} does not say where in {object}: {findings:?}");
    for (from, to, expected, found) in &places {
        assert!(
            (*from..*to).contains(&byte) && *to <= all,
            "{what}: {level} says {from} to {to} of {all}: {findings:?}"
        );
        assert!(!expected.is_empty() && expected != found, "{what}: {level}: {findings:?}");
    }
    // Only the content tells which part of a segment it is, unless it is the same: a bit of a frame's header means nothing.
    if level == VerifyLevel::Full && object.ends_with(".zst") && refused {
        let narrow = places.iter().any(|(from, to, ..)| to - from < all);
        assert!(narrow, "{what}: {level} does not say which part of {all} bytes: {findings:?}");
    }
}

/// Looks at the damaged store with everything there is.
async fn look(change: &Change, whole: &Whole) -> Seen {
    let manifest = &whole.manifest;
    let (_, store) = opened(&change.objects).await;
    let at = &change.what;
    let mut seen = Seen::default();
    let found = find(&store, &manifest.series, Select::Id(manifest.id)).await;
    let levels = if change.is_brief { &[VerifyLevel::Stored][..] } else { &[VerifyLevel::Stored, VerifyLevel::Full] };
    for level in levels.iter().copied() {
        let options = whole.to_verify(level).record(false);
        let findings: Vec<Error> = match &found {
            // Whoever opened it before still verifies it; whoever opens it now is told at once.
            Err(error) => {
                let report = verify(&store, manifest, options).await.unwrap();
                assert!(!report.is_good(), "{at}: {level} finds nothing, opening it {error}");
                report.damage.into_iter().map(|damage| damage.error).chain([error.clone()]).collect()
            }
            Ok(found) => {
                let report = verify(&store, found, options).await.unwrap();
                report.damage.into_iter().map(|damage| damage.error).collect()
            }
        };
        let texts = findings.iter().map(|error| {
            let text = error.report();
            // Without a manifest there is nothing to compare.
            if error.kind() != ErrorKind::NotFound {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid), "{at}: {text}");
                for part in ["InMemory/", "offset ", "expected ", "found "] {
                    assert!(text.contains(part), "{at}: no `{part}`: {text}");
                }
            }
            text
        });
        let texts: Vec<String> = texts.collect();
        if level == VerifyLevel::Stored { seen.stored = texts } else { seen.full = texts }
    }
    if change.is_brief {
        return seen;
    }
    let manifest = found.as_ref().unwrap_or(manifest);
    let restore = Restore::begin(&store, manifest, whole.to_restore()).unwrap();
    for (stripe, content) in (0..).zip(&whole.contents) {
        let mut delivered = 0;
        let mut frames = std::pin::pin!(restore.stripe(stripe));
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(bytes) => {
                    let end = delivered + bytes.len();
                    assert!(content.get(delivered..end) == Some(&bytes[..]), "{at}: a wrong byte was delivered");
                    delivered = end;
                }
                Err(_) => seen.refused = true,
            }
        }
        assert!(seen.refused || delivered == content.len(), "{at}: the end was delivered as if it were all");
    }
    seen
}

/// Runs all `changes`, some at once; each must be found by both levels, and its place be told. Answers how many the restore refused.
async fn all_found(whole: &Whole, changes: impl Iterator<Item = Change>) -> (usize, usize) {
    let (mut count, mut refused) = (0, 0);
    let mut running = tokio::task::JoinSet::new();
    let mut changes = changes.peekable();
    while changes.peek().is_some() || !running.is_empty() {
        while running.len() < 8
            && let Some(change) = changes.next()
        {
            let whole = whole.clone();
            running.spawn(async move {
                let seen = look(&change, &whole).await;
                let levels = [(VerifyLevel::Stored, &seen.stored), (VerifyLevel::Full, &seen.full)];
                for (level, findings) in levels.into_iter().take(if change.is_brief { 1 } else { 2 }) {
                    assert!(!findings.is_empty(), "{}: not found by {level}", change.what);
                    names_the_place(level, findings, &change, seen.refused);
                }
                seen.refused
            });
        }
        if let Some(outcome) = running.join_next().await {
            count += 1;
            refused += usize::from(outcome.unwrap());
        }
    }
    (count, refused)
}

/// Changes every byte of a store that holds `whole` and nothing else.
async fn every_byte_is_found(objects: &Objects, whole: &Whole) {
    let total: usize = objects.values().map(Bytes::len).sum();
    let nothing = Change { objects: objects.clone(), ..Change::default() };
    assert_eq!(look(&nothing, whole).await.stored, [""; 0]);
    let flips = objects.iter().flat_map(|(name, bytes)| {
        // Every bit of a document: some make it another one that could be meant, such as one of another version. Of a segment another
        // bit at each place.
        let bits = move |at: usize| if name.ends_with(".json") { 0..8 } else { at % 8..at % 8 + 1 };
        (0..bytes.len()).flat_map(move |at| bits(at).map(move |bit| (at, bit))).map(move |(at, bit)| {
            let mut changed = objects.clone();
            let mut content = bytes.to_vec();
            content[at] ^= 1 << bit;
            changed.insert(name.clone(), content.into());
            let what = format!("{name} byte {at} bit {bit}");
            Change { what, objects: changed, names: vec![name.clone()], byte: Some(at), is_brief: bit != at % 8 }
        })
    });
    let (count, refused) = all_found(whole, flips).await;
    assert!(count > total, "{count} of {total}");
    println!(
        "{count} bits of {total} bytes of {} objects changed: all found by stored and by full, {refused} restores refused",
        objects.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_of_a_backup_is_found() {
    let (memory, store) = opened(&Objects::new()).await;
    let whole = make(&store, "orders", &contents()).await;
    verify_once(&store, &whole).await;
    every_byte_is_found(&snapshot(&memory).await, &whole).await;
}

#[cfg(feature = "encryption")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_of_an_encrypted_backup_is_found() {
    let (memory, store) = opened(&Objects::new()).await;
    let passphrase = Passphrase::new("correct horse").unwrap();
    let options = BackupOptions::default().passphrase(passphrase.clone());
    let mut whole = make_with(&store, "orders", &[noise(1, 100)], options).await;
    whole.identities = unlock(&store, &whole.manifest, &passphrase).await.unwrap();
    verify_once(&store, &whole).await;
    let objects = snapshot(&memory).await;
    assert!(objects.keys().any(|name| name.ends_with("/identity.age")), "{:?}", objects.keys());
    every_byte_is_found(&objects, &whole).await;
}

/// Names of one backup's segments, and of everything of it.
fn of<'a>(objects: &'a Objects, manifest: &'a Manifest) -> Vec<&'a String> {
    let directory = format!("{}/", manifest.names().directory());
    objects.keys().filter(|name| name.starts_with(&directory)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_cut_grown_swapped_and_replayed_objects_are_found() {
    let (memory, store) = opened(&Objects::new()).await;
    // The same lengths with other bytes, in the same series and in another one.
    let older = make(&store, "orders", &[contents()[0].clone(), noise(8, 100)]).await;
    let whole = make(&store, "orders", &contents()).await;
    let foreign = make(&store, "logs", &[contents()[0].slice(1..), noise(9, 100)]).await;
    for whole in [&older, &whole, &foreign] {
        verify_once(&store, whole).await;
    }
    let (older, manifest, foreign) = (older.manifest, &whole.manifest, foreign.manifest);
    let objects = snapshot(&memory).await;
    let ours = of(&objects, manifest);
    let mut changes: Vec<Change> = Vec::new();
    let mut change = |what: String, edit: &dyn Fn(&mut Objects)| {
        let mut changed = objects.clone();
        edit(&mut changed);
        let differs = |name: &&String| changed.get(*name) != objects.get(*name);
        let names: Vec<String> = objects.keys().filter(differs).cloned().collect();
        if !names.is_empty() {
            changes.push(Change { what, objects: changed, names, ..Change::default() });
        }
    };
    for name in &ours {
        // A record of a verification may be deleted.
        if !name.contains("/verified/") {
            change(format!("{name} dropped"), &|changed| drop(changed.remove(*name)));
        }
        let length = objects[*name].len();
        for keep in [0, 1, length / 2, length - 1] {
            change(format!("{name} cut to {keep}"), &|changed| {
                let cut = objects[*name].slice(..keep);
                changed.insert((*name).clone(), cut);
            });
        }
        for more in [1, length] {
            change(format!("{name} grown by {more}"), &|changed| {
                let grown = [&objects[*name][..], &objects[*name][..more]].concat();
                changed.insert((*name).clone(), grown.into());
            });
        }
        // Any two objects of the backup exchanged: stripes, segments, documents.
        for other in ours.iter().filter(|other| other > &name) {
            change(format!("{name} and {other} exchanged"), &|changed| {
                changed.insert((*name).clone(), objects[*other].clone());
                changed.insert((*other).clone(), objects[*name].clone());
            });
            change(format!("{name} again as {other}"), &|changed| {
                changed.insert((*other).clone(), objects[*name].clone());
            });
        }
        // Objects of other backups in place of ours: replayed segments, manifests, intents, records.
        for strange in [&older, &foreign] {
            for other in of(&objects, strange) {
                change(format!("{other} as {name}"), &|changed| {
                    changed.insert((*name).clone(), objects[other].clone());
                });
            }
        }
    }
    // Whole stripes exchanged.
    change("stripes exchanged".to_owned(), &|changed| {
        let segments = ours.iter().copied().filter(|name| name.ends_with(".zst"));
        let (first, second): (Vec<&String>, Vec<&String>) = segments.partition(|name| name.contains("/s00/"));
        for (one, two) in first.into_iter().zip(second) {
            changed.insert(one.clone(), objects[two].clone());
            changed.insert(two.clone(), objects[one].clone());
        }
    });
    // The manifest of the older backup over all of its segments, under our name.
    change("the older backup under our id".to_owned(), &|changed| {
        for other in of(&objects, &older) {
            let name = other.replace(&older.id.to_string(), &manifest.id.to_string());
            changed.insert(name, objects[other].clone());
        }
    });
    let made = changes.len();
    let (count, refused) = all_found(&whole, changes.into_iter()).await;
    assert_eq!(count, made);
    println!("{count} changes of whole objects: all found by stored and by full, {refused} restores refused");
}
