//! The judgement, without a store.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};

use super::super::id::BackupId;
use super::super::manifest::tests::{manifest, stripe};
use super::super::names::{Names, ObjectName};
use super::super::store::Seen;
use super::found::Found;
use super::named::Named;
use super::plan::{Ages, Leftover, Reason, Subject, Verdict, judge};
use crate::pipeline::SegmentId;

const HOUR: Duration = Duration::from_secs(3600);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn ages(now: &str, grace: Duration) -> Ages {
    Ages { now: at(now), grace, shares_clock: false }
}

fn names() -> Names {
    Names::new("orders".parse().unwrap(), BackupId::generate(at("2026-01-01T00:00:00Z")))
}

/// What a listing tells that shows these objects, each written at its time.
fn found(names: &Names, named: Option<&Named>, objects: &[(ObjectName, &str)]) -> Found {
    let mut found = Found::default();
    for (object, modified) in objects {
        found.see(names, named, ages(LATE, HOUR), Seen { name: names.of(object), bytes: 10, modified: at(modified) });
    }
    found
}

const SEGMENT: SegmentId = SegmentId { stripe: 0, index: 0 };
const UPLOAD: ObjectName = ObjectName::Upload { segment: SEGMENT, claim: 0, attempt: 0 };
const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-01T12:00:00Z";

fn judged(objects: &[(ObjectName, &str)], now: &str, grace: Duration) -> Vec<Leftover> {
    let names = names();
    judge(&names, &found(&names, None, objects), ages(now, grace))
}

/// A store says of an object what it likes.
#[test]
fn sizes_that_are_too_large_together_are_the_largest() {
    let (names, mut found) = (names(), Found::default());
    for object in [ObjectName::Intent, ObjectName::Segment(SEGMENT)] {
        let seen = Seen { name: names.of(&object), bytes: 1 << 63, modified: at(EARLY) };
        found.see(&names, None, ages(LATE, HOUR), seen);
    }
    assert_eq!(judge(&names, &found, ages(LATE, HOUR))[0].bytes, u64::MAX);
}

#[test]
fn what_is_there_tells_why_it_is_left_over() {
    let (segment, deleted, marked) =
        (ObjectName::Segment(SEGMENT), ObjectName::Deleted(at(EARLY).into()), ObjectName::Collected(at(EARLY).into()));
    let cases = [
        (vec![ObjectName::Intent], Reason::NeverCommitted),
        (vec![ObjectName::Intent, segment.clone(), UPLOAD], Reason::NeverCommitted),
        (vec![segment.clone()], Reason::WithoutIntent),
        (vec![UPLOAD], Reason::WithoutIntent),
        (vec![ObjectName::Identity], Reason::WithoutIntent),
        (vec![ObjectName::Intent, segment.clone(), deleted.clone()], Reason::Deleted),
        (vec![ObjectName::Intent, deleted, marked.clone()], Reason::HalfCollected),
        (vec![marked], Reason::HalfCollected),
    ];
    for (objects, reason) in cases {
        let count = objects.len() as u64;
        let objects: Vec<_> = objects.into_iter().map(|object| (object, EARLY)).collect();
        let leftovers = judged(&objects, LATE, HOUR);
        assert_eq!(leftovers.len(), 1, "{objects:?}");
        assert_eq!((leftovers[0].reason, leftovers[0].objects, leftovers[0].bytes), (reason, count, 10 * count));
        assert_eq!(leftovers[0].verdict, Verdict::Remove, "{objects:?}");
    }
    assert!(judged(&[], LATE, HOUR).is_empty());
}

#[test]
fn beside_a_manifest_only_what_belongs_to_no_backup_goes() {
    let objects = [
        (ObjectName::Intent, EARLY),
        (ObjectName::Manifest, EARLY),
        (ObjectName::Identity, EARLY),
        (ObjectName::Segment(SEGMENT), EARLY),
        (ObjectName::Sealed(SEGMENT), EARLY),
        (ObjectName::Verified(at(EARLY)), EARLY),
        (UPLOAD, EARLY),
        (ObjectName::Deleted(at(EARLY).into()), EARLY),
        (ObjectName::Collected(at(LATE).into()), LATE),
    ];
    let leftovers = judged(&objects, LATE, HOUR);
    let told: Vec<_> = leftovers.iter().map(|leftover| (leftover.reason, leftover.verdict)).collect();
    let wait = Verdict::Wait { until: at(LATE) + 1.hours() };
    assert_eq!(
        told,
        [
            (Reason::UploadRecord, Verdict::Remove),
            (Reason::DeletionRecord, Verdict::Remove),
            (Reason::CollectionMark, wait),
        ]
    );
    assert!(leftovers.iter().all(|leftover| matches!(leftover.subject, Subject::Beside { .. })));
}

#[test]
fn what_the_manifest_does_not_name_waits_for_all_that_its_process_has_left() {
    let manifest = manifest(vec![stripe(&[(5, 5)])]);
    let (names, named) = (manifest.names(), Named::of(&manifest));
    let other = |index| ObjectName::Segment(SegmentId { stripe: 0, index });
    let judged = |sign: (ObjectName, &'static str)| {
        let objects =
            [(ObjectName::Manifest, LATE), (other(0), LATE), (other(1), EARLY), (other(2), EARLY), sign.clone()];
        let leftovers = judge(&names, &found(&names, Some(&named), &objects), ages(LATE, HOUR));
        let segments = leftovers.into_iter().filter(|leftover| leftover.reason == Reason::Unnamed);
        segments.map(|leftover| (leftover.subject.to_string(), leftover.verdict)).collect::<Vec<_>>()
    };
    let both = |verdict| [1, 2].map(|index| (names.of(&other(index)), verdict)).to_vec();
    let wait = Verdict::Wait { until: at(LATE) + 1.hours() };
    for sign in [ObjectName::Claim(1), UPLOAD] {
        assert_eq!(judged((sign.clone(), EARLY)), both(Verdict::Remove), "{sign}");
        assert_eq!(judged((sign.clone(), LATE)), both(wait), "{sign}");
    }
    for no_sign in
        [ObjectName::Collected(at(LATE).into()), ObjectName::Deleted(at(LATE).into()), ObjectName::Verified(at(LATE))]
    {
        assert_eq!(judged((no_sign.clone(), LATE)), both(Verdict::Remove), "{no_sign}");
    }
    // A segment that was stored since belongs to nobody either, and is a sign for the others.
    let mut all = both(wait);
    all.push((names.of(&other(3)), wait));
    assert_eq!(judged((other(3), LATE)), all);
}

#[test]
fn the_newest_sign_of_life_counts() {
    let objects = |newest| [(ObjectName::Intent, EARLY), (ObjectName::Segment(SEGMENT), newest)];
    let verdict = |newest, now, grace| judged(&objects(newest), now, grace)[0].verdict;
    let wait = Verdict::Wait { until: at(LATE) + 1.hours() };
    for (now, expected) in [
        ("2026-01-01T11:00:00Z", wait),
        (LATE, wait),
        ("2026-01-01T12:59:59.999Z", wait),
        ("2026-01-01T13:00:00Z", Verdict::Remove),
    ] {
        assert_eq!(verdict(LATE, now, HOUR), expected, "{now}");
    }
    for now in [EARLY, LATE, "2026-01-02T00:00:00Z"] {
        assert_eq!(verdict(LATE, now, Duration::ZERO), Verdict::Remove, "without a grace time nothing is too young");
    }
    assert!(matches!(verdict(EARLY, LATE, Duration::MAX), Verdict::Wait { .. }));
    // An old object in a copy of a store: the id tells that the backup is younger.
    let copied = [(ObjectName::Intent, "2020-01-01T00:00:00Z")];
    assert_eq!(judged(&copied, EARLY, HOUR)[0].last_sign, at(EARLY));
    // A clock that was ahead when the backup began tells nothing.
    assert_eq!(judged(&copied, "2025-12-31T00:00:00Z", HOUR)[0].verdict, Verdict::Remove);
    // A mark is no sign of life: what a collection has begun, the next one goes on with.
    let marked = [(ObjectName::Intent, EARLY), (ObjectName::Collected(at(LATE).into()), LATE)];
    assert_eq!(judged(&marked, LATE, HOUR)[0].verdict, Verdict::Remove);
}

#[test]
fn a_clock_that_was_ahead_by_more_than_the_grace_time_tells_nothing() {
    let year = "2027-01-01T00:00:00Z";
    // At noon, with a grace time of an hour: up to a quarter of an hour more than that is not too far ahead.
    for (sign, shares_clock, waits) in [
        ("2026-01-01T11:30:00Z", true, true),
        ("2026-01-01T13:15:00Z", true, true),
        ("2026-01-01T13:15:01Z", true, false),
        (year, true, false),
        // The clock of another machine than any writer's: it is not ahead.
        (year, false, true),
    ] {
        let (names, ages) = (names(), Ages { shares_clock, ..ages(LATE, HOUR) });
        let judged = |objects: &[(ObjectName, &str)]| {
            let mut found = Found::default();
            for (object, modified) in objects {
                found.see(&names, None, ages, Seen { name: names.of(object), bytes: 10, modified: at(modified) });
            }
            let leftovers = judge(&names, &found, ages);
            leftovers.iter().map(|leftover| leftover.verdict != Verdict::Remove).collect::<Vec<_>>()
        };
        assert_eq!(judged(&[(ObjectName::Intent, sign)]), [waits], "{sign}");
        assert_eq!(judged(&[(ObjectName::Manifest, EARLY), (ObjectName::Claim(1), sign)]), [waits], "{sign}");
        // What was written when the clock was right again counts.
        assert_eq!(judged(&[(ObjectName::Intent, sign), (UPLOAD, "2026-01-01T11:59:00Z")]), [true], "{sign}");
        assert_eq!(judged(&[(ObjectName::Intent, sign), (UPLOAD, EARLY)]), [waits], "{sign}");
    }
    // No grace time is too long to be counted with.
    let forever = Ages { grace: Duration::MAX, shares_clock: true, ..ages(LATE, HOUR) };
    assert!(forever.counts(Timestamp::MAX) && forever.verdict(at(year)) != Verdict::Remove);
}

#[test]
fn what_is_not_ours_is_not_seen() {
    let names = names();
    let mut found = Found::default();
    for stranger in ["readme.txt", "s0/0.zst", "manifest.json.bak", "intent.json.partial-1"] {
        let name = format!("{}/{stranger}", names.directory());
        found.see(&names, None, ages(LATE, HOUR), Seen { name, bytes: 1, modified: at(EARLY) });
    }
    assert!(judge(&names, &found, ages(LATE, HOUR)).is_empty());
}
