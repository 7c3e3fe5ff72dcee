//! What is kept of a verification: one sealed document each, written once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use super::coverage::Coverage;
use super::options::VerifyLevel;
use super::report::VerifyReport;
use super::standing::LastVerification;
use crate::backup::dating;
use crate::backup::document::{self, MAX_SMALL_BYTES, bounded, corrupt, shown};
use crate::backup::id::BackupId;
use crate::backup::manifest::Manifest;
use crate::backup::names::{Names, ObjectName, Series};
use crate::backup::options::{TOOL, host};
use crate::backup::segments;
use crate::backup::store::{Seen, Store};
use crate::error::{ErrorKind, Result};

const VERIFICATION: &str = "vdstream-verification";

/// Findings that a record lists, whoever wrote it; of more only the number is kept.
const MOST_FINDINGS: usize = 100;
/// The most characters of a finding's text.
const MOST_FINDING_CHARS: usize = 1000;
/// Bytes of records that are held at once by who asks for all.
const MOST_RECORD_BYTES: usize = 64 << 20;

/// One verification of a backup, as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verification {
    /// The series of the backup.
    pub series: Series,
    /// The backup.
    pub id: BackupId,
    /// The root hash of the manifest that it was compared with, in hexadecimal digits.
    pub root: String,
    /// When it was begun.
    pub started: Timestamp,
    /// When it was done.
    pub finished: Timestamp,
    /// The tool and version that did it.
    pub tool: String,
    /// The host that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How deep it looked.
    pub level: VerifyLevel,
    /// What came out.
    pub outcome: Outcome,
    /// Segments of the backup.
    pub segments: u64,
    /// Segments that it looked at, at its level, and found good.
    pub good: u64,
    /// Which these were.
    pub covered: Coverage,
    /// The seed, if a sample was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Damage that stood when it was recorded, of those that other verifications found: what it has not shown to be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier_damage: Option<LastVerification>,
    /// True if there was a record that could not be used, and may tell damage that this one has not shown to be gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_unread: bool,
    /// Number of findings.
    pub findings: u64,
    /// The first of the findings.
    #[serde(default, deserialize_with = "findings", skip_serializing_if = "Vec::is_empty")]
    pub damage: Vec<Finding>,
}

fn findings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Finding>, D::Error> {
    bounded(deserializer, "findings", MOST_FINDINGS, |_| 1)
}

/// What came out of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing was wrong, as far as it looked.
    Good,
    /// Something was.
    Damaged,
}

impl Outcome {
    /// The word that the record has for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Damaged => "damaged",
        }
    }
}

/// One finding of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// The damaged object, below the store's prefix.
    pub object: String,
    /// What is wrong with it.
    pub error: String,
}

impl Verification {
    /// What `report` says of a backup that `covered` was found good of.
    pub(super) fn new(
        manifest: &Manifest,
        report: &VerifyReport,
        covered: Coverage,
        started: Timestamp,
        finished: Timestamp,
    ) -> Self {
        let finding = |damage: &super::report::Damage| Finding {
            object: damage.object.clone(),
            error: shown(&damage.error.report(), MOST_FINDING_CHARS),
        };
        Self {
            series: manifest.series.clone(),
            id: manifest.id,
            root: manifest.root().to_hex().to_string(),
            started,
            finished,
            tool: TOOL.to_owned(),
            host: host(),
            level: report.level,
            outcome: if report.is_good() { Outcome::Good } else { Outcome::Damaged },
            segments: report.objects as u64,
            good: covered.count(),
            covered,
            seed: report.sample.map(|sample| sample.seed),
            earlier_damage: None,
            has_unread: false,
            findings: report.damage.len() as u64,
            damage: report.damage.iter().take(MOST_FINDINGS).map(finding).collect(),
        }
    }

    /// True if it looked at every segment and found all of them good.
    pub fn is_complete(&self) -> bool {
        self.good == self.segments
    }

    /// True if what it covers counts as looked at, at `level` and the time `now`.
    pub(super) fn is_evidence(&self, level: VerifyLevel, now: Timestamp, max_age: Duration) -> bool {
        // A record from the future was written by a clock that was wrong, so its age is not known.
        let age = Duration::try_from(now.duration_since(self.finished));
        self.level >= level && age.is_ok_and(|age| age <= max_age)
    }

    /// Bytes that it takes in memory.
    fn weight(&self) -> usize {
        let texts = [&self.root, &self.tool].into_iter().chain(&self.host);
        let findings = self.damage.iter().map(|f| size_of::<Finding>() + f.object.capacity() + f.error.capacity());
        let held = texts.map(String::capacity).chain(findings).fold(self.covered.weight(), usize::saturating_add);
        size_of::<Self>().saturating_add(held)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        document::encode_small(VERIFICATION, self)
    }

    pub(crate) fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let record: Self = document::decode_small(VERIFICATION, bytes, object)?;
        if record.good != record.covered.count() || record.good > record.segments {
            let found = format!("{} in {} of {}", record.covered.count(), record.good, record.segments);
            return Err(corrupt(object, "segments", "numbers that fit together", found));
        }
        if (record.outcome == Outcome::Good) != (record.findings == 0) || record.damage.len() as u64 > record.findings {
            let found = format!("{} and {} findings", record.outcome.as_str(), record.findings);
            return Err(corrupt(object, "outcome", "good without findings, or damaged", found));
        }
        if let Some(earlier) = record.earlier_damage
            && (earlier.outcome != Outcome::Damaged
                || earlier.good > earlier.segments
                || earlier.segments != record.segments)
        {
            let found = format!("{}, {} of {}", earlier.outcome.as_str(), earlier.good, earlier.segments);
            return Err(corrupt(object, "earlier damage", "damaged, of the same segments", found));
        }
        Ok(record)
    }
}

/// Writes a record under the first free name at or after the time of its end, and after all of `names`: a clock that is behind puts
/// it before none that was there. Answers its name.
pub(super) async fn write(
    store: &Store,
    manifest: &Manifest,
    record: &Verification,
    names: &[RecordName],
) -> Result<String> {
    const NAMES: i64 = 20;
    let committed = manifest.names().manifest();
    if store.find_size(&committed).await?.is_none() {
        // Deleted meanwhile: a record would be the one thing that is left of it.
        return Err(segments::missing(&store.show(&committed)));
    }
    let content = bytes::Bytes::from(record.encode()?);
    let later = |time: Timestamp, millis| time.checked_add(SignedDuration::from_millis(millis)).unwrap_or(time);
    let newest = names.iter().map(RecordName::place).max();
    let first = newest.map_or(record.finished, |newest| record.finished.max(later(newest, 1)));
    let mut outcome = Ok(String::new());
    for millis in 0..NAMES {
        // Two verifications may end in the same millisecond.
        let time = later(first, millis);
        let name = manifest.names().of(&ObjectName::Verified(time));
        outcome = store.create(&name, content.clone()).await.map(|()| name);
        match &outcome {
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            _ => break,
        }
    }
    outcome
}

/// What a record must fit to.
#[derive(Debug)]
pub(crate) struct Of {
    series: Series,
    id: BackupId,
    root: blake3::Hash,
    /// Segments of each stripe.
    stripes: Vec<usize>,
}

impl From<&Manifest> for Of {
    fn from(manifest: &Manifest) -> Self {
        Self {
            series: manifest.series.clone(),
            id: manifest.id,
            root: manifest.root(),
            stripes: manifest.stripes.iter().map(|stripe| stripe.segments.len()).collect(),
        }
    }
}

/// What came of reading a record.
#[derive(Debug)]
pub(super) enum Reading {
    /// This is what it says.
    Record(Box<Verification>),
    /// It is there, and cannot be used.
    Unusable,
    /// It is not there any more.
    Gone,
}

/// Reads one record, which cannot be used if it is of a version to come. `Corrupt` if it is damaged or of another backup or manifest.
pub(super) async fn read(store: &Store, of: &Of, name: &str) -> Result<Reading> {
    let bytes = match store.read_small(name, MAX_SMALL_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Reading::Gone),
        Err(error) => return Err(error),
    };
    let object = store.show(name);
    let record = match Verification::decode(&bytes, &object) {
        Ok(record) => record,
        Err(error) if error.kind() == ErrorKind::Invalid => return Ok(Reading::Unusable),
        Err(error) => return Err(error),
    };
    let (expected, found) = (of.root.to_hex(), &record.root);
    if (record.id, &record.series) != (of.id, &of.series) || expected.as_str() != found {
        return Err(corrupt(&object, "root hash", expected, shown(found, 64)));
    }
    let total: usize = of.stripes.iter().sum();
    let is_outside = |(stripe, end): (usize, u32)| of.stripes.get(stripe).is_none_or(|count| end as usize > *count);
    if record.segments != total as u64 || record.covered.ends().any(is_outside) {
        return Err(corrupt(&object, "segments", total, record.segments));
    }
    Ok(Reading::Record(Box::new(record)))
}

/// The same; it cannot be used as well if it is damaged or of another backup.
pub(super) async fn read_usable(store: &Store, of: &Of, name: &RecordName) -> Result<Reading> {
    match read(store, of, &name.object).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(error = %error.report(), "a record of a verification cannot be used");
            Ok(Reading::Unusable)
        }
        outcome => outcome,
    }
}

/// The verifications of a backup that were recorded, oldest first. Records that are damaged are left out; a verification
/// from [`VerifyLevel::Stored`] on finds them. Of records that take more than 64 MiB of memory together, the newest are answered:
/// several hundred if all of them have a hundred findings, and far more without.
///
/// A record that is dated more than 15 minutes later than the store has it was dated by a clock that was ahead. If it found
/// nothing wrong it stands before all others, because it says nothing of what came before it; else it stands where it was stored.
///
/// Costs one listing and one small read for each.
///
/// # Errors
///
/// Those of the store, by kind.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn verifications(store: &Store, manifest: &Manifest) -> Result<Vec<Verification>> {
    let of = Of::from(manifest);
    let (mut found, mut weight) = (Vec::new(), 0usize);
    let mut names = names(store, &manifest.names()).await?;
    names.sort_by_key(RecordName::place);
    for name in names.iter().rev() {
        if let Reading::Record(record) = read_usable(store, &of, name).await? {
            weight = weight.saturating_add(record.weight());
            if weight > MOST_RECORD_BYTES {
                tracing::warn!(
                    records = found.len(),
                    "there are more records of verifications than are held; older ones are left out"
                );
                break;
            }
            found.push((name.time_of(&record), *record));
        }
    }
    found.reverse();
    found.sort_by_key(|(time, _)| *time);
    Ok(found.into_iter().map(|(_, record)| record).collect())
}

/// The name of a record, and what is known of its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordName {
    pub(crate) object: String,
    /// By the clock of whoever wrote it.
    dated: Timestamp,
    /// By when it was stored at the latest.
    stored: Timestamp,
}

impl RecordName {
    /// `None` if the object is no record of the backup with these names.
    fn of(store: &Store, names: &Names, seen: Seen) -> Option<Self> {
        let Some(ObjectName::Verified(dated)) = names.parse(&seen.name) else { return None };
        Some(Self { object: seen.name, dated, stored: store.stored_by(seen.modified) })
    }

    #[cfg(test)]
    pub(super) fn of_time(dated: Timestamp, stored: Timestamp) -> Self {
        Self { object: String::new(), dated, stored }
    }

    /// True if it is dated later than it was stored.
    pub(super) fn is_ahead(&self) -> bool {
        dating::is_ahead(self.dated, self.stored)
    }

    /// Its place in the order of records, whatever it says, but for [`time_of`](Self::time_of).
    pub(super) fn place(&self) -> Timestamp {
        if !self.is_ahead() {
            return self.dated;
        }
        // To the millisecond, as dates are.
        Timestamp::from_millisecond(self.stored.as_millisecond()).unwrap_or(self.stored)
    }

    /// When it was written, for the order of records. A good one that is ahead would hide every damage that is found until its
    /// date has come, so it comes before all others; a damaged one counts from when it was stored.
    pub(super) fn time_of(&self, record: &Verification) -> Timestamp {
        match record.outcome {
            Outcome::Good if self.is_ahead() => Timestamp::MIN,
            _ => self.place(),
        }
    }
}

/// Names of records that are kept of a listing, whoever stored how many: those that were stored last.
const MOST_NAMES: usize = 10_000;

/// The names of records that a listing shows.
#[derive(Debug, Default)]
pub(super) struct RecordNames {
    found: Vec<RecordName>,
}

impl RecordNames {
    pub(super) fn see(&mut self, store: &Store, names: &Names, seen: Seen) {
        self.found.extend(RecordName::of(store, names, seen));
        if self.found.len() >= 2 * MOST_NAMES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.found.sort_unstable_by(|a, b| (b.stored, &b.object).cmp(&(a.stored, &a.object)));
        self.found.truncate(MOST_NAMES);
    }

    /// Oldest first; before them those that are dated later than they were stored.
    pub(super) fn in_order(mut self) -> Vec<RecordName> {
        self.cut();
        self.found.sort_unstable_by(|a, b| {
            let key = |name: &RecordName| (!name.is_ahead(), name.dated);
            key(a).cmp(&key(b)).then_with(|| a.object.cmp(&b.object))
        });
        self.found
    }
}

/// The names of the records, in their order; of more than 10,000 those that were stored last.
pub(crate) async fn names(store: &Store, names: &Names) -> Result<Vec<RecordName>> {
    let see = |found: &mut RecordNames, seen| found.see(store, names, seen);
    Ok(store.fold(&names.verified(), see).await?.in_order())
}
