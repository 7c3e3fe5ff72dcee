//! What a caller may choose about a pipeline, and the bounds of each choice.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The largest frame, in raw bytes. A reader never allocates more than this for one frame.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

/// The smallest frame, in raw bytes; below it the ratio and the cost per frame get bad quickly.
pub const MIN_FRAME_BYTES: usize = 64 << 10;

/// The largest part, in bytes.
pub const MAX_PART_BYTES: usize = 512 << 20;

/// The smallest part, in bytes, whatever the store would accept.
pub const MIN_PART_BYTES: usize = 64 << 10;

/// The largest `segment_bytes`.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 40;

/// The longest `outage`: whoever waits longer for a store should be told.
const MAX_OUTAGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest of the longest pauses: without one, a store that asks for fewer requests would get more.
const MIN_BACKOFF: Duration = Duration::from_millis(1);

/// The longest first pause.
const MAX_BACKOFF_BASE: Duration = Duration::from_secs(60);

/// The longest pause: as many as there can be are shorter together than the longest `outage`.
const MAX_BACKOFF_CAP: Duration = Duration::from_secs(10 * 60);

/// The smallest limit on bytes per second: below it a part of the default size takes hours.
const MIN_BYTES_PER_SECOND: u64 = 1 << 10;

/// The levels between which an adaptive level moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRange {
    /// The lowest, at least -7.
    pub lowest: i32,
    /// The highest, at most 22.
    pub highest: i32,
}

impl Default for LevelRange {
    /// 1 to 9: above that a thread needs much more memory, and little is gained.
    fn default() -> Self {
        Self { lowest: 1, highest: 9 }
    }
}

/// How a [`Pipeline`](super::Pipeline) works. Plain data; checked when a pipeline is made.
///
/// Sizes are wishes: when they do not fit into `memory_limit`, the plan shrinks them in the order written at
/// [`MemoryPlan`](super::MemoryPlan) before it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineConfig {
    /// Bytes of all buffers together: device buffers, frames, compressor state, parts. Default 256 MiB.
    ///
    /// The process needs about 20 MiB beside it for code, stacks and the store's client.
    pub memory_limit: u64,

    /// Bytes of one device buffer; 64 KiB to 64 MiB, default 4 MiB. Reserved here, allocated by the devices.
    ///
    /// A multiple of `frame_bytes` saves a copy of all data: whole frames are compressed straight from the device's
    /// buffers, if there are enough of them that every thread can have a frame while the next one is filled.
    pub transfer_bytes: usize,

    /// Device buffers per stripe; 0 to 64, default 4. 0 if the stripes do not come from devices. Costs
    /// `transfer_bytes` each.
    pub depth: usize,

    /// Raw bytes of a frame; a power of two from 64 KiB to 64 MiB, default 4 MiB.
    ///
    /// A frame is compressed by one thread, and is the smallest piece that can be read back alone. Larger frames
    /// compress a little better; each stripe holds at least one, and each thread two.
    ///
    /// For a restore: the largest frame that can be met, which is what the backup used.
    pub frame_bytes: usize,

    /// Bytes of an uploaded part; 64 KiB to 512 MiB, default 8 MiB, and never less than the store accepts. Each stripe and
    /// each upload in flight holds one. A ranged read of a restore has half as many, or the bytes of one frame.
    pub part_bytes: usize,

    /// Stored bytes after which a segment ends; 1 byte to 1 TiB, default 1 GiB.
    ///
    /// A segment ends up to one reorder window of frames later, because the stored size of a frame is known only
    /// after it was compressed. It also ends at the store's limit of parts and after 4096 frames.
    pub segment_bytes: u64,

    /// The zstd level; -7 to 22, default 3. Levels above 9 need much more memory per thread, which is counted.
    pub level: i32,

    /// Lets the level follow the slower of producer and upload, beginning with `level`: up while the threads are not what
    /// is waited for, down as soon as they are. Default `None`: it stays. Costs each thread the state of the highest level.
    pub adaptive: Option<LevelRange>,

    /// Threads that compress, decompress and hash; 0 to 1024, default 0, which means one per core. Each costs a frame
    /// and a compressor's state.
    ///
    /// They are threads for blocking work of the runtime, which has up to 512 of them by default, for all pipelines and everything else in it.
    /// Each does some jobs and then stands behind whoever else waits for one: files of `file://` and look-ups of names among them.
    pub threads: usize,

    /// Requests in flight over all stripes; 1 to 256, default 8. Each costs a part.
    pub concurrency: usize,

    /// Times that one request is tried; 1 to 100, default 10.
    ///
    /// More often as long as `outage` says. Less often if it waits for its place behind others and none of them succeeds: for as long as
    /// so many attempts of the largest of them would take.
    pub attempts: u32,

    /// And it is tried again for at least this long after it first failed, so that a store may be away for a while;
    /// at most 1 day, default 90 s.
    pub outage: Duration,

    /// The longest pause before the second attempt, doubled before each further one; 1 ms to 1 min, default 100 ms. Pauses are random
    /// up to that, so that requests which failed together do not come again together.
    ///
    /// A longer one spares a store that is in trouble, and delays what failed by chance. A request that pauses holds its part and no
    /// place in flight.
    pub backoff_base: Duration,

    /// The longest pause before any attempt, the second too; 1 ms to 10 min, default 15 s.
    ///
    /// So much later than the store a request may be back. With many `attempts` the pauses together may last longer than `outage`, and
    /// that long a store that is gone for good is waited for.
    pub backoff_cap: Duration,

    /// Time that every attempt has, whatever its size; at least 1 ms, default 30 s. Completing an upload has 50 ms more for
    /// each of its parts and one second more for each 16 MiB, because some stores copy the parts then.
    pub attempt_timeout: Duration,

    /// An attempt has one second more for each of these bytes; at least 1, default 128 KiB. A link slower than this
    /// counts as broken: on a slow one, requests that take too long together are sent fewer at a time, down to one.
    pub min_bytes_per_second: u64,

    /// The most bytes per second that a backup sends, over all stripes; at least 1 KiB, default `None`, no limit. Only
    /// segments count, with what is sent again after a failure; the documents beside them are small.
    ///
    /// A request goes at the speed of the link, and waits for its turn before it begins: smaller parts make the stream
    /// more even. What goes above the limit for a moment is at most one second's worth or one part, and what is sent again: that does not
    /// wait, and what comes after it waits longer. It costs no memory.
    pub upload_bytes_per_second: Option<u64>,

    /// The same for what a restore or a verification asks for; at least 1 KiB, default `None`.
    pub download_bytes_per_second: Option<u64>,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            memory_limit: 256 << 20,
            transfer_bytes: 4 << 20,
            depth: 4,
            frame_bytes: 4 << 20,
            part_bytes: 8 << 20,
            segment_bytes: 1 << 30,
            level: 3,
            adaptive: None,
            threads: 0,
            concurrency: 8,
            attempts: 10,
            outage: Duration::from_secs(90),
            backoff_base: Duration::from_millis(100),
            backoff_cap: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(30),
            min_bytes_per_second: 128 << 10,
            upload_bytes_per_second: None,
            download_bytes_per_second: None,
        }
    }
}

impl PipelineConfig {
    /// Checks every field by itself; what they need together is the plan's business.
    pub(super) fn check(&self) -> Result<()> {
        within("transfer_bytes", self.transfer_bytes as u64, 64 << 10, 64 << 20)?;
        within("depth", self.depth as u64, 0, 64)?;
        within("frame_bytes", self.frame_bytes as u64, MIN_FRAME_BYTES as u64, MAX_FRAME_BYTES as u64)?;
        if !self.frame_bytes.is_power_of_two() {
            return Err(invalid(format!("frame_bytes is {}, it must be a power of two", self.frame_bytes)));
        }
        within("part_bytes", self.part_bytes as u64, MIN_PART_BYTES as u64, MAX_PART_BYTES as u64)?;
        within("segment_bytes", self.segment_bytes, 1, MAX_SEGMENT_BYTES)?;
        if !(-7..=22).contains(&self.level) {
            return Err(invalid(format!("level is {}, it must be from -7 to 22", self.level)));
        }
        if let Some(LevelRange { lowest, highest }) = self.adaptive
            && (lowest > highest || lowest < -7 || highest > 22)
        {
            return Err(invalid(format!("adaptive is {lowest} to {highest}, it must be a range within -7 to 22")));
        }
        within("threads", self.threads as u64, 0, 1024)?;
        within("concurrency", self.concurrency as u64, 1, 256)?;
        within("attempts", u64::from(self.attempts), 1, 100)?;
        within("min_bytes_per_second", self.min_bytes_per_second, 1, u64::MAX)?;
        for (name, limit) in [
            ("upload_bytes_per_second", self.upload_bytes_per_second),
            ("download_bytes_per_second", self.download_bytes_per_second),
        ] {
            within(name, limit.unwrap_or(MIN_BYTES_PER_SECOND), MIN_BYTES_PER_SECOND, u64::MAX)?;
        }
        if self.outage > MAX_OUTAGE {
            return Err(invalid(format!("outage is {:?}, it must be at most {MAX_OUTAGE:?}", self.outage)));
        }
        for (name, pause, most) in
            [("backoff_base", self.backoff_base, MAX_BACKOFF_BASE), ("backoff_cap", self.backoff_cap, MAX_BACKOFF_CAP)]
        {
            if !(MIN_BACKOFF..=most).contains(&pause) {
                return Err(invalid(format!("{name} is {pause:?}, it must be from {MIN_BACKOFF:?} to {most:?}")));
            }
        }
        if self.attempt_timeout < Duration::from_millis(1) {
            return Err(invalid("attempt_timeout must be at least 1 ms".to_owned()));
        }
        Ok(())
    }

    /// The highest level that a frame may get.
    pub(super) fn highest_level(&self) -> i32 {
        self.adaptive.map_or(self.level, |range| range.highest)
    }

    /// `threads`, with 0 replaced by the number of cores.
    pub(super) fn resolved_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }
}

fn within(name: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("{name} is {value}, it must be from {min} to {max}")))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_have_bounds() {
        const NANOSECOND: Duration = Duration::from_nanos(1);
        let base: fn(Duration) -> _ = |backoff_base| PipelineConfig { backoff_base, ..PipelineConfig::default() };
        let cap: fn(Duration) -> _ = |backoff_cap| PipelineConfig { backoff_cap, ..PipelineConfig::default() };
        for (name, config, most) in [("backoff_base", base, 60), ("backoff_cap", cap, 600)] {
            let (least, most) = (Duration::from_millis(1), Duration::from_secs(most));
            for good in [least, least + NANOSECOND, most - NANOSECOND, most] {
                config(good).check().unwrap();
            }
            for wrong in [Duration::ZERO, least - NANOSECOND, most + NANOSECOND, Duration::MAX] {
                let error = config(wrong).check().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Invalid);
                assert!(error.to_string().starts_with(&format!("{name} is {wrong:?}, ")), "{error}");
            }
        }
    }
}
