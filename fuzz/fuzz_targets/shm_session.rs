//! A whole session of a device set between processes, with a peer that lies: the server's or the client's.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use vdstream::testing::lying_peer;

fuzz_target!(|bytes: &[u8]| {
    let Some((side, bytes)) = bytes.split_first() else { return };
    let directory: PathBuf = std::env::temp_dir().join(format!("vdstream-fuzz-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if side.is_multiple_of(2) {
            lying_peer::server_lies(&directory, bytes).await.unwrap();
        } else {
            lying_peer::client_lies(&directory, bytes).await.unwrap();
        }
    });
});
