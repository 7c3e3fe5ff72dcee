//! What a verification found.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::choice::Segment;
use super::coverage::Coverage;
use super::options::VerifyLevel;
use crate::backup::id::BackupId;
use crate::backup::names::Series;
use crate::error::Error;
use crate::pipeline::SegmentId;

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Which backup.
    pub id: BackupId,
    /// Its series.
    pub series: Series,
    /// How deep it was looked.
    pub level: VerifyLevel,
    /// Segments of the backup. Names and sizes of all of them were checked.
    pub objects: usize,
    /// Segments that were to be read at this level; 0 at [`VerifyLevel::Quick`].
    pub read: usize,
    /// Segments that were not read because an earlier verification has read them.
    pub skipped: usize,
    /// How the segments to read were drawn, if not all were to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleReport>,
    /// The segments that were to be read, unless those were all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Coverage>,
    /// Stored bytes that were read and hashed.
    pub stored_bytes: u64,
    /// Raw bytes that were decompressed and hashed.
    pub raw_bytes: u64,
    /// How long it took, in seconds.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What is wrong; nothing if the backup is good.
    pub damage: Vec<Damage>,
    /// What lies beside the segments of the backup and looks like one of them. That is not damage: restores go by the manifest.
    #[serde(skip_serializing_if = "Unnamed::is_empty")]
    pub unnamed: Unnamed,
    /// The object that the result was recorded in, if it was to be recorded.
    pub record: Option<String>,
    /// Why the result could not be recorded. The result stands nevertheless.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_report")]
    pub record_error: Option<Error>,
}

impl VerifyReport {
    /// True if nothing is wrong, as far as it was looked.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty()
    }
}

/// How a sample was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SampleReport {
    /// Segments that were drawn.
    pub segments: usize,
    /// Segments that they were drawn from.
    pub of: usize,
    /// The seed that draws the same ones again.
    pub seed: u64,
}

/// Segments that the manifest does not name, of a backup that has one. A restore passes them over, and a collection removes them;
/// but who joins all the objects of a stripe, without the manifest, joins them too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unnamed {
    /// How many.
    pub count: u64,
    /// The first 100 by name, below the store's prefix.
    pub objects: Vec<String>,
}

impl Unnamed {
    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, object: String) {
        const MOST: usize = 100;
        self.count += 1;
        let place = self.objects.partition_point(|other| *other < object);
        if place < MOST {
            self.objects.truncate(MOST - 1);
            self.objects.insert(place, object);
        }
    }
}

/// Something wrong with a backup.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The damaged object, below the store's prefix.
    pub object: String,
    /// The stripe, if the object is a segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe: Option<u16>,
    /// The segment within the stripe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<u32>,
    /// What is wrong: object, offset, expected, found.
    #[serde(serialize_with = "report")]
    pub error: Error,
}

impl Damage {
    pub(super) fn of(segment: &Segment<'_>, error: Error) -> Self {
        let SegmentId { stripe, index } = segment.id;
        Self { object: segment.name.clone(), stripe: Some(stripe), segment: Some(index), error }
    }

    /// Of an object that is no segment.
    pub(super) fn of_document(object: String, error: Error) -> Self {
        Self { object, stripe: None, segment: None, error }
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn report<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&error.report())
}

fn some_report<S: Serializer>(error: &Option<Error>, serializer: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => report(error, serializer),
        None => serializer.serialize_none(),
    }
}
