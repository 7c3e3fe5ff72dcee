//! A single frame that is not what its index says.

use super::bench::{Bench, FRAME, FRAME_BYTES, is_honest};
use crate::error::ErrorKind;
use crate::pipeline;

impl Bench {
    /// Restores a segment of one frame, whose index and summary believe it: bytes of the input's own, or a true frame of the input's
    /// own content, changed in a few places.
    ///
    /// # Panics
    ///
    /// If a wrong byte is delivered, or anything else than promised happens.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: what is left of a restore may still run in the next.
    pub async fn frame(&self, input: &[u8]) -> bool {
        let [first, rest @ ..] = input else { return false };
        let (content, stored) = if first % 2 == 0 {
            (vec![*first; usize::from(*first) + 1], rest.to_vec())
        } else {
            let (changes, content) = rest.split_at(rest.len().min(usize::from(first / 2 % 8) * 3));
            let content = if content.is_empty() { vec![0; FRAME] } else { content.to_vec() };
            let content = content[..content.len().min(FRAME)].to_vec();
            let mut stored = pipeline::frames(FRAME, &content).map(|(_, data)| data).unwrap_or_default();
            for change in changes.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % stored.len();
                stored[at] ^= change[2];
            }
            (content, stored)
        };
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = (length(&stored), length(&content), *blake3::hash(&content).as_bytes());
        let (object, summary) = pipeline::forge(FRAME_BYTES, &[entry], &stored);
        let (delivered, error) = self.restore(&self.plain, vec![object.into()], vec![summary]).await;
        assert!(error.as_ref().is_none_or(|error| error.kind() == ErrorKind::Corrupt), "{error:?}");
        is_honest(&content, &delivered, error.as_ref())
    }
}
