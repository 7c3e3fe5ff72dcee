//! Who continues whom. A chain may be as long as a series, so each backup of it is looked at once.

use std::collections::HashMap;

use super::super::id::BackupId;

/// The nearest backup that is `wanted` of those that each of `ids`, none of which is, continues directly or not; also of those in
/// between. Ends even in a circle.
pub(super) fn nearest(
    ids: impl Iterator<Item = BackupId>,
    parents: &HashMap<BackupId, BackupId>,
    wanted: impl Fn(BackupId) -> bool,
) -> HashMap<BackupId, BackupId> {
    let mut known: HashMap<BackupId, Option<BackupId>> = HashMap::new();
    for start in ids {
        let (mut way, mut at) = (Vec::new(), start);
        let found = loop {
            if let Some(found) = known.get(&at) {
                break *found;
            }
            // Who comes here again on this way goes in a circle of which nothing is wanted.
            known.insert(at, None);
            way.push(at);
            match parents.get(&at) {
                None => break None,
                Some(&parent) if wanted(parent) => break Some(parent),
                Some(&parent) => at = parent,
            }
        };
        known.extend(way.into_iter().map(|id| (id, found)));
    }
    known.into_iter().filter_map(|(id, found)| Some((id, found?))).collect()
}

/// Each backup that one of `staying` continues, directly or not, up to and including the first that is not there, with the first of
/// `staying` that does. Where it is known already, it is known of all before it. Of a circle, which nobody can make but a forger,
/// one that stays itself may be left out, or be told with a later one.
pub(super) fn needed(
    staying: impl IntoIterator<Item = BackupId>,
    parents: &HashMap<BackupId, BackupId>,
) -> HashMap<BackupId, BackupId> {
    let mut needed = HashMap::new();
    for child in staying {
        let mut at = child;
        while let Some(&parent) = parents.get(&at)
            && parent != child
            && !needed.contains_key(&parent)
        {
            needed.insert(parent, child);
            at = parent;
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    /// The backups that `id` continues, nearest first, up to and including the first that is not there.
    fn ancestors(id: BackupId, parents: &HashMap<BackupId, BackupId>) -> Vec<BackupId> {
        let mut seen = BTreeSet::from([id]);
        let parent = |id: &BackupId| parents.get(id).copied();
        std::iter::successors(parent(&id), parent).take_while(|id| seen.insert(*id)).collect()
    }

    const COUNT: usize = 12;

    proptest! {
        /// Chains, trees and circles.
        #[test]
        fn what_is_told_is_what_a_walk_along_each_chain_tells(
            shape in prop::collection::vec(prop::option::of(0..COUNT), COUNT),
            wanted in prop::collection::vec(prop::bool::weighted(0.2), COUNT),
            staying in prop::collection::vec(0..COUNT, 0..COUNT),
        ) {
            let ids: Vec<BackupId> = (0..COUNT).map(|_| BackupId::generate(Timestamp::UNIX_EPOCH)).collect();
            let pairs = ids.iter().zip(&shape).filter_map(|(id, parent)| Some((*id, ids[(*parent)?])));
            let parents: HashMap<BackupId, BackupId> = pairs.collect();
            let is_wanted = |id: BackupId| ids.iter().zip(&wanted).any(|(of, wanted)| *of == id && *wanted);

            let others = || ids.iter().copied().filter(|id| !is_wanted(*id));
            let found = nearest(others(), &parents, is_wanted);
            for id in others() {
                let expected = ancestors(id, &parents).into_iter().find(|id| is_wanted(*id));
                prop_assert_eq!(found.get(&id).copied(), expected);
            }

            let staying: Vec<BackupId> = staying.into_iter().map(|index| ids[index]).collect();
            let mut expected = HashMap::new();
            for child in staying.iter().copied() {
                for parent in ancestors(child, &parents) {
                    expected.entry(parent).or_insert(child);
                }
            }
            let found = needed(staying.iter().copied(), &parents);
            let is_left_out = |id: &BackupId| {
                let goes_in_a_circle = ancestors(*id, &parents).last().and_then(|last| parents.get(last)) == Some(id);
                staying.contains(id) && goes_in_a_circle
            };
            for (parent, child) in &expected {
                prop_assert!(found.get(parent) == Some(child) || is_left_out(parent));
            }
            prop_assert!(found.keys().all(|parent| expected.contains_key(parent)));
        }
    }
}
