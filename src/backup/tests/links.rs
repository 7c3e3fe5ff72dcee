//! Symbolic links below the root of a local store: nothing outside of it is read, written or removed through one.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::ErrorKind;
use crate::backup::collection;
use crate::backup::retention::{self, Descendants, RetentionPolicy};

/// Everything below a directory, with its content and its time: what was created and is gone again shows in its directory's.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let content = metadata.is_file().then(|| std::fs::read(&path).unwrap());
        found.insert(path.clone(), (content, metadata.modified().unwrap()));
        if metadata.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn open(root: &Path) -> Store {
    Store::from_url(root.to_str().unwrap()).unwrap()
}

fn orders() -> Series {
    "orders".parse().unwrap()
}

/// Does everything that the tool can do to a store, and to a backup of it. Answers what it was told.
async fn everything(store: &Store, ids: &[BackupId]) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut note = |outcome: Result<()>| errors.extend(outcome.err());
    note(list(store, None).await.map(|listing| {
        // A manifest that cannot be read is told so.
        assert!(listing.damaged.iter().all(|damaged| damaged.error.report().contains("is a symbolic link")));
    }));
    for id in ids {
        match find(store, &orders(), Select::Id(*id)).await {
            Ok(manifest) => {
                for level in [VerifyLevel::Quick, VerifyLevel::Full] {
                    let verified = verify(store, &manifest, VerifyOptions::new(level).pipeline(config())).await;
                    note(verified.and_then(|report| report.record_error.map_or(Ok(()), Err)));
                }
                note(restore(store, &manifest).await.map(drop));
            }
            Err(error) => note(Err(error)),
        }
        let resumed = ResumeOptions::default().pipeline(config()).silence(Duration::ZERO);
        note(Backup::resume(store, "orders", *id, resumed).await.map(drop));
    }
    note(back_up(store, &[noise(9, 400_000)]).await.map(drop));
    let collect = async || {
        let plan = collection::plan(store, None, Duration::ZERO).await?;
        collection::apply(store, &plan, &mut Default::default()).await
    };
    note(collect().await);
    let prune = async || {
        let plan = retention::plan(store, &orders(), &RetentionPolicy::new().keep_last(1)).await?;
        retention::apply(store, &plan, &mut Default::default()).await
    };
    note(prune().await);
    for id in ids {
        let delete = async || {
            let plan = retention::plan_deletion(store, &orders(), *id, Descendants::Delete).await?;
            retention::apply(store, &plan, &mut Default::default()).await
        };
        note(delete().await);
    }
    note(collect().await);
    store.wait_idle().await;
    errors
}

/// Whoever may write to a store puts links where its directories are, to a store that the user of the tool may write to as well.
#[tokio::test]
async fn nothing_outside_of_a_store_is_touched_through_a_link_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let root = |name: &str| directory.path().join(name);
    let theirs = open(&root("theirs"));
    let their_id = back_up(&theirs, &[noise(1, 700_000)]).await.unwrap().manifest.id;
    theirs.wait_idle().await;
    let their_backup = root("theirs").join(format!("orders/{their_id}"));
    std::fs::create_dir(root("theirs/empty")).unwrap();
    let before = snapshot(&root("theirs"));

    let dead: BackupId = "01a2057d-bf5c-7c81-ba2b-73917e8ad153".parse().unwrap();
    let segment = |backup: &Path| backup.join("s00/000000.zst");
    for (case, target) in [
        ("dead/s00", their_backup.join("s00")),
        ("dead", their_backup.clone()),
        ("their", their_backup.clone()),
        ("mine/verified", root("theirs/empty")),
        ("mine/uploads", root("theirs/empty")),
        ("mine/s00", their_backup.join("s00")),
        ("mine/manifest.json", their_backup.join("manifest.json")),
        ("dead/s00/000000.zst", segment(&their_backup)),
        (".vdstream", root("theirs/empty")),
        ("orders", root("theirs/orders")),
        ("other", root("theirs/orders")),
    ] {
        let store_root = root("mine");
        let mine = open(&store_root);
        let my_id = back_up(&mine, &[noise(2, 500_000)]).await.unwrap().manifest.id;
        mine.wait_idle().await;
        let series = store_root.join("orders");
        let link = match case.split_once('/').unwrap_or((case, "")) {
            ("dead", rest) => series.join(dead.to_string()).join(rest),
            ("mine", rest) => series.join(my_id.to_string()).join(rest),
            ("their", rest) => series.join(their_id.to_string()).join(rest),
            (other, _) => store_root.join(other),
        };
        // A joined empty name would end in a slash, and a link cannot.
        let link: PathBuf = link.components().collect();
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        if link.is_dir() {
            std::fs::remove_dir_all(&link).unwrap();
        } else if link.exists() {
            std::fs::remove_file(&link).unwrap();
        }
        symlink(&target, &link).unwrap();

        let errors = everything(&mine, &[my_id, dead, their_id]).await;
        assert_eq!(snapshot(&root("theirs")), before, "{case}");
        let told = format!("{} is a symbolic link, and below a store none is followed", link.display());
        let naming: Vec<&Error> = errors.iter().filter(|error| error.report().contains(&told)).collect();
        assert!(!naming.is_empty(), "{case}: nothing names the link: {errors:?}");
        assert!(naming.iter().all(|error| error.kind() == ErrorKind::Invalid), "{case}: {naming:?}");
        std::fs::remove_dir_all(&store_root).unwrap();
    }
    let (series, which) = latest();
    let manifest = find(&theirs, &series, which).await.unwrap();
    assert_eq!(restore(&theirs, &manifest).await.unwrap(), [noise(1, 700_000)]);
}

#[tokio::test]
async fn the_root_of_a_store_may_be_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real"), directory.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let store = open(&link);
    let manifest = back_up(&store, &[noise(1, 500_000)]).await.unwrap().manifest;
    assert_eq!(list(&store, None).await.unwrap().backups.len(), 1);
    assert_eq!(restore(&store, &manifest).await.unwrap(), [noise(1, 500_000)]);
    store.wait_idle().await;
    assert_eq!(names(&store).await, names(&open(&real)).await);
}
