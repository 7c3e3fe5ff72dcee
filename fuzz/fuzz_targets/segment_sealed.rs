//! The reader of encrypted segments: the age header, the chunks, and what is in them.
#![no_main]

mod segments;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| segments::run(async |bench| bench.sealed(bytes).await));
