//! The small documents of a backup in progress: what is being made, and which uploads run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::document::{self, MAX_LABELS, corrupt, shown, unique_map};
use super::encryption::Encryption;
use super::id::BackupId;
use super::kind::Kind;
use super::names::{ObjectName, Series};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::SegmentId;

const INTENT: &str = "vdstream-intent";
const UPLOAD: &str = "vdstream-upload";

/// The first object of every backup. One without a manifest is in progress, given up, or left by a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Intent {
    /// The series it belongs to.
    pub series: Series,
    /// Its id.
    pub id: BackupId,
    /// When it was begun.
    pub created: Timestamp,
    /// The tool and version that began it.
    pub tool: String,
    /// The host that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What its maker noted.
    #[serde(default, deserialize_with = "unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it contains in relation to its parent.
    #[serde(default, skip_serializing_if = "Kind::is_full")]
    pub kind: Kind,
    /// The backup that it continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// Until when retention and deletion leave it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<Timestamp>,
    /// Number of stripes.
    pub stripes: u16,
    /// Compression level; the first one, if it is adaptive.
    pub level: i32,
    /// The most raw bytes in one frame.
    pub frame_bytes: u64,
    /// How the segments are encrypted, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl Intent {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        if self.labels.len() > MAX_LABELS {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a backup has at most {MAX_LABELS} labels, not {}", self.labels.len()),
            ));
        }
        document::encode_small(INTENT, self)
    }

    pub(crate) fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        document::decode_small(INTENT, bytes, object)
    }
}

/// A running upload of a segment, recorded before its first part so that another process can abort it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadRecord {
    pub(crate) id: BackupId,
    pub(crate) segment: SegmentId,
    /// The claim of the process that uploads it; 0 if it has begun the backup.
    pub(crate) claim: u32,
    /// Whether the segment is encrypted, which its object's name tells.
    pub(crate) is_encrypted: bool,
    /// The store's own id of the upload.
    pub(crate) upload: String,
    pub(crate) created: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct UploadV1 {
    id: BackupId,
    object: String,
    upload: String,
    created: Timestamp,
}

impl UploadRecord {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let object = ObjectName::segment(self.segment, self.claim, self.is_encrypted).to_string();
        document::encode_small(
            UPLOAD,
            &UploadV1 { id: self.id, object, upload: self.upload.clone(), created: self.created },
        )
    }

    pub(crate) fn decode(bytes: &[u8], object: &str) -> Result<Self> {
        let wire: UploadV1 = document::decode_small(UPLOAD, bytes, object)?;
        let name: Option<ObjectName> = wire.object.parse().ok();
        let Some((segment, claim)) = name.as_ref().and_then(ObjectName::as_segment) else {
            return Err(corrupt(object, "object", "the name of a segment", shown(&wire.object, 160)));
        };
        let is_encrypted = matches!(name, Some(ObjectName::Sealed(_)));
        Ok(Self { id: wire.id, segment, claim, is_encrypted, upload: wire.upload, created: wire.created })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_and_records_read_back() {
        let created = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let id = BackupId::generate(created);
        let intent = Intent {
            series: Series::default(),
            id,
            created,
            tool: "t".into(),
            host: None,
            labels: BTreeMap::new(),
            kind: Kind::Differential,
            parent: Some(id),
            keep_until: Some(created),
            stripes: 64,
            level: -5,
            frame_bytes: 1,
            encryption: None,
        };
        assert_eq!(Intent::decode(&intent.encode().unwrap(), "x").unwrap(), intent);
        let record = UploadRecord {
            id,
            segment: SegmentId { stripe: 1, index: 2 },
            claim: 0,
            is_encrypted: false,
            upload: "a/b?\"".into(),
            created,
        };
        for (claim, is_encrypted) in [(0, false), (0, true), (3, false)] {
            let record = UploadRecord { claim, is_encrypted, ..record.clone() };
            assert_eq!(UploadRecord::decode(&record.encode().unwrap(), "x").unwrap(), record);
        }
        assert!(UploadRecord::decode(&intent.encode().unwrap(), "x").is_err());
    }
}
