//! The handle: one backup or one restore of several stripes under one memory number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::config::{LevelRange, PipelineConfig};
use super::encrypt::{Identities, Recipients};
use super::fetch::check_summary;
use super::input::Input;
use super::plan::{DevicePlan, Direction, MemoryPlan};
use super::progress::{Counters, Progress};
use super::replay::Kept;
use super::segment::{SegmentId, SegmentStore, SegmentSummary, StripeSummary};
use super::{reader, survey, writer};
use crate::buffer::{MemoryBudget, Reservation};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// Backs stripes up, or restores them, all within one memory limit.
///
/// Clones share everything. The pipeline starts no task of its own; each stripe's tasks end with the stripe. When a
/// stripe's future or stream is dropped, what it leaves to clean up is done by tasks that [`Pipeline::wait_idle`] waits for.
///
/// All its stripes belong into one Tokio runtime: they share the threads that it takes from there.
#[derive(Debug, Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    half: Half,
    plan: MemoryPlan,
    budget: MemoryBudget,
    tracker: TaskTracker,
    counters: Arc<Counters>,
    /// Stripes that run now.
    running: Vec<AtomicBool>,
    _beside: Beside,
}

#[derive(Debug)]
enum Half {
    Backup(Arc<writer::Shared>),
    Restore(Arc<reader::Shared>),
}

/// Memory that is not in a pool of ours: device buffers, compressor states, indexes.
#[derive(Debug)]
struct Beside {
    _devices: Reservation,
    _contexts: Counted,
    _indexes: Counted,
}

impl Pipeline {
    /// Plans a backup of up to `stripes` stripes at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if a field of `config` is out of its bounds, or if the memory limit is too small; the
    /// message then names the smallest one that works.
    pub fn for_backup(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::backup(config, stripes, store, clock, None, Direction::Backup)
    }

    /// As [`Pipeline::for_backup`], with each segment encrypted to `recipients`.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::for_backup`], and [`ErrorKind::Invalid`] if there is no recipient.
    #[cfg(feature = "encryption")]
    pub fn for_encrypted_backup(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        recipients: Recipients,
    ) -> Result<Self> {
        Self::backup(config, stripes, store, clock, Some(recipients), Direction::Backup)
    }

    /// Of a new backup, or of one that goes on with what is stored.
    pub(crate) fn backup(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        recipients: Option<Recipients>,
        direction: Direction,
    ) -> Result<Self> {
        if recipients.as_ref().is_some_and(Recipients::is_empty) {
            return Err(Error::new(ErrorKind::Invalid, "encryption needs at least one recipient"));
        }
        let is_encrypted = recipients.is_some();
        let plan = MemoryPlan::new(&config, direction, stripes, store.min_part_bytes(), is_encrypted)?;
        let start = clock.now();
        Self::new(direction, plan, start, config.memory_limit, plan.encryption_bytes, |budget, tracker, counters| {
            let shared = writer::Shared::new(&config, plan, budget, store, clock, tracker, counters)?;
            Ok(Half::Backup(Arc::new(shared.encrypted_to(recipients))))
        })
    }

    /// Plans a restore of up to `stripes` stripes at once. `config.frame_bytes` must be what the backup used.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::for_backup`].
    pub fn for_restore(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::restore(config, stripes, store, clock, false, None)
    }

    /// As [`Pipeline::for_restore`], for encrypted segments that one of `identities` opens.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::for_backup`].
    #[cfg(feature = "encryption")]
    pub fn for_encrypted_restore(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        identities: Identities,
    ) -> Result<Self> {
        Self::restore(config, stripes, store, clock, true, Some(identities))
    }

    pub(crate) fn restore(
        config: PipelineConfig,
        stripes: u16,
        store: Arc<dyn SegmentStore>,
        clock: Arc<dyn Clock>,
        is_encrypted: bool,
        identities: Option<Identities>,
    ) -> Result<Self> {
        // A ranged read has no lower bound at the store.
        let plan = MemoryPlan::new(&config, Direction::Restore, stripes, 1, is_encrypted)?;
        let (direction, start) = (Direction::Restore, clock.now());
        Self::new(direction, plan, start, config.memory_limit, plan.header_bytes(), |budget, tracker, counters| {
            let shared = reader::Shared::new(&config, plan, budget, store, clock, tracker, counters)?;
            Ok(Half::Restore(Arc::new(shared.opened_by(identities))))
        })
    }

    fn new(
        direction: Direction,
        plan: MemoryPlan,
        start: Duration,
        memory_limit: u64,
        encryption_bytes: u64,
        half: impl FnOnce(&MemoryBudget, TaskTracker, Arc<Counters>) -> Result<Half>,
    ) -> Result<Self> {
        let budget = MemoryBudget::new(memory_limit);
        let tracker = TaskTracker::new();
        // Closed only means that waiting for it ends when no task is left; tasks can still be added.
        tracker.close();
        let counters = Arc::new(Counters::new(direction, plan.stripes, start));
        let beside = Beside {
            _devices: budget.reserve(plan.device_bytes())?,
            _contexts: Counted::new(&budget, plan.context_bytes * plan.threads as u64)?,
            _indexes: Counted::new(&budget, plan.index_bytes() + encryption_bytes)?,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                half: half(&budget, tracker.clone(), Arc::clone(&counters))?,
                running: (0..plan.stripes).map(|_| AtomicBool::new(false)).collect(),
                plan,
                budget,
                tracker,
                counters,
                _beside: beside,
            }),
        })
    }

    /// Backs up one stripe: takes `source` until [`Input::Complete`] or its end, and returns when all of it is durable.
    ///
    /// Whether the end of the source without `Complete` is a success is for the caller to decide. An empty stripe has no
    /// segments. Keep polling the future: it holds memory that other stripes may wait for.
    ///
    /// # Errors
    ///
    /// The first error of the source or the store; acknowledgements that still wait get it too. Every upload that the
    /// stripe started is aborted before the error is returned; segments that were complete stay.
    /// [`ErrorKind::Invalid`] if the pipeline was planned for a restore or for fewer stripes, [`ErrorKind::Conflict`] if
    /// this stripe runs already.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: dropping the future gives the stripe up. Its uploads are aborted by tasks that
    /// [`Pipeline::wait_idle`] waits for; segments that were complete stay.
    pub async fn backup_stripe<S>(&self, stripe: u16, source: S) -> Result<StripeSummary>
    where
        S: Stream<Item = Result<Input>> + Send,
    {
        self.backup_stripe_noticed(stripe, source, |_first| {}).await
    }

    /// [`Pipeline::backup_stripe`], which also calls `on_failure` with the stripe's first error as soon as there is one:
    /// before the clean-up, which takes as long as the store wants.
    ///
    /// # Errors
    ///
    /// As [`Pipeline::backup_stripe`]. `on_failure` is not called for an error that the stripe never started with.
    ///
    /// # Cancel safety
    ///
    /// As [`Pipeline::backup_stripe`]; dropping the future counts as a failure.
    pub async fn backup_stripe_noticed<S>(
        &self,
        stripe: u16,
        source: S,
        on_failure: impl FnOnce(Error) + Send + 'static,
    ) -> Result<StripeSummary>
    where
        S: Stream<Item = Result<Input>> + Send,
    {
        self.resume_stripe(stripe, Kept::default(), source, on_failure).await
    }

    /// The same for a stripe of which something is stored already.
    pub(crate) async fn resume_stripe<S>(
        &self,
        stripe: u16,
        kept: Kept,
        source: S,
        on_failure: impl FnOnce(Error) + Send + 'static,
    ) -> Result<StripeSummary>
    where
        S: Stream<Item = Result<Input>> + Send,
    {
        let Half::Backup(shared) = &self.inner.half else { return Err(wrong_half()) };
        let _running = Running::enter(&self.inner, stripe)?;
        let span = tracing::debug_span!("stripe", stripe);
        writer::run(shared, stripe, kept, source, on_failure).instrument(span).await
    }

    /// Reads a segment of which only the size is known, and learns the rest; all but its place in the stripe. `on_read` gets the number
    /// of stored bytes more that were checked, all of them in the end.
    pub(crate) async fn survey(
        &self,
        segment: SegmentId,
        stored_bytes: u64,
        on_read: impl FnMut(u64) + Send,
    ) -> Result<SegmentSummary> {
        let Half::Restore(shared) = &self.inner.half else { return Err(wrong_half()) };
        let _running = Running::enter(&self.inner, segment.stripe)?;
        survey::survey(shared, segment, stored_bytes, on_read).await
    }

    /// Restores one stripe: a stream of its raw bytes in order, each verified against `summary` before it is handed out.
    ///
    /// Each item is the content of one frame, in memory of the pipeline: drop it soon, because only a few exist. The
    /// stream reads ahead while the caller works. Any item may be followed by an error, which is the last item; no wrong
    /// byte comes before it. Reading to the end without an error verifies the stripe completely.
    ///
    /// Must be polled within a Tokio runtime. Dropping the stream ends the read-ahead. Errors are as documented at
    /// [`Pipeline::backup_stripe`], and [`ErrorKind::Corrupt`] if the stored bytes are not what was written; the message
    /// names segment, offset, expected and found.
    pub fn restore_stripe(
        &self,
        stripe: u16,
        summary: &StripeSummary,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        self.read(stripe, check_summary(stripe, summary).map(|()| summary.segments.clone()))
    }

    /// The raw bytes of some segments of a stripe, in the order given; otherwise as [`Pipeline::restore_stripe`]. That the
    /// segments follow each other is not checked.
    pub(crate) fn restore_segments(
        &self,
        stripe: u16,
        segments: Vec<SegmentSummary>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        self.read(stripe, Ok(segments))
    }

    fn read(
        &self,
        stripe: u16,
        segments: Result<Vec<SegmentSummary>>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        let running = segments.and_then(|segments| match &self.inner.half {
            Half::Restore(shared) => {
                Running::enter(&self.inner, stripe).map(|running| (Arc::clone(shared), segments, running))
            }
            Half::Backup(_) => Err(wrong_half()),
        });
        match running {
            Ok((shared, segments, running)) => {
                let span = tracing::debug_span!("stripe", stripe);
                let frames = reader::run(shared, stripe, segments, span);
                // The guard lives as long as the stream.
                frames
                    .map(move |item| {
                        let _held = &running;
                        item
                    })
                    .left_stream()
            }
            Err(error) => stream::iter([Err(error)]).right_stream(),
        }
    }

    /// Waits until nothing that dropped stripes left behind is running any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the work goes on without the wait.
    pub async fn wait_idle(&self) {
        self.inner.tracker.wait().await;
    }

    /// What the devices of each stripe may allocate; it is reserved for them.
    pub fn device_plan(&self) -> DevicePlan {
        self.inner.plan.device_plan()
    }

    /// How the memory limit was divided.
    pub fn plan(&self) -> &MemoryPlan {
        &self.inner.plan
    }

    /// The memory that all stages count against.
    pub fn budget(&self) -> &MemoryBudget {
        &self.inner.budget
    }

    /// Slots that are with neither a pool nor an idle worker.
    #[cfg(test)]
    pub(super) fn held_slots(&self) -> usize {
        match &self.inner.half {
            Half::Backup(shared) => shared.frames.stats().held + shared.parts.stats().held - self.inner.plan.threads,
            Half::Restore(shared) => shared.held_slots(),
        }
    }

    /// The lowest and the highest zstd level that a frame was given so far; `None` for a restore.
    pub fn levels(&self) -> Option<LevelRange> {
        match &self.inner.half {
            Half::Backup(shared) => Some(shared.level.used()),
            Half::Restore(_) => None,
        }
    }

    /// What was done so far.
    pub fn progress(&self) -> Progress {
        let (clock, concurrency, level) = match &self.inner.half {
            Half::Backup(shared) => (&shared.clock, shared.requests.concurrency(), Some(shared.level.current())),
            Half::Restore(shared) => (&shared.clock, shared.ranges.concurrency(), None),
        };
        Progress {
            concurrency: concurrency as u64,
            level,
            memory_peak: self.inner.budget.peak(),
            ..self.inner.counters.snapshot(clock.now())
        }
    }
}

/// A reservation that is held as a whole.
#[derive(Debug)]
struct Counted(Reservation);

impl Counted {
    fn new(budget: &MemoryBudget, bytes: u64) -> Result<Self> {
        let reservation = budget.reserve(bytes)?;
        reservation.hold(bytes);
        Ok(Self(reservation))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.release(self.0.bytes());
    }
}

/// Marks a stripe as running; two runs of one stripe would share memory that was planned for one.
#[derive(Debug)]
struct Running {
    inner: Arc<Inner>,
    stripe: usize,
}

impl Running {
    fn enter(inner: &Arc<Inner>, stripe: u16) -> Result<Self> {
        let index = usize::from(stripe);
        let Some(running) = inner.running.get(index) else {
            let count = inner.running.len();
            return Err(Error::new(ErrorKind::Invalid, format!("stripe {stripe} of a pipeline with {count}")));
        };
        if running.swap(true, Ordering::AcqRel) {
            return Err(Error::new(ErrorKind::Conflict, format!("stripe {stripe} runs already")));
        }
        Ok(Self { inner: Arc::clone(inner), stripe: index })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(running) = self.inner.running.get(self.stripe) {
            running.store(false, Ordering::Release);
        }
    }
}

fn wrong_half() -> Error {
    Error::new(ErrorKind::Invalid, "the pipeline was planned for the other direction")
}
