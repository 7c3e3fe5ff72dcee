//! The feature mask of a device set.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// Feature bits: what the client offers, and what the server adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u32);

impl Features {
    /// `VDF_LikePipe`: strictly sequential, no bit set.
    pub const PIPE: Self = Self(0);
    /// `VDF_Removable`: several media per device; `Load` is used.
    pub const REMOVABLE: Self = Self(0x0000_0001);
    /// `VDF_Rewind`: `Rewind` works.
    pub const REWIND: Self = Self(0x0000_0002);
    /// `VDF_Position`: positions by block address.
    pub const POSITION: Self = Self(0x0000_0010);
    /// `VDF_SkipBlocks`: `SkipBlocks` works.
    pub const SKIP_BLOCKS: Self = Self(0x0000_0020);
    /// `VDF_ReversePosition`: can move backwards.
    pub const REVERSE_POSITION: Self = Self(0x0000_0040);
    /// `VDF_Discard`: `Discard` works.
    pub const DISCARD: Self = Self(0x0000_0080);
    /// `VDF_FileMarks`: the device has file marks.
    pub const FILE_MARKS: Self = Self(0x0000_0100);
    /// `VDF_RandomAccess`: like a disk, transfers carry a position.
    pub const RANDOM_ACCESS: Self = Self(0x0000_0200);
    /// `VDF_SnapshotPrepare`: send `PrepareToFreeze` before freezing.
    pub const SNAPSHOT_PREPARE: Self = Self(0x0000_0400);
    /// `VDF_EnumFrozenFiles`: named by the headers, described nowhere.
    pub const ENUM_FROZEN_FILES: Self = Self(0x0000_0800);
    /// `VDF_VSSWriter`: named by the headers, described nowhere.
    pub const VSS_WRITER: Self = Self(0x0000_1000);
    /// `VDF_RequestComplete`: the client asks for `Complete`.
    pub const REQUEST_COMPLETE: Self = Self(0x0000_2000);
    /// `VDF_WriteMedia`: set by the server, media will be written.
    pub const WRITE_MEDIA: Self = Self(0x0001_0000);
    /// `VDF_ReadMedia`: set by the server, media will be read.
    pub const READ_MEDIA: Self = Self(0x0002_0000);
    /// `VDF_CompleteEnabled`: set by the server, `Complete` will be sent.
    pub const COMPLETE_ENABLED: Self = Self(0x0004_0000);
    /// `VDF_LatchStats`: named by the headers, described nowhere.
    pub const LATCH_STATS: Self = Self(0x8000_0000);

    /// `VDF_LikeDisk`.
    pub const DISK: Self = Self::RANDOM_ACCESS;
    /// `VDF_LikeTape`.
    pub const TAPE: Self = Self(0x0000_0173);

    /// The bits that only the server sets.
    pub const SERVER: Self = Self(Self::WRITE_MEDIA.0 | Self::READ_MEDIA.0 | Self::COMPLETE_ENABLED.0);

    /// The mask as a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The mask with these bits, known or not.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// True if every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if a bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True if a client may ask for this: pipe, disk or tape, pipe and disk optionally removable, each optionally with
    /// `DISCARD`, `SNAPSHOT_PREPARE` and `REQUEST_COMPLETE`.
    pub fn is_supported(self) -> bool {
        let mode = self & !(Self::DISCARD | Self::SNAPSHOT_PREPARE | Self::REQUEST_COMPLETE);
        mode == Self::TAPE || (mode & !Self::REMOVABLE) == Self::PIPE || (mode & !Self::REMOVABLE) == Self::DISK
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Features {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Features {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Features {
    type Output = Self;

    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#010x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_bits_are_the_numbers_of_the_specification() {
        let tape = Features::FILE_MARKS
            | Features::REMOVABLE
            | Features::REWIND
            | Features::POSITION
            | Features::SKIP_BLOCKS
            | Features::REVERSE_POSITION;
        assert_eq!(tape, Features::TAPE);
        let bits = [
            (Features::PIPE, 0),
            (Features::REMOVABLE, 0x1),
            (Features::REWIND, 0x2),
            (Features::POSITION, 0x10),
            (Features::SKIP_BLOCKS, 0x20),
            (Features::REVERSE_POSITION, 0x40),
            (Features::DISCARD, 0x80),
            (Features::FILE_MARKS, 0x100),
            (Features::RANDOM_ACCESS, 0x200),
            (Features::SNAPSHOT_PREPARE, 0x400),
            (Features::ENUM_FROZEN_FILES, 0x800),
            (Features::VSS_WRITER, 0x1000),
            (Features::REQUEST_COMPLETE, 0x2000),
            (Features::WRITE_MEDIA, 0x1_0000),
            (Features::READ_MEDIA, 0x2_0000),
            (Features::COMPLETE_ENABLED, 0x4_0000),
            (Features::LATCH_STATS, 0x8000_0000),
            (Features::DISK, 0x200),
            (Features::TAPE, 0x173),
        ];
        for (feature, number) in bits {
            assert_eq!(feature.bits(), number);
        }
    }

    #[test]
    fn only_the_documented_mixes_are_supported() {
        let extras = Features::DISCARD | Features::SNAPSHOT_PREPARE | Features::REQUEST_COMPLETE;
        for mode in [Features::PIPE, Features::DISK, Features::TAPE] {
            assert!(
                mode.is_supported() && (mode | extras).is_supported() && (mode | Features::REMOVABLE).is_supported()
            );
        }
        for wrong in [
            Features::TAPE & !Features::REWIND,
            Features::TAPE | Features::RANDOM_ACCESS,
            Features::FILE_MARKS,
            Features::REWIND,
            Features::WRITE_MEDIA,
            Features::COMPLETE_ENABLED,
            Features::LATCH_STATS,
            Features::from_bits(4),
        ] {
            assert!(!wrong.is_supported(), "{wrong:?}");
        }
    }
}
