//! Bytes to segments and back: frames, zstd, hashes, parts, bounded ranged reads.
//!
//! The pipeline knows neither devices nor backup sets. A stripe enters as a stream of [`Input`], leaves through a
//! [`SegmentStore`], and is described by a [`StripeSummary`]; restore is the reverse.

mod input;
mod segment;

pub use input::{Ack, Input};
pub use segment::{SegmentId, SegmentStore, SegmentSummary, SegmentUpload, StripeSummary};
