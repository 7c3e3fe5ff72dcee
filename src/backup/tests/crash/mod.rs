//! A crash at every moment: of everything that was asked of a store, each prefix is what a dying process leaves.
//!
//! A shape (a backup, an abort, one that is killed and resumed, a deletion, a collection) runs on a store that records each request and its
//! effect, with requests that overlap as they do on a network. Then the bucket is rebuilt as of every prefix of the log: requests that
//! were answered have had their effect; of those in flight any may have had it, in any order. That is also the request that is
//! half done, and the one whose answer was lost; one that lost against another in the end may have come before it until then; requests
//! of a process that was killed stay in flight for ever. Up to
//! [`Log::ALL_SUBSETS`] requests in flight every subset is tried; beyond that the subsets of at
//! most two, of all but one, and all that are the first or the last. On local disk, what is not finished is a file without its
//! name, or half of one.
//!
//! A part in flight while its upload is aborted may also bring the upload back, as some stores say, until they are told once more:
//! [`Log::late_parts`](crate::testing::Log::late_parts).
//!
//! Of each such bucket, [`image::check`] says what must hold. In the one where none of the requests in flight had its effect, each
//! has it after the collection all the same, and the next collection finds it; only the creation of a manifest is never so late: no
//! request is on its way for longer than the grace time. In the shapes that resume, a further process also goes on from each bucket.
//!
//! Many prefixes leave the same bucket. What lists, verifies, restores and collects sees the bucket and not the prefix, so one that
//! is, byte for byte, a bucket from before is not built again: only what must be visible after this prefix is compared with what was
//! found then. In the same way a visible backup whose objects are those of a bucket before is not verified and restored once more.
//!
//! Each test prints what it checked, and one of them what all of them check at least; nextest shows it if it is asked to:
//!
//! ```sh
//! cargo nextest run --workspace --all-features --lib -E 'test(crash)' --success-output final
//! ```

mod image;
mod record;
mod shapes;

use image::{Seen, Tally};
use record::Run;

use super::collection::{HOUR, on};
use super::*;

/// A shape with what is checked of it at least: prefixes, and different buckets that they can leave.
struct Shape {
    name: &'static str,
    prefixes: usize,
    buckets: usize,
    /// Crashes in which parts arrive after their uploads were aborted.
    late: usize,
}

const fn shape(name: &'static str, prefixes: usize, buckets: usize) -> Shape {
    Shape { name, prefixes, buckets, late: 0 }
}

impl Shape {
    const fn with_late_parts(self, late: usize) -> Self {
        Self { late, ..self }
    }
}

const ONE_STRIPE: Shape = shape("one stripe", 280, 150);
const THREE_STRIPES: Shape = shape("three stripes", 270, 150);
const SLOW_LINK: Shape = shape("a slow link", 180, 100);
const TWO_BACKUPS: Shape = shape("two backups", 170, 120);
const ABORT: Shape = shape("abort", 200, 110);
const ABORT_WITH_PARTS: Shape = shape("abort with parts on their way", 100, 30).with_late_parts(10);
const RESUME: Shape = shape("resume", 530, 375);
const RESUME_TWICE: Shape = shape("resume twice", 750, 405);
const TWO_RESUME: Shape = shape("two resume", 560, 405);
const TAKEN_OVER: Shape = shape("taken over", 220, 60);
const PRUNE: Shape = shape("prune", 230, 40);
const DELETE: Shape = shape("delete", 170, 15);
const COLLECTION: Shape = shape("collection", 880, 175);
const COLLECTION_BESIDE_A_BACKUP: Shape = shape("collection beside a backup", 940, 225);
const COLLECTION_OF_UNNAMED: Shape = shape("collection of what a manifest does not name", 180, 60);

const ALL: [Shape; 15] = [
    ONE_STRIPE,
    THREE_STRIPES,
    SLOW_LINK,
    TWO_BACKUPS,
    ABORT,
    ABORT_WITH_PARTS,
    RESUME,
    RESUME_TWICE,
    TWO_RESUME,
    TAKEN_OVER,
    PRUNE,
    DELETE,
    COLLECTION,
    COLLECTION_BESIDE_A_BACKUP,
    COLLECTION_OF_UNNAMED,
];

/// Interleavings.
const SEEDS: u64 = 5;
/// Those that are also looked at on local disk, where the same requests leave other things.
const SEEDS_ON_DISK: u64 = 2;
/// Those from whose buckets a further process resumes.
const SEEDS_RESUMED: u64 = 2;

/// Runs a shape with several interleavings and checks every bucket that a crash can leave.
async fn every_crash(shape: Shape, record: impl AsyncFn(u64) -> Run) {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let run = record(seed).await;
        let mut seen = Seen::default();
        for events in 0..=run.log.len() {
            tally.prefixes += 1;
            for (number, crash) in run.log.crashes(&run.before, events, run.at).iter().enumerate() {
                let collected = image::check(&run, events, crash, &mut seen, &mut tally).await;
                let late = run.log.late_parts(crash, events, run.at);
                for crash in &late {
                    tally.late_parts += 1;
                    image::check(&run, events, crash, &mut seen, &mut tally).await;
                }
                if number == 0 {
                    image::check_late(&run, events, crash, &collected, &mut seen, &mut tally).await;
                }
                if run.is_resumed && seed < SEEDS_RESUMED {
                    for crash in [crash].into_iter().chain(&late) {
                        image::check_resumed(&run, crash, &mut seen, &mut tally).await;
                    }
                }
            }
        }
        for events in (0..=run.log.len()).filter(|_| seed < SEEDS_ON_DISK) {
            tally.prefixes += 1;
            for crash in run.log.crashes_on_disk(&run.before, events, run.at) {
                image::check(&run, events, &crash, &mut seen, &mut tally).await;
            }
        }
    }
    println!("{}: {tally}", shape.name);
    let (prefixes, buckets, late) = (tally.prefixes, tally.buckets, tally.late_parts);
    assert!(prefixes >= shape.prefixes, "{}: only {prefixes} prefixes were checked", shape.name);
    assert!(buckets >= shape.buckets, "{}: only {buckets} buckets were checked", shape.name);
    assert!(late >= shape.late, "{}: only {late} crashes with late parts were checked", shape.name);
}

#[test]
fn the_shapes_have_thousands_of_prefixes_together() {
    let prefixes: usize = ALL.iter().map(|shape| shape.prefixes).sum();
    let buckets: usize = ALL.iter().map(|shape| shape.buckets).sum();
    println!("{} shapes: at least {prefixes} prefixes and {buckets} different buckets", ALL.len());
    assert!(prefixes >= 5000 && buckets >= 2250, "{prefixes} prefixes, {buckets} buckets");
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_of_one_stripe() {
    every_crash(ONE_STRIPE, shapes::backup_of_one_stripe).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_of_three_stripes() {
    every_crash(THREE_STRIPES, shapes::backup_of_three_stripes).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_on_a_slow_link() {
    every_crash(SLOW_LINK, shapes::backup_on_a_slow_link).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_two_backups_at_once() {
    every_crash(TWO_BACKUPS, shapes::two_backups).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_an_abort() {
    every_crash(ABORT, shapes::abort).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_an_abort_with_parts_on_their_way() {
    every_crash(ABORT_WITH_PARTS, shapes::abort_with_parts_on_their_way).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_that_is_killed_and_resumed() {
    every_crash(RESUME, shapes::resume).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_that_is_killed_and_resumed_twice() {
    every_crash(RESUME_TWICE, shapes::resume_twice).await;
}

#[tokio::test]
async fn a_crash_anywhere_while_two_resume_a_backup() {
    every_crash(TWO_RESUME, shapes::two_resume).await;
}

#[tokio::test]
async fn a_crash_anywhere_while_a_living_backup_is_taken_over() {
    every_crash(TAKEN_OVER, shapes::taken_over).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_deletion() {
    every_crash(PRUNE, shapes::prune).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_deletion_by_name() {
    every_crash(DELETE, shapes::delete).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_collection() {
    every_crash(COLLECTION, shapes::collection).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_collection_beside_a_backup() {
    every_crash(COLLECTION_BESIDE_A_BACKUP, shapes::collection_beside_a_backup).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_collection_of_what_a_manifest_does_not_name() {
    every_crash(COLLECTION_OF_UNNAMED, shapes::collection_of_what_a_manifest_does_not_name).await;
}
