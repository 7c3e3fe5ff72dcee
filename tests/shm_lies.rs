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

#[tokio::test]
async fn a_client_and_its_server_survive_every_lie_of_a_second_client() {
    let root = tempfile::tempdir().unwrap();
    for seed in 0..400 {
        lying_peer::secondary_lies(&root.path().join("hub"), &bytes(seed)).await.unwrap_or_else(|error| {
            panic!("seed {seed}: {}", error.report());
        });
    }
}

#[tokio::test]
async fn a_second_client_survives_every_lie_of_the_first() {
    let root = tempfile::tempdir().unwrap();
    for seed in 0..400 {
        lying_peer::primary_lies_to_secondary(&root.path().join("hub"), &bytes(seed)).await.unwrap_or_else(|error| {
            panic!("seed {seed}: {}", error.report());
        });
    }
}

#[tokio::test]
async fn a_stranger_that_leaves_without_having_joined_leaves_the_set_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    lying_peer::strangers_leave(&root.path().join("hub")).await.unwrap();
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_stranger_that_came_before_it() {
    let root = tempfile::tempdir().unwrap();
    lying_peer::strangers_come_late(&root.path().join("hub")).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_sends_without_end_takes_no_turn_of_others() {
    let root = tempfile::tempdir().unwrap();
    lying_peer::peers_flood(&root.path().join("hub")).await.unwrap();
}

#[tokio::test]
async fn many_small_buffers_do_not_exceed_the_memory_limit() {
    let root = tempfile::tempdir().unwrap();
    lying_peer::small_buffers_crowd(&root.path().join("hub")).await.unwrap();
}

#[tokio::test]
async fn no_file_is_mapped_that_could_become_shorter() {
    let root = tempfile::tempdir().unwrap();
    lying_peer::wrong_files_come(&root.path().join("hub")).await.unwrap();
}

#[test]
fn no_bytes_make_the_codec_panic() {
    for seed in 0..20_000 {
        lying_peer::decode(&bytes(seed));
    }
}
