//! Lays the content of an encrypted segment into parts, where their sealed form will stand.
//!
//! A part has a fixed size, so chunks end in its middle. A chunk that fits into what the part has left is written where its
//! sealed form will be, with room for its tag, and sealed in place when the part is ready, by a CPU job per part. The one chunk
//! that goes over into the next part is collected beside the part and sealed at once: that is 64 KiB of each part, or tens of
//! microseconds.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Cipher;
use super::chunk::{CHUNK_BYTES, SEALED_BYTES, TAG_BYTES};
use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::cpu::Cpu;
use crate::pipeline::segment::SegmentHeader;

/// A part on its way into the store.
#[derive(Debug)]
pub(in crate::pipeline) struct Part {
    slot: Option<SlotMut>,
    run: Option<(Arc<Cipher>, Run)>,
}

/// Chunks in a part that are still to be sealed: one after the other, all of full size but perhaps the last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    /// Number of the first chunk.
    first: u64,
    /// Where they stand in the part, room for the tags included.
    range: Range<usize>,
    /// The last of them is the last of the file.
    is_last: bool,
}

impl Part {
    /// A part without anything to seal.
    pub(in crate::pipeline) fn plain(slot: Option<SlotMut>) -> Self {
        Self { slot, run: None }
    }

    pub(in crate::pipeline) fn len(&self) -> usize {
        self.slot.as_ref().map_or(0, SlotMut::len)
    }

    /// The bytes to store.
    pub(in crate::pipeline) async fn ready(self, cpu: &Cpu) -> Result<Bytes> {
        let Some(mut slot) = self.slot else { return Ok(Bytes::new()) };
        let Some((cipher, run)) = self.run else { return Ok(slot.freeze().into_bytes()) };
        let sealed = cpu.start(move || {
            run.seal(&cipher, slot.filled_mut())?;
            Ok(slot)
        });
        let mut sealed = sealed;
        Ok(sealed.wait().await?.freeze().into_bytes())
    }
}

impl Run {
    fn seal(&self, cipher: &Cipher, part: &mut [u8]) -> Result<()> {
        let chunks = part.get_mut(self.range.clone()).ok_or_else(misplaced)?;
        let count = chunks.len().div_ceil(SEALED_BYTES);
        for (nth, chunk) in chunks.chunks_mut(SEALED_BYTES).enumerate() {
            cipher.seal(self.first + nth as u64, self.is_last && nth + 1 == count, chunk)?;
        }
        Ok(())
    }
}

/// The state of one segment that is being laid out.
#[derive(Debug)]
pub(in crate::pipeline) struct Sealer {
    cipher: Arc<Cipher>,
    header: SegmentHeader,
    /// Number of the chunk that is open, or that comes next.
    number: u64,
    chunk: Chunk,
    /// In the part that is being filled.
    run: Option<Run>,
    /// A chunk that does not fit into the part.
    spill: Vec<u8>,
}

/// The chunk that takes bytes. It stays open until more bytes come: only then it is known not to be the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    None,
    /// In the part; so many bytes were written.
    Placed(usize),
    /// In the spill.
    Spilled,
}

/// What to do with bytes of the content.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Lay {
    /// So many of them were taken.
    Taken(usize),
    /// The spilled chunk is sealed: write it out, then come again.
    Write,
    /// The part is full: send it off and come with an empty one.
    Full,
}

impl Sealer {
    /// `header` and nonce, which stand before the payload, are written by the caller.
    pub(in crate::pipeline) fn new(header: &[u8], cipher: Cipher) -> Self {
        let bytes = u32::try_from(header.len()).unwrap_or(u32::MAX);
        Self {
            cipher: Arc::new(cipher),
            header: SegmentHeader { bytes, hash: blake3::hash(header) },
            number: 0,
            chunk: Chunk::None,
            run: None,
            spill: Vec::new(),
        }
    }

    pub(in crate::pipeline) fn header(&self) -> SegmentHeader {
        self.header
    }

    pub(in crate::pipeline) fn commit(&self, content: blake3::Hash) -> blake3::Hash {
        self.cipher.commit(content)
    }

    /// Takes some of `bytes`, which are not empty, into the part.
    pub(in crate::pipeline) fn lay(&mut self, slot: &mut SlotMut, bytes: &[u8]) -> Result<Lay> {
        let taken = match self.chunk {
            Chunk::None => {
                let room = slot.capacity() - slot.len();
                if room == 0 {
                    return Ok(Lay::Full);
                }
                self.chunk = if room >= SEALED_BYTES {
                    let start = slot.len();
                    let first = self.number;
                    self.run.get_or_insert(Run { first, range: start..start, is_last: false });
                    Chunk::Placed(0)
                } else {
                    Chunk::Spilled
                };
                0
            }
            Chunk::Placed(CHUNK_BYTES) => {
                self.close(slot)?;
                0
            }
            Chunk::Placed(filled) => {
                let taken = slot.put(&bytes[..bytes.len().min(CHUNK_BYTES - filled)]);
                self.chunk = Chunk::Placed(filled + taken);
                taken
            }
            Chunk::Spilled if self.spill.len() == CHUNK_BYTES => {
                self.seal_spill(false)?;
                return Ok(Lay::Write);
            }
            Chunk::Spilled => {
                let taken = bytes.len().min(CHUNK_BYTES - self.spill.len());
                self.spill.extend_from_slice(&bytes[..taken]);
                taken
            }
        };
        Ok(Lay::Taken(taken))
    }

    /// Ends the segment with the chunk that is open; true if a spilled one is to be written out.
    pub(in crate::pipeline) fn finish(&mut self, slot: Option<&mut SlotMut>) -> Result<bool> {
        match (self.chunk, slot) {
            (Chunk::Placed(_), Some(slot)) => {
                self.close(slot)?;
                if let Some(run) = &mut self.run {
                    run.is_last = true;
                }
                Ok(false)
            }
            (Chunk::Spilled, _) => {
                self.seal_spill(true)?;
                Ok(true)
            }
            _ => Err(misplaced()),
        }
    }

    /// The spilled chunk, sealed; the caller gives it back.
    pub(in crate::pipeline) fn take_spill(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.spill)
    }

    /// Gives the memory of a spilled chunk back.
    pub(in crate::pipeline) fn put_back(&mut self, mut spill: Vec<u8>) {
        spill.clear();
        self.spill = spill;
    }

    /// The part is complete; what follows goes into another one.
    pub(in crate::pipeline) fn part(&mut self, slot: Option<SlotMut>) -> Part {
        Part { slot, run: self.run.take().map(|run| (Arc::clone(&self.cipher), run)) }
    }

    /// Ends the chunk in the part: leaves room for its tag.
    fn close(&mut self, slot: &mut SlotMut) -> Result<()> {
        slot.advance(TAG_BYTES);
        let end = slot.len();
        self.run.as_mut().ok_or_else(misplaced)?.range.end = end;
        self.chunk = Chunk::None;
        self.number += 1;
        Ok(())
    }

    fn seal_spill(&mut self, is_last: bool) -> Result<()> {
        self.spill.resize(self.spill.len() + TAG_BYTES, 0);
        self.cipher.seal(self.number, is_last, &mut self.spill)?;
        self.chunk = Chunk::None;
        self.number += 1;
        Ok(())
    }
}

fn misplaced() -> Error {
    Error::new(ErrorKind::Internal, "an encrypted part is not laid out as it should be")
}
