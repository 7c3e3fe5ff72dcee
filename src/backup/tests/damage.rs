//! Every way to damage a small backup: found by `stored` and by `full`, and no wrong byte is ever delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::ErrorKind;

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

/// One backup of these contents in `series`, verified once.
async fn make(store: &Store, series: &str, contents: &[Bytes]) -> Manifest {
    let options = BackupOptions::default().stripes(u16::try_from(contents.len()).unwrap()).pipeline(tiny());
    let mut backup = Backup::begin(store, series, options).await.unwrap();
    for (stripe, content) in (0..).zip(contents) {
        backup.stripe_input(stripe, complete(content)).unwrap();
    }
    let manifest = backup.commit().await.unwrap().manifest;
    let options = VerifyOptions::new(VerifyLevel::Full).pipeline(tiny());
    let report = verify(store, &manifest, options).await.unwrap();
    assert!(report.is_good() && report.record.is_some(), "{report:?}");
    store.wait_idle().await;
    manifest
}

/// What the levels and a restore say about a store that was changed.
#[derive(Debug, Default)]
struct Seen {
    stored: Vec<String>,
    full: Vec<String>,
    /// The restore ended with an error.
    refused: bool,
}

/// Looks at the damaged store with everything there is. `manifest` is that of the time before.
async fn look(objects: &Objects, manifest: &Manifest, contents: &[Bytes], at: &str) -> Seen {
    let (_, store) = opened(objects).await;
    let mut seen = Seen::default();
    let found = find(&store, &manifest.series, Select::Id(manifest.id)).await;
    for level in [VerifyLevel::Stored, VerifyLevel::Full] {
        let options = VerifyOptions::new(level).pipeline(tiny()).record(false);
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
                assert!(text.contains("memory://") || text.contains("InMemory"), "{at}: no object: {text}");
                for part in ["offset ", "expected ", "found "] {
                    assert!(text.contains(part), "{at}: no `{part}`: {text}");
                }
            }
            text
        });
        let texts: Vec<String> = texts.collect();
        if level == VerifyLevel::Stored { seen.stored = texts } else { seen.full = texts }
    }
    let manifest = found.as_ref().unwrap_or(manifest);
    let restore = Restore::begin(&store, manifest, RestoreOptions::default().pipeline(tiny())).unwrap();
    for (stripe, content) in (0..).zip(contents) {
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

/// Runs all `changes`, some at once; each must be found by both levels. Answers how many the restore refused.
async fn all_found(
    manifest: &Manifest,
    contents: &[Bytes],
    changes: impl Iterator<Item = (String, Objects)>,
) -> (usize, usize) {
    let (mut count, mut refused) = (0, 0);
    let mut running = tokio::task::JoinSet::new();
    let mut changes = changes.peekable();
    while changes.peek().is_some() || !running.is_empty() {
        while running.len() < 8
            && let Some((at, objects)) = changes.next()
        {
            let (manifest, contents) = (manifest.clone(), contents.to_vec());
            running.spawn(async move {
                let seen = look(&objects, &manifest, &contents, &at).await;
                assert!(!seen.stored.is_empty(), "{at}: not found by stored");
                assert!(!seen.full.is_empty(), "{at}: not found by full");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_changed_byte_of_a_backup_is_found() {
    let (memory, store) = opened(&Objects::new()).await;
    let manifest = make(&store, "orders", &contents()).await;
    let objects = snapshot(&memory).await;
    let total: usize = objects.values().map(Bytes::len).sum();
    assert_eq!(look(&objects, &manifest, &contents(), "nothing").await.stored, [""; 0]);
    let flips = objects.iter().flat_map(|(name, bytes)| {
        let objects = &objects;
        (0..bytes.len()).map(move |at| {
            let mut changed = objects.clone();
            let mut content = bytes.to_vec();
            // Another bit at each place.
            content[at] ^= 1 << (at % 8);
            changed.insert(name.clone(), content.into());
            (format!("{name} byte {at}"), changed)
        })
    });
    let (count, refused) = all_found(&manifest, &contents(), flips).await;
    assert_eq!(count, total);
    println!(
        "{count} bytes of {} objects changed: all found by stored and by full, {refused} restores refused",
        objects.len()
    );
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
    let manifest = make(&store, "orders", &contents()).await;
    let foreign = make(&store, "logs", &[contents()[0].slice(1..), noise(9, 100)]).await;
    let objects = snapshot(&memory).await;
    let ours = of(&objects, &manifest);
    let mut changes: Vec<(String, Objects)> = Vec::new();
    let mut change = |what: String, edit: &dyn Fn(&mut Objects)| {
        let mut changed = objects.clone();
        edit(&mut changed);
        if changed != objects {
            changes.push((what, changed));
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
    let (count, refused) = all_found(&manifest, &contents(), changes.into_iter()).await;
    assert_eq!(count, made);
    println!("{count} changes of whole objects: all found by stored and by full, {refused} restores refused");
}
