//! A set of segments, small in memory and short as text.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::backup::names::{MAX_STRIPE_SEGMENTS, MAX_STRIPES};
use crate::pipeline::SegmentId;

/// Some segments of a backup. As text, each stripe is a list of numbers and ranges: `0-5,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Of each stripe the ranges in order; they neither overlap nor touch.
    stripes: Vec<Vec<RangeInclusive<u32>>>,
}

impl Coverage {
    /// Of segments in order.
    pub(super) fn new(segments: impl IntoIterator<Item = SegmentId>) -> Self {
        let mut stripes: Vec<Vec<RangeInclusive<u32>>> = Vec::new();
        for segment in segments {
            let stripe = usize::from(segment.stripe);
            if stripes.len() <= stripe {
                stripes.resize_with(stripe + 1, Vec::new);
            }
            let ranges = &mut stripes[stripe];
            match ranges.last_mut() {
                Some(last) if segment.index.checked_sub(1) == Some(*last.end()) => {
                    *last = *last.start()..=segment.index;
                }
                _ => ranges.push(segment.index..=segment.index),
            }
        }
        Self { stripes }
    }

    /// True if `segment` is in the set.
    pub fn contains(&self, segment: SegmentId) -> bool {
        let Some(ranges) = self.stripes.get(usize::from(segment.stripe)) else { return false };
        let after = ranges.partition_point(|range| *range.start() <= segment.index);
        after.checked_sub(1).is_some_and(|at| ranges[at].contains(&segment.index))
    }

    /// Number of segments in the set.
    pub fn count(&self) -> u64 {
        self.stripes.iter().flatten().map(|range| u64::from(range.end() - range.start()) + 1).sum()
    }

    /// The ranges of one stripe, in order.
    pub(super) fn of_stripe(&self, stripe: usize) -> &[RangeInclusive<u32>] {
        self.stripes.get(stripe).map_or(&[], Vec::as_slice)
    }

    /// Bytes that it takes in memory, beside itself.
    pub(super) fn weight(&self) -> usize {
        let ranges: usize = self.stripes.iter().map(Vec::capacity).sum();
        self.stripes.capacity() * size_of::<Vec<RangeInclusive<u32>>>() + ranges * size_of::<RangeInclusive<u32>>()
    }

    /// One past the last segment of each stripe.
    pub(super) fn ends(&self) -> impl Iterator<Item = (usize, u32)> {
        self.stripes.iter().enumerate().filter_map(|(stripe, ranges)| Some((stripe, ranges.last()?.end() + 1)))
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (stripe, ranges) in self.stripes.iter().enumerate().filter(|(_, ranges)| !ranges.is_empty()) {
            write!(f, "{separator}s{stripe:02}: {}", text(ranges))?;
            separator = "; ";
        }
        Ok(())
    }
}

fn text(ranges: &[RangeInclusive<u32>]) -> String {
    let one = |range: &RangeInclusive<u32>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

fn parse(text: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let mut ranges: Vec<RangeInclusive<u32>> = Vec::new();
    for piece in text.split(',').filter(|_| !text.is_empty()) {
        let (start, end) = piece.split_once('-').unwrap_or((piece, piece));
        let (start, end): (u32, u32) = (number(start)?, number(end)?);
        let is_after = ranges.last().is_none_or(|last| start > last.end() + 1);
        if start > end || end >= MAX_STRIPE_SEGMENTS || !is_after {
            return None;
        }
        ranges.push(start..=end);
    }
    // One set, one spelling.
    (self::text(&ranges) == text).then_some(ranges)
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Serialize for Coverage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.stripes.iter().map(|ranges| text(ranges)))
    }
}

impl<'de> Deserialize<'de> for Coverage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Stripes;
        impl<'de> Visitor<'de> for Stripes {
            type Value = Coverage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("for each stripe a list of ranges in order")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Coverage, A::Error> {
                let mut stripes = Vec::new();
                while let Some(text) = access.next_element::<std::borrow::Cow<'de, str>>()? {
                    if stripes.len() == usize::from(MAX_STRIPES) {
                        return Err(A::Error::custom("too many stripes"));
                    }
                    stripes.push(parse(&text).ok_or_else(|| A::Error::custom("not a list of ranges in order"))?);
                }
                Ok(Coverage { stripes })
            }
        }
        deserializer.deserialize_seq(Stripes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(stripe: u16, index: u32) -> SegmentId {
        SegmentId { stripe, index }
    }

    #[test]
    fn other_spellings_and_hostile_ranges_are_refused() {
        for text in ["a", "1,1", "2,1", "0-1,2", "5-3", "1-", "-1", "01", "+1", "0-", ",", "1,", "0-1000000", "1000000"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("0-4294967295"), None);
        let many = format!("[{}]", vec!["\"\""; 65].join(","));
        assert!(serde_json::from_str::<Coverage>(&many).is_err());
        assert_eq!(Coverage::new([id(0, 0), id(0, 1), id(2, 4)]).to_string(), "s00: 0-1; s02: 4");
    }

    proptest! {
        #[test]
        fn a_set_reads_back_and_knows_its_members(members in prop::collection::btree_set((0u16..3, 0u32..40), 0..60)) {
            let members: BTreeSet<(u16, u32)> = members;
            let set = Coverage::new(members.iter().map(|(stripe, index)| id(*stripe, *index)));
            prop_assert_eq!(set.count(), members.len() as u64);
            for stripe in 0..4 {
                for index in 0..42 {
                    prop_assert_eq!(set.contains(id(stripe, index)), members.contains(&(stripe, index)));
                }
            }
            let text = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(serde_json::from_str::<Coverage>(&text).unwrap(), set);
        }
    }
}
