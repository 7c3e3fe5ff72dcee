//! The decoder of the document `Claim`.
#![no_main]

mod support;

use libfuzzer_sys::fuzz_target;
use vdstream::testing::decoder::Document;

fuzz_target!(|bytes: &[u8]| support::run(Document::Claim, bytes));
