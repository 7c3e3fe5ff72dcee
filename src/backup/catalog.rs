//! Which backups a store holds. Nothing is kept beside the manifests: listing them is the catalog.

use std::collections::BTreeMap;
use std::str::FromStr;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::dating;
use super::document::MAX_SMALL_BYTES;
use super::id::BackupId;
use super::intent::Intent;
use super::kind::Kind;
use super::manifest::{MAX_MANIFEST_BYTES, Manifest};
use super::names::{Names, Series};
use super::store::{Read, Store};
use super::verify::{LastVerification, Standing, record, standing};
use crate::error::{Error, ErrorKind, Result};

/// Backups that are looked at at once, with up to two requests each. A store that answers in 20 ms lists 10,000 backups in about
/// 7 s; more at once would come near the number of requests per second that S3 takes below one prefix.
pub(super) const READS_AT_ONCE: usize = 32;
/// Bytes of manifests that are held at once, as permits: two of the largest.
const PERMIT_BYTES: u64 = 64 << 10;
const MANIFEST_PERMITS: usize = 2 * (MAX_MANIFEST_BYTES / PERMIT_BYTES) as usize;

/// A committed backup in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupSummary {
    /// Its id.
    pub id: BackupId,
    /// The series it belongs to.
    pub series: Series,
    /// When it was begun.
    pub created: Timestamp,
    /// When it was complete.
    pub finished: Timestamp,
    /// By when its manifest was stored at the latest, by the store's clock; nothing if no store was asked. A backup that says it
    /// was begun more than 15 minutes later was dated by a clock that was ahead.
    pub committed: Option<Timestamp>,
    /// The host that wrote it.
    pub host: Option<String>,
    /// What its maker noted.
    pub labels: BTreeMap<String, String>,
    /// What it contains in relation to its parent.
    pub kind: Kind,
    /// The backup that it continues.
    pub parent: Option<BackupId>,
    /// Until when retention and deletion leave it alone.
    pub keep_until: Option<Timestamp>,
    /// Number of stripes.
    pub stripes: usize,
    /// Number of segment objects.
    pub segments: usize,
    /// Raw bytes of all stripes.
    pub raw_bytes: u64,
    /// Size of all segment objects.
    pub stored_bytes: u64,
    /// The last verification that was recorded.
    pub verified: Option<LastVerification>,
    /// Damage that stands, see [`Standing::damage`].
    pub standing_damage: Option<LastVerification>,
    /// True if there may be damage that nobody can read of, see [`Standing::has_unread`].
    pub has_unread_verification: bool,
}

impl From<&Manifest> for BackupSummary {
    fn from(manifest: &Manifest) -> Self {
        Self {
            id: manifest.id,
            series: manifest.series.clone(),
            created: manifest.created,
            finished: manifest.finished,
            committed: None,
            host: manifest.host.clone(),
            labels: manifest.labels.clone(),
            kind: manifest.kind,
            parent: manifest.parent,
            keep_until: manifest.keep_until,
            stripes: manifest.stripes.len(),
            segments: manifest.segments(),
            raw_bytes: manifest.raw_bytes(),
            stored_bytes: manifest.stored_bytes(),
            verified: None,
            standing_damage: None,
            has_unread_verification: false,
        }
    }
}

/// A backup whose manifest exists and cannot be used.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DamagedBackup {
    /// Its id.
    pub id: BackupId,
    /// The series it belongs to.
    pub series: Series,
    /// What is wrong with it.
    pub error: Error,
}

/// What [`list`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Listing {
    /// Committed backups, oldest first.
    pub backups: Vec<BackupSummary>,
    /// Backups whose manifest is damaged or of an unknown version, oldest first. They are no backups to rely on.
    pub damaged: Vec<DamagedBackup>,
    /// Ids without a manifest: in progress, given up, or left by a crash; oldest first.
    pub uncommitted: Vec<(Series, BackupId)>,
}

/// Which backup of a series is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The newest that is committed.
    Latest,
    /// This one.
    Id(BackupId),
}

impl FromStr for Select {
    type Err = Error;

    /// `latest`, in any case, or an id.
    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("latest") { Ok(Self::Latest) } else { text.parse().map(Self::Id) }
    }
}

/// Lists the backups of `series`, or of all series.
///
/// Costs one listing per series and one of the root if no series is given; for each backup a small read and beside it a
/// listing of its verifications, and one more small read if it was verified, with one for each newer record that cannot be used, or all
/// of its records if one was dated by a clock that was ahead; 32 backups at once. Never more than 128 MiB of manifests are held. A damaged manifest does not fail the list.
///
/// # Errors
///
/// Those of the store, by kind. A bucket or directory that does not exist is [`ErrorKind::NotFound`]; one without
/// backups is an empty list.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn list(store: &Store, series: Option<&Series>) -> Result<Listing> {
    let all = match series {
        Some(series) => vec![series.clone()],
        None => series_of(store).await?,
    };
    let mut found: Vec<Names> = Vec::new();
    for series in all {
        found.extend(ids_of(store, &series).await?.into_iter().map(|id| Names::new(series.clone(), id)));
    }
    found.sort_unstable_by(|a, b| (a.id(), a.series()).cmp(&(b.id(), b.series())));
    let mut listing = Listing::default();
    let gate = &gate();
    let mut manifests = stream::iter(found)
        .map(|names| async move {
            // Only the summary is kept: manifests of large backups are large.
            let outcome = summary(store, &names, gate).await;
            (names, outcome)
        })
        .buffered(READS_AT_ONCE);
    while let Some((names, outcome)) = manifests.next().await {
        match outcome {
            Ok(Some(summary)) => listing.backups.push(summary),
            Ok(None) => listing.uncommitted.push((names.series().clone(), names.id())),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                listing.damaged.push(DamagedBackup { id: names.id(), series: names.series().clone(), error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listing)
}

/// A backup and how it stands by its verifications; `None` if it is not committed.
async fn summary(store: &Store, names: &Names, gate: &Semaphore) -> Result<Option<BackupSummary>> {
    let (manifest, records) = tokio::join!(read_gated(store, names, gate), record::names(store, names));
    let Some(Committed { manifest, stored, permit }) = manifest? else { return Ok(None) };
    let of = record::Of::from(&manifest);
    let mut summary = BackupSummary::from(&manifest);
    summary.committed = Some(stored);
    drop((manifest, permit));
    let standing = standing::standing(store, &of, &records?).await?;
    (summary.verified, summary.standing_damage) = (standing.verified, standing.damage);
    summary.has_unread_verification = standing.has_unread;
    Ok(Some(summary))
}

/// How a backup stands by its verifications: one listing, and one small read if it was verified, as for [`list`].
///
/// The last record that can be used tells, because each carries on what it has not shown to be gone. Two verifications that are recorded within
/// the same moment do not know of each other; what all that can be used say together is [`Standing::of`].
///
/// # Errors
///
/// Those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn standing(store: &Store, manifest: &Manifest) -> Result<Standing> {
    let records = record::names(store, &manifest.names()).await?;
    standing::standing(store, &record::Of::from(manifest), &records).await
}

/// The series that the store holds, by name.
///
/// # Errors
///
/// Those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn series_of(store: &Store) -> Result<Vec<Series>> {
    Ok(store.directories("").await?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Finds a backup of `series` and reads its manifest.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Corrupt`] if its manifest is damaged. [`Select::Latest`] has the
/// errors of [`latest`].
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn find(store: &Store, series: &Series, which: Select) -> Result<Manifest> {
    let id = match which {
        Select::Id(id) => id,
        Select::Latest => return latest(store, series).await.map(|latest| latest.manifest),
    };
    let found = read(store, &Names::new(series.clone(), id)).await?;
    found.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("no backup {id} in series `{series}` of {store}; `list` shows what there is"),
        )
    })
}

/// Reads the intent of a backup, committed or not: who began it, when and where.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Corrupt`] if it is damaged; those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn intent(store: &Store, series: &Series, id: BackupId) -> Result<Intent> {
    let name = Names::new(series.clone(), id).intent();
    Intent::decode(&store.read_small(&name, MAX_SMALL_BYTES).await?, &store.show(&name))
}

/// What [`latest`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Latest {
    /// The newest backup.
    pub manifest: Manifest,
    /// Backups that say they are newer, and are dated later than they were stored. The manifest's own id is among them if no
    /// backup of the series can be believed.
    pub ahead: Vec<BackupId>,
}

/// Finds the newest backup of `series`, and what passes itself off as newer.
///
/// Backups are in the order of their ids, which are dated by the machines that made them. One that is dated more than 15 minutes
/// later than the store has it was dated by a clock that was ahead: it is passed over, with a warning in the log, and told in the
/// answer. If all are, the newest is the one that was stored last. On local disk a backup is ahead as well if it is dated in the
/// future, because there the store's clock was the same wrong one.
///
/// Costs one listing and one small read, and one more for each id that is newer and not committed, or ahead.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none. If the newest manifest is damaged, that error: restoring an older backup without
/// being told would be worse. Those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn latest(store: &Store, series: &Series) -> Result<Latest> {
    let ids = ids_of(store, series).await?;
    let mut ahead = Vec::new();
    let mut last_stored: Option<(Timestamp, Manifest)> = None;
    for id in ids.into_iter().rev() {
        match read_gated(store, &Names::new(series.clone(), id), &gate()).await {
            Ok(None) => {}
            Ok(Some(Committed { manifest, stored, .. })) if dating::is_ahead(id.time(), stored) => {
                tracing::warn!(%id, %stored, "the backup is dated later than it was stored and does not count as the newest");
                ahead.push(id);
                if last_stored.as_ref().is_none_or(|(time, _)| stored > *time) {
                    last_stored = Some((stored, manifest));
                }
            }
            Ok(Some(Committed { manifest, .. })) => return Ok(Latest { manifest, ahead }),
            Err(error) => {
                return Err(error.context(format!(
                    "the newest backup of series `{series}`, {id}, cannot be used; name another by its id"
                )));
            }
        }
    }
    match last_stored {
        Some((_, manifest)) => Ok(Latest { manifest, ahead }),
        None => Err(Error::new(ErrorKind::NotFound, format!("no backup in series `{series}` of {store}"))),
    }
}

/// The ids in a series' directory, oldest first, committed or not.
pub(super) async fn ids_of(store: &Store, series: &Series) -> Result<Vec<BackupId>> {
    let mut ids: Vec<BackupId> =
        store.directories(series.as_str()).await?.iter().filter_map(|name| name.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// The manifest of a backup; `None` if there is none. That it names this very backup is checked.
pub(super) async fn read(store: &Store, names: &Names) -> Result<Option<Manifest>> {
    Ok(read_gated(store, names, &gate()).await?.map(|committed| committed.manifest))
}

/// What several readers of manifests share, so that they hold only so much together.
pub(super) fn gate() -> Semaphore {
    Semaphore::new(MANIFEST_PERMITS)
}

/// A manifest as it was read.
#[derive(Debug)]
pub(super) struct Committed<'a> {
    pub(super) manifest: Manifest,
    /// By when it was stored at the latest.
    pub(super) stored: Timestamp,
    /// For the memory of the manifest.
    pub(super) permit: Option<SemaphorePermit<'a>>,
}

/// The same for several readers.
pub(super) async fn read_gated<'a>(store: &Store, names: &Names, gate: &'a Semaphore) -> Result<Option<Committed<'a>>> {
    let name = names.manifest();
    let Read { bytes, stored, permit } = match store.read_gated(&name, MAX_MANIFEST_BYTES, gate, PERMIT_BYTES).await {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let object = store.show(&name);
    let manifest = Manifest::decode(&bytes, &object)?;
    if manifest.id != names.id() || &manifest.series != names.series() {
        let found = format!("{}/{}", manifest.series, manifest.id);
        return Err(super::document::corrupt(&object, "backup", names.directory(), found));
    }
    Ok(Some(Committed { manifest, stored, permit }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::manifest::tests::{manifest, stripe};
    use super::*;
    use crate::clock::Clock as _;
    use crate::testing::{Bucket, Contents, SimClock};

    async fn commit(store: &Store, series: &str, millis: i64) -> BackupId {
        let mut manifest = manifest(vec![stripe(&[(5, 5)])]);
        manifest.series = series.parse().unwrap();
        manifest.id = BackupId::generate(Timestamp::from_millisecond(millis).unwrap());
        store.create(&manifest.names().manifest(), manifest.encode().unwrap().into()).await.unwrap();
        manifest.id
    }

    #[tokio::test]
    async fn lists_are_oldest_first_and_latest_is_the_newest_that_is_committed() {
        let store = Store::memory();
        assert!(list(&store, None).await.unwrap().backups.is_empty());
        let (b, a, c) = (commit(&store, "x", 2).await, commit(&store, "x", 1).await, commit(&store, "y", 3).await);
        let open = Names::new("x".parse().unwrap(), BackupId::generate(Timestamp::from_millisecond(9).unwrap()));
        store.create(&open.intent(), "{}".into()).await.unwrap();
        store.create("not-ours/file", "".into()).await.unwrap();

        let listing = list(&store, None).await.unwrap();
        assert_eq!(listing.backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), [a, b, c]);
        assert_eq!(listing.uncommitted, [("x".parse().unwrap(), open.id())]);
        let x: Series = "x".parse().unwrap();
        assert_eq!(list(&store, Some(&x)).await.unwrap().backups.len(), 2);
        assert_eq!(find(&store, &x, "LATEST".parse().unwrap()).await.unwrap().id, b);
        assert_eq!(find(&store, &x, Select::Id(a)).await.unwrap().id, a);
        for error in [
            find(&store, &x, Select::Id(c)).await.unwrap_err(),
            find(&store, &"none".parse().unwrap(), Select::Latest).await.unwrap_err(),
            find(&store, &x, Select::Id(open.id())).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }
    }

    /// A machine whose clock was ahead once made `latest` an old backup until its date had come.
    #[tokio::test]
    async fn what_is_dated_later_than_it_was_stored_is_not_the_latest() {
        const YEAR: i64 = 366 * 86_400_000;
        let clock = SimClock::new();
        clock.advance(Duration::from_secs(100 * 86_400));
        let bucket = Bucket::new(Contents::default(), clock.shared());
        let store = Store::with_multipart(Arc::new(bucket.clone()), Arc::new(bucket.clone()), "").clock(clock.shared());
        let x: Series = "x".parse().unwrap();
        let now = clock.wall().as_millisecond();
        let (older, newer) = (commit(&store, "x", now + YEAR).await, commit(&store, "x", now + 2 * YEAR).await);
        let found = latest(&store, &x).await.unwrap();
        assert_eq!((found.manifest.id, found.ahead), (newer, vec![newer, older]), "better than none");
        clock.advance(Duration::from_secs(1));
        let last = commit(&store, "x", now + YEAR / 2).await;
        assert_eq!(find(&store, &x, Select::Latest).await.unwrap().id, last, "it was stored last");
        let good = commit(&store, "x", now).await;
        let found = latest(&store, &x).await.unwrap();
        assert_eq!((found.manifest.id, found.ahead), (good, vec![newer, older, last]));
        // When the date has come, it is still wrong.
        clock.advance(Duration::from_secs(800 * 86_400));
        assert_eq!(find(&store, &x, Select::Latest).await.unwrap().id, good);
    }

    #[tokio::test]
    async fn on_disk_what_is_dated_in_the_future_is_not_the_latest() {
        let clock = SimClock::new();
        clock.advance(Duration::from_secs(100 * 86_400));
        let ahead = SimClock::new();
        ahead.advance(Duration::from_secs(500 * 86_400));
        // The clock of the disk is the machine's, and was wrong with it.
        let disk = Bucket::new(Contents::default(), ahead.shared());
        let store = Store::with_multipart(Arc::new(disk.clone()), Arc::new(disk.clone()), "").clock(clock.shared());
        let x: Series = "x".parse().unwrap();
        let wrong = commit(&store, "x", ahead.wall().as_millisecond()).await;
        let good = commit(&store, "x", clock.wall().as_millisecond()).await;
        assert_eq!(find(&store, &x, Select::Latest).await.unwrap().id, wrong, "another machine's clock is believed");
        let store = store.sharing_clock();
        let found = latest(&store, &x).await.unwrap();
        assert_eq!((found.manifest.id, found.ahead), (good, vec![wrong]));
        let listed = list(&store, Some(&x)).await.unwrap().backups;
        assert!(listed.iter().all(|backup| backup.committed == Some(clock.wall())), "{listed:?}");
    }

    #[tokio::test]
    async fn damaged_and_swapped_manifests_are_reported_and_not_fatal() {
        let store = Store::memory();
        let good = commit(&store, "x", 1).await;
        let x: Series = "x".parse().unwrap();
        let good_names = Names::new(x.clone(), good);
        let swapped = Names::new(x.clone(), BackupId::generate(Timestamp::from_millisecond(2).unwrap()));
        let bytes = store.read_small(&good_names.manifest(), u64::MAX).await.unwrap();
        store.create(&swapped.manifest(), bytes.clone()).await.unwrap();
        let cut = Names::new(x.clone(), BackupId::generate(Timestamp::from_millisecond(3).unwrap()));
        store.create(&cut.manifest(), bytes.slice(..100)).await.unwrap();

        let listing = list(&store, None).await.unwrap();
        assert_eq!(listing.backups.len(), 1);
        assert_eq!(listing.damaged.iter().map(|damaged| damaged.id).collect::<Vec<_>>(), [swapped.id(), cut.id()]);
        let error = find(&store, &x, Select::Latest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.report().contains(&cut.id().to_string()), "{}", error.report());
    }
}
