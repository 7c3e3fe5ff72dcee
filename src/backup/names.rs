//! Every object name of a backup is made and taken apart here, nowhere else.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::id::BackupId;
use super::stamp::{Stamp, basic, time};
use super::writers::Writers;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::SegmentId;

/// The most stripes of one backup.
pub const MAX_STRIPES: u16 = 64;
/// The most segments of one stripe: their names have six digits, so that they sort.
pub const MAX_STRIPE_SEGMENTS: u32 = 1_000_000;
/// The largest number of a claim: their names have six digits, so that they sort.
pub(crate) const MAX_CLAIMS: u32 = 999_999;

/// The name of a series of backups, and of its directory in the store.
///
/// 1 to 100 characters of `a-z A-Z 0-9 . _ -`, the first a letter or digit: one path segment on every store, without
/// any character that one of them would encode.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series(String);

impl Series {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 100;

    /// The series that is meant when none is named.
    pub fn default_series() -> Self {
        Self("default".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::default_series()
    }
}

impl FromStr for Series {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let valid = text.len() <= Self::MAX_BYTES
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(allowed);
        if valid {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(Self::MAX_BYTES).flat_map(char::escape_default).collect();
        Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "`{shown}` cannot name a series: use 1 to {} of the characters a-z A-Z 0-9 . _ -, the first a letter or digit",
                Self::MAX_BYTES
            ),
        ))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Series {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Series {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error))
    }
}

/// The names of one backup, relative to the store's prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    series: Series,
    id: BackupId,
    is_encrypted: bool,
    writers: Writers,
}

impl Names {
    pub(crate) fn new(series: Series, id: BackupId) -> Self {
        Self { series, id, is_encrypted: false, writers: Writers::default() }
    }

    /// The same for a backup whose segments these processes have stored.
    pub(crate) fn written_by(mut self, writers: Writers) -> Self {
        self.writers = writers;
        self
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }

    /// The same for a backup whose segments are encrypted, if so.
    pub(crate) fn encrypted(mut self, is_encrypted: bool) -> Self {
        self.is_encrypted = is_encrypted;
        self
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    pub(crate) fn series(&self) -> &Series {
        &self.series
    }

    pub(crate) fn id(&self) -> BackupId {
        self.id
    }

    /// The directory of the backup.
    pub(crate) fn directory(&self) -> String {
        format!("{}/{}", self.series, self.id)
    }

    pub(crate) fn manifest(&self) -> String {
        self.of(&ObjectName::Manifest)
    }

    pub(crate) fn intent(&self) -> String {
        self.of(&ObjectName::Intent)
    }

    /// The directory of the records of verifications.
    pub(crate) fn verified(&self) -> String {
        format!("{}/verified", self.directory())
    }

    /// The directory of the records of deletions.
    pub(crate) fn deleted(&self) -> String {
        format!("{}/deleted", self.directory())
    }

    pub(crate) fn segment(&self, segment: SegmentId) -> String {
        self.of(&ObjectName::segment(segment, self.writers.of(segment), self.is_encrypted))
    }

    /// The record of an upload of a segment.
    pub(crate) fn upload(&self, segment: SegmentId, attempt: u32) -> String {
        self.of(&ObjectName::Upload { segment, claim: self.writers.of(segment), attempt })
    }

    pub(crate) fn of(&self, name: &ObjectName) -> String {
        format!("{}/{name}", self.directory())
    }

    /// What `name`, relative to the store's prefix, is within this backup; `None` if nothing that we write.
    pub(crate) fn parse(&self, name: &str) -> Option<ObjectName> {
        name.strip_prefix(&self.directory())?.strip_prefix('/')?.parse().ok()
    }
}

/// What an object within a backup's directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ObjectName {
    /// Who may go on with the backup.
    Claim(u32),
    /// The private key of a backup, encrypted with its passphrase.
    Identity,
    Intent,
    Manifest,
    /// What a crash on local disk left of a write.
    Partial,
    /// An encrypted segment.
    Sealed(SegmentId),
    Segment(SegmentId),
    /// A segment that was stored by a process that resumed the backup.
    Resumed {
        segment: SegmentId,
        claim: u32,
    },
    /// The record of an upload of a segment; a segment that is begun again gets the next attempt. The claim is 0 for the
    /// process that began the backup.
    Upload {
        segment: SegmentId,
        claim: u32,
        attempt: u32,
    },
    Verified(Timestamp),
    /// Says since when the backup is being deleted. Each deletion has its own.
    Deleted(Stamp),
    /// Says since when a collection removes what is left of the backup. Each collection has its own.
    Collected(Stamp),
}

impl ObjectName {
    /// A segment that the owner of `claim` stores; 0 if it has begun the backup. Encrypted backups are not resumed.
    pub(crate) fn segment(segment: SegmentId, claim: u32, is_encrypted: bool) -> Self {
        match claim {
            0 if is_encrypted => Self::Sealed(segment),
            0 => Self::Segment(segment),
            claim => Self::Resumed { segment, claim },
        }
    }

    /// Which segment it is, and the claim of who stored it; `None` if it is none.
    pub(crate) fn as_segment(&self) -> Option<(SegmentId, u32)> {
        match *self {
            Self::Segment(segment) | Self::Sealed(segment) => Some((segment, 0)),
            Self::Resumed { segment, claim } => Some((segment, claim)),
            _ => None,
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(number) => write!(f, "claims/{number:06}.json"),
            Self::Identity => f.write_str("identity.age"),
            Self::Intent => f.write_str("intent.json"),
            Self::Manifest => f.write_str("manifest.json"),
            Self::Partial => f.write_str("partial"),
            Self::Sealed(id) => write!(f, "s{:02}/{:06}.zst.age", id.stripe, id.index),
            Self::Segment(id) => write!(f, "s{:02}/{:06}.zst", id.stripe, id.index),
            Self::Resumed { segment, claim } => {
                write!(f, "s{:02}/{:06}-c{claim:02}.zst", segment.stripe, segment.index)
            }
            Self::Upload { segment, claim, attempt } => {
                write!(f, "uploads/s{:02}-{:06}", segment.stripe, segment.index)?;
                if *claim > 0 {
                    write!(f, "-c{claim:02}")?;
                }
                if *attempt > 0 {
                    write!(f, "-{attempt:02}")?;
                }
                f.write_str(".json")
            }
            Self::Verified(time) => write!(f, "verified/{}.json", basic(*time)),
            Self::Deleted(stamp) => write!(f, "deleted/{stamp}.json"),
            Self::Collected(stamp) => write!(f, "collected/{stamp}.json"),
        }
    }
}

impl FromStr for ObjectName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parsed = match text {
            "identity.age" => Self::Identity,
            "intent.json" => Self::Intent,
            "manifest.json" => Self::Manifest,
            _ => parse_numbered(text).ok_or(())?,
        };
        // One name, one meaning: `s0/1.zst` is not another spelling of `s00/000001.zst`.
        let canonical = matches!(parsed, Self::Partial) || parsed.to_string() == text;
        if canonical { Ok(parsed) } else { Err(()) }
    }
}

fn parse_numbered(text: &str) -> Option<ObjectName> {
    if let Some((of, id)) = text.rsplit_once(".partial-") {
        let ours = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && of.parse::<ObjectName>().is_ok();
        return ours.then_some(ObjectName::Partial);
    }
    if let Some(rest) = text.strip_prefix("uploads/s") {
        let mut numbers = rest.strip_suffix(".json")?.split('-').peekable();
        let segment = segment_id(numbers.next()?, numbers.next()?)?;
        let claim = numbers.next_if(|number| number.starts_with('c')).map_or(Some(0), claim_number)?;
        let attempt = numbers.next().map_or(Some(0), |attempt| attempt.parse().ok())?;
        return numbers.next().is_none().then_some(ObjectName::Upload { segment, claim, attempt });
    }
    if let Some(rest) = text.strip_prefix("claims/") {
        let number = rest.strip_suffix(".json")?.parse().ok()?;
        return (1..=MAX_CLAIMS).contains(&number).then_some(ObjectName::Claim(number));
    }
    if let Some(rest) = text.strip_prefix("verified/") {
        return time(rest.strip_suffix(".json")?).map(ObjectName::Verified);
    }
    if let Some(rest) = text.strip_prefix("deleted/") {
        return Stamp::parse(rest.strip_suffix(".json")?).map(ObjectName::Deleted);
    }
    if let Some(rest) = text.strip_prefix("collected/") {
        return Stamp::parse(rest.strip_suffix(".json")?).map(ObjectName::Collected);
    }
    let (file, is_encrypted) = match text.strip_suffix(".age") {
        Some(file) => (file, true),
        None => (text, false),
    };
    let (stripe, index) = file.strip_prefix('s')?.strip_suffix(".zst")?.split_once('/')?;
    match index.split_once('-') {
        None => Some(ObjectName::segment(segment_id(stripe, index)?, 0, is_encrypted)),
        Some(_) if is_encrypted => None,
        Some((index, claim)) => {
            Some(ObjectName::Resumed { segment: segment_id(stripe, index)?, claim: claim_number(claim)? })
        }
    }
}

/// The number of a claim within a name: `c01`.
fn claim_number(text: &str) -> Option<u32> {
    let number = text.strip_prefix('c')?.parse().ok()?;
    (1..=MAX_CLAIMS).contains(&number).then_some(number)
}

fn segment_id(stripe: &str, index: &str) -> Option<SegmentId> {
    let id = SegmentId { stripe: stripe.parse().ok()?, index: index.parse().ok()? };
    (id.stripe < MAX_STRIPES && id.index < MAX_STRIPE_SEGMENTS).then_some(id)
}

/// The directory of throw-away objects. No series can have its name.
pub(crate) const PROBES: &str = ".vdstream";

/// A throw-away object to learn what the store does.
pub(crate) fn probe(id: Uuid) -> String {
    format!("{PROBES}/probe-{}", id.simple())
}

/// True if `name`, relative to the store's prefix, is a throw-away object, or what a crash on local disk left of one.
pub(crate) fn is_probe(name: &str) -> bool {
    let is_id = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let Some(id) = name.strip_prefix(PROBES).and_then(|rest| rest.strip_prefix("/probe-")) else { return false };
    match id.split_once(".partial-") {
        None => is_id(id),
        Some((id, staged)) => is_id(id) && is_id(staged),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names::new("orders".parse().unwrap(), BackupId::generate(Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn series_names_are_one_safe_path_segment() {
        for good in ["default", "a", "0", "a.b_c-D", &"x".repeat(100)] {
            assert_eq!(good.parse::<Series>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "_a", "a/b", "a\\b", "a b", "a%2fb", "é", "a\0", "a\n", &"x".repeat(101)]
        {
            assert_eq!(bad.parse::<Series>().unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_layout() {
        let names = names();
        let id = names.id();
        let segment = SegmentId { stripe: 3, index: 17 };
        assert_eq!(names.manifest(), format!("orders/{id}/manifest.json"));
        assert_eq!(names.segment(segment), format!("orders/{id}/s03/000017.zst"));
        assert_eq!(names.encrypted(true).segment(segment), format!("orders/{id}/s03/000017.zst.age"));
        assert_eq!(ObjectName::Claim(7).to_string(), "claims/000007.json");
        assert_eq!(ObjectName::Resumed { segment, claim: 7 }.to_string(), "s03/000017-c07.zst");
        for (claim, attempt, name) in [
            (0, 0, "uploads/s03-000017.json"),
            (0, 2, "uploads/s03-000017-02.json"),
            (7, 0, "uploads/s03-000017-c07.json"),
            (7, 2, "uploads/s03-000017-c07-02.json"),
        ] {
            assert_eq!(ObjectName::Upload { segment, claim, attempt }.to_string(), name);
        }
        let time = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        assert_eq!(ObjectName::Verified(time).to_string(), "verified/20231114T221320.123Z.json");
        let (one, other) = (ObjectName::Deleted(Stamp::draw(time)), ObjectName::Deleted(Stamp::draw(time)));
        assert_ne!(one, other);
        let tail =
            one.to_string().strip_prefix("deleted/20231114T221320.123Z-").unwrap().strip_suffix(".json").unwrap().len();
        assert_eq!(tail, 16, "{one}");
        // As they were written before they had tails.
        assert_eq!(ObjectName::Deleted(time.into()).to_string(), "deleted/20231114T221320.123Z.json");
    }

    #[test]
    fn other_spellings_and_strangers_are_not_ours() {
        let names = names();
        for stranger in [
            "",
            "x",
            "s0/000000.zst",
            "s00/0.zst",
            "s00/0000000.zst",
            "s64/000000.zst",
            "s00/000000.age",
            "s00/000000.zst.age.age",
            "s0/0.zst.age",
            "intent.json.age",
            "uploads/s00-000000.json.age",
            "s00/000000.ZST",
            "s+1/000000.zst",
            "s00/+00000.zst",
            "uploads/s00-000000-00.json",
            "uploads/s00.json",
            "uploads/s00-000000-c00.json",
            "uploads/s00-000000-c01-00.json",
            "uploads/s00-000000-02-c01.json",
            "s00/000000-c00.zst",
            "s00/000000-c1.zst",
            "s00/000000-01.zst",
            "s00/000000-c01.zst.age",
            "s00/000000-c1000000.zst",
            "claims/000000.json",
            "claims/1.json",
            "claims/1000000.json",
            "s00/../manifest.json",
            "manifest.json/x",
            "manifest.json.partial-1",
            "verified/now.json",
            "deleted/now.json",
            "deleted/20260102T030405.678Z-.json",
            "deleted/20260102T030405.678Z-0123456789abcde.json",
            "deleted/20260102T030405.678Z-0123456789ABCDEF.json",
            "deleted/20260102T030405.678Z-00123456789abcdef.json",
            "collected/20260102T030405.678Z-0123456789abcdef-1.json",
            "verified/20260102T030405.678Z-0123456789abcdef.json",
            "collected/now.json",
        ] {
            assert_eq!(names.parse(&format!("{}/{stranger}", names.directory())), None, "{stranger}");
        }
        assert_eq!(names.parse("orders/manifest.json"), None);
        let partial = format!("{}.partial-{}", names.manifest(), "0".repeat(32));
        assert_eq!(names.parse(&partial), Some(ObjectName::Partial));
    }

    #[test]
    fn only_our_own_probes_are_probes() {
        let ours = probe(Uuid::new_v4());
        assert!(is_probe(&ours) && is_probe(&format!("{ours}.partial-{}", "0".repeat(32))));
        for stranger in ["", ".vdstream", ".vdstream/probe-1", ".vdstream/x", &format!("x/{ours}"), &format!("{ours}0")]
        {
            assert!(!is_probe(stranger), "{stranger}");
        }
    }

    proptest! {
        #[test]
        fn every_name_parses_back(stripe in 0..MAX_STRIPES, index in 0..MAX_STRIPE_SEGMENTS, attempt in 0..200u32, claim in 1..=MAX_CLAIMS, millis in 0i64..253_402_207_200_000) {
            let names = names();
            let segment = SegmentId { stripe, index };
            let time = Timestamp::from_millisecond(millis).unwrap();
            for name in [ObjectName::Segment(segment), ObjectName::Sealed(segment), ObjectName::Identity, ObjectName::Upload { segment, claim: 0, attempt }, ObjectName::Upload { segment, claim, attempt }, ObjectName::Resumed { segment, claim }, ObjectName::Claim(claim), ObjectName::Verified(time), ObjectName::Deleted(time.into()), ObjectName::Deleted(Stamp::draw(time)), ObjectName::Collected(time.into()), ObjectName::Collected(Stamp::draw(time)), ObjectName::Intent, ObjectName::Manifest] {
                prop_assert_eq!(names.parse(&names.of(&name)), Some(name));
            }
        }

        #[test]
        fn no_text_panics_the_parser(text in ".{0,60}") {
            let _ = text.parse::<ObjectName>();
            let _ = text.parse::<Series>();
            let _ = text.parse::<BackupId>();
        }
    }
}
