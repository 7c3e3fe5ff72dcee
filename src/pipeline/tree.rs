//! BLAKE3 of a long byte string from pieces that were hashed apart, on any thread, in any order.
//!
//! BLAKE3 is a binary tree. A piece whose length is a power of two, at an offset that is a multiple of it, is a whole
//! subtree, and its *chaining value* is all that the tree above needs. So every piece is hashed once, while it is warm
//! in a worker's cache, and the result is still the plain BLAKE3 of the whole that `b3sum` prints.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};

/// The hash of one piece.
///
/// A whole that consists of one piece has no tree above it; then the entry is the plain hash of the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    value: ChainingValue,
    /// The plain hash; only the first piece can be the whole.
    root: Option<Hash>,
}

impl Piece {
    /// Hashes `bytes`, which stand at `offset` of the whole.
    ///
    /// `offset` must be a multiple of the piece length, which must be a power of two of at least 1024, and only the last
    /// piece may be shorter. `bytes` must not be empty.
    pub(super) fn new(bytes: &[u8], offset: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(offset).update(bytes);
        Self { value: hasher.finalize_non_root(), root: (offset == 0).then(|| hasher.finalize()) }
    }

    /// What an index stores for this piece, given how many pieces the whole has.
    pub(super) fn entry(&self, pieces: usize) -> ChainingValue {
        match self.root {
            Some(root) if pieces == 1 => *root.as_bytes(),
            _ => self.value,
        }
    }
}

/// BLAKE3 of the whole, from the entries of all its pieces in order. The hash of nothing if there are none.
pub(super) fn merge(entries: &[ChainingValue]) -> Hash {
    match entries {
        [] => blake3::hash(&[]),
        [only] => Hash::from_bytes(*only),
        _ => {
            let (left, right) = entries.split_at(left_count(entries.len()));
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

fn subtree(entries: &[ChainingValue]) -> ChainingValue {
    match entries {
        [only] => *only,
        _ => {
            let (left, right) = entries.split_at(left_count(entries.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left subtree of `count` leaves is the largest power of two that leaves something for the right.
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_merge_to_the_plain_hash_at_every_boundary() {
        let data: Vec<u8> = (0..9 * 2048_u32).map(|i| (i % 251) as u8).collect();
        for piece in [1024_usize, 2048, 4096] {
            for len in [
                1,
                2,
                1023,
                1024,
                1025,
                piece - 1,
                piece,
                piece + 1,
                2 * piece,
                3 * piece,
                3 * piece + 1,
                4 * piece,
                9 * 2048,
            ] {
                let whole = &data[..len.min(data.len())];
                let pieces: Vec<Piece> = whole
                    .chunks(piece)
                    .enumerate()
                    .map(|(index, bytes)| Piece::new(bytes, (index * piece) as u64))
                    .collect();
                let entries: Vec<_> = pieces.iter().map(|one| one.entry(pieces.len())).collect();
                assert_eq!(merge(&entries), blake3::hash(whole), "piece {piece}, length {len}");
            }
        }
    }

    #[test]
    fn no_pieces_are_the_hash_of_nothing() {
        assert_eq!(merge(&[]), blake3::hash(b""));
    }
}
