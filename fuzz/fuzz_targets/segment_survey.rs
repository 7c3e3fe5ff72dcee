//! What resuming reads: a segment of which only the size is known.
#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| segments::run(async |bench| bench.survey(bytes).await));
