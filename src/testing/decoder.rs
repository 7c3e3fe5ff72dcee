//! The decoders of everything that a store holds, for fuzzers: one function per format, and valid bytes to start from.
//!
//! Whatever the bytes are, a decoder answers with a value or with an error. It does not panic, and its memory is bounded by the
//! size of what it was given.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::backup::claim::{Claim, Purpose};
use crate::backup::document::seal;
use crate::backup::intent::UploadRecord;
use crate::backup::names::ObjectName;
use crate::backup::writers::{Run, Writers};
use crate::backup::{
    BackupId, Codec, Coverage, Finding, Intent, Kind, LastVerification, Manifest, Outcome, Producer, Series,
    Verification, VerifyLevel,
};
use crate::error::Result;
use crate::pipeline::{self, SegmentId, SegmentSummary, StripeSummary};

/// The formats of the small documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// `manifest.json`.
    Manifest,
    /// `intent.json`.
    Intent,
    /// A record in `uploads/`.
    Upload,
    /// A record in `verified/`.
    Verification,
    /// A claim in `claims/`.
    Claim,
}

impl Document {
    /// Decodes `bytes`. What was decoded is encoded and decoded again, and must be the same.
    ///
    /// # Errors
    ///
    /// As the decoder.
    ///
    /// # Panics
    ///
    /// If what was decoded does not read back as the same.
    pub fn decode(self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Manifest => again(Manifest::decode(bytes, "x")?, Manifest::encode, Manifest::decode),
            Self::Intent => again(Intent::decode(bytes, "x")?, Intent::encode, Intent::decode),
            Self::Upload => again(UploadRecord::decode(bytes, "x")?, UploadRecord::encode, UploadRecord::decode),
            Self::Verification => again(Verification::decode(bytes, "x")?, Verification::encode, Verification::decode),
            Self::Claim => again(Claim::decode(bytes, "x")?, Claim::encode, Claim::decode),
        }
        Ok(())
    }

    /// A few documents that are valid.
    ///
    /// # Errors
    ///
    /// None: they are valid.
    pub fn valid(self) -> Result<Vec<Vec<u8>>> {
        let created = Timestamp::UNIX_EPOCH;
        let id: BackupId = "018bcfe5-687b-7000-8000-000000000001".parse()?;
        let manifests = || [vec![Vec::new()], vec![vec![1, 2], Vec::new(), vec![3]]].map(|shape| manifest(id, &shape));
        match self {
            Self::Manifest => manifests().iter().map(Manifest::encode).collect(),
            Self::Intent => manifests().iter().map(|manifest| intent(manifest).encode()).collect(),
            Self::Upload => {
                let upload = "Mi4wL2E+".to_owned();
                Ok(vec![
                    UploadRecord {
                        id,
                        segment: SegmentId { stripe: 1, index: 2 },
                        claim: 0,
                        is_encrypted: true,
                        upload,
                        created,
                    }
                    .encode()?,
                ])
            }
            Self::Verification => manifests().iter().map(|manifest| verification(manifest).encode()).collect(),
            Self::Claim => {
                [Vec::new(), vec![vec![Run { claim: 0, segments: 2 }, Run { claim: 2, segments: 1 }], vec![]]]
                    .into_iter()
                    .map(|kept| claim(id, kept).encode())
                    .collect()
            }
        }
    }
}

fn again<T: PartialEq + std::fmt::Debug>(
    value: T,
    encode: impl Fn(&T) -> Result<Vec<u8>>,
    decode: impl Fn(&[u8], &str) -> Result<T>,
) {
    // Only size can stand in the way: the same document may be written longer than it came.
    let Ok(bytes) = encode(&value) else { return };
    match decode(&bytes, "x") {
        Ok(back) => assert_eq!(back, value, "it reads back as something else"),
        Err(error) => assert!(bytes.is_empty(), "it does not read back: {}", error.report()),
    }
}

/// A manifest whose stripes have segments of so many raw bytes.
fn manifest(id: BackupId, shape: &[Vec<u64>]) -> Manifest {
    let stripe = |lengths: &Vec<u64>| {
        let mut stripe = StripeSummary::default();
        for (index, raw_bytes) in (0..).zip(lengths) {
            stripe.segments.push(SegmentSummary {
                index,
                raw_offset: stripe.raw_bytes,
                raw_bytes: *raw_bytes,
                stored_bytes: 200,
                frames: 1,
                tail_bytes: 97,
                raw_hash: blake3::hash(b"raw"),
                stored_hash: blake3::hash(b"stored"),
                header: None,
            });
            stripe.raw_bytes += raw_bytes;
            stripe.stored_bytes += 200;
        }
        stripe
    };
    Manifest {
        series: Series::default(),
        id,
        created: Timestamp::UNIX_EPOCH,
        finished: Timestamp::UNIX_EPOCH,
        tool: "vdstream".to_owned(),
        host: Some("h".to_owned()),
        labels: labels(),
        kind: Kind::Full,
        parent: None,
        keep_until: None,
        producer: Some(Producer::new("tar").exit_status(0)),
        codec: Codec::zstd(3),
        encryption: None,
        frame_bytes: 65_536,
        stripes: shape.iter().map(stripe).collect(),
        writers: Writers::default(),
        course: None,
    }
}

fn labels() -> BTreeMap<String, String> {
    [("a".to_owned(), "b\"\u{e9}".to_owned())].into()
}

fn intent(manifest: &Manifest) -> Intent {
    Intent {
        series: manifest.series.clone(),
        id: manifest.id,
        created: manifest.created,
        tool: manifest.tool.clone(),
        host: manifest.host.clone(),
        labels: labels(),
        kind: Kind::Log,
        parent: Some(manifest.id),
        keep_until: Some(manifest.created),
        stripes: 1,
        level: 3,
        frame_bytes: manifest.frame_bytes,
        encryption: None,
    }
}

fn verification(manifest: &Manifest) -> Verification {
    Verification {
        series: manifest.series.clone(),
        id: manifest.id,
        root: manifest.root().to_hex().to_string(),
        started: manifest.created,
        finished: manifest.created,
        tool: manifest.tool.clone(),
        host: None,
        level: VerifyLevel::Stored,
        outcome: Outcome::Damaged,
        segments: manifest.segments() as u64,
        good: 0,
        covered: Coverage::default(),
        seed: Some(7),
        earlier_damage: Some(LastVerification {
            level: VerifyLevel::Full,
            time: manifest.created,
            outcome: Outcome::Damaged,
            good: 0,
            segments: manifest.segments() as u64,
        }),
        has_unread: true,
        findings: 2,
        damage: vec![Finding { object: "x".to_owned(), error: "y".to_owned() }],
    }
}

fn claim(id: BackupId, kept: Vec<Vec<Run>>) -> Claim {
    Claim {
        id,
        number: 3,
        purpose: if kept.is_empty() { Purpose::Resume } else { Purpose::Continue },
        owner: "07".repeat(16),
        created: Timestamp::UNIX_EPOCH,
        tool: "vdstream".to_owned(),
        host: Some("h".to_owned()),
        kept,
    }
}

/// `document` with the hash at its end that it should have; with a whole new end if it has none.
pub fn sealed(document: &[u8]) -> Vec<u8> {
    seal(document)
}

/// A segment of `data` with an index that says whatever `frames` says (stored bytes, raw bytes, hash), and a summary that
/// believes it. The tail of the object is the summary's `tail_bytes`.
pub fn forged_segment(frame_bytes: u32, frames: &[(u32, u32, [u8; 32])], data: &[u8]) -> (Vec<u8>, SegmentSummary) {
    pipeline::forge(frame_bytes, frames, data)
}

/// Decodes the tail of a segment; on success the number of its frames.
///
/// # Errors
///
/// Why it was refused.
pub fn segment_tail(tail: &[u8], summary: &SegmentSummary) -> Result<usize, String> {
    pipeline::check_tail(tail, summary)
}

/// Parses `text` as every kind of name. A name that is accepted is spelled as it was given and cannot leave its directory.
///
/// # Panics
///
/// If one is not.
pub fn names(text: &str) {
    let is_inside = |name: &str| !name.starts_with('/') && !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if let Ok(series) = text.parse::<Series>() {
        assert!(series.as_str() == text && is_inside(text) && !text.contains('/'), "{text:?} is no series");
    }
    if let Ok(id) = text.parse::<BackupId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(name) = text.parse::<ObjectName>() {
        assert!(is_inside(text), "{text:?} leaves its directory");
        assert!(name == ObjectName::Partial || name.to_string() == text, "{text:?} is another spelling");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_documents_are_valid_and_sealing_them_changes_nothing() {
        for kind in [Document::Manifest, Document::Intent, Document::Upload, Document::Verification, Document::Claim] {
            for bytes in kind.valid().unwrap() {
                kind.decode(&bytes).unwrap();
                assert_eq!(sealed(&bytes), bytes);
                let other = String::from_utf8(bytes).unwrap().replace("1970", "1971");
                assert!(kind.decode(other.as_bytes()).is_err());
                let resealed = sealed(other.as_bytes());
                let outcome = kind.decode(&resealed);
                outcome.unwrap_or_else(|error| panic!("the new seal does not hold: {}", error.report()));
            }
        }
    }

    #[test]
    fn a_forged_segment_is_believed_if_its_numbers_fit() {
        let hash = *blake3::hash(b"a").as_bytes();
        let (object, summary) = forged_segment(65_536, &[(5, 1, hash)], b"12345");
        assert_eq!(segment_tail(&object[5..], &summary), Ok(1));
        let (object, summary) = forged_segment(65_536, &[(4, 1, hash)], b"12345");
        assert!(segment_tail(&object[5..], &summary).is_err());
    }
}
