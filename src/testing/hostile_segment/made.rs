//! Segments that are what they say.

use std::sync::LazyLock;

use super::bench::{FRAME, FRAME_BYTES};
use crate::pipeline::{self, SegmentSummary};

/// What an index says of a frame: stored bytes, raw bytes, hash.
pub(super) type Frame = (u32, u32, [u8; 32]);

/// A valid segment and its pieces.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) content: Vec<u8>,
    pub(super) frames: Vec<Frame>,
    /// The frames one after the other.
    pub(super) data: Vec<u8>,
    pub(super) object: Vec<u8>,
    pub(super) summary: SegmentSummary,
}

/// How many there are.
pub(super) const SHAPES: usize = 8;

/// One of them: a byte; a few hundred; a whole frame that does not shrink; two and four frames that do; and more than the 256 KiB of one
/// range, in six and eight frames with a last one that is short, and in five without.
pub(super) fn made(which: u8) -> &'static Made {
    static MADE: LazyLock<[Made; SHAPES]> = LazyLock::new(|| {
        [
            Made::of(vec![7]),
            Made::of(mixed(300, 1)),
            Made::of(noise(FRAME, 2)),
            Made::of([vec![0; FRAME], mixed(1000, 3)].concat()),
            Made::of([mixed(3 * FRAME, 4), vec![5; 7]].concat()),
            Made::of(noise(5 * FRAME + 1, 5)),
            Made::of([noise(4 * FRAME, 6), vec![1; 2 * FRAME], noise(2 * FRAME - 100, 7)].concat()),
            Made::of(noise(5 * FRAME, 8)),
        ]
    });
    &MADE[usize::from(which) % SHAPES]
}

impl Made {
    fn of(content: Vec<u8>) -> Self {
        let (frames, data) = pipeline::frames(FRAME, &content).unwrap_or_default();
        let (object, summary) = pipeline::forge(FRAME_BYTES, &frames, &data);
        Self { content, frames, data, object, summary }
    }
}

/// Bytes that do not shrink.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes that shrink by about half.
fn mixed(length: usize, seed: u64) -> Vec<u8> {
    noise(length.div_ceil(2), seed).into_iter().flat_map(|byte| [byte, 0]).take(length).collect()
}
