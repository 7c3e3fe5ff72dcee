//! Operations on a device set, against the model of the test `vdi_model`.
#![no_main]

#[path = "../../tests/vdi_model/mod.rs"]
mod lists;

use libfuzzer_sys::fuzz_target;
use lists::{List, Seen, run};

fuzz_target!(|bytes: &[u8]| run(&List::decode(bytes), &mut Seen::new()));
