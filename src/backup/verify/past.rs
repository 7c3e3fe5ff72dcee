//! What earlier verifications tell of each segment. However many records there are and however large, 48 bytes of memory for each segment
//! hold it.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::options::{VerifyLevel, VerifyOptions};
use super::record::{Outcome, RecordName, Verification};
use crate::backup::manifest::Manifest;
use crate::backup::names::{Names, ObjectName};
use crate::pipeline::SegmentId;

/// What the records tell that were taken in, in whatever order.
#[derive(Debug)]
pub(super) struct Past {
    names: Names,
    level: VerifyLevel,
    now: Timestamp,
    /// `None` if nothing is to be spared.
    max_age: Option<Duration>,
    /// What is known of the segments of each stripe; nothing if none is to be spared.
    stripes: Vec<Vec<Known>>,
    /// When the last record was written that may tell damage of any segment.
    doubt: Option<Timestamp>,
}

/// What is known of one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// When the last verification began that looked at it deep enough and found it good.
    good: Option<Timestamp>,
    /// When the last record was written that tells damage of it.
    bad: Option<Timestamp>,
}

impl Past {
    /// Nothing yet, for a verification with `options` at the time `now`.
    pub(super) fn new(manifest: &Manifest, options: &VerifyOptions, now: Timestamp) -> Self {
        let stripes = if options.since_last.is_some() { manifest.stripes.as_slice() } else { &[] };
        Self {
            names: manifest.names(),
            level: options.level,
            now,
            max_age: options.since_last,
            stripes: stripes.iter().map(|stripe| vec![Known::default(); stripe.segments.len()]).collect(),
            doubt: None,
        }
    }

    /// Takes in a record.
    pub(super) fn see(&mut self, name: &RecordName, record: &Verification) {
        if record.outcome == Outcome::Damaged {
            self.see_damage(name, record);
        }
        // The age of one that is dated ahead is not known, also when its date has come.
        if name.is_ahead() || !self.max_age.is_some_and(|age| record.is_evidence(self.level, self.now, age)) {
            return;
        }
        let began = Some(record.started.min(record.finished));
        for (stripe, known) in self.stripes.iter_mut().enumerate() {
            for range in record.covered.of_stripe(stripe) {
                let ends = *range.start() as usize..=*range.end() as usize;
                for known in known.get_mut(ends).into_iter().flatten() {
                    known.good = known.good.max(began);
                }
            }
        }
    }

    /// Takes in that there is a record, whatever it tells.
    pub(super) fn see_unusable(&mut self, name: &RecordName) {
        self.doubt = self.doubt.max(Some(name.place()));
    }

    fn see_damage(&mut self, name: &RecordName, record: &Verification) {
        let objects: Option<Vec<ObjectName>> =
            record.damage.iter().map(|finding| self.names.parse(&finding.object)).collect();
        let place = name.place();
        match objects {
            Some(objects) if objects.len() as u64 == record.findings => {
                // Objects that are no segments are looked at every time.
                for (id, _) in objects.iter().filter_map(ObjectName::as_segment) {
                    let stripe = usize::from(id.stripe);
                    self.mark_bad(stripe, id.index as usize..(id.index as usize).saturating_add(1), place);
                }
            }
            // Of the rest it is not known. What the record found good was good.
            _ => {
                for stripe in 0..self.stripes.len() {
                    let mut next = 0;
                    for range in record.covered.of_stripe(stripe) {
                        self.mark_bad(stripe, next..*range.start() as usize, place);
                        next = *range.end() as usize + 1;
                    }
                    self.mark_bad(stripe, next..self.stripes[stripe].len(), place);
                }
            }
        }
    }

    /// Nothing if there are no such segments.
    fn mark_bad(&mut self, stripe: usize, segments: Range<usize>, place: Timestamp) {
        for known in self.stripes.get_mut(stripe).and_then(|known| known.get_mut(segments)).into_iter().flatten() {
            known.bad = known.bad.max(Some(place));
        }
    }

    /// True if `segment` need not be read again: it was found good, and nothing was recorded since that look began that tells
    /// damage of it.
    pub(super) fn spares(&self, segment: SegmentId) -> bool {
        let known = self.stripes.get(usize::from(segment.stripe)).and_then(|known| known.get(segment.index as usize));
        known.is_some_and(|known| known.good > known.bad.max(self.doubt))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Finding;
    use super::super::standing::tests::record;
    use super::*;
    use crate::backup::manifest::tests::{manifest, stripe};
    use crate::backup::verify::Coverage;

    type Look = (RecordName, Verification);

    #[test]
    fn a_segment_takes_as_much_memory_as_is_said() {
        assert!(size_of::<Known>() <= 48, "{}", size_of::<Known>());
    }

    fn backup() -> Manifest {
        let id = "018bcfe5-687b-7000-8000-000000000001".parse().unwrap();
        Manifest { id, ..manifest(vec![stripe(&[(5, 5), (5, 5)])]) }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A look at all of a backup of two segments, from one second to another, that found these damaged.
    fn look(began: i64, ended: i64, bad: &[u32]) -> Look {
        let names = backup().names();
        let id = |index| SegmentId { stripe: 0, index };
        let mut record = record(VerifyLevel::Stored, Outcome::Good, 0);
        (record.started, record.finished) = (second(began), second(ended));
        record.covered = Coverage::new((0..2).filter(|index| !bad.contains(index)).map(id));
        record.good = record.covered.count();
        for index in bad {
            record.outcome = Outcome::Damaged;
            record.damage.push(Finding { object: names.segment(id(*index)), error: String::new() });
        }
        record.findings = record.damage.len() as u64;
        (RecordName::of_time(second(ended), second(ended)), record)
    }

    /// The segments that need not be read again at the second 1000, in whatever order the records come.
    fn spared(looks: &[Look], unusable: Option<i64>) -> Vec<u32> {
        let manifest = backup();
        let options = VerifyOptions::new(VerifyLevel::Stored).since_last(Duration::from_secs(900));
        let spared = |looks: &mut dyn Iterator<Item = &Look>| {
            let mut past = Past::new(&manifest, &options, second(1000));
            looks.for_each(|(name, record)| past.see(name, record));
            if let Some(place) = unusable {
                past.see_unusable(&RecordName::of_time(second(place), second(place)));
            }
            (0..2).filter(|index| past.spares(SegmentId { stripe: 0, index: *index })).collect::<Vec<u32>>()
        };
        let found = spared(&mut looks.iter());
        assert_eq!(spared(&mut looks.iter().rev()), found);
        found
    }

    #[test]
    fn a_segment_is_spared_until_something_tells_damage_of_it() {
        let good = look(200, 300, &[]);
        for (looks, expected) in [
            (vec![], vec![]),
            (vec![good.clone()], vec![0, 1]),
            (vec![good.clone(), look(400, 500, &[1])], vec![0]),
            (vec![good.clone(), look(400, 500, &[1]), look(600, 700, &[])], vec![0, 1]),
            // What was found while it ran may be younger than its look at the same segment.
            (vec![look(350, 700, &[]), look(400, 500, &[1])], vec![0]),
            (vec![good.clone(), look(400, 500, &[0]), look(600, 700, &[1])], vec![0]),
            // Too old.
            (vec![look(80, 99, &[])], vec![]),
            (vec![look(80, 100, &[])], vec![0, 1]),
        ] {
            assert_eq!(spared(&looks, None), expected, "{looks:?}");
        }
        for (place, expected) in [(100, vec![0, 1]), (200, vec![]), (900, vec![])] {
            assert_eq!(spared(std::slice::from_ref(&good), Some(place)), expected, "{place}");
        }
    }

    #[test]
    fn damage_that_is_not_listed_may_be_anywhere_but_in_what_was_found_good() {
        let good = look(200, 300, &[]);
        let (name, mut record) = look(400, 500, &[1]);
        record.damage.clear();
        assert_eq!(spared(&[good.clone(), (name.clone(), record.clone())], None), [0]);
        record.covered = Coverage::default();
        assert_eq!(spared(&[good.clone(), (name.clone(), record.clone())], None), [0; 0]);
        let strange = Finding { object: "elsewhere".to_owned(), error: String::new() };
        record.damage = vec![strange];
        assert_eq!(spared(&[good.clone(), (name.clone(), record.clone())], None), [0; 0]);
        // Other objects are no segments.
        record.damage[0].object = backup().names().intent();
        assert_eq!(spared(&[good, (name, record)], None), [0, 1]);
    }

    #[test]
    fn a_record_that_is_dated_ahead_spares_nothing_and_tells_damage() {
        let (stored, ahead) = (second(500), second(100_000));
        let (_, good) = look(400, 500, &[]);
        assert_eq!(spared(&[(RecordName::of_time(ahead, stored), good)], None), [0; 0]);
        let (_, bad) = look(400, 500, &[1]);
        assert_eq!(spared(&[look(200, 300, &[]), (RecordName::of_time(ahead, stored), bad.clone())], None), [0]);
        assert_eq!(spared(&[look(600, 700, &[]), (RecordName::of_time(ahead, stored), bad)], None), [0, 1]);
    }
}
