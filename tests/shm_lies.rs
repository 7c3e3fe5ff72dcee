//! Peers of a device set that lie, die in between, and stop: the other side ends its own set and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may")]

use vdstream::testing::lying_peer;

/// A small generator, so that the same seed gives the same lies.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let len = usize::from(next());
    (0..len).map(|_| next()).collect()
}

#[tokio::test]
async fn a_client_survives_every_lie_of_a_server() {
    let root = tempfile::tempdir().unwrap();
    for seed in 0..400 {
        lying_peer::server_lies(&root.path().join("hub"), &bytes(seed)).await.unwrap_or_else(|error| {
            panic!("seed {seed}: {}", error.report());
        });
    }
}

#[tokio::test]
async fn a_server_survives_every_lie_of_a_client() {
    let root = tempfile::tempdir().unwrap();
    for seed in 0..400 {
        lying_peer::client_lies(&root.path().join("hub"), &bytes(seed)).await.unwrap_or_else(|error| {
            panic!("seed {seed}: {}", error.report());
        });
    }
}

#[test]
fn no_bytes_make_the_codec_panic() {
    for seed in 0..20_000 {
        lying_peer::decode(&bytes(seed));
    }
}
