//! What goes in comes out: sizes around every boundary, on every number of devices, on every store, byte for byte.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::sample::{self, FRAME, SIZES};
use integration::server::Kind;
use vdstream::backup::{self, Select, Series, Store, VerifyLevel, VerifyOptions};

/// Backs up stripes of these lengths, finds the backup as a stranger would, verifies it and compares every byte.
async fn round_trip(store: &Store, seed: u64, entropy: Entropy, lengths: &[usize]) {
    let what = format!("{lengths:?} of {entropy:?} in {}", store.label());
    let stripes: Vec<_> = (0..).zip(lengths).map(|(n, len)| (Pattern::new(seed, n, entropy), *len)).collect();
    let made = sample::back_up(store, "trip", &stripes).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));

    let series: Series = "trip".parse().unwrap();
    let manifest = backup::find(store, &series, Select::Latest).await.unwrap();
    assert_eq!(manifest, made, "{what}");
    let options = VerifyOptions::new(VerifyLevel::Full).pipeline(sample::config());
    let report = backup::verify(store, &manifest, options).await.unwrap();
    assert!(report.is_good(), "{what}: {report:?}");

    let restored = sample::restore(store, &manifest).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(restored.len(), stripes.len(), "{what}");
    for ((pattern, len), actual) in stripes.iter().zip(&restored) {
        pattern.check(actual, *len).unwrap_or_else(|difference| panic!("{what}: {difference}"));
    }
}

/// Each size on each number of devices, beside stripes of other sizes.
async fn every_size(store: Store) {
    let seed = data::seed();
    for devices in [1_usize, 3, 8] {
        for first in (0..SIZES.len()).step_by(devices.div_ceil(2)) {
            let lengths: Vec<_> = (0..devices).map(|n| SIZES[(first + n) % SIZES.len()]).collect();
            round_trip(&store, seed, Entropy::Random, &lengths).await;
        }
    }
    // Data that shrinks passes the boundaries of frames and of segments at different places.
    for length in SIZES {
        round_trip(&store, seed, Entropy::Text, &[8 * length]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_on_every_number_of_devices_in_memory() {
    every_size(Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_on_every_number_of_devices_on_disk() {
    let place = Place::disk();
    every_size(place.backups()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_on_every_number_of_devices_on_garage() {
    let place = Place::server(Kind::Garage).await;
    every_size(place.backups()).await;
    assert_eq!(place.uploads().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_on_every_number_of_devices_on_azurite() {
    let place = Place::server(Kind::Azurite).await;
    every_size(place.backups()).await;
    assert_eq!(place.uploads().await, [""; 0]);
}

/// moto rejects small parts as Amazon does, and keeps everything in memory: few sizes, one of them in several parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_the_size_that_amazon_wants_on_moto() {
    let place = Place::server(Kind::Moto).await;
    let seed = data::seed();
    for lengths in [&[0][..], &[1, FRAME], &[(5 << 20) - 1, 5 << 20, (5 << 20) + 1], &[11 << 20]] {
        round_trip(&place.backups(), seed, Entropy::Random, lengths).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_devices_there_can_be() {
    let lengths: Vec<_> = (0..64).map(|n| n * 1009).collect();
    round_trip(&Store::memory(), data::seed(), Entropy::Random, &lengths).await;
}
