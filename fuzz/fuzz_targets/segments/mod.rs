//! What the fuzzers of segments have in common: a runtime, and what reads hostile segments.

use tokio::runtime::{Builder, Runtime};
use vdstream::testing::hostile_segment::Bench;

thread_local! {
    static PLACE: (Runtime, Bench) = {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let bench = runtime.block_on(async { Bench::new().expect("the memory suffices") });
        (runtime, bench)
    };
}

pub fn run(read: impl AsyncFnOnce(&Bench) -> bool) {
    PLACE.with(|(runtime, bench)| runtime.block_on(read(bench)));
}
