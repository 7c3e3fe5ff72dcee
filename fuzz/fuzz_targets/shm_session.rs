//! A whole session of a device set between processes, with a peer that lies in any of its parts.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use vdstream::testing::lying_peer;

fuzz_target!(|bytes: &[u8]| {
    let Some((side, bytes)) = bytes.split_first() else { return };
    let directory: PathBuf = std::env::temp_dir().join(format!("vdstream-fuzz-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match side % 4 {
            0 => lying_peer::server_lies(&directory, bytes).await.unwrap(),
            1 => lying_peer::client_lies(&directory, bytes).await.unwrap(),
            2 => lying_peer::secondary_lies(&directory, bytes).await.unwrap(),
            _ => lying_peer::primary_lies_to_secondary(&directory, bytes).await.unwrap(),
        }
    });
});
