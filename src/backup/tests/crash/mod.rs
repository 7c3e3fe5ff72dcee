//! A crash at every moment: of everything that was asked of a store, each prefix is what a dying process leaves.
//!
//! A shape (a backup, an abort, a deletion, a collection) runs once on a store that records each request and its effect, with
//! requests that overlap as they do on a network. Then the bucket is rebuilt as of every prefix of the log: requests that were answered
//! have had their effect; of those in flight any may have had it, in any order. That is also the request that is half done, and the
//! one whose answer was lost. Up to [`Log::ALL_SUBSETS`] requests in flight every subset is tried; beyond that the subsets of at
//! most two, of all but one, and all that are the first or the last. On local disk, what is not finished is a file without its
//! name, or half of one.
//!
//! Of each such bucket, [`image::check`] says what must hold. In the one where none of the requests in flight had its effect, each
//! has it after the collection all the same, and the next collection finds it; only the creation of a manifest is never so late: no
//! request is on its way for longer than the grace time.
//!
//! A visible backup whose objects are, byte for byte, those of a bucket before is not read once more: verification and restore
//! see nothing else.

mod image;
mod record;
mod shapes;

use image::Tally;
use record::Run;

use super::collection::{HOUR, on};
use super::*;

/// Runs a shape with several interleavings and checks every bucket that a crash can leave.
async fn every_crash(name: &str, least: usize, shape: impl AsyncFn(u64) -> Run) {
    /// Interleavings.
    const SEEDS: u64 = 2;
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let run = shape(seed).await;
        for events in 0..=run.log.len() {
            tally.prefixes += 1;
            for (number, crash) in run.log.crashes(&run.before, events, run.at).iter().enumerate() {
                let collected = image::check(&run, events, crash, &mut tally).await;
                if number == 0 {
                    image::check_late(&run, events, crash, &collected, &mut tally).await;
                }
            }
        }
        // On local disk the same requests leave other things; one interleaving is enough for the difference.
        for events in (0..=run.log.len()).filter(|_| seed == 0) {
            tally.prefixes += 1;
            for crash in run.log.crashes_on_disk(&run.before, events, run.at) {
                image::check(&run, events, &crash, &mut tally).await;
            }
        }
    }
    println!("{name}: {tally}");
    assert!(tally.images >= least, "{name}: only {} buckets were checked", tally.images);
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_of_one_stripe() {
    every_crash("one stripe", 100, shapes::backup_of_one_stripe).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_backup_of_three_stripes() {
    every_crash("three stripes", 60, shapes::backup_of_three_stripes).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_an_abort() {
    every_crash("abort", 60, shapes::abort).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_deletion() {
    every_crash("prune", 50, shapes::prune).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_collection() {
    every_crash("collection", 100, shapes::collection).await;
}

#[tokio::test]
async fn a_crash_anywhere_in_a_collection_beside_a_backup() {
    every_crash("collection beside a backup", 100, shapes::collection_beside_a_backup).await;
}
