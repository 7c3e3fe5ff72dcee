//! The judgement: what belongs to no committed backup, and whether it is old enough to go. Nothing here reads or writes.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

use super::super::dating;
use super::super::id::BackupId;
use super::super::names::{Names, ObjectName, Series};
use super::super::store::Seen;
use super::found::Found;

/// The grace time that suits nearly everybody: a day.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest grace time beside which backups, restores and deletions may run: an hour. With a shorter one a collection is
/// right only where nothing else uses the store.
pub const SAFE_GRACE: Duration = Duration::from_secs(60 * 60);

/// What is left in a store, and what is to become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionPlan {
    /// When it was judged, by this machine's clock.
    pub time: Timestamp,
    /// The age that a leftover must have, in whole seconds.
    #[serde(rename = "grace_seconds", serialize_with = "seconds")]
    pub grace: Duration,
    /// The leftovers, by series and oldest first.
    pub leftovers: Vec<Leftover>,
}

/// Something that belongs to no committed backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Leftover {
    /// What it is.
    #[serde(flatten)]
    pub subject: Subject,
    /// Why it is left over.
    pub reason: Reason,
    /// Number of objects.
    pub objects: u64,
    /// Their bytes. Those of multipart uploads are not known.
    pub bytes: u64,
    /// Records of multipart uploads. One that ran for long may have two.
    pub uploads: u64,
    /// The last sign of life: when the newest of the objects was written, by the store's clock, or when the backup was begun. 1970 if
    /// no sign tells anything, because a clock was too far ahead.
    pub last_sign: Timestamp,
    /// The judgement.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// What a leftover is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Subject {
    /// All that is there of a backup that is not committed.
    Backup {
        /// Its series.
        series: Series,
        /// Its id.
        id: BackupId,
    },
    /// One object beside a committed backup, which stays.
    Beside {
        /// The series of the backup.
        series: Series,
        /// Its id.
        id: BackupId,
        /// The object, below the store's prefix.
        object: String,
    },
    /// One object that belongs to no backup.
    Object {
        /// The object, below the store's prefix.
        object: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup { series, id } => write!(f, "{series}/{id}"),
            Self::Beside { object, .. } | Self::Object { object } => f.write_str(object),
        }
    }
}

/// Why something is left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The backup was begun and never committed: it was given up, its process died, or it is being made.
    NeverCommitted,
    /// Objects of a backup of which there is neither an intent nor a manifest.
    WithoutIntent,
    /// The backup was deleted, and its data stayed for readers that had begun.
    Deleted,
    /// A collection has begun to remove it and did not come to its end.
    HalfCollected,
    /// The record of an upload that is over.
    UploadRecord,
    /// A file on local disk that never got its name.
    HalfWritten,
    /// The record of a deletion that did not happen.
    DeletionRecord,
    /// The mark of a collection that found the backup committed.
    CollectionMark,
    /// The claim of a process that resumed the backup, which is committed.
    Claim,
    /// A segment that the manifest does not name: another process than the one that has committed the backup has stored it.
    Unnamed,
    /// A throw-away object by which it was tried what the store does.
    Probe,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverCommitted => "never committed",
            Self::WithoutIntent => "without an intent",
            Self::Deleted => "deleted",
            Self::HalfCollected => "half collected",
            Self::UploadRecord => "record of a finished upload",
            Self::HalfWritten => "half written",
            Self::DeletionRecord => "record of a deletion that did not happen",
            Self::CollectionMark => "mark of a collection that is over",
            Self::Claim => "claim on a backup that is committed",
            Self::Unnamed => "segment that the manifest does not name",
            Self::Probe => "probe",
        })
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A judgement on a leftover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It goes.
    Remove,
    /// It stays until it is old enough: whoever made it may still be at work.
    Wait {
        /// From then on it goes, if it shows no other sign of life.
        until: Timestamp,
    },
}

fn seconds<S: Serializer>(grace: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(grace.as_secs())
}

impl CollectionPlan {
    /// What goes.
    pub fn removed(&self) -> impl Iterator<Item = &Leftover> {
        self.leftovers.iter().filter(|leftover| leftover.verdict == Verdict::Remove)
    }

    /// What stays until it is old enough.
    pub fn waiting(&self) -> impl Iterator<Item = &Leftover> {
        self.leftovers.iter().filter(|leftover| leftover.verdict != Verdict::Remove)
    }
}

/// By what ages are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ages {
    /// By the same clock as the signs of life, as far as that is known.
    pub(super) now: Timestamp,
    pub(super) grace: Duration,
    /// The signs are dated by this machine's clock, of whatever day, and not by a clock that no writer can set.
    pub(super) shares_clock: bool,
}

impl Ages {
    /// Whether a sign tells anything. One that is yet to come was given by a clock that was ahead: just now, for all that is known. One
    /// that is further ahead than the grace time would be waited for longer than twice that, up to for ever.
    pub(super) fn counts(&self, sign: Timestamp) -> bool {
        !self.shares_clock || !dating::is_ahead(sign, self.after(self.now))
    }

    pub(super) fn verdict(&self, last_sign: Timestamp) -> Verdict {
        let age = Duration::try_from(self.now.duration_since(last_sign)).unwrap_or_default();
        if age >= self.grace || !self.counts(last_sign) {
            return Verdict::Remove;
        }
        Verdict::Wait { until: self.after(last_sign) }
    }

    /// The grace time later.
    fn after(&self, time: Timestamp) -> Timestamp {
        let grace = SignedDuration::try_from(self.grace).unwrap_or(SignedDuration::MAX);
        time.checked_add(grace).unwrap_or(Timestamp::MAX)
    }
}

/// The last sign of life of an uncommitted backup.
pub(super) fn last_sign(names: &Names, found: &Found, now: Timestamp) -> Timestamp {
    // By the clock of the machine that began it. A time that is yet to come shows that this clock was wrong, and tells nothing.
    let begun = Some(names.id().time()).filter(|begun| *begun <= now);
    found.newest.max(begun).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The leftovers among the objects of one backup.
pub(super) fn judge(names: &Names, found: &Found, ages: Ages) -> Vec<Leftover> {
    if found.has_manifest {
        return found.strays.iter().map(|stray| beside(names, found, stray, ages)).collect();
    }
    if found.objects == 0 {
        return Vec::new();
    }
    let reason = match found {
        Found { is_marked: true, .. } => Reason::HalfCollected,
        Found { is_deleted: true, .. } => Reason::Deleted,
        Found { has_intent: true, .. } => Reason::NeverCommitted,
        _ => Reason::WithoutIntent,
    };
    let last_sign = last_sign(names, found, ages.now);
    vec![Leftover {
        subject: Subject::Backup { series: names.series().clone(), id: names.id() },
        reason,
        objects: found.objects,
        bytes: found.bytes,
        uploads: found.uploads,
        last_sign,
        verdict: ages.verdict(last_sign),
    }]
}

fn beside(names: &Names, found: &Found, stray: &Seen, ages: Ages) -> Leftover {
    let name = names.parse(&stray.name);
    let is_segment = name.as_ref().is_some_and(|name| name.as_segment().is_some());
    // Segments wait for all that their processes have left: one that lives may have stored some of them long ago.
    let last_sign = found.newest_stray.filter(|_| is_segment).unwrap_or(stray.modified);
    let (reason, uploads) = match name {
        _ if is_segment => (Reason::Unnamed, 0),
        Some(ObjectName::Upload { .. }) => (Reason::UploadRecord, 1),
        Some(ObjectName::Deleted(_)) => (Reason::DeletionRecord, 0),
        Some(ObjectName::Collected(_)) => (Reason::CollectionMark, 0),
        Some(ObjectName::Claim(_)) => (Reason::Claim, 0),
        _ => (Reason::HalfWritten, 0),
    };
    Leftover {
        subject: Subject::Beside { series: names.series().clone(), id: names.id(), object: stray.name.clone() },
        reason,
        objects: 1,
        bytes: stray.bytes,
        uploads,
        last_sign,
        verdict: ages.verdict(last_sign),
    }
}

/// A throw-away object.
pub(super) fn probe(seen: Seen, ages: Ages) -> Leftover {
    Leftover {
        reason: Reason::Probe,
        objects: 1,
        bytes: seen.bytes,
        uploads: 0,
        last_sign: seen.modified,
        verdict: ages.verdict(seen.modified),
        subject: Subject::Object { object: seen.name },
    }
}
