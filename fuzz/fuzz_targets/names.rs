//! The parsers of everything that becomes a path.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| vdstream::testing::decoder::names(text));
