//! One frame through zstd, with contexts that are kept from frame to frame.

use std::fmt;

use zstd::bulk::{Compressor, Decompressor};

use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes that a compressed frame of `raw_bytes` can have.
pub(super) fn stored_bound(raw_bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw_bytes)
}

/// A compressor with its output slot.
///
/// The slot is swapped with the input at every frame: the compressed bytes leave in what was the output slot, and the
/// input slot is the next output. So no frame is copied, and a worker never waits for memory.
pub(super) struct Encoder {
    context: Compressor<'static>,
    spare: SlotMut,
}

impl Encoder {
    /// `spare` must have at least [`stored_bound`] of the largest frame, as all frames' slots must.
    pub(super) fn new(level: i32, spare: SlotMut) -> Result<Self> {
        let mut context = Compressor::new(level).map_err(|source| refused("cannot set up zstd", source))?;
        context.include_checksum(true).map_err(|source| refused("cannot set up zstd", source))?;
        context.include_contentsize(true).map_err(|source| refused("cannot set up zstd", source))?;
        Ok(Self { context, spare })
    }

    /// Compresses a frame; the answer holds one complete zstd frame with content size and checksum.
    pub(super) fn encode(&mut self, raw: SlotMut) -> Result<SlotMut> {
        self.spare.clear();
        let count = self
            .context
            .compress_to_buffer(raw.filled(), self.spare.spare_mut())
            .map_err(|source| refused("cannot compress a frame", source))?;
        self.spare.advance(count);
        Ok(std::mem::replace(&mut self.spare, raw))
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("spare", &self.spare).finish_non_exhaustive()
    }
}

/// A decompressor.
pub(super) struct Decoder {
    context: Decompressor<'static>,
}

impl Decoder {
    pub(super) fn new() -> Result<Self> {
        let context = Decompressor::new().map_err(|source| refused("cannot set up zstd", source))?;
        Ok(Self { context })
    }

    /// Decompresses `stored` into the first `raw_bytes` of `target`; says why if that is not exactly what it holds.
    ///
    /// Whatever `stored` claims, no more than `raw_bytes` are written and nothing is allocated for it.
    pub(super) fn decode(&mut self, stored: &[u8], raw_bytes: usize, target: &mut SlotMut) -> Result<(), String> {
        let spare = target.spare_mut();
        if spare.len() < raw_bytes {
            return Err(format!("{raw_bytes} raw bytes do not fit into a slot of {}", spare.len()));
        }
        let count = self
            .context
            .decompress_to_buffer(stored, &mut spare[..raw_bytes])
            .map_err(|error| format!("zstd says: {error}"))?;
        if count != raw_bytes {
            return Err(format!("it holds {count} raw bytes, expected {raw_bytes}"));
        }
        target.advance(count);
        Ok(())
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoder")
    }
}

fn refused(message: &'static str, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, message).with_source(source)
}
