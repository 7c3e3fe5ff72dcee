//! Encrypted segments that were changed: in the file, in its header, or before they were encrypted.

use std::sync::LazyLock;

use bytes::Bytes;

use super::bench::{Bench, is_honest};
use super::changes::{change, change_lines};
use super::made::{SHAPES, made};
use crate::error::{ErrorKind, Result};
use crate::pipeline::{self, Identities, MAX_HEADER_BYTES, SegmentHeader, SegmentSummary};

/// A key that opens nothing but the files of these tests.
const KEY: &[u8] = b"AGE-SECRET-KEY-19EWZP3TM4ZQMFHCAAZ86YAZDGS4800DEP3R8TQKX0ZUJCSL2XTCSA73YNT";

/// A header of age for two keys, the second of which is the one above, and a nonce.
const HEADER: &[u8] = b"age-encryption.org/v1\n\
-> X25519 eIR4n6lMruQxE/FuPgm1+VMr00qKWFZFBVjnDLyTaUo\n\
Vl/UgBLJz6uecUkgt5xr9+NtfPfZwEMik3NNilb+8Fg\n\
-> X25519 UfYKW0VMYY5GTLBdbMQ/gnGbC1nwDrinX6712PzXJh0\n\
zHqfGkZX5VOiq/+a0rM+dJotVJA+yL0CIcfKQlxmId4\n\
--- +OVFg/TDa921cHka9xbh+UhV/d04dkdAvs2VcU6WgGs\n\
\xd9\x08\x62\xf7\x72\x55\xac\xf2\x84\xed\x69\x38\x1e\x50\x2b\x95";

/// Bytes of a chunk in the file.
const SEALED: usize = (64 << 10) + 16;

pub(super) fn identities() -> Result<Identities> {
    let mut identities = Identities::new();
    identities.add_file(KEY, None)?;
    Ok(identities)
}

/// `content` as a file of the header above. Nothing comes of it if that does not work, and the tests see it.
fn seal(content: &[u8], summary: &SegmentSummary) -> (Vec<u8>, SegmentSummary) {
    let sealed = identities().and_then(|identities| pipeline::seal(&identities, HEADER, content, summary));
    sealed.unwrap_or_else(|_| (Vec::new(), summary.clone()))
}

/// The valid segments as files.
fn file(which: u8) -> &'static (Vec<u8>, SegmentSummary) {
    static FILES: LazyLock<Vec<(Vec<u8>, SegmentSummary)>> = LazyLock::new(|| {
        let segments = (0..SHAPES).map(|which| made(u8::try_from(which).unwrap_or(0)));
        segments.map(|made| seal(&made.object, &made.summary)).collect()
    });
    &FILES[usize::from(which) % SHAPES]
}

impl Bench {
    /// Restores an encrypted segment of which the file is not what was written, or the header that its summary describes; or whose
    /// content was changed by somebody who has the key.
    ///
    /// # Panics
    ///
    /// If a wrong byte is delivered, or anything else than promised happens.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: what is left of a restore may still run in the next.
    pub async fn sealed(&self, input: &[u8]) -> bool {
        let [kind, which, rest @ ..] = input else { return false };
        let content = &made(*which).content;
        let (file, good) = file(*which);
        let (object, summary) = match kind % 4 {
            // Its summary does not know it.
            0 => (changed(file, rest), good.clone()),
            // It does.
            1 => {
                let object = changed(file, rest);
                let longer = [0, 0, 0, 0, -1, 1, -16, 16][usize::from(kind / 4 % 8)];
                let header = HEADER.len().saturating_add_signed(longer);
                let summary = described(good, &object, header);
                (object, summary)
            }
            2 => {
                let header = match kind / 4 % 2 {
                    0 => rest.to_vec(),
                    _ => change_lines(HEADER, rest, MAX_HEADER_BYTES as usize),
                };
                let object = [&header[..], &file[HEADER.len()..]].concat();
                let summary = described(good, &object, header.len());
                (object, summary)
            }
            _ => {
                let made = made(*which);
                let mut inner = made.object.clone();
                change(&mut inner, rest, 0, made.frames[0].0 as usize);
                let (object, summary) = seal(&inner, &made.summary);
                (object, SegmentSummary { raw_hash: good.raw_hash, ..summary })
            }
        };
        let is_changed = !object.starts_with(file);
        let object = Bytes::from(object);
        let (delivered, error) = self.restore(&self.opening, vec![object], vec![summary]).await;
        if let Some(error) = &error {
            let kind_of_it = error.kind();
            let header_is_known = kind % 4 == 0 || kind % 4 == 3;
            let is_expected = match kind_of_it {
                ErrorKind::Corrupt => true,
                // Of a header that somebody has described anew it cannot be told whether it is damaged or another's.
                ErrorKind::Locked | ErrorKind::Invalid => !header_is_known,
                _ => false,
            };
            assert!(is_expected, "{}", error.report());
        }
        // Every byte of a file counts.
        assert!(kind % 4 != 0 || is_changed == error.is_some(), "{error:?}, changed: {is_changed}");
        is_honest(content, &delivered, error.as_ref())
    }
}

fn changed(file: &[u8], input: &[u8]) -> Vec<u8> {
    let mut object = file.to_vec();
    change(&mut object, input, HEADER.len(), SEALED);
    object
}

/// A summary that believes that this is the file, with a header of so many bytes.
fn described(good: &SegmentSummary, object: &[u8], header: usize) -> SegmentSummary {
    let hash = blake3::hash(&object[..header.min(object.len())]);
    let bytes = u32::try_from(header).unwrap_or(u32::MAX);
    let header = Some(SegmentHeader { bytes, hash });
    SegmentSummary { stored_bytes: object.len() as u64, stored_hash: blake3::hash(object), header, ..good.clone() }
}
