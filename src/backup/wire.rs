//! The members of the manifest document, version 1, and their way to and from [`Manifest`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::course::Course;
use super::document::{bounded, corrupt, shown, unique_map};
use super::encryption::Encryption;
use super::id::BackupId;
use super::kind::Kind;
use super::manifest::{Codec, MAX_SEGMENTS, Manifest, Producer};
use super::names::{MAX_STRIPES, ObjectName, Series};
use super::writers::Writers;
use crate::error::Result;
use crate::pipeline::{SegmentHeader, SegmentId, SegmentSummary, StripeSummary};

/// The `format` member of a manifest.
pub(super) const MANIFEST: &str = "vdstream-manifest";

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ManifestV1 {
    series: Series,
    id: BackupId,
    created: Timestamp,
    finished: Timestamp,
    tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, deserialize_with = "unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Kind::is_full")]
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<BackupId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_until: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer: Option<Producer>,
    codec: Codec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<Encryption>,
    frame_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    course: Option<Course>,
    #[serde(deserialize_with = "stripes")]
    stripes: Vec<StripeV1>,
    totals: TotalsV1,
    root: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct StripeV1 {
    raw_bytes: u64,
    stored_bytes: u64,
    #[serde(deserialize_with = "segments")]
    segments: Vec<SegmentV1>,
}

fn segments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SegmentV1>, D::Error> {
    bounded(deserializer, "segments", MAX_SEGMENTS, |_| 1)
}

/// Their segments count together. How many stripes there are is checked when they are few enough to be held.
fn stripes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<StripeV1>, D::Error> {
    let most = MAX_SEGMENTS + usize::from(MAX_STRIPES);
    bounded(deserializer, "stripes and segments", most, |stripe: &StripeV1| 1 + stripe.segments.len())
}

#[derive(Debug, Serialize, Deserialize)]
struct SegmentV1 {
    /// Relative to the backup's directory. Always the name of the layout, never followed otherwise.
    object: String,
    raw_offset: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    frames: u32,
    tail_bytes: u64,
    raw_hash: String,
    stored_hash: String,
    /// Both are there if the segment is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_bytes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    header_hash: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TotalsV1 {
    raw_bytes: u64,
    stored_bytes: u64,
    segments: u64,
}

impl TotalsV1 {
    fn of(stripes: &[StripeSummary]) -> Self {
        let sum = |of: fn(&StripeSummary) -> u64| stripes.iter().fold(0u64, |sum, s| sum.saturating_add(of(s)));
        Self {
            raw_bytes: sum(|stripe| stripe.raw_bytes),
            stored_bytes: sum(|stripe| stripe.stored_bytes),
            segments: sum(|stripe| stripe.segments.len() as u64),
        }
    }
}

impl ManifestV1 {
    pub(super) fn of(manifest: &Manifest) -> Self {
        let segment = |stripe: u16, segment: &SegmentSummary| {
            let id = SegmentId { stripe, index: segment.index };
            SegmentV1::of(ObjectName::segment(id, manifest.writers.of(id), segment.header.is_some()), segment)
        };
        let stripe = |(stripe, summary): (u16, &StripeSummary)| StripeV1 {
            raw_bytes: summary.raw_bytes,
            stored_bytes: summary.stored_bytes,
            segments: summary.segments.iter().map(|summary| segment(stripe, summary)).collect(),
        };
        Self {
            series: manifest.series.clone(),
            id: manifest.id,
            created: manifest.created,
            finished: manifest.finished,
            tool: manifest.tool.clone(),
            host: manifest.host.clone(),
            labels: manifest.labels.clone(),
            kind: manifest.kind,
            parent: manifest.parent,
            keep_until: manifest.keep_until,
            producer: manifest.producer.clone(),
            codec: manifest.codec.clone(),
            encryption: manifest.encryption.clone(),
            frame_bytes: manifest.frame_bytes,
            course: manifest.course.clone(),
            stripes: (0u16..).zip(&manifest.stripes).map(stripe).collect(),
            totals: TotalsV1::of(&manifest.stripes),
            root: manifest.root().to_hex().to_string(),
        }
    }

    pub(super) fn into_manifest(self, object: &str) -> Result<Manifest> {
        let mut stripes = Vec::with_capacity(self.stripes.len());
        let mut writers = Vec::with_capacity(self.stripes.len());
        for (stripe, summary) in self.stripes.into_iter().enumerate() {
            let mut segments = Vec::with_capacity(summary.segments.len());
            let mut claims: Vec<u32> = Vec::with_capacity(summary.segments.len());
            for (index, segment) in summary.segments.into_iter().enumerate() {
                let (segment, claim) = segment.into_summary(stripe, index, object)?;
                if claims.last().is_some_and(|last| *last > claim) {
                    let what = format!("stripe {stripe} segment {index} object");
                    return Err(corrupt(object, what, "a claim that does not fall", claim));
                }
                claims.push(claim);
                segments.push(segment);
            }
            writers.push(claims);
            stripes.push(StripeSummary { raw_bytes: summary.raw_bytes, stored_bytes: summary.stored_bytes, segments });
        }
        let manifest = Manifest {
            series: self.series,
            id: self.id,
            created: self.created,
            finished: self.finished,
            tool: self.tool,
            host: self.host,
            labels: self.labels,
            kind: self.kind,
            parent: self.parent,
            keep_until: self.keep_until,
            producer: self.producer,
            codec: self.codec,
            encryption: self.encryption,
            frame_bytes: self.frame_bytes,
            stripes,
            writers: Writers::of_segments(writers),
            course: self.course,
        };
        manifest.check(object)?;
        let totals = TotalsV1::of(&manifest.stripes);
        if totals != self.totals {
            return Err(corrupt(object, "totals", format!("{totals:?}"), format!("{:?}", self.totals)));
        }
        let root = manifest.root().to_hex();
        if root.as_str() != self.root {
            return Err(corrupt(object, "root hash", root, shown(&self.root, 160)));
        }
        Ok(manifest)
    }
}

impl SegmentV1 {
    fn of(object: ObjectName, segment: &SegmentSummary) -> Self {
        Self {
            object: object.to_string(),
            raw_offset: segment.raw_offset,
            raw_bytes: segment.raw_bytes,
            stored_bytes: segment.stored_bytes,
            frames: segment.frames,
            tail_bytes: segment.tail_bytes,
            raw_hash: segment.raw_hash.to_hex().to_string(),
            stored_hash: segment.stored_hash.to_hex().to_string(),
            header_bytes: segment.header.map(|header| header.bytes),
            header_hash: segment.header.map(|header| header.hash.to_hex().to_string()),
        }
    }

    /// The summary, and the claim of who stored the segment.
    fn into_summary(self, stripe: usize, index: usize, object: &str) -> Result<(SegmentSummary, u32)> {
        let at = |what: &str| format!("stripe {stripe} segment {index} {what}");
        let is_encrypted = self.header_bytes.is_some();
        let named: Option<ObjectName> = self.object.parse().ok();
        let (named, claim) = match named.as_ref().and_then(ObjectName::as_segment) {
            Some((id, claim))
                if named == Some(ObjectName::segment(id, claim, is_encrypted))
                    && (claim == 0 || !is_encrypted)
                    && usize::from(id.stripe) == stripe
                    && id.index as usize == index =>
            {
                (id.index, claim)
            }
            _ => return Err(corrupt(object, at("object"), "the name of the layout", shown(&self.object, 160))),
        };
        let hash = |text: &str, what: &str| {
            let hash = blake3::Hash::from_hex(text).ok().filter(|hash| hash.to_hex().as_str() == text);
            hash.ok_or_else(|| corrupt(object, at(what), "64 hexadecimal digits", shown(text, 160)))
        };
        let header = match (self.header_bytes, &self.header_hash) {
            (None, None) => None,
            (Some(bytes), Some(text)) => Some(SegmentHeader { bytes, hash: hash(text, "header hash")? }),
            _ => return Err(corrupt(object, at("header"), "size and hash", "one of them")),
        };
        let summary = SegmentSummary {
            header,
            index: named,
            raw_offset: self.raw_offset,
            raw_bytes: self.raw_bytes,
            stored_bytes: self.stored_bytes,
            frames: self.frames,
            tail_bytes: self.tail_bytes,
            raw_hash: hash(&self.raw_hash, "raw hash")?,
            stored_hash: hash(&self.stored_hash, "stored hash")?,
        };
        Ok((summary, claim))
    }
}

#[cfg(test)]
mod tests {
    use super::super::document;
    use super::super::manifest::tests::{manifest, stripe};
    use super::*;
    use crate::error::ErrorKind;

    /// Writes a valid manifest, changes its JSON, seals it again: what a forger could make.
    fn forged(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let wire = ManifestV1::of(&manifest(vec![stripe(&[(5, 5), (6, 6)]), stripe(&[])]));
        let mut value = serde_json::to_value(wire).unwrap();
        change(&mut value);
        document::encode(MANIFEST, &value).unwrap()
    }

    #[test]
    fn forged_documents_are_refused() {
        Manifest::decode(&forged(|_| {}), "x").unwrap();
        let changes: [fn(&mut serde_json::Value); 15] = [
            |v| v["stripes"][0]["segments"][0]["object"] = "s00/000000-c01.zst".into(),
            |v| v["stripes"][0]["segments"][1]["object"] = "s00/000001-c00.zst".into(),
            |v| v["stripes"][0]["segments"][1]["object"] = "s00/000000-c01.zst".into(),
            |v| v["stripes"][0]["segments"][0]["object"] = "../../../etc/passwd".into(),
            |v| v["stripes"][0]["segments"][0]["object"] = "s00/000001.zst".into(),
            |v| v["stripes"][0]["segments"][0]["object"] = "s0/0.zst".into(),
            |v| v["stripes"][0]["segments"][0]["raw_bytes"] = (-1).into(),
            |v| v["stripes"][0]["segments"][0]["frames"] = u64::MAX.into(),
            |v| v["stripes"][0]["segments"][0]["raw_hash"] = "AB".repeat(32).into(),
            |v| v["stripes"][0]["segments"][0]["stored_hash"] = "00".into(),
            |v| v["totals"]["segments"] = 3.into(),
            |v| v["root"] = "00".repeat(32).into(),
            |v| v["series"] = "../x".into(),
            |v| v["id"] = "latest".into(),
            |v| v["created"] = "yesterday".into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let error = Manifest::decode(&forged(change), "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "change {number}: {}", error.report());
        }
    }

    #[test]
    fn the_names_of_resumed_segments_read_back() {
        let bytes = forged(|v| v["stripes"][0]["segments"][1]["object"] = "s00/000001-c02.zst".into());
        let manifest = Manifest::decode(&bytes, "x").unwrap();
        let objects: Vec<String> = manifest.objects().map(|(_, name, _)| name).collect();
        assert!(objects[0].ends_with("/s00/000000.zst") && objects[1].ends_with("/s00/000001-c02.zst"), "{objects:?}");
        assert_eq!(Manifest::decode(&manifest.encode().unwrap(), "x").unwrap(), manifest);
    }

    #[test]
    fn unknown_members_are_ignored() {
        let bytes = forged(|v| {
            v["later"] = serde_json::json!({"a": [1, 2]});
            v["stripes"][0]["segments"][0]["later"] = 1.into();
        });
        Manifest::decode(&bytes, "x").unwrap();
    }

    #[test]
    fn duplicate_members_and_deep_nesting_are_refused() {
        let text = String::from_utf8(forged(|_| {})).unwrap();
        let reseal = |text: String| {
            let body = text.rsplit_once(",\"document_hash\"").unwrap().0.to_owned();
            let hash = blake3::hash(body.as_bytes()).to_hex();
            format!("{body},\"document_hash\":\"{hash}\"}}\n")
        };
        Manifest::decode(reseal(text.clone()).as_bytes(), "x").unwrap();
        for (from, to) in [
            ("\"frame_bytes\":4096", "\"frame_bytes\":1,\"frame_bytes\":4096".to_owned()),
            ("\"labels\":{", "\"labels\":{\"a\":\"x\",".to_owned()),
            ("\"labels\":{", format!("\"labels\":{}{},\"l\":{{", "[".repeat(50_000), "]".repeat(50_000))),
        ] {
            let error = Manifest::decode(reseal(text.replace(from, &to)).as_bytes(), "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        // In a member that nobody reads, depth does no harm: it is skipped without recursion.
        let deep = format!("\"deep\":{}{},\"labels\":{{", "[".repeat(50_000), "]".repeat(50_000));
        Manifest::decode(reseal(text.replace("\"labels\":{", &deep)).as_bytes(), "x").unwrap();
    }
}
