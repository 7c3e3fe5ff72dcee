//! The fuzzers' inputs, some of each kind.

use super::bench::{Bench, FRAME};

/// A small generator, so that the same seed gives the same input.
fn input(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let length = usize::from(next() % 24);
    (0..length).map(|_| next()).collect()
}

/// Runs many inputs: of some everything is read, most are refused.
async fn both_ends(inputs: u64, read: impl AsyncFn(&[u8]) -> bool) {
    let mut whole = 0;
    for seed in 0..inputs {
        whole += u64::from(read(&input(seed)).await);
    }
    assert!((1..inputs / 2).contains(&whole), "{whole} of {inputs}");
}

#[tokio::test]
async fn nothing_wrong_is_delivered_of_a_hostile_frame() {
    let bench = Bench::new().unwrap();
    both_ends(300, async |input| bench.frame(input).await).await;
    // No change, and all of the content.
    assert!(bench.frame(b"\x01hello").await);
    assert!(!bench.frame(b"\x00hello").await);
}

#[tokio::test]
async fn nothing_wrong_is_delivered_of_a_stripe_that_was_changed() {
    let bench = Bench::new().unwrap();
    both_ends(150, async |input| bench.stripe(input).await).await;
    for shapes in 0..=255 {
        assert!(bench.stripe(&[shapes, shapes, 0]).await, "{shapes}");
    }
    // A byte of the fourth of five frames: what comes before it is delivered.
    let before = bench.plain.progress().raw_bytes;
    assert!(!bench.stripe(&[3 * 7, 0, 0, 2, 0, 0xb0, 1]).await);
    assert_eq!((bench.plain.progress().raw_bytes - before) / FRAME as u64, 3);
    // Two frames of the same size have changed places; two segments have.
    assert!(!bench.stripe(&[3 * 7, 0, 0, 28, 1, 0, 2]).await);
    assert!(!bench.stripe(&[3 * 4 + 1, 5, 8 + 16]).await);
}

#[tokio::test]
async fn a_segment_that_is_surveyed_is_what_it_is_said_to_be() {
    let bench = Bench::new().unwrap();
    both_ends(150, async |input| bench.survey(input).await).await;
    for shape in 0..8 {
        assert!(bench.survey(&[1, shape]).await, "shape {shape}");
        assert!(bench.survey(&[2, shape]).await, "shape {shape}");
        // A byte more than there is; a byte less.
        assert!(!bench.survey(&[9 + 1, 128 + 1]).await && !bench.survey(&[9 + 1, 127]).await);
    }
    // More frames than the first read has the index of, more than there may be, and none.
    let many = |count: u16| [&[2, 3, 3, 0][..], &count.to_le_bytes(), &[0, 0]].concat();
    let requests = bench.plain.progress().requests;
    assert!(!bench.survey(&many(1000)).await);
    assert!(bench.plain.progress().requests - requests > 2, "the rest of the index was not read");
    assert!(!bench.survey(&many(4095)).await);
    assert!(!bench.survey(&[2, 0, 4, 0, 0, 0, 0, 0]).await);
}

#[cfg(feature = "encryption")]
#[tokio::test]
async fn nothing_wrong_is_delivered_of_an_encrypted_segment() {
    let bench = Bench::new().unwrap();
    both_ends(60, async |input| bench.sealed(input).await).await;
    for shape in 0..8 {
        // What is changed makes no difference to the larger ones, and a build without optimisation decrypts slowly.
        for kind in [0, 1, 4 + 2, 3].into_iter().take(if shape < 5 { 4 } else { 1 }) {
            assert!(bench.sealed(&[kind, shape]).await, "kind {kind} of shape {shape}");
        }
    }
    // Two chunks have changed places, and the summary knows the file or not.
    for kind in [0, 1] {
        assert!(!bench.sealed(&[kind, 7, 28, 1, 0, 2]).await);
    }
    // The stanza of the other key is not needed to find this one, but nothing of a header can go.
    assert!(!bench.sealed(&[4 + 2, 7, 0, 1, 0, 0, 1, 0]).await);
    // A frame is another one before it is encrypted.
    assert!(!bench.sealed(&[3, 7, 28, 1, 0, 2]).await);
}
