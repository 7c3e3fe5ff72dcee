//! The manifest: what a backup is made of. A backup exists if and only if its manifest does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::course::Course;
use super::document::{self, corrupt};
use super::encryption::{AGE, Encryption};
use super::id::BackupId;
use super::kind::Kind;
use super::names::{MAX_STRIPES, Names, Series};
use super::wire;
use super::writers::Writers;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{self, LevelRange, SegmentId, StripeSummary};

/// The largest manifest that is written or read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// The most segments of one backup, all stripes together: their manifest stays below [`MAX_MANIFEST_BYTES`].
pub const MAX_SEGMENTS: usize = 150_000;
/// The largest frame that is accepted: what a reader may have to hold in memory at once.
const MAX_FRAME_BYTES: u64 = pipeline::MAX_FRAME_BYTES as u64;

/// Everything that is recorded of a committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// The series it belongs to.
    pub series: Series,
    /// Its id.
    pub id: BackupId,
    /// When it was begun.
    pub created: Timestamp,
    /// When all of its data was durable.
    pub finished: Timestamp,
    /// The tool and version that wrote it.
    pub tool: String,
    /// The host that wrote it.
    pub host: Option<String>,
    /// What its maker noted.
    pub labels: BTreeMap<String, String>,
    /// What it contains in relation to its parent.
    pub kind: Kind,
    /// The backup that this one continues, for differential and log chains.
    pub parent: Option<BackupId>,
    /// Until when retention and deletion leave it alone.
    pub keep_until: Option<Timestamp>,
    /// Who produced the data.
    pub producer: Option<Producer>,
    /// How the segments are compressed.
    pub codec: Codec,
    /// How the segments are encrypted, if they are.
    pub encryption: Option<Encryption>,
    /// The most raw bytes in one frame.
    pub frame_bytes: u64,
    /// The stripes in order, with their segments.
    pub stripes: Vec<StripeSummary>,
    /// Who stored them; it decides their names.
    pub(crate) writers: Writers,
    /// How its making went, if that was recorded.
    pub course: Option<Course>,
}

/// The producer of a backup's data, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Producer {
    /// What it was: a command line, a device set.
    pub name: String,
    /// Its exit status, if it was a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
}

impl Producer {
    /// A producer that is no process.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), exit_status: None }
    }

    /// The same with an exit status.
    #[must_use]
    pub fn exit_status(mut self, status: i32) -> Self {
        self.exit_status = Some(status);
        self
    }
}

/// How raw bytes become stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Codec {
    /// Its name; `zstd` is the only one.
    pub name: String,
    /// The level; the highest that was used, of an adaptive one.
    pub level: i32,
    /// The lowest level that was used, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_level: Option<i32>,
}

impl Codec {
    /// Zstandard at `level`.
    pub fn zstd(level: i32) -> Self {
        Self { name: "zstd".to_owned(), level, lowest_level: None }
    }

    /// Zstandard at the levels of `range`.
    pub fn adaptive(range: LevelRange) -> Self {
        let lowest_level = (range.lowest != range.highest).then_some(range.lowest);
        Self { lowest_level, ..Self::zstd(range.highest) }
    }
}

impl Manifest {
    /// Raw bytes of all stripes.
    pub fn raw_bytes(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.raw_bytes).sum()
    }

    /// Size of all segment objects.
    pub fn stored_bytes(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.stored_bytes).sum()
    }

    /// Number of segment objects.
    pub fn segments(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.segments.len()).sum()
    }

    /// The hash that stands for the whole content: every length, offset and hash of every segment, in order.
    ///
    /// It is the BLAKE3, in key derivation mode, of a binary encoding that the layout page describes.
    pub fn root(&self) -> blake3::Hash {
        let context = match self.encryption {
            None => "vdstream 2026-11 backup root v1",
            Some(_) => "vdstream 2026-11 encrypted backup root v1",
        };
        let mut hasher = blake3::Hasher::new_derive_key(context);
        let number = |hasher: &mut blake3::Hasher, value: u64| {
            hasher.update(&value.to_le_bytes());
        };
        hasher.update(self.id.as_bytes());
        number(&mut hasher, self.series.as_str().len() as u64);
        hasher.update(self.series.as_str().as_bytes());
        number(&mut hasher, self.frame_bytes);
        number(&mut hasher, self.stripes.len() as u64);
        for stripe in &self.stripes {
            number(&mut hasher, stripe.raw_bytes);
            number(&mut hasher, stripe.stored_bytes);
            number(&mut hasher, stripe.segments.len() as u64);
            for segment in &stripe.segments {
                number(&mut hasher, u64::from(segment.index));
                number(&mut hasher, segment.raw_offset);
                number(&mut hasher, segment.raw_bytes);
                number(&mut hasher, segment.stored_bytes);
                number(&mut hasher, u64::from(segment.frames));
                number(&mut hasher, segment.tail_bytes);
                hasher.update(segment.raw_hash.as_bytes());
                hasher.update(segment.stored_hash.as_bytes());
                if let Some(header) = segment.header {
                    number(&mut hasher, u64::from(header.bytes));
                    hasher.update(header.hash.as_bytes());
                }
            }
        }
        if let Some(encryption) = &self.encryption {
            number(&mut hasher, u64::from(encryption.recipients));
            if let Some(identity) = &encryption.identity {
                number(&mut hasher, identity.stored_bytes);
                hasher.update(identity.stored_hash.as_bytes());
            }
        }
        hasher.finalize()
    }

    /// The document as it is stored.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Internal`] if the manifest contradicts itself, [`ErrorKind::Exhausted`] if it is too large.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check("the manifest to be written")
            .map_err(|error| Error::new(ErrorKind::Internal, "the manifest contradicts itself").with_source(error))?;
        let bytes = document::encode(wire::MANIFEST, &wire::ManifestV1::of(self))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "the manifest has {} bytes, the limit is {MAX_MANIFEST_BYTES}: use larger segments",
                    bytes.len()
                ),
            ));
        }
        Ok(bytes)
    }

    /// Reads a stored manifest; `object` is the name to show in errors.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] if it is not what was written or contradicts itself, [`ErrorKind::Invalid`] if its major
    /// version is unknown.
    pub fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(corrupt(object, "size", format!("at most {MAX_MANIFEST_BYTES}"), bytes.len()));
        }
        document::decode::<wire::ManifestV1>(wire::MANIFEST, bytes, object)?.into_manifest(object)
    }

    pub(crate) fn names(&self) -> Names {
        let names = Names::new(self.series.clone(), self.id).written_by(self.writers.clone());
        names.encrypted(self.encryption.is_some())
    }

    /// Every segment with its name within the store, in order.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (SegmentId, String, &pipeline::SegmentSummary)> {
        let names = self.names();
        (0u16..).zip(&self.stripes).flat_map(move |(stripe, summary)| {
            let names = names.clone();
            summary.segments.iter().map(move |segment| {
                let id = SegmentId { stripe, index: segment.index };
                (id, names.segment(id), segment)
            })
        })
    }

    /// Checks that all numbers fit together.
    pub(super) fn check(&self, object: &str) -> Result<()> {
        if self.stripes.is_empty() || self.stripes.len() > usize::from(MAX_STRIPES) {
            return Err(corrupt(object, "stripes", format!("1 to {MAX_STRIPES}"), self.stripes.len()));
        }
        if self.segments() > MAX_SEGMENTS {
            return Err(corrupt(object, "segments", format!("at most {MAX_SEGMENTS}"), self.segments()));
        }
        // A list keeps these of every backup. Those of a backup come from its intent, which is no larger.
        let noted = self.labels.iter().flat_map(|(key, value)| [key, value]).chain(&self.host).map(String::len);
        let noted: u64 = noted.map(|bytes| bytes as u64).sum();
        if noted > document::MAX_SMALL_BYTES {
            let most = format!("at most {} bytes", document::MAX_SMALL_BYTES);
            return Err(corrupt(object, "host and labels", most, noted));
        }
        if !self.kind.fits(self.parent) {
            let (wanted, found) = if self.kind.is_full() { ("none", "one") } else { ("one", "none") };
            return Err(corrupt(object, format!("parent of a {} backup", self.kind), wanted, found));
        }
        if self.codec.name != "zstd" {
            return Err(corrupt(object, "codec", "zstd", document::shown(&self.codec.name, 160)));
        }
        if self.frame_bytes == 0 || self.frame_bytes > MAX_FRAME_BYTES {
            return Err(corrupt(object, "frame size", format!("1 to {MAX_FRAME_BYTES} bytes"), self.frame_bytes));
        }
        if let Some(encryption) = &self.encryption {
            if encryption.name != AGE {
                return Err(corrupt(object, "encryption", AGE, encryption.name.escape_default()));
            }
            let most = pipeline::MAX_RECIPIENTS as u64 + 1;
            if !(1..=most).contains(&u64::from(encryption.recipients)) {
                return Err(corrupt(object, "recipients", format!("1 to {most}"), encryption.recipients));
            }
        }
        let mut segments = self.stripes.iter().flat_map(|stripe| &stripe.segments);
        if segments.any(|segment| segment.header.is_some() != self.encryption.is_some()) {
            return Err(corrupt(object, "segments", "all encrypted or none", "both"));
        }
        if let Some(course) = &self.course {
            course.check(object)?;
        }
        let (mut raw_total, mut stored_total) = (Some(0u64), Some(0u64));
        for (number, stripe) in self.stripes.iter().enumerate() {
            check_stripe(stripe, self.frame_bytes, &|what: &str| format!("stripe {number} {what}"), object)?;
            raw_total = raw_total.and_then(|total| total.checked_add(stripe.raw_bytes));
            stored_total = stored_total.and_then(|total| total.checked_add(stripe.stored_bytes));
        }
        if raw_total.is_none() || stored_total.is_none() {
            return Err(corrupt(object, "totals", "64-bit numbers", "more"));
        }
        Ok(())
    }
}

fn check_stripe(stripe: &StripeSummary, frame_bytes: u64, at: &dyn Fn(&str) -> String, object: &str) -> Result<()> {
    let (mut raw, mut stored) = (0u64, 0u64);
    for (position, segment) in stripe.segments.iter().enumerate() {
        let at = |what: &str| at(&format!("segment {position} {what}"));
        if segment.index as usize != position {
            return Err(corrupt(object, at("index"), position, segment.index));
        }
        if segment.raw_offset != raw {
            return Err(corrupt(object, at("raw offset"), raw, segment.raw_offset));
        }
        if segment.tail_bytes > segment.stored_bytes {
            return Err(corrupt(object, at("tail"), format!("at most {}", segment.stored_bytes), segment.tail_bytes));
        }
        if let Some(header) = segment.header
            && (header.bytes == 0 || header.bytes > pipeline::MAX_HEADER_BYTES)
        {
            return Err(corrupt(object, at("header"), format!("1 to {}", pipeline::MAX_HEADER_BYTES), header.bytes));
        }
        let least = segment.raw_bytes.div_ceil(frame_bytes);
        if u64::from(segment.frames) < least || u64::from(segment.frames) > segment.raw_bytes.max(1) {
            let range = format!("{least} to {}", segment.raw_bytes.max(1));
            return Err(corrupt(object, at("frames"), range, segment.frames));
        }
        let sums = raw.checked_add(segment.raw_bytes).zip(stored.checked_add(segment.stored_bytes));
        (raw, stored) = sums.ok_or_else(|| corrupt(object, at("length"), "64-bit totals", "more"))?;
    }
    if stripe.raw_bytes != raw {
        return Err(corrupt(object, at("raw bytes"), raw, stripe.raw_bytes));
    }
    if stripe.stored_bytes != stored {
        return Err(corrupt(object, at("stored bytes"), stored, stripe.stored_bytes));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::SegmentSummary;

    /// A document can say so, and nobody else. To look through all of its runs for each of its segments took minutes, within which a
    /// signal was not seen.
    #[test]
    fn as_many_runs_as_there_may_be_segments_are_gone_through_at_once() {
        let count = u32::try_from(MAX_SEGMENTS).unwrap();
        let mut manifest = manifest(vec![stripe(&vec![(1, 1); MAX_SEGMENTS])]);
        manifest.writers = Writers::of_segments([(0..count).collect()]);
        let mut claims = 0;
        for (id, name, _) in manifest.objects() {
            claims += u64::from(manifest.writers.of(id));
            assert!(id.index == 0 || name.ends_with(&format!("/{:06}-c{:02}.zst", id.index, id.index)), "{name}");
        }
        assert_eq!(claims, u64::from(count) * u64::from(count - 1) / 2);
        assert_eq!(manifest.writers.complete([MAX_SEGMENTS]), manifest.writers);
    }

    pub(crate) fn stripe(lengths: &[(u64, u64)]) -> StripeSummary {
        let mut summary = StripeSummary::default();
        for (index, (raw_bytes, stored_bytes)) in (0u32..).zip(lengths) {
            summary.segments.push(SegmentSummary {
                index,
                raw_offset: summary.raw_bytes,
                raw_bytes: *raw_bytes,
                stored_bytes: *stored_bytes,
                frames: u32::try_from(raw_bytes.div_ceil(4096)).unwrap(),
                tail_bytes: stored_bytes / 2,
                raw_hash: blake3::hash(&raw_bytes.to_le_bytes()),
                stored_hash: blake3::hash(&stored_bytes.to_le_bytes()),
                header: None,
            });
            summary.raw_bytes += raw_bytes;
            summary.stored_bytes += stored_bytes;
        }
        summary
    }

    pub(crate) fn manifest(stripes: Vec<StripeSummary>) -> Manifest {
        let created = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        Manifest {
            series: "orders".parse().unwrap(),
            id: BackupId::generate(created),
            created,
            finished: created,
            tool: "vdstream 0.0.0".to_owned(),
            host: Some("h\u{e9}".to_owned()),
            labels: [("a".to_owned(), "b\"".to_owned())].into(),
            kind: Kind::Full,
            parent: None,
            keep_until: None,
            producer: Some(Producer::new("tar -c /etc").exit_status(0)),
            codec: Codec::zstd(3),
            encryption: None,
            frame_bytes: 4096,
            stripes,
            writers: Writers::default(),
            course: None,
        }
    }

    #[test]
    fn host_and_labels_are_no_larger_than_an_intent() {
        let limit = usize::try_from(document::MAX_SMALL_BYTES).unwrap();
        let mut manifest = manifest(vec![stripe(&[])]);
        manifest.labels = [("key".to_owned(), "x".repeat(limit - 13))].into();
        for (host, is_good) in
            [(None, true), (Some(9), true), (Some(10), true), (Some(11), false), (Some(limit), false)]
        {
            manifest.host = host.map(|bytes| "h".repeat(bytes));
            assert_eq!(manifest.check("x").is_ok(), is_good, "{host:?}");
        }
        manifest.labels.clear();
        manifest.host = Some("h".repeat(limit));
        assert_eq!(Manifest::decode(&manifest.encode().unwrap(), "x").unwrap(), manifest);
    }

    #[test]
    fn hostile_numbers_are_refused() {
        let good = manifest(vec![stripe(&[(10_000, 500), (4096, 9)]), stripe(&[])]);
        good.check("x").unwrap();
        let changes: [fn(&mut Manifest); 16] = [
            |m| m.kind = Kind::Log,
            |m| m.parent = Some(m.id),
            |m| m.stripes.clear(),
            |m| m.stripes = vec![StripeSummary::default(); 65],
            |m| m.frame_bytes = 0,
            |m| m.frame_bytes = u64::MAX,
            |m| m.codec.name = "none".to_owned(),
            |m| m.stripes[0].raw_bytes += 1,
            |m| m.stripes[0].stored_bytes = u64::MAX,
            |m| m.stripes[1].raw_bytes = 1,
            |m| m.stripes[0].segments[1].raw_offset = 0,
            |m| m.stripes[0].segments[1].index = 0,
            |m| m.stripes[0].segments[0].raw_bytes = u64::MAX,
            |m| m.stripes[0].segments[0].frames = u32::MAX,
            |m| m.stripes[0].segments[0].frames = 0,
            |m| m.stripes[0].segments[1].tail_bytes = 10,
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(bad.check("x").unwrap_err().kind(), ErrorKind::Corrupt, "change {number}");
            assert_eq!(bad.encode().unwrap_err().kind(), ErrorKind::Internal, "change {number}");
            let forged = document::encode(wire::MANIFEST, &wire::ManifestV1::of(&bad)).unwrap();
            assert!(Manifest::decode(&forged, "x").is_err(), "change {number}");
        }
    }

    #[test]
    fn an_adaptive_level_is_one_level_and_a_member_more() {
        for (lowest, highest, members) in [(3, 3, "\"level\":3"), (1, 7, "\"level\":7,\"lowest_level\":1")] {
            let mut written = manifest(vec![stripe(&[(5, 5)])]);
            written.codec = Codec::adaptive(LevelRange { lowest, highest });
            let bytes = written.encode().unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains(&format!("\"codec\":{{\"name\":\"zstd\",{members}}}")), "{text}");
            assert_eq!(Manifest::decode(&bytes, "x").unwrap(), written);
        }
    }

    #[test]
    fn the_root_tells_every_number_apart() {
        let good = manifest(vec![stripe(&[(10_000, 500), (4096, 9)]), stripe(&[(5, 5)])]);
        let changes: [fn(&mut Manifest); 9] = [
            |m| m.stripes.swap(0, 1),
            |m| m.stripes[0].segments.truncate(1),
            |m| m.stripes[0].segments.swap(0, 1),
            |m| m.stripes[0].segments[0].raw_hash = blake3::hash(b""),
            |m| m.stripes[0].segments[0].stored_hash = blake3::hash(b""),
            |m| m.stripes[0].segments[0].tail_bytes += 1,
            |m| m.frame_bytes += 1,
            |m| m.id = BackupId::generate(m.created),
            |m| m.series = "orders2".parse().unwrap(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = good.clone();
            change(&mut other);
            assert_ne!(good.root(), other.root(), "change {number}");
        }
    }

    proptest! {
        #[test]
        fn a_manifest_reads_back_as_it_was_written(
            lengths in prop::collection::vec(prop::collection::vec((1u64..1 << 40, 1u64..1 << 40), 0..5), 1..8),
            label in ".{0,20}",
        ) {
            let mut written = manifest(lengths.iter().map(|lengths| stripe(lengths)).collect());
            written.labels.insert(label.clone(), label);
            let bytes = written.encode().unwrap();
            prop_assert_eq!(Manifest::decode(&bytes, "x").unwrap(), written);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::decode(&bytes, "x").is_err());
        }
    }
}
