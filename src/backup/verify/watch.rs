//! How far a verification is, for whoever watches it.

use std::sync::Arc;
use std::time::Duration;

use super::choice::Segment;
use super::waiting::{Waited, Waiting};
use crate::sync::Mutex;

/// What a verification does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VerifyStep {
    /// Names, sizes and small documents.
    #[default]
    Names,
    /// It reads segments and hashes what is stored.
    Hashes,
    /// It reads them again and decompresses them.
    Content,
}

impl VerifyStep {
    /// One word for it: `names`, `hashes` or `content`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Hashes => "hashes",
            Self::Content => "content",
        }
    }
}

/// How far a verification is.
///
/// Times are summed over everything that ran at once, so they may pass faster than the clock. What is under way counts up to now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// What it does now.
    pub step: VerifyStep,
    /// Stored bytes of segments to read in all, those of the level [`Full`](super::VerifyLevel::Full) twice. `None` until it
    /// is known which segments are read, and at a level that reads none. Becomes less when a segment turns out to be damaged
    /// and the rest of it need not be read.
    pub total_bytes: Option<u64>,
    /// So much of that was read. All of it at the end.
    pub read_bytes: u64,
    /// Raw bytes that were decompressed and hashed.
    pub raw_bytes: u64,
    /// What was found to be wrong so far.
    pub findings: u64,
    /// Time in which the store was waited for.
    pub store_wait: Duration,
    /// Time in which what was read waited to be hashed or decompressed.
    pub cpu_wait: Duration,
    /// Time in which requests waited because of the limit on bytes per second, or paused before another attempt.
    pub throttled: Duration,
}

/// Asks a verification how far it is.
///
/// Give it to one by [`VerifyOptions::watch`](super::VerifyOptions::watch) and keep a clone: clones see the same verification. It
/// stays what it was last when the verification has ended, or was dropped.
#[derive(Debug, Clone, Default)]
pub struct VerifyWatch {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Its times are those of steps that have ended.
    progress: VerifyProgress,
    waiting: Option<Waiting>,
}

/// While it lives, a watch counts what a step waits for.
#[derive(Debug)]
pub(super) struct Watched<'a> {
    watch: &'a VerifyWatch,
    waiting: Waiting,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let waited = self.waiting.waited();
        let mut state = self.watch.state.lock();
        state.progress.add(waited);
        // What it holds is dropped outside of the lock.
        let ended = state.waiting.take();
        drop(state);
        drop(ended);
    }
}

impl VerifyProgress {
    fn add(&mut self, waited: Waited) {
        self.store_wait += waited.store;
        self.cpu_wait += waited.cpu;
        self.throttled += waited.throttled;
    }
}

impl VerifyWatch {
    /// One of a verification that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was done so far.
    pub fn progress(&self) -> VerifyProgress {
        let state = self.state.lock();
        let (mut progress, waiting) = (state.progress.clone(), state.waiting.clone());
        drop(state);
        if let Some(waiting) = waiting {
            progress.add(waiting.waited());
        }
        progress
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut VerifyProgress)) {
        change(&mut self.state.lock().progress);
    }

    /// A step begins that knows what it waits for. Drop the answer after everything that waits.
    pub(super) fn begin(&self, waiting: Waiting) -> Watched<'_> {
        self.state.lock().waiting = Some(waiting.clone());
        Watched { watch: self, waiting }
    }

    /// It is known what to read.
    pub(super) fn set_total(&self, bytes: u64) {
        self.update(|progress| progress.total_bytes = Some(bytes));
    }

    /// Some of that need not be read after all.
    pub(super) fn spare(&self, bytes: u64) {
        self.update(|progress| progress.total_bytes = progress.total_bytes.map(|total| total.saturating_sub(bytes)));
    }

    pub(super) fn set_findings(&self, findings: usize) {
        self.update(|progress| progress.findings = findings as u64);
    }

    /// Something more is wrong.
    pub(super) fn found(&self) {
        self.update(|progress| progress.findings += 1);
    }
}

/// How much of the stored bytes of some segments was read, by what came out of them in order.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    segments: &'a [Segment<'a>],
    /// The segment that is read now, and the raw bytes that came out of it.
    current: usize,
    raw: u64,
    /// Stored bytes of the current segment that were counted as read.
    counted: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn new(segments: &'a [Segment<'a>]) -> Self {
        Self { segments, current: 0, raw: 0, counted: 0 }
    }

    /// So many raw bytes more have come. Answers how many stored bytes more count as read.
    pub(super) fn add(&mut self, bytes: u64) -> u64 {
        self.raw += bytes;
        let mut more = 0;
        while let Some(segment) = self.segments.get(self.current)
            && self.raw >= segment.summary.raw_bytes
        {
            more += segment.summary.stored_bytes - self.counted;
            self.raw -= segment.summary.raw_bytes;
            (self.current, self.counted) = (self.current + 1, 0);
        }
        if let Some(segment) = self.segments.get(self.current) {
            let share = u128::from(segment.summary.stored_bytes) * u128::from(self.raw)
                / u128::from(segment.summary.raw_bytes.max(1));
            let counted = u64::try_from(share).unwrap_or(u64::MAX);
            more += counted - self.counted;
            self.counted = counted;
        }
        more
    }

    /// The number of the segment that nothing more came out of, if it did not come to its end, and its stored bytes that were not
    /// counted.
    pub(super) fn broken(&self) -> Option<(usize, u64)> {
        let segment = self.segments.get(self.current)?;
        Some((self.current, segment.summary.stored_bytes - self.counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::stripe;
    use crate::pipeline::SegmentId;

    #[test]
    fn what_comes_out_of_segments_tells_how_much_of_them_was_read() {
        let summary = stripe(&[(10, 100), (1, 7), (1000, 3)]);
        let segments: Vec<Segment<'_>> = summary
            .segments
            .iter()
            .map(|summary| Segment { id: SegmentId { stripe: 0, index: summary.index }, name: String::new(), summary })
            .collect();
        let all: u64 = segments.iter().map(|segment| segment.summary.stored_bytes).sum();
        let raw: u64 = segments.iter().map(|segment| segment.summary.raw_bytes).sum();
        for step in [1, 2, 3, 9, 10, 11, raw] {
            let mut reading = Reading::new(&segments);
            let (mut read, mut come) = (0, 0);
            while come < raw {
                let (at, left) = reading.broken().unwrap();
                let before: u64 = segments[..=at].iter().map(|segment| segment.summary.stored_bytes).sum();
                assert_eq!(read + left, before, "{step} {come}");
                let next = step.min(raw - come);
                read += reading.add(next);
                come += next;
            }
            assert_eq!((read, reading.broken()), (all, None), "{step}");
        }
        assert_eq!(Reading::new(&[]).broken(), None);
    }
}
