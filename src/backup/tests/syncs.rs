//! A disk that does not take what is written: each sync of a backup to local disk fails, once, for its file, or with all that come
//! after it. What is told to be stored was synced after its last failure, and what could not be is told as a failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::backup::store::{Fails, Script, scripted};

/// What a backup asked of the disk, in order, and what came of it.
struct Run {
    root: tempfile::TempDir,
    outcome: Result<BackupReport>,
    asked: Vec<(PathBuf, bool)>,
}

fn content() -> [Bytes; 1] {
    [noise(1, 700_000)]
}

/// A file or directory by what no run has a name of its own for. The parts of a backup are synced at once, so their syncs come in
/// any order; those of one place are the same in every run.
fn place(path: &Path) -> String {
    // The directory of a run has a name of chance in that of the system.
    let below = path.strip_prefix(std::env::temp_dir()).unwrap().components().skip(1);
    let names = below.map(|component| component.as_os_str().to_str().unwrap());
    let names = names.map(|name| if uuid::Uuid::parse_str(name).is_ok() { "ID" } else { name });
    let names = names.map(|name| name.split_once(".partial-").map_or(name, |(name, _)| name));
    names.collect::<Vec<_>>().join("/")
}

async fn run(script: Script) -> Run {
    let root = tempfile::tempdir().unwrap();
    let script = Arc::new(script);
    let store = scripted(&root.path().join("a/store"), &script);
    let outcome = back_up(&store, &content()).await;
    store.wait_idle().await;
    Run { root, outcome, asked: script.asked() }
}

impl Run {
    /// The file or directory whose sync was the first to fail.
    fn failed(&self) -> Option<&Path> {
        self.asked.iter().find(|(_, is_good)| !is_good).map(|(path, _)| path.as_path())
    }

    /// A process that comes later sees whole backups only. Answers how many.
    async fn check_visible(&self, note: &str) -> usize {
        let path = self.root.path().join("a/store");
        if !path.exists() {
            return 0;
        }
        let store = Store::from_url(path.to_str().unwrap()).unwrap();
        let listing = list(&store, None).await.unwrap();
        assert!(listing.damaged.is_empty(), "{note}: {listing:?}");
        for summary in &listing.backups {
            let manifest = find(&store, &summary.series, Select::Id(summary.id)).await.unwrap();
            assert_eq!(restore(&store, &manifest).await.unwrap(), content(), "{note}");
        }
        listing.backups.len()
    }

    /// Everything that is there now is there after a crash.
    fn check_durable(&self, note: &str) {
        let report = self.outcome.as_ref().unwrap();
        let mut waiting = vec![self.root.path().to_owned()];
        let mut files = 0;
        while let Some(directory) = waiting.pop() {
            let of_directory = self.asked.iter().rposition(|(path, _)| *path == directory);
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let last = of_directory.unwrap_or_else(|| panic!("{note}: {} was never synced", directory.display()));
                assert!(self.asked[last].1, "{note}: the last sync of {} failed", directory.display());
                if path.is_dir() {
                    waiting.push(path);
                    continue;
                }
                files += 1;
                // It was synced under the name that it had before, and its directory afterwards.
                let before = format!("{}.partial-", path.display());
                let is_it = |(asked, _): &&(PathBuf, bool)| asked.to_str().unwrap().starts_with(&before);
                let synced = self.asked.iter().rfind(is_it);
                let (staged, _) = synced.unwrap_or_else(|| panic!("{note}: {} was never synced", path.display()));
                // One that succeeds after one that failed tells nothing.
                let all_good = self.asked.iter().all(|(asked, is_good)| asked != staged || *is_good);
                assert!(all_good, "{note}: {} has its name although a sync failed", path.display());
                let of_file = self.asked.iter().rposition(|(asked, _)| asked == staged).unwrap();
                assert!(of_file < last, "{note}: {} has got its name after the last sync", path.display());
            }
        }
        // Intent, manifest and segments.
        assert_eq!(files, 2 + report.manifest.segments(), "{note}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_to_be_stored_was_synced_after_its_last_failure() {
    let all = run(Script::default()).await;
    all.check_durable("no failure");
    assert_eq!(all.check_visible("no failure").await, 1);
    let mut places = BTreeMap::<_, usize>::new();
    for (path, _) in &all.asked {
        *places.entry(place(path)).or_default() += 1;
    }
    let manifest = &all.outcome.as_ref().unwrap().manifest;
    let parted = manifest.objects().filter(|(_, _, summary)| summary.stored_bytes > config().part_bytes as u64);
    let parted: Vec<String> = parted.map(|(id, ..)| format!("a/store/orders/ID/s00/{:06}.zst", id.index)).collect();
    assert!(parted.len() >= 2 && parted.iter().all(|place| places[place] >= 2), "{parted:?} {places:?}");

    for fails in [Fails::Once, Fails::Always, Fails::From] {
        let (mut committed, mut refused) = (0, 0);
        for (place_of_failure, number) in places.iter().flat_map(|(place, count)| (0..*count).map(move |n| (place, n)))
        {
            let wanted = place_of_failure.clone();
            let run = run(Script::about(fails(number), move |path| place(path) == wanted)).await;
            let note = format!("{:?} of {place_of_failure:?}", fails(number));
            // How often a directory is synced depends on how many wait for it at once.
            if run.failed().is_none() {
                assert!(number > 0, "{note}: it was not synced");
                continue;
            }
            let visible = run.check_visible(&note).await;
            match &run.outcome {
                Ok(_) => {
                    committed += 1;
                    assert_eq!(visible, 1, "{note}");
                    run.check_durable(&note);
                }
                Err(error) => {
                    refused += 1;
                    assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Unavailable), "{note}: {error:?}");
                    // Of a request that is made again and again for longer than it may take, that is what is said.
                    let said =
                        ["Input/output error", "no answer within"].iter().any(|text| error.report().contains(text));
                    assert!(said, "{note}: {error:?}");
                }
            }
            if fails(number) == Fails::Once(number) {
                // What is written as a whole is written once more, to another file. The parts of a segment are not there any more.
                let is_segment = parted.contains(place_of_failure);
                assert_eq!(run.outcome.is_err(), is_segment, "{note}: {:?}", run.outcome.as_ref().err());
                if let Err(error) = &run.outcome {
                    assert_eq!((error.kind(), visible), (ErrorKind::Closed, 0), "{note}: {error:?}");
                    assert!(error.report().contains("the disk did not take all that was written"), "{note}: {error:?}");
                }
            }
        }
        println!("{:?} and on: {committed} backups were committed all the same, {refused} were not", fails(0));
        let of_parted: usize = parted.iter().map(|place| places[place]).sum();
        assert!(refused >= of_parted, "{refused} of {of_parted}");
        if fails(0) == Fails::Once(0) {
            assert!(refused == of_parted && committed >= places.len() - parted.len(), "{committed} {refused}");
        }
    }
}

/// A process that was killed may have given a segment its name and not synced its directory: only who comes after it can.
#[tokio::test(start_paused = true)]
async fn what_a_resumed_backup_keeps_was_synced_by_the_process_that_keeps_it() {
    let root = tempfile::tempdir().unwrap();
    let old_store = scripted(root.path(), &Arc::default());
    let mut old = Backup::begin(&old_store, "orders", options(1)).await.unwrap();
    let id = old.id();
    old.stripe_input(0, complete(&content()[0])).unwrap();
    old.wait_stripes().await.unwrap();
    let resume = async |script: &Arc<Script>| {
        let at_once = ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
        Backup::resume(&scripted(root.path(), script), "orders", id, at_once).await
    };

    let segments = root.path().join(format!("orders/{id}/s00"));
    let place = segments.clone();
    let script = Arc::new(Script::about(Fails::Once(0), move |path| path == place));
    let error = resume(&script).await.unwrap_err();
    assert!(error.report().contains("Input/output error"), "{}", error.report());

    let script = Arc::default();
    let mut new = resume(&script).await.unwrap();
    assert_eq!(new.offsets(), [content()[0].len() as u64]);
    let asked = script.asked();
    let mut kept: Vec<PathBuf> = std::fs::read_dir(&segments).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(kept.len() >= 2, "{kept:?}");
    kept.push(segments.with_file_name("intent.json"));
    kept.extend(segments.ancestors().take_while(|path| path.starts_with(root.path())).map(Path::to_owned));
    for path in kept {
        assert!(asked.contains(&(path.clone(), true)), "{} was not synced: {asked:?}", path.display());
    }
    new.stripe_input(0, complete(&Bytes::new())).unwrap();
    let manifest = new.commit().await.unwrap().manifest;
    assert_eq!(restore(&old_store, &manifest).await.unwrap(), content());
    drop(old);
    old_store.wait_idle().await;
    assert_eq!(restore(&old_store, &manifest).await.unwrap(), content());
}

/// A deletion that comes back after a crash would show a backup whose data is gone.
#[tokio::test(start_paused = true)]
async fn a_deletion_whose_sync_failed_is_synced_before_it_is_told_as_done() {
    for number in 0..3 {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("d/x");
        scripted(root.path(), &Arc::default()).create("d/x", "1".into()).await.unwrap();
        scripted(root.path(), &Arc::default()).create("d/y", "1".into()).await.unwrap();
        let script = Arc::new(Script::new(Fails::Once(number)));
        scripted(root.path(), &script).delete("d/x").await.unwrap();
        let asked = script.asked();
        assert!(!path.exists() && asked.len() <= 2, "{asked:?}");
        assert_eq!(asked.last().unwrap(), &(root.path().join("d"), true));
    }
}
