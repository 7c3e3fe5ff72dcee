//! Random operations on a device set, against a model of it that was written from the documentation.
//!
//! `VDSTREAM_TEST_SEED` repeats a run with the seed that it printed, `VDSTREAM_TEST_CASES` sets how many lists there are.

#![allow(clippy::panic, clippy::print_stderr, clippy::unwrap_used, reason = "a test may")]

#[path = "vdi_model/mod.rs"]
mod lists;

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use lists::{List, Seen, run};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// Lists of up to this many bytes: some 130 operations.
const LONGEST: usize = 400;
const CASES: u32 = 4000;

#[test]
fn a_device_set_does_what_the_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("VDSTREAM_TEST_SEED").unwrap_or_else(|| std::hash::RandomState::new().build_hasher().finish());
    let cases = number("VDSTREAM_TEST_CASES").map_or(CASES, |cases| u32::try_from(cases).unwrap());
    eprintln!("VDSTREAM_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let seen = RefCell::new(Seen::new());
    let result = runner.run(&vec(any::<u8>(), 2..LONGEST), |bytes| {
        run(&List::decode(&bytes), &mut seen.borrow_mut());
        Ok(())
    });
    if let Err(TestError::Fail(why, bytes)) = result {
        panic!("seed {seed}: {why}\n{:#?}", List::decode(&bytes));
    }
    let seen = seen.into_inner();
    for (what, times) in &seen {
        eprintln!("{times:>8} {what}");
    }
    // What was never seen was never compared.
    let common = [
        "Send: ok",
        "Take: ok",
        "Take: VD_E_CLOSE",
        "Complete: ok",
        "PollAgent: VD_E_ABORT",
        "CloseServer: waits",
        "Join: ok",
        "OpenSecondaryDevice: ok",
        "CloseSecondary: VD_E_OPEN",
        "Lend: ok",
        "Map: ok",
        "Map: VD_E_BUSY",
        "Map: VD_E_INVALID",
        "Unmap: ok",
        "SendWhenReady: ok",
        "SendWhenReady: waits",
        "SendWhenReady: VD_E_ABORT",
    ];
    for what in common.iter().filter(|_| cases >= CASES) {
        assert!(seen.contains_key(*what), "{what} was never seen");
    }
}
