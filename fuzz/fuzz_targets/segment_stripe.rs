//! The reader of segments of several frames, in several ranges, that were changed after they were stored.
#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| segments::run(async |bench| bench.stripe(bytes).await));
