//! Which segments are read.

use super::options::Sample;
use super::report::SampleReport;
use crate::pipeline::{SegmentId, SegmentSummary};

/// A segment of the backup with its name within the store.
#[derive(Debug, Clone)]
pub(super) struct Segment<'a> {
    pub(super) id: SegmentId,
    pub(super) name: String,
    pub(super) summary: &'a SegmentSummary,
}

/// Draws a sample, and leaves it in the order of the backup.
///
/// Every segment has a number that depends on the seed and its place only, and the smallest are drawn: a larger sample
/// of the same seed contains the smaller one.
pub(super) fn draw(segments: &mut Vec<Segment<'_>>, sample: Sample) -> SampleReport {
    let of = segments.len();
    let count = sample.size.of(of);
    segments.sort_by_cached_key(|segment| number(sample.seed, segment.id));
    segments.truncate(count);
    segments.sort_unstable_by_key(|segment| segment.id);
    SampleReport { segments: count, of, seed: sample.seed }
}

fn number(seed: u64, id: SegmentId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&id.stripe.to_le_bytes()).update(&id.index.to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::options::SampleSize;
    use super::*;
    use crate::backup::manifest::tests::stripe;

    #[test]
    fn the_same_seed_draws_the_same_and_a_larger_sample_contains_the_smaller() {
        let summary = stripe(&[(1, 1); 100]);
        let all: Vec<Segment<'_>> = summary
            .segments
            .iter()
            .map(|summary| Segment { id: SegmentId { stripe: 0, index: summary.index }, name: String::new(), summary })
            .collect();
        let drawn = |count, seed| {
            let mut segments = all.clone();
            let report = draw(&mut segments, Sample { size: SampleSize::Count(count), seed });
            assert_eq!((report.segments as u64, report.of), (count.min(100), 100));
            let ids: Vec<u32> = segments.iter().map(|segment| segment.id.index).collect();
            assert!(ids.is_sorted());
            ids
        };
        assert_eq!(drawn(10, 1), drawn(10, 1));
        assert_ne!(drawn(10, 1), drawn(10, 2));
        assert!(drawn(10, 1).iter().all(|id| drawn(30, 1).contains(id)));
        assert_eq!(drawn(101, 1).len(), 100);
    }
}
