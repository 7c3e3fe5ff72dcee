//! Who stored which segments of a backup: the process that began it, or those that resumed it.

use serde::{Deserialize, Serialize};

use super::names::MAX_STRIPE_SEGMENTS;
use crate::pipeline::SegmentId;

/// Segments of one stripe that follow each other and were stored by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The claim of the process; 0 for the one that began the backup, which has none.
    pub(crate) claim: u32,
    /// Number of segments.
    pub(crate) segments: u32,
}

/// A run, by where it ends: found in a few steps, however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    claim: u32,
    /// The number of the first segment after it.
    end: u32,
}

/// Of every segment the claim of the process that stored it, which is part of the object's name.
///
/// Processes come one after the other, so in a stripe the claims never fall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Writers {
    /// The runs of each stripe; nothing at all if no process has resumed the backup.
    stripes: Vec<Vec<Reach>>,
    /// Who stores what follows.
    next: u32,
}

impl Writers {
    /// Those of segments whose claims are given stripe by stripe, in order.
    pub(crate) fn of_segments(stripes: impl IntoIterator<Item = Vec<u32>>) -> Self {
        let stripes = stripes.into_iter().map(|claims| {
            let mut runs: Vec<Run> = Vec::new();
            for claim in claims {
                match runs.last_mut() {
                    Some(run) if run.claim == claim => run.segments += 1,
                    _ => runs.push(Run { claim, segments: 1 }),
                }
            }
            runs
        });
        Self::new(stripes.collect(), 0)
    }

    /// What was kept of each stripe, and the claim of the process that goes on.
    pub(crate) fn new(stripes: Vec<Vec<Run>>, next: u32) -> Self {
        let is_plain = stripes.iter().flatten().all(|run| run.claim == 0);
        if is_plain && next == 0 {
            return Self::default();
        }
        let reaches = |runs: Vec<Run>| {
            let mut end = 0_u32;
            let reach = |run: Run| {
                end = end.saturating_add(run.segments);
                Reach { claim: run.claim, end }
            };
            runs.into_iter().map(reach).collect()
        };
        Self { stripes: stripes.into_iter().map(reaches).collect(), next }
    }

    /// The claim of the process that stored `segment`, or that is to store it.
    pub(crate) fn of(&self, segment: SegmentId) -> u32 {
        let Some(runs) = self.stripes.get(usize::from(segment.stripe)) else { return self.next };
        let run = runs.partition_point(|run| run.end <= segment.index);
        runs.get(run).map_or(self.next, |run| run.claim)
    }

    /// The claim of the process that stores what follows.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// The same for stripes of so many segments, of which nothing follows.
    pub(crate) fn complete(&self, segments: impl IntoIterator<Item = usize>) -> Self {
        let claims = (0..).zip(segments).map(|(stripe, count)| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            (0..count).map(|index| self.of(SegmentId { stripe, index })).collect()
        });
        Self::of_segments(claims)
    }

    /// True if some of them were stored by a process that resumed the backup.
    pub(crate) fn is_resumed(&self) -> bool {
        !self.stripes.is_empty() || self.next > 0
    }

    /// True if the claims of every stripe rise, none is `limit` or more, and no stripe has too many segments.
    pub(crate) fn are_sound(stripes: &[Vec<Run>], limit: u32) -> bool {
        stripes.iter().all(|runs| {
            let is_rising = runs.windows(2).all(|two| two[0].claim < two[1].claim);
            let sum: u64 = runs.iter().map(|run| u64::from(run.segments)).sum();
            let is_bounded = runs.iter().all(|run| run.claim < limit && run.segments > 0);
            is_rising && is_bounded && sum <= u64::from(MAX_STRIPE_SEGMENTS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(stripe: u16, index: u32) -> SegmentId {
        SegmentId { stripe, index }
    }

    #[test]
    fn every_segment_has_the_claim_of_its_run() {
        let runs = vec![vec![Run { claim: 0, segments: 2 }, Run { claim: 3, segments: 1 }], vec![]];
        let writers = Writers::new(runs, 5);
        let claims = |stripe, count| (0..count).map(|index| writers.of(segment(stripe, index))).collect::<Vec<_>>();
        assert_eq!(claims(0, 5), [0, 0, 3, 5, 5]);
        assert_eq!(claims(1, 2), [5, 5]);
        let complete = writers.complete([4, 1]);
        assert_eq!(complete, Writers::of_segments([vec![0, 0, 3, 5], vec![5]]));
        assert!(complete.is_resumed());
    }

    #[test]
    fn a_run_of_nothing_is_nobodys_and_one_without_end_is_of_all_that_follows() {
        let run = |claim, segments| Run { claim, segments };
        let writers = Writers::new(vec![vec![run(1, 0), run(2, 1), run(3, 0), run(4, u32::MAX), run(5, 7)]], 9);
        for (index, claim) in [(0, 2), (1, 4), (2, 4), (u32::MAX - 1, 4), (u32::MAX, 9)] {
            assert_eq!(writers.of(segment(0, index)), claim, "{index}");
        }
    }

    #[test]
    fn a_backup_that_was_never_resumed_has_one_form() {
        assert_eq!(Writers::of_segments([vec![0, 0], vec![]]), Writers::default());
        assert_eq!(Writers::default().complete([7]), Writers::default());
        assert!(!Writers::default().is_resumed() && Writers::new(Vec::new(), 1).is_resumed());
    }

    #[test]
    fn runs_that_nobody_writes_are_not_sound() {
        let run = |claim, segments| Run { claim, segments };
        assert!(Writers::are_sound(&[vec![run(0, 1), run(2, 1_000_000 - 1)], vec![]], 3));
        for bad in [
            vec![run(0, 0)],
            vec![run(3, 1)],
            vec![run(1, 1), run(1, 1)],
            vec![run(1, 1), run(0, 1)],
            vec![run(0, 1), run(1, 1_000_000)],
        ] {
            assert!(!Writers::are_sound(std::slice::from_ref(&bad), 3), "{bad:?}");
        }
    }
}
