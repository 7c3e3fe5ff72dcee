//! The reader of segments, from ranged reads to delivered bytes: frames of the fuzzer's own under an index that believes them.
#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| segments::run(async |bench| bench.frame(bytes).await));
