use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::log::Numbers;
use super::*;
use crate::clock::{Clock, SystemClock};

#[test]
fn what_no_seed_decides_has_a_number_in_its_place() {
    let mut numbers = Numbers::default();
    let (one, other) = ("0192f0c1-0000-7000-8000-000000000001", "0192f0c1-0000-7000-8000-000000000002");
    let (early, late) = ("20260102T030405.678Z-0123456789abcdef.json", "20260102T030405.678Z-fedcba9876543210.json");
    for (path, normal) in [
        (format!("a/{one}/deleted/{late}"), "a/#0/deleted/#0.json"),
        (format!("a/{one}/deleted/{early}"), "a/#0/deleted/#1.json"),
        (format!("a/{one}/deleted/{late}"), "a/#0/deleted/#0.json"),
        // Each directory has numbers of its own, and none of those of the ids.
        (format!("a/{one}/collected/{early}"), "a/#0/collected/#0.json"),
        (format!("a/{other}/deleted/{early}"), "a/#1/deleted/#0.json"),
        (format!("a/{other}/verified/20260102T030405.678Z.json"), "a/#1/verified/#0.json"),
        (format!("a/{other}/s00/000000.zst"), "a/#1/s00/000000.zst"),
        (format!("a/{other}/manifest.json"), "a/#1/manifest.json"),
        (String::new(), ""),
    ] {
        assert_eq!(numbers.normalise(&path), normal, "{path}");
    }
}

/// A read without a range, or with an open one, once took no time at all.
#[tokio::test(start_paused = true)]
async fn what_is_read_takes_the_time_of_its_size_however_it_is_asked_for() {
    const SIZE: u64 = 5000;
    let clock = SystemClock::new();
    let faults = FaultStore::memory(0);
    let path = Path::from("a");
    faults.put(&path, vec![1; 5000].into()).await.unwrap();
    faults.add(Rule::new(Fault::Bandwidth(1000)).on(Operation::Get));
    for (range, bytes) in [
        (None, SIZE),
        (Some(GetRange::Bounded(1000..3000)), 2000),
        (Some(GetRange::Bounded(4000..9000)), 1000),
        (Some(GetRange::Offset(1000)), 4000),
        (Some(GetRange::Suffix(3000)), 3000),
    ] {
        let start = clock.now();
        let options = GetOptions { range: range.clone(), ..GetOptions::default() };
        let found = faults.get_opts(&path, options).await.unwrap().bytes().await.unwrap();
        assert_eq!(found.len() as u64, bytes, "{range:?}");
        assert_eq!((clock.now() - start).as_secs(), bytes / 1000, "{range:?}");
    }
    let start = clock.now();
    faults.head(&path).await.unwrap();
    faults.get(&Path::from("b")).await.unwrap_err();
    assert_eq!(clock.now(), start, "nothing was read");
}
