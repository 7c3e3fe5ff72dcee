//! Bytes to segments and back: frames, zstd, hashes, parts, bounded ranged reads.
//!
//! The pipeline knows neither devices nor backup sets. A stripe enters as a stream of [`Input`], leaves through a
//! [`SegmentStore`], and is described by a [`StripeSummary`]; restore is the reverse. Everything is verified by
//! [`Pipeline::restore_stripe`]; reading a stripe to its end is the full check.
//!
//! ```text
//!                     CPU pool, any order                        one task per segment
//!  Input --> frame --> hash, compress  --> in order --> parts --> put | begin, parts, complete
//!  source    assemble  (several at once)   pack         pack      upload (several at once, hashed beside)
//! ```
//!
//! The order has its reasons. The content is hashed *before* compression, on the thread that then compresses it, while
//! it is in that core's cache. Frames are compressed before they are put in order, because that is what costs time.
//! The stored bytes are hashed *after* everything else, part by part, while the part is on its way.
//!
//! | module | one stage or one noun |
//! |---|---|
//! | `config`, `plan` | what the caller wishes; what fits into the memory limit |
//! | `assemble` | device data into frames; where segments end |
//! | `codec`, `tree`, `cpu` | zstd contexts; BLAKE3 from pieces; the bounded threads |
//! | `level` | which zstd level: fixed, or as high as costs no time |
//! | `pack`, `index` | frames in order into parts; the tail of a segment |
//! | `upload`, `request` | one segment into the store; retries, time limits |
//! | `limiter`, `pace` | how many requests at once; how many bytes per second |
//! | `encrypt` | segments as age files: keys, and where a byte of the content stands |
//! | `ranges`, `fetch`, `reader` | exact ranges; ranges ahead; decompress and verify, in order |
//! | `survey`, `replay` | what is stored of a backup that goes on; a producer that sends it once more |
//! | `writer`, `pipeline`, `stop` | the run of a stripe; the handle; the first cause |
//! | `progress`, `time_sum`, `timeline` | the counters; times, those under way too; what moved when |
//! | `forge` | for tests and fuzzers: segments made by hand |
//!
//! The memory argument and the bytes of a segment are pages of the manual.

mod assemble;
mod codec;
mod config;
mod cpu;
mod encrypt;
mod fetch;
#[cfg(feature = "testing")]
mod forge;
mod index;
mod input;
mod level;
mod limiter;
mod pace;
mod pack;
#[expect(clippy::module_inception, reason = "the handle is what the module is named for")]
mod pipeline;
mod plan;
mod progress;
mod ranges;
mod reader;
mod replay;
mod request;
mod segment;
mod stop;
mod survey;
#[cfg(test)]
mod tests;
mod time_sum;
mod timeline;
mod tree;
mod upload;
mod writer;

pub use config::{
    LevelRange, MAX_FRAME_BYTES, MAX_PART_BYTES, MAX_SEGMENT_BYTES, MIN_FRAME_BYTES, MIN_PART_BYTES, PipelineConfig,
};
#[cfg(feature = "encryption")]
pub use encrypt::{Identities, Passphrase, Recipients};
#[cfg(not(feature = "encryption"))]
pub(crate) use encrypt::{Identities, Recipients};
pub use encrypt::{MAX_HEADER_BYTES, MAX_RECIPIENTS};
#[cfg(feature = "encryption")]
pub(crate) use encrypt::{unwrap_identity, wrap_identity};
#[cfg(all(feature = "encryption", feature = "testing"))]
pub(crate) use forge::seal;
#[cfg(feature = "testing")]
pub(crate) use forge::{check_tail, forge, frames, survey_tail};
pub use index::MAX_SEGMENT_FRAMES;
pub use input::{Ack, Input};
pub use pipeline::Pipeline;
pub(crate) use plan::Direction;
pub use plan::{DevicePlan, MemoryPlan};
pub use progress::{Progress, StripeProgress};
pub(crate) use ranges::Ranges;
pub(crate) use replay::Kept;
pub use segment::{SegmentHeader, SegmentId, SegmentStore, SegmentSummary, SegmentUpload, StripeSummary};
pub(crate) use time_sum::TimeSum;
pub use timeline::{Moved, Timeline};
pub(crate) use upload::completion_time;
