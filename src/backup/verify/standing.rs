//! How a backup stands by what is recorded of its verifications: the last one, and damage that none has shown to be gone.
//!
//! A record is good for what its verification had before it when it began. It clears the damage of the records that were there
//! then, if it looked at least as deep, at every segment, and found all of it good. What it has not cleared, and what others found
//! while it ran, it carries on as `earlier_damage`. So the last record tells how the backup stands, without the others.
//!
//! A record that cannot be used may tell any damage. It is passed over, and that it was is carried on in the same way (`has_unread`).

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::options::VerifyLevel;
use super::record::{self, Of, Outcome, Reading, RecordName, Verification};
use crate::backup::manifest::Manifest;
use crate::backup::store::Store;
use crate::error::Result;

/// A verification of a backup, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LastVerification {
    /// How deep it looked.
    pub level: VerifyLevel,
    /// When it was done.
    pub time: Timestamp,
    /// What came out.
    pub outcome: Outcome,
    /// Segments that it looked at, at its level, and found good.
    pub good: u64,
    /// Segments of the backup.
    pub segments: u64,
}

impl From<&Verification> for LastVerification {
    fn from(record: &Verification) -> Self {
        Self {
            level: record.level,
            time: record.finished,
            outcome: record.outcome,
            good: record.good,
            segments: record.segments,
        }
    }
}

impl LastVerification {
    /// True if it has shown that damage of this level, which was there when it began, is gone.
    fn clears(&self, level: VerifyLevel) -> bool {
        self.outcome == Outcome::Good && self.good == self.segments && self.level >= level
    }

    /// What is left of damage that was there when it began.
    fn leaves(&self, damage: Option<Self>) -> Option<Self> {
        damage.filter(|damage| !self.clears(damage.level))
    }

    /// Whether it may be that something is left of what a record tells that nobody could read when it began.
    fn leaves_unread(&self, has_unread: bool) -> bool {
        has_unread && !self.clears(VerifyLevel::Full)
    }

    /// Itself, if it found damage.
    fn own_damage(self) -> Option<Self> {
        (self.outcome == Outcome::Damaged).then_some(self)
    }
}

/// How a backup stands by its verifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// The last verification that was recorded.
    pub verified: Option<LastVerification>,
    /// Damage that stands: no verification that began after it was found, at least as deep, has looked at every segment and found
    /// nothing wrong. Of several it is the deepest, and of those the newest.
    pub damage: Option<LastVerification>,
    /// True if a record cannot be used, because it is damaged or a newer version has written it, and no verification that began
    /// after it was written has read every segment, at [`VerifyLevel::Full`], and found nothing wrong. It may tell damage: what
    /// the others say is not known to be all.
    pub has_unread: bool,
}

impl Standing {
    /// What `records` say together, oldest first, as [`verifications`](super::verifications) answers them. One that cannot be used is not
    /// among them, so [`Standing::has_unread`] is only what others carry on of it; [`standing`](crate::backup::standing()) tells the rest.
    pub fn of(records: &[Verification]) -> Self {
        records.iter().map(Said::from).fold(Self::default(), Self::then)
    }

    /// After one more verification.
    fn then(self, said: Said) -> Self {
        let look = said.look;
        Self {
            verified: Some(look),
            damage: deepest([look.leaves(self.damage), said.damage, look.own_damage()]),
            has_unread: look.leaves_unread(self.has_unread) || said.has_unread,
        }
    }

    /// After one more record, which cannot be used.
    fn then_unread(self) -> Self {
        Self { has_unread: true, ..self }
    }
}

/// What a record says of its verification, and of what that has left of those before it.
#[derive(Debug, Clone, Copy)]
struct Said {
    look: LastVerification,
    damage: Option<LastVerification>,
    has_unread: bool,
}

impl From<&Verification> for Said {
    fn from(record: &Verification) -> Self {
        Self { look: record.into(), damage: record.earlier_damage, has_unread: record.has_unread }
    }
}

/// Of those that are as deep it is the last.
fn deepest(damage: [Option<LastVerification>; 3]) -> Option<LastVerification> {
    damage.into_iter().flatten().max_by_key(|damage| damage.level)
}

/// How a backup stands, by the newest of the records `names` that can be used, however many newer ones cannot.
pub(crate) async fn standing(store: &Store, of: &Of, names: &[RecordName]) -> Result<Standing> {
    if names.iter().any(RecordName::is_ahead) {
        // Where these belong depends on what they say.
        let mut all = Vec::new();
        for name in names {
            match record::read_usable(store, of, name).await? {
                Reading::Record(record) => all.push((name.time_of(&record), Some(Said::from(&*record)))),
                Reading::Unusable => all.push((name.place(), None)),
                Reading::Gone => {}
            }
        }
        all.sort_by_key(|(time, _)| *time);
        let then = |standing: Standing, (_, said): (_, Option<Said>)| match said {
            Some(said) => standing.then(said),
            None => standing.then_unread(),
        };
        return Ok(all.into_iter().fold(Standing::default(), then));
    }
    let mut has_unread = false;
    for name in names.iter().rev() {
        match record::read_usable(store, of, name).await? {
            Reading::Record(record) => {
                let standing = Standing::of(&[*record]);
                return Ok(if has_unread { standing.then_unread() } else { standing });
            }
            Reading::Unusable => has_unread = true,
            Reading::Gone => {}
        }
    }
    Ok(Standing { has_unread, ..Standing::default() })
}

/// Writes the record of a verification that saw the records `known` when it began. Answers its name.
pub(super) async fn add(
    store: &Store,
    manifest: &Manifest,
    mut record: Verification,
    known: &[RecordName],
) -> Result<String> {
    let of = Of::from(manifest);
    let names = record::names(store, &manifest.names()).await?;
    let look = LastVerification::from(&record);
    let stood = standing(store, &of, known).await?;
    record.earlier_damage = look.leaves(stood.damage);
    record.has_unread = look.leaves_unread(stood.has_unread);
    let known: HashSet<&str> = known.iter().map(|name| name.object.as_str()).collect();
    for name in names.iter().filter(|name| !known.contains(name.object.as_str())) {
        // What was found meanwhile may be younger than the look at the same object.
        match record::read_usable(store, &of, name).await? {
            Reading::Record(other) => {
                let found = LastVerification::from(&*other).own_damage();
                record.earlier_damage = deepest([record.earlier_damage, found, None]);
            }
            Reading::Unusable => record.has_unread = true,
            Reading::Gone => {}
        }
    }
    record::write(store, manifest, &record, &names).await
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::backup::manifest::tests::{manifest, stripe};
    use crate::backup::verify::Coverage;
    use crate::pipeline::SegmentId;

    /// A record of a backup of two segments.
    pub(in crate::backup::verify) fn record(level: VerifyLevel, outcome: Outcome, good: u64) -> Verification {
        let manifest = manifest(vec![stripe(&[(5, 5), (5, 5)])]);
        let covered = Coverage::new((0..u32::try_from(good).unwrap()).map(|index| SegmentId { stripe: 0, index }));
        Verification {
            series: manifest.series.clone(),
            id: manifest.id,
            root: manifest.root().to_hex().to_string(),
            started: Timestamp::UNIX_EPOCH,
            finished: Timestamp::UNIX_EPOCH,
            tool: "test".to_owned(),
            host: None,
            level,
            outcome,
            segments: 2,
            good,
            covered,
            seed: None,
            earlier_damage: None,
            has_unread: false,
            findings: u64::from(outcome == Outcome::Damaged),
            damage: Vec::new(),
        }
    }

    #[test]
    fn damage_stands_until_the_whole_backup_is_shown_to_be_good_as_deep() {
        use VerifyLevel::{Full, Quick, Stored};
        let bad = |level| record(level, Outcome::Damaged, 1);
        let good = |level| record(level, Outcome::Good, 2);
        let part = |level| record(level, Outcome::Good, 1);
        for (records, expected) in [
            (vec![], None),
            (vec![good(Full)], None),
            (vec![bad(Quick)], Some(0)),
            (vec![bad(Full), good(Quick)], Some(0)),
            (vec![bad(Full), good(Stored), part(Full)], Some(0)),
            (vec![bad(Full), good(Full)], None),
            (vec![bad(Stored), good(Full), part(Stored)], None),
            (vec![good(Full), bad(Stored)], Some(1)),
            (vec![bad(Quick), bad(Full)], Some(1)),
            (vec![bad(Full), bad(Full)], Some(1)),
            // The deepest is what has to be shown to be gone.
            (vec![bad(Full), bad(Quick)], Some(0)),
            // The later one is shown to be gone, the deeper one before it is not.
            (vec![bad(Full), bad(Quick), good(Quick)], Some(0)),
            // What was shown to be gone once makes nothing deeper of what is found later.
            (vec![bad(Full), good(Full), bad(Quick), good(Quick)], None),
        ] {
            let mut records = records;
            for (second, record) in (0..).zip(&mut records) {
                record.finished = Timestamp::from_second(second).unwrap();
            }
            let found = Standing::of(&records).damage.map(|damage| damage.time.as_second());
            assert_eq!(found, expected, "{records:?}");
            // As they are written: each carries on what it leaves, and the last tells the same, alone or after all the others.
            for at in 1..records.len() {
                let before = Standing::of(&records[..at]).damage;
                records[at].earlier_damage = LastVerification::from(&records[at]).leaves(before);
            }
            let alone = records.last().map(std::slice::from_ref).unwrap_or_default();
            assert_eq!(Standing::of(alone), Standing::of(&records));
            assert_eq!(Standing::of(alone).damage.map(|damage| damage.time.as_second()), expected, "{records:?}");
        }
    }

    #[test]
    fn what_a_record_may_tell_that_nobody_can_read_is_left_until_the_whole_backup_was_read() {
        use VerifyLevel::{Full, Quick, Stored};
        for (level, outcome, good, expected) in [
            (Quick, Outcome::Good, 2, true),
            (Stored, Outcome::Good, 2, true),
            (Full, Outcome::Good, 1, true),
            (Full, Outcome::Damaged, 1, true),
            (Full, Outcome::Good, 2, false),
        ] {
            let mut record = record(level, outcome, good);
            assert_eq!(Standing::default().then_unread().then(Said::from(&record)).has_unread, expected, "{record:?}");
            // What was written while it ran is not cleared by it.
            record.has_unread = true;
            assert!(Standing::of(&[record]).has_unread);
        }
    }

    /// What is left behind is found again, also if the record that told it first is gone.
    #[test]
    fn damage_that_was_found_meanwhile_is_not_cleared() {
        let mut records =
            vec![record(VerifyLevel::Quick, Outcome::Damaged, 1), record(VerifyLevel::Full, Outcome::Good, 2)];
        assert_eq!(Standing::of(&records).damage, None);
        records[1].earlier_damage = Some(LastVerification::from(&records[0]));
        for records in [&records[..], &records[1..]] {
            assert_eq!(Standing::of(records).damage, records[records.len() - 1].earlier_damage);
        }
    }
}
