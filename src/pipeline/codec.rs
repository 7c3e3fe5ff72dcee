//! One frame through zstd, with contexts that are kept from frame to frame.

use std::fmt;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::buffer::SlotMut;
use crate::error::{Error, ErrorKind, Result};

/// The most bytes that a compressed frame of `raw_bytes` can have.
pub(super) fn stored_bound(raw_bytes: usize) -> usize {
    zstd::zstd_safe::compress_bound(raw_bytes)
}

/// The content of a frame, and the memory for what it is compressed to.
#[derive(Debug)]
pub(super) enum RawFrame {
    /// Collected in a slot, whose memory is the output of a later frame.
    Collected(SlotMut),
    /// Still in the memory that the source handed over; `target` is an empty slot.
    Lent { content: Bytes, target: SlotMut },
}

impl RawFrame {
    pub(super) fn content(&self) -> &[u8] {
        match self {
            Self::Collected(slot) => slot.filled(),
            Self::Lent { content, .. } => content,
        }
    }
}

/// A compressor with its output slot.
///
/// The slot is swapped with the input at every collected frame: the compressed bytes leave in what was the output slot,
/// and the input slot is the next output. So no frame is copied, and a worker never waits for memory.
pub(super) struct Encoder {
    context: Compressor<'static>,
    level: i32,
    spare: SlotMut,
}

impl Encoder {
    /// `spare` must have at least [`stored_bound`] of the largest frame, as all frames' slots must.
    pub(super) fn new(level: i32, spare: SlotMut) -> Result<Self> {
        let mut context = Compressor::new(level).map_err(|source| refused("cannot set up zstd", source))?;
        context.include_checksum(true).map_err(|source| refused("cannot set up zstd", source))?;
        context.include_contentsize(true).map_err(|source| refused("cannot set up zstd", source))?;
        Ok(Self { context, level, spare })
    }

    /// Compresses a frame at `level`; the answer holds one complete zstd frame with content size and checksum.
    pub(super) fn encode(&mut self, raw: RawFrame, level: i32) -> Result<SlotMut> {
        if level != self.level {
            let set = self.context.set_parameter(CParameter::CompressionLevel(level));
            set.map_err(|source| refused("cannot set up zstd", source))?;
            self.level = level;
        }
        match raw {
            RawFrame::Collected(slot) => {
                self.spare.clear();
                compress(&mut self.context, slot.filled(), &mut self.spare)?;
                Ok(std::mem::replace(&mut self.spare, slot))
            }
            RawFrame::Lent { content, mut target } => {
                compress(&mut self.context, &content, &mut target)?;
                Ok(target)
            }
        }
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

fn compress(context: &mut Compressor<'static>, content: &[u8], target: &mut SlotMut) -> Result<()> {
    let count = context
        .compress_to_buffer(content, target.spare_mut())
        .map_err(|source| refused("cannot compress a frame", source))?;
    target.advance(count);
    Ok(())
}

fn refused(message: &'static str, source: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, message).with_source(source)
}
