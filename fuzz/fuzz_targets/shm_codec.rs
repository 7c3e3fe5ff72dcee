//! Control messages between processes, from any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vdstream::testing::lying_peer;

fuzz_target!(|bytes: &[u8]| lying_peer::decode(bytes));
