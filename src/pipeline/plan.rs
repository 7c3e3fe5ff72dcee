//! How the one memory number is divided. Pure arithmetic; the argument why it cannot deadlock is in the manual.

use super::codec::stored_bound;
use super::config::{MIN_FRAME_BYTES, MIN_PART_BYTES, PipelineConfig};
use super::encrypt::{MAX_HEADER_BYTES, chunk};
use super::index::{MAX_SEGMENT_FRAMES, tail_bytes};
use crate::error::{Error, ErrorKind, Result, size_text};

/// What a pipeline really uses of each buffer, after its configuration was fitted into the memory limit.
///
/// When the wishes do not fit, they are halved one after the other, each down to a comfortable bound, in this order:
/// device buffer size (1 MiB), device buffers per stripe (2), parts in flight (4), reorder window or read-ahead, frame size (1 MiB, backup only),
/// part size (1 MiB, or what the store accepts), parts in flight (2), device buffer size (256 KiB). If that is not
/// enough, the same again down to the bounds below which nothing works, then the threads. Then the pipeline is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Stripes that may run at once.
    pub stripes: usize,
    /// Bytes of a device buffer.
    pub transfer_bytes: usize,
    /// Device buffers per stripe.
    pub depth: usize,
    /// Raw bytes of a frame.
    pub frame_bytes: usize,
    /// Frames in flight beside the one that each stripe fills (backup, shared), or decoded frames per stripe (restore).
    pub window: usize,
    /// Bytes of a part, or of a ranged read, which has half a part.
    pub part_bytes: usize,
    /// Parts in flight beside the one that each stripe fills (backup, shared), or ranges held per stripe (restore).
    pub parts: usize,
    /// Threads that compress, decompress and hash.
    pub threads: usize,
    /// Bytes of one thread's compressor or decompressor.
    pub context_bytes: u64,
    /// What encryption needs beside all of that, or 0 without encryption.
    pub encryption_bytes: u64,
    /// What comparing a replay with stored frames needs, or 0 if no backup is resumed.
    pub replay_bytes: u64,
    /// All of it together.
    pub total_bytes: u64,
}

/// What the devices of each stripe may allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePlan {
    /// Bytes of one buffer.
    pub transfer_bytes: usize,
    /// Buffers per stripe.
    pub depth: usize,
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Backup,
    /// A backup that goes on with one that exists, whose frames it cannot choose.
    Resume,
    Restore,
}

impl Direction {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Backup | Self::Resume => "backup",
            Self::Restore => "restore",
        }
    }

    fn is_restore(self) -> bool {
        self == Self::Restore
    }
}

impl MemoryPlan {
    /// Fits `config` into its memory limit.
    pub(super) fn new(
        config: &PipelineConfig,
        direction: Direction,
        stripes: u16,
        min_part_bytes: u64,
        is_encrypted: bool,
    ) -> Result<Self> {
        config.check()?;
        if stripes == 0 {
            return Err(Error::new(ErrorKind::Invalid, "stripes is 0, it must be at least 1"));
        }
        let least_part = usize::try_from(min_part_bytes).ok().and_then(round_part).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("the store wants parts of at least {min_part_bytes} bytes, which is too large"),
            )
        })?;
        let threads = config.resolved_threads();
        let mut plan = Self {
            stripes: usize::from(stripes),
            transfer_bytes: config.transfer_bytes,
            depth: config.depth,
            frame_bytes: config.frame_bytes,
            // Every thread has a frame, one or two more wait for a thread, one is being packed.
            window: threads + (threads / 2).max(2),
            part_bytes: round_part(config.part_bytes).unwrap_or(least_part).max(least_part),
            parts: config.concurrency,
            threads,
            context_bytes: 0,
            encryption_bytes: u64::from(is_encrypted),
            replay_bytes: 0,
            total_bytes: 0,
        };
        if direction.is_restore() {
            plan.parts = config.concurrency.div_ceil(plan.stripes).clamp(2, 8);
            // As many requests at once with half of the memory, which a stripe fills soon: a longer one needs no more.
            plan.part_bytes = round_part(config.part_bytes / 2).unwrap_or(least_part).max(least_part);
            // Every thread has a frame and finds the next one; the consumer has one and takes the next one from the line.
            plan.window = 2 * threads + 2;
        }
        plan.measure(config, direction);

        // With fewer frames than this in flight, a thread waits while the packer takes the oldest.
        let busy = if direction.is_restore() { 3 } else { threads + 1 };
        let comfortable = Floor {
            depth: 2,
            window: busy,
            frame_bytes: 1 << 20,
            part_bytes: least_part.max(1 << 20),
            parts: 2,
            transfer_bytes: 256 << 10,
            threads,
        };
        let least = Floor {
            depth: 1,
            window: if direction.is_restore() { 2 } else { 1 },
            frame_bytes: MIN_FRAME_BYTES,
            part_bytes: least_part,
            parts: 1,
            transfer_bytes: 64 << 10,
            threads: 1,
        };
        let parallel = Floor {
            parts: 4,
            window: usize::MAX,
            frame_bytes: usize::MAX,
            part_bytes: usize::MAX,
            transfer_bytes: usize::MAX,
            ..comfortable
        };
        let copied = Floor { depth: usize::MAX, parts: usize::MAX, transfer_bytes: 1 << 20, ..parallel };
        for floor in [copied, parallel, comfortable, least] {
            while plan.total_bytes > config.memory_limit {
                if !plan.shrink(&floor, direction) {
                    break;
                }
                plan.measure(config, direction);
            }
        }
        if plan.total_bytes > config.memory_limit {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "memory_limit is {}, but this needs at least {} for {}; in bytes, that is {}",
                    size_text(config.memory_limit),
                    size_text(plan.total_bytes),
                    if stripes == 1 { "its stripe".to_owned() } else { format!("its {stripes} stripes") },
                    plan.total_bytes
                ),
            ));
        }
        Ok(plan)
    }

    /// Makes the first wish smaller that is above its floor; false if none is.
    fn shrink(&mut self, floor: &Floor, direction: Direction) -> bool {
        halve(&mut self.depth, floor.depth)
            || halve(&mut self.window, floor.window)
            // A restore meets the frames that the backup made; it cannot choose, and neither can who resumes it.
            || (direction == Direction::Backup && halve(&mut self.frame_bytes, floor.frame_bytes))
            || self.halve_part(floor.part_bytes)
            || halve(&mut self.parts, floor.parts)
            || halve(&mut self.transfer_bytes, floor.transfer_bytes)
            || halve(&mut self.threads, floor.threads)
    }

    fn halve_part(&mut self, floor: usize) -> bool {
        if self.part_bytes <= floor {
            return false;
        }
        self.part_bytes = round_part(self.part_bytes / 2).unwrap_or(floor).clamp(floor, self.part_bytes - 1);
        true
    }

    fn measure(&mut self, config: &PipelineConfig, direction: Direction) {
        self.context_bytes = match direction {
            Direction::Backup | Direction::Resume => encoder_bytes(config.highest_level(), self.frame_bytes),
            Direction::Restore => DECODER_BYTES,
        };
        let slots = |count: usize, bytes: usize| (count as u64).saturating_mul(bytes as u64);
        let device = slots(self.stripes * self.depth, self.transfer_bytes);
        let contexts = self.context_bytes.saturating_mul(self.threads as u64);
        let stages = match direction {
            Direction::Backup | Direction::Resume => {
                slots(self.frame_slots(), self.frame_slot_bytes()) + slots(self.part_slots(), self.part_bytes)
            }
            Direction::Restore => {
                slots(self.stripes * self.window, self.frame_bytes)
                    + slots(self.stripes * self.parts, self.range_bytes())
            }
        };
        if self.encryption_bytes > 0 {
            // A header for each stripe. A backup: the chunk between two parts. A restore: what a range is longer.
            let beside = match direction {
                Direction::Backup | Direction::Resume => chunk::SEALED_BYTES,
                Direction::Restore => self.parts * (chunk::largest_window(self.range_bytes()) - self.range_bytes()),
            };
            self.encryption_bytes = slots(self.stripes, MAX_HEADER_BYTES as usize + beside);
        }
        if direction == Direction::Resume {
            self.replay_bytes = slots(REPLAY_SLOTS, self.frame_slot_bytes()) + DECODER_BYTES;
        }
        let beside = self.index_bytes() + self.encryption_bytes + self.replay_bytes;
        self.total_bytes = (device + stages + beside).saturating_add(contexts);
    }

    /// Backup: slots for frames, raw or compressed. One per stripe to fill, the window, one per thread as its output.
    pub(super) fn frame_slots(&self) -> usize {
        self.stripes + self.window + self.threads
    }

    /// Backup: every slot can hold a raw frame or the worst compressed one.
    pub(super) fn frame_slot_bytes(&self) -> usize {
        stored_bound(self.frame_bytes)
    }

    /// Backup: one part per stripe to fill, and those in flight.
    pub(super) fn part_slots(&self) -> usize {
        self.stripes + self.parts
    }

    /// Restore: the most bytes of one ranged read: at least one of the largest frames, or the largest tail.
    pub(super) fn range_bytes(&self) -> usize {
        const LARGEST_TAIL: usize = 256 << 10;
        const { assert!(tail_bytes(MAX_SEGMENT_FRAMES) <= LARGEST_TAIL as u64) };
        self.part_bytes.max(stored_bound(self.frame_bytes)).max(LARGEST_TAIL)
    }

    /// Restore: the size of the memory for a range. An encrypted one begins and ends with whole chunks.
    pub(super) fn range_slot_bytes(&self) -> usize {
        match self.encryption_bytes {
            0 => self.range_bytes(),
            _ => chunk::largest_window(self.range_bytes()),
        }
    }

    /// The headers of the encrypted segments that the stripes work on.
    pub(super) fn header_bytes(&self) -> u64 {
        if self.encryption_bytes == 0 { 0 } else { self.stripes as u64 * u64::from(MAX_HEADER_BYTES) }
    }

    /// The indexes of the segments that the stripes work on, as a list and as the stored tail.
    pub(super) fn index_bytes(&self) -> u64 {
        self.stripes as u64 * 2 * tail_bytes(MAX_SEGMENT_FRAMES)
    }

    /// Backup: true if frames may stay in device buffers until they are compressed. With fewer buffers than this the source
    /// would wait for a thread where it could fill a frame.
    pub(super) fn lends(&self) -> bool {
        self.depth == 0 || self.depth * self.transfer_bytes >= (self.threads + 1) * self.frame_bytes
    }

    pub(super) fn device_plan(&self) -> DevicePlan {
        DevicePlan { transfer_bytes: self.transfer_bytes, depth: self.depth }
    }

    pub(super) fn device_bytes(&self) -> u64 {
        self.stripes as u64 * self.depth as u64 * self.transfer_bytes as u64
    }
}

/// How small each wish may get.
#[derive(Clone, Copy)]
struct Floor {
    depth: usize,
    window: usize,
    frame_bytes: usize,
    part_bytes: usize,
    parts: usize,
    transfer_bytes: usize,
    threads: usize,
}

fn halve(value: &mut usize, floor: usize) -> bool {
    if *value <= floor {
        return false;
    }
    *value = (*value / 2).max(floor);
    true
}

/// Rounds up so that a part divides into few equal powers of two, the pieces in which it is hashed.
fn round_part(bytes: usize) -> Option<usize> {
    let rounded = if bytes <= 1 << 20 {
        bytes.max(MIN_PART_BYTES).checked_next_power_of_two()
    } else {
        bytes.checked_next_multiple_of(1 << 20)
    };
    rounded.filter(|rounded| *rounded <= 5 << 30)
}

/// An upper bound of the state of one zstd compressor, in bytes; the tests compare it with the real one.
fn encoder_bytes(level: i32, frame_bytes: usize) -> u64 {
    let by_level = match level {
        // 0 is zstd's word for its default, which is 3.
        0 | 3 => 2,
        ..=2 => 1,
        4..=6 => 4,
        7..=8 => 6,
        9 => 11,
        10 => 22,
        11..=12 => 44,
        13..=18 => 68,
        19 => 90,
        20 => 180,
        _ => 1280,
    };
    // With the size known, the tables are no larger than a small multiple of the frame.
    (by_level << 20).min(20 * frame_bytes as u64 + (1 << 20))
}

/// A stored frame and its content.
pub(super) const REPLAY_SLOTS: usize = 2;

/// A decompressor's state; output and input are ours.
const DECODER_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn config(memory_limit: u64) -> PipelineConfig {
        PipelineConfig { memory_limit, threads: 2, ..PipelineConfig::default() }
    }

    fn backup(memory_limit: u64, stripes: u16, min_part_bytes: u64) -> Result<MemoryPlan> {
        MemoryPlan::new(&config(memory_limit), Direction::Backup, stripes, min_part_bytes, false)
    }

    #[test]
    fn the_defaults_fit_unshrunk() {
        let plan = backup(256 * MIB, 1, 5 * MIB).unwrap();
        let wish = PipelineConfig::default();
        assert_eq!(
            (plan.depth, plan.frame_bytes, plan.part_bytes, plan.parts),
            (wish.depth, wish.frame_bytes, wish.part_bytes, wish.concurrency)
        );
        assert!(plan.total_bytes <= 128 * MIB, "{plan:?}");
    }

    #[test]
    fn who_resumes_a_backup_keeps_its_frames() {
        let wish = PipelineConfig { frame_bytes: 8 << 20, ..config(64 * MIB) };
        let shrunk = MemoryPlan::new(&wish, Direction::Backup, 4, 5 * MIB, false).unwrap();
        assert!(shrunk.frame_bytes < wish.frame_bytes);
        assert_eq!(
            MemoryPlan::new(&wish, Direction::Resume, 4, 5 * MIB, false).unwrap_err().kind(),
            ErrorKind::Invalid
        );
        let wish = PipelineConfig { frame_bytes: shrunk.frame_bytes, ..wish };
        let plan = MemoryPlan::new(&wish, Direction::Resume, 4, 5 * MIB, false).unwrap();
        assert_eq!(plan.frame_bytes, shrunk.frame_bytes);
        assert!(plan.replay_bytes > 2 * plan.frame_bytes as u64 && plan.total_bytes <= 64 * MIB);
    }

    #[test]
    fn promised_combinations_work() {
        for (limit, stripes, min_part) in [
            (64, 1, 5 * MIB),
            (256, 8, 5 * MIB),
            (256, 64, 64 << 10),
            (256, 64, 1),
            (512, 64, 5 * MIB),
            (4096, 1000, 1),
        ] {
            let plan = backup(limit * MIB, stripes, min_part).unwrap();
            assert!(plan.total_bytes <= limit * MIB);
            assert!(plan.part_bytes as u64 >= min_part);
            // What was written can be read back under the same limit.
            let config = PipelineConfig { frame_bytes: plan.frame_bytes, ..config(limit * MIB) };
            MemoryPlan::new(&config, Direction::Restore, stripes, min_part, false).unwrap();
        }
    }

    #[test]
    fn many_cores_do_not_break_a_small_limit() {
        let config = PipelineConfig { memory_limit: 64 * MIB, threads: 128, ..PipelineConfig::default() };
        let plan = MemoryPlan::new(&config, Direction::Backup, 1, 5 * MIB, false).unwrap();
        assert!(plan.total_bytes <= 64 * MIB, "{plan:?}");
    }

    #[test]
    fn the_smallest_number_that_works_is_named_and_works() {
        for direction in [Direction::Backup, Direction::Resume, Direction::Restore] {
            for (stripes, is_encrypted) in [(1, false), (3, false), (64, false), (1, true), (3, true), (64, true)] {
                let error = MemoryPlan::new(&config(1), direction, stripes, 5 * MIB, is_encrypted).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid);
                let named: u64 = error.message().rsplit(' ').next().unwrap().parse().unwrap();
                MemoryPlan::new(&config(named), direction, stripes, 5 * MIB, is_encrypted).unwrap();
                MemoryPlan::new(&config(named - 1), direction, stripes, 5 * MIB, is_encrypted).unwrap_err();
            }
        }
    }

    #[test]
    fn parts_divide_into_powers_of_two() {
        for (asked, rounded) in
            [(1, 64 << 10), (65536, 65536), (65537, 131_072), (5 << 20, 5 << 20), ((5 << 20) + 1, 6 << 20)]
        {
            assert_eq!(round_part(asked), Some(rounded));
        }
        assert_eq!(round_part(usize::MAX), None);
    }

    #[test]
    fn the_estimate_of_a_compressor_is_an_upper_bound() {
        for level in -7..=22 {
            for frame_bytes in [MIN_FRAME_BYTES, 256 << 10, 1 << 20, 4 << 20] {
                let mut context = zstd::bulk::Compressor::new(level).unwrap();
                let mut out = vec![0; stored_bound(frame_bytes)];
                context.include_checksum(true).unwrap();
                context.compress_to_buffer(&vec![0; frame_bytes], &mut out[..]).unwrap();
                let real = context.context_mut().sizeof() as u64;
                assert!(real <= encoder_bytes(level, frame_bytes), "level {level}, frame {frame_bytes}: {real}");
            }
        }
    }
}
