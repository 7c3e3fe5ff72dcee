//! Segments of several frames that were changed after they were stored.

use bytes::Bytes;

use super::bench::{Bench, is_honest};
use super::changes::change;
use super::made::{Made, made};
use crate::error::ErrorKind;
use crate::pipeline::SegmentSummary;

impl Bench {
    /// Restores a stripe of up to three segments, small ones that are read at once and large ones that are read in several ranges.
    /// One of them is changed, and its summary knows it or not; or two of them have changed places.
    ///
    /// # Panics
    ///
    /// If a wrong byte is delivered, or anything else than promised happens.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: what is left of a restore may still run in the next.
    pub async fn stripe(&self, input: &[u8]) -> bool {
        let [first, second, third, rest @ ..] = input else { return false };
        let count = usize::from(first % 3) + 1;
        let stripe: Vec<&Made> = [first / 3, *second, second / 8].map(made).into_iter().take(count).collect();
        let content = stripe.iter().map(|made| &made.content[..]).collect::<Vec<_>>().concat();
        let (mut objects, mut segments) = (Vec::new(), Vec::<SegmentSummary>::new());
        let mut raw_offset = 0;
        for (index, made) in (0..).zip(&stripe) {
            objects.push(Bytes::from_static(&made.object));
            segments.push(SegmentSummary { index, raw_offset, ..made.summary.clone() });
            raw_offset += made.summary.raw_bytes;
        }
        let changed = usize::from(third % 4) % count;
        let believes = third & 4 != 0;
        if third & 8 != 0 {
            objects.swap(changed, usize::from(third / 16) % count);
        }
        let block = stripe[changed].frames.first().map_or(1, |frame| frame.0 as usize);
        let mut object = objects[changed].to_vec();
        change(&mut object, rest, 0, block);
        if believes {
            segments[changed].stored_bytes = object.len() as u64;
            segments[changed].stored_hash = blake3::hash(&object);
        }
        objects[changed] = object.into();
        let is_true = stripe.iter().zip(&objects).all(|(made, object)| object.starts_with(&made.object))
            && stripe.iter().zip(&segments).all(|(made, segment)| made.summary.stored_bytes == segment.stored_bytes);

        let (delivered, error) = self.restore(&self.plain, objects, segments).await;
        assert!(error.as_ref().is_none_or(|error| error.kind() == ErrorKind::Corrupt), "{error:?}");
        assert!(!is_true || error.is_none(), "{error:?} of what was not changed");
        is_honest(&content, &delivered, error.as_ref())
    }
}
