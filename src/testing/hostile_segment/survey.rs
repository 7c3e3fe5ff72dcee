//! Segments that nobody has a summary of.

use super::bench::{Bench, FRAME_BYTES};
use super::changes::change;
use super::made::{Frame, Made, made};
use crate::error::ErrorKind;
use crate::pipeline::{self, SegmentId};

/// No forged index has more frames, and no forged segment more bytes of them.
const MOST_FRAMES: usize = 5000;
const MOST_BYTES: usize = 2 << 20;

impl Bench {
    /// Reads a segment of which only the size is known, as who resumes a backup does: bytes of the input's own, a true segment that
    /// was changed, or frames under an index with a seek table that agrees with it, and lies. What it is then said to be must be what
    /// a restore finds.
    ///
    /// # Panics
    ///
    /// If it is something else, or anything else than promised happens.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: what is left of one may still run in the next.
    pub async fn survey(&self, input: &[u8]) -> bool {
        let [kind, which, rest @ ..] = input else { return false };
        let base = made(*which);
        let object = match kind % 3 {
            0 => rest.to_vec(),
            1 => {
                let mut object = base.object.clone();
                change(&mut object, rest, 0, base.frames[0].0 as usize);
                object
            }
            _ => forged(base, rest),
        };
        let size = match (kind / 3 % 4, which) {
            // The listing does not tell the truth either.
            (3, 250..) => u64::MAX - u64::from(255 - which),
            (3, _) => (object.len() as u64).saturating_add_signed(i64::from(*which) - 128),
            _ => object.len() as u64,
        };
        let object = bytes::Bytes::from(object);
        self.shelf.hold(vec![object.clone()]);
        let mut read = 0;
        let outcome = self.plain.survey(SegmentId { stripe: 0, index: 0 }, size, |bytes| read += bytes).await;
        self.is_bounded(&self.plain).await;
        let summary = match outcome {
            Ok(summary) => summary,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid), "{}", error.report());
                assert!(size == 0 || read < size, "{read} of {size} bytes were good");
                return false;
            }
        };
        assert_eq!(read, size, "all of it was read");
        let seen = usize::try_from(size).ok().and_then(|size| object.get(..size)).unwrap_or_default();
        assert_eq!((summary.stored_bytes, summary.stored_hash), (size, blake3::hash(seen)));
        let (delivered, error) = self.restore(&self.plain, vec![object], vec![summary.clone()]).await;
        assert!(error.is_none(), "{error:?} of what was found to be good");
        assert_eq!((summary.raw_bytes, summary.raw_hash), (delivered.len() as u64, blake3::hash(&delivered)));
        assert!(kind % 3 != 1 || delivered == base.content, "a changed segment has become another one");
        true
    }
}

/// Some true frames, each six bytes of the input a change to them or to what the index says of them. What the tail alone is taken for
/// must agree with what a reader who has that summary takes it for.
fn forged(base: &Made, input: &[u8]) -> Vec<u8> {
    let (mut frames, mut data, mut frame_bytes) = (base.frames.clone(), base.data.clone(), FRAME_BYTES);
    for field in input.chunks_exact(6) {
        let [kind, which, a, b, c, d] = *field else { break };
        let number = u32::from_le_bytes([a, b, c, d]);
        if frames.is_empty() {
            break;
        }
        let at = usize::from(which) % frames.len();
        match kind % 8 {
            0 => frames[at].0 = number,
            1 => frames[at].1 = number,
            2 => frames[at].2[usize::from(a) % 32] ^= b,
            3 => {
                let stored = stored(&frames, &data, at);
                let again = stored.len().max(1);
                let room =
                    (MOST_BYTES.saturating_sub(data.len()) / again).min(MOST_FRAMES.saturating_sub(frames.len()));
                let times = usize::from(u16::from_le_bytes([a, b])).min(room);
                let copies = data.get(stored.clone()).unwrap_or_default().repeat(times);
                data.splice(stored.start..stored.start, copies);
                let frame = frames[at];
                frames.splice(at..at, std::iter::repeat_n(frame, times));
            }
            4 => {
                let stored = stored(&frames, &data, at);
                drop(data.drain(stored));
                frames.remove(at);
            }
            5 => change(&mut data, &[a, b, c, d], 0, 1),
            6 => frame_bytes = number,
            // Two of them change places in the index only.
            _ => {
                let other = usize::from(a) % frames.len();
                frames.swap(at, other);
            }
        }
    }
    let (object, _) = pipeline::forge(frame_bytes, &frames, &data);
    let tail = &object[data.len()..];
    if let Ok(summary) = pipeline::survey_tail(tail, object.len() as u64) {
        assert_eq!(pipeline::check_tail(tail, &summary), Ok(frames.len()));
        assert_eq!(summary.raw_bytes, frames.iter().map(|frame| u64::from(frame.1)).sum::<u64>());
    }
    object
}

/// Where a frame stands, if the index says the truth; somewhere inside the data in any case.
fn stored(frames: &[Frame], data: &[u8], at: usize) -> std::ops::Range<usize> {
    let sum = |count: usize| {
        let stored: u64 = frames[..count].iter().map(|frame| u64::from(frame.0)).sum();
        usize::try_from(stored).unwrap_or(usize::MAX).min(data.len())
    };
    sum(at)..sum(at + 1)
}
