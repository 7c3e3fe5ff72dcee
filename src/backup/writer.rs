//! `Backup`: a backup set that is being made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::commit;
use super::course::Course;
use super::feed;
use super::id::BackupId;
use super::intent::Intent;
use super::manifest::{Codec, Manifest, Producer};
use super::names::{MAX_STRIPES, Names, ObjectName, Series};
use super::options::{BackupOptions, TOOL};
use super::report::BackupReport;
use super::retention;
use super::segments::Segments;
use super::session::{Session, StripeTask};
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Direction, Input, Kept, Pipeline, Progress, StripeSummary};

/// A backup set that is being made: one to 64 stripes that become visible together, or not at all.
///
/// Three endings: [`Backup::commit`] makes it visible once every stripe is complete and durable; [`Backup::abort`] removes
/// everything of it; dropping it does what `abort` does in the background, where [`Store::wait_idle`] waits for it, and
/// [`Store::take_leftovers`] tells what could not be removed. It may be dropped on any thread: the background is the runtime
/// that it was begun in. If that has been shut down, what is stored stays for a collection. The first failure of any stripe
/// stops the others, and commit reports it.
#[derive(Debug)]
#[must_use = "a backup that is dropped is aborted"]
pub struct Backup {
    pub(super) session: Arc<Session>,
    intent: Intent,
    /// The key that a passphrase opens, encrypted.
    identity: Option<Bytes>,
    producer: Option<Producer>,
    stripes: Vec<Stripe>,
    /// What is stored of each stripe already.
    kept: Vec<Kept>,
    /// Where the clean-up runs if the backup is dropped elsewhere.
    runtime: Handle,
    started: Duration,
    is_ended: bool,
}

impl Backup {
    /// Begins a backup in `series` and records the intent.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] for a name, a number of stripes or a configuration that cannot work, and for a protection that has ended
    /// already; [`ErrorKind::NotFound`] or [`ErrorKind::Conflict`] if the backup that it continues is not there or being deleted; those
    /// of the store, by kind.
    /// Nothing is left behind then, unless the store has stopped answering; the log says so.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: a backup that was begun is aborted in the background. A store that does not answer holds that up for
    /// a few seconds only; [`Store::take_leftovers`] tells then that the intent may be left.
    pub async fn begin(store: &Store, series: &str, options: BackupOptions) -> Result<Self> {
        let series: Series = series.parse()?;
        if options.stripes == 0 || options.stripes > MAX_STRIPES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a backup has 1 to {MAX_STRIPES} stripes, not {}", options.stripes),
            ));
        }
        let runtime = Handle::try_current()
            .map_err(|error| Error::new(ErrorKind::Invalid, "a backup needs a Tokio runtime").with_source(error))?;
        if !options.kind.fits(options.parent) {
            return Err(Error::new(ErrorKind::Invalid, "a full backup continues no other: it has no parent"));
        }
        let clock = store.time();
        let created = clock.wall();
        if let Some(until) = options.keep_until.filter(|&until| until <= created) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "keep_until is {until}, which is not after now, {created}: it protects nothing; give a later time, or none"
                ),
            ));
        }
        let sealing = options.readers.prepare(store, options.pipeline.memory_limit).await?;
        let names = Names::new(series.clone(), BackupId::generate(created)).encrypted(sealing.is_some());
        let segments = Segments::new(store, names.clone());
        let level = options.pipeline.level;
        let (recipients, encryption, identity) = match sealing {
            None => (None, None, None),
            Some(sealing) => (Some(sealing.recipients), Some(sealing.encryption), sealing.identity),
        };
        let (objects, time) = (Arc::new(segments.clone()), Arc::clone(clock));
        let pipeline =
            Pipeline::backup(options.pipeline, options.stripes, objects, time, recipients, Direction::Backup)?;
        let intent = Intent {
            series,
            id: names.id(),
            created,
            tool: TOOL.to_owned(),
            host: options.host,
            labels: options.labels,
            kind: options.kind,
            parent: options.parent,
            keep_until: options.keep_until,
            stripes: options.stripes,
            level,
            frame_bytes: pipeline.plan().frame_bytes as u64,
            encryption,
        };
        let caller = Span::current();
        let session = Session::new(store.clone(), names, segments, pipeline, options.clean_up_timeout, &caller);
        let kept = vec![Kept::default(); usize::from(options.stripes)];
        let mut backup = Self::new(session, intent, kept, options.producer, runtime);
        backup.identity = identity.map(Bytes::from);
        // In a task of its own: if the caller goes away, the intent is written, the backup comes out of the task and is
        // dropped, which removes it.
        // It comes through a channel: the runtime drops the unwanted output of a task only after the task has ended, and then
        // `wait_idle` could return before the clean-up has begun.
        let (taker, begun) = oneshot::channel();
        let span = backup.session.span.clone();
        store.tasks().spawn(backup.record(taker).instrument(span));
        begun.await.map_err(|error| Error::new(ErrorKind::Internal, "beginning panicked").with_source(error))?
    }

    /// A backup whose stripes have nothing to do yet but to go on behind what is kept of them.
    pub(super) fn new(
        session: Session,
        intent: Intent,
        kept: Vec<Kept>,
        producer: Option<Producer>,
        runtime: Handle,
    ) -> Self {
        let started = session.store.time().now();
        Self {
            stripes: kept.iter().map(|_| Stripe::Waiting).collect(),
            session: Arc::new(session),
            intent,
            identity: None,
            producer,
            kept,
            runtime,
            started,
            is_ended: false,
        }
    }

    /// Records the intent, then hands the backup to `taker`, or drops it if nobody takes it.
    async fn record(self, mut taker: oneshot::Sender<Result<Self>>) {
        let clock = Arc::clone(self.session.store.time());
        let recorded = tokio::select! {
            biased;
            recorded = self.write_intent() => recorded,
            () = async {
                taker.closed().await;
                // A request that is answered leaves no doubt about what is there.
                clock.sleep(UNWANTED_GRACE).await;
            } => return self.session.note_unanswered_intent(),
        };
        let outcome = match recorded {
            Ok(()) => Ok(self),
            Err(error) => Err(self.give_up(error.context("cannot begin the backup")).await.0),
        };
        let _unwanted = taker.send(outcome);
    }

    async fn write_intent(&self) -> Result<()> {
        let name = self.session.names.intent();
        let content = self.intent.encode()?;
        self.session.store.create(&name, content.into()).await?;
        self.session.set_begun();
        if let Some(identity) = &self.identity {
            let name = self.session.names.of(&ObjectName::Identity);
            self.session.store.create(&name, identity.clone()).await?;
        }
        match self.intent.parent {
            Some(parent) => retention::check_parent(&self.session.store, &self.intent.series, parent).await,
            None => Ok(()),
        }
    }

    /// The id that the backup will have.
    pub fn id(&self) -> BackupId {
        self.intent.id
    }

    /// The series it will be in.
    pub fn series(&self) -> &Series {
        &self.intent.series
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u16 {
        self.intent.stripes
    }

    /// Raw bytes of each stripe that are stored already. All zero, unless the backup was resumed.
    ///
    /// A source has to go on behind them, or to start again after [`Backup::replay`].
    pub fn offsets(&self) -> Vec<u64> {
        self.kept.iter().map(|kept| kept.summary.raw_bytes).collect()
    }

    /// Says that the source of `stripe` starts again at the beginning of the stripe: what is stored already is then compared,
    /// and only the rest is stored. The backup fails with [`ErrorKind::Invalid`] if the source sends something else, and the
    /// message has the stripe and the offset of the first byte that differs.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if there is no such stripe or it was started before.
    pub fn replay(&mut self, stripe: u16) -> Result<()> {
        self.waiting(stripe)?;
        if let Some(kept) = self.kept.get_mut(usize::from(stripe)) {
            kept.is_replayed = true;
        }
        Ok(())
    }

    /// Stored bytes that were there when the backup was resumed.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept.iter().map(|kept| kept.summary.stored_bytes).sum()
    }

    /// Hands over what is stored of a stripe that starts.
    pub(super) fn kept(&self, stripe: u16) -> Kept {
        self.kept.get(usize::from(stripe)).cloned().unwrap_or_default()
    }

    /// The pipeline: its memory plan, its budget, its progress.
    pub fn pipeline(&self) -> &Pipeline {
        &self.session.pipeline
    }

    /// What was done so far.
    pub fn progress(&self) -> Progress {
        self.session.pipeline.progress()
    }

    /// Notes who produced the data, and how it ended.
    pub fn set_producer(&mut self, producer: Producer) {
        self.producer = Some(producer);
    }

    /// Starts `stripe` on a stream of its data. The stripe is complete only if the stream says so: one that just ends fails
    /// the backup.
    ///
    /// Must be called within a Tokio runtime: the stripe runs in a task of its own, tracked by the store.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`] if there is no such stripe or it was started before.
    pub fn stripe_input<S>(&mut self, stripe: u16, source: S) -> Result<()>
    where
        S: Stream<Item = Result<Input>> + Send + 'static,
    {
        let (session, kept) = (Arc::clone(&self.session), self.kept(stripe));
        self.start(stripe, None, session.run_stripe(stripe, kept, source))
    }

    /// Runs `stripe` as a task. For a writer, `is_shut_down` tells whether it was.
    pub(super) fn start(
        &mut self,
        stripe: u16,
        is_shut_down: Option<Arc<AtomicBool>>,
        run: impl Future<Output = Result<StripeSummary>> + Send + 'static,
    ) -> Result<()> {
        let run = run.instrument(self.session.span.clone());
        let tasks = self.session.store.tasks().clone();
        // Only one that waits may run: the task is spawned after that is known.
        let place = self.waiting(stripe)?;
        *place = Stripe::Running { task: tasks.spawn(run), is_shut_down };
        Ok(())
    }

    /// A stripe that nobody has started.
    fn waiting(&mut self, stripe: u16) -> Result<&mut Stripe> {
        let count = self.intent.stripes;
        match self.stripes.get_mut(usize::from(stripe)) {
            Some(place @ Stripe::Waiting) => Ok(place),
            Some(_) => Err(Error::new(ErrorKind::Invalid, format!("stripe {stripe} was started before"))),
            None => Err(Error::new(ErrorKind::Invalid, format!("there is no stripe {stripe}, only {count} from 0"))),
        }
    }

    /// Starts `stripe` on a reader. **Its end counts as complete**: use this only where something else tells whether the
    /// producer succeeded (an exit status, a length), and commit or abort by that.
    ///
    /// # Errors
    ///
    /// As [`Backup::stripe_input`].
    pub fn stripe_reader<R>(&mut self, stripe: u16, reader: R) -> Result<()>
    where
        R: AsyncRead + Send + 'static,
    {
        let source = feed::read_all(reader, self.session.pipeline.device_plan())?;
        self.stripe_input(stripe, source)
    }

    /// Waits until every stripe is complete and durable, or one has failed. `commit` does this too; call it to learn of a
    /// failure before deciding how to end.
    ///
    /// # Errors
    ///
    /// The first failure of any stripe; [`ErrorKind::Invalid`] if one was never started.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the stripes go on.
    pub async fn wait_stripes(&mut self) -> Result<()> {
        if let Some(cause) = self.session.cause() {
            return Err(cause);
        }
        if let Some(stripe) = self.stripes.iter().position(|stripe| matches!(stripe, Stripe::Waiting)) {
            return Err(Error::new(ErrorKind::Invalid, format!("stripe {stripe} was given no input")));
        }
        for stripe in &mut self.stripes {
            let Stripe::Running { task, .. } = stripe else { continue };
            let outcome = task.await;
            let outcome = outcome.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Internal, "a stripe's task panicked").with_source(error))
            });
            match outcome {
                Ok(summary) => *stripe = Stripe::Durable(summary),
                Err(error) => {
                    *stripe = Stripe::Failed;
                    return Err(self.session.fail(error));
                }
            }
        }
        match self.session.cause() {
            Some(cause) => Err(cause),
            None => Ok(()),
        }
    }

    /// Makes the backup visible, once every stripe is complete and durable.
    ///
    /// # Errors
    ///
    /// The first failure of any stripe, or that of writing the manifest; the backup is aborted and everything of it removed.
    /// Two exceptions: if it is in doubt whether the manifest was written ([`ErrorKind::Unavailable`], and the message says
    /// so), or if another manifest stands in its place ([`ErrorKind::Conflict`]), nothing is removed. Nor is it if another process
    /// has resumed and committed the backup, which is a conflict too, also if that was deleted since. Of an error after which there
    /// may be a backup, [`may_be_committed`](super::may_be_committed) is true.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe. Dropped while stripes still run, it aborts the backup. Dropped later, the manifest is still written
    /// in the background: after [`Store::wait_idle`], [`find`](super::find) tells.
    pub async fn commit(mut self) -> Result<BackupReport> {
        let ready = match self.check_writers() {
            Ok(()) => self.wait_stripes().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ready {
            return Err(self.give_up(error).await.0);
        }
        let mut stripes: Vec<StripeSummary> = Vec::new();
        for stripe in std::mem::take(&mut self.stripes) {
            match stripe {
                Stripe::Durable(summary) => stripes.push(summary),
                _ => return Err(Error::new(ErrorKind::Internal, "a stripe was lost")),
            }
        }
        let session = Arc::clone(&self.session);
        let clock = session.store.time();
        let manifest = Manifest {
            series: self.intent.series.clone(),
            id: self.intent.id,
            created: self.intent.created,
            finished: clock.wall(),
            tool: TOOL.to_owned(),
            host: self.intent.host.clone(),
            labels: self.intent.labels.clone(),
            kind: self.intent.kind,
            parent: self.intent.parent,
            keep_until: self.intent.keep_until,
            producer: self.producer.clone(),
            codec: session.pipeline.levels().map_or_else(|| Codec::zstd(self.intent.level), Codec::adaptive),
            encryption: self.intent.encryption.clone(),
            frame_bytes: self.intent.frame_bytes,
            writers: session.names.writers().complete(stripes.iter().map(|stripe| stripe.segments.len())),
            stripes,
            course: Some(Course::new(
                &session.pipeline.progress(),
                clock.now().saturating_sub(self.started),
                session.pipeline.plan().threads,
            )),
        };
        let started = self.started;
        let publish = {
            let session = Arc::clone(&session);
            async move {
                let manifest = commit::publish(&session, manifest).await?;
                session.meter.on_commit();
                Ok(BackupReport::new(&session, manifest, started))
            }
        };
        let task = session.store.tasks().spawn(publish.instrument(session.span.clone()));
        self.is_ended = true;
        let panicked = |error| Error::new(ErrorKind::Internal, "the commit panicked").with_source(error);
        task.await.map_err(|error| commit::sent(panicked(error)))?
    }

    /// Waiting for a writer that nobody shuts down would have no end.
    fn check_writers(&self) -> Result<()> {
        let is_open = |stripe: &Stripe| match stripe {
            Stripe::Running { is_shut_down: Some(is_shut_down), task } => {
                !is_shut_down.load(Ordering::Acquire) && !task.is_finished()
            }
            _ => false,
        };
        match self.session.cause() {
            Some(cause) => Err(cause),
            None => match self.stripes.iter().position(is_open) {
                Some(stripe) => Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the writer of stripe {stripe} was not shut down: shut every writer down, then commit"),
                )),
                None => Ok(()),
            },
        }
    }

    /// Gives the backup up and removes everything of it. `reason` is what its streams report.
    ///
    /// One that was resumed only ends its running uploads: what is stored stays, can be resumed again, and is removed by a
    /// collection otherwise.
    ///
    /// # Errors
    ///
    /// What could not be removed, or not within [`BackupOptions::clean_up_timeout`]; the rest was, and the intent stays so that
    /// a collection finds the remains.
    ///
    /// # Cancel safety
    ///
    /// Dropping it stops only the waiting: the removal goes on in the background, see [`Store::wait_idle`].
    pub async fn abort(self, reason: Error) -> Result<()> {
        self.give_up(reason).await.1
    }

    /// Stops everything and cleans up in a tracked task. The first cause, and the outcome of the cleaning.
    async fn give_up(mut self, cause: Error) -> (Error, Result<()>) {
        let cause = self.session.fail(cause);
        let clean_up = self.clean_up();
        let task = self.session.store.tasks().spawn(clean_up);
        self.is_ended = true;
        let outcome = task.await.unwrap_or_else(|error| {
            let error = Error::new(ErrorKind::Internal, "the clean-up panicked").with_source(error);
            Err(self.session.note_remains(error))
        });
        (cause, outcome)
    }

    fn clean_up(&mut self) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let session = Arc::clone(&self.session);
        let stripes = std::mem::take(&mut self.stripes);
        let span = session.span.clone();
        let work = async move {
            let running = stripes.into_iter().filter_map(|stripe| match stripe {
                Stripe::Running { task, .. } => Some(task),
                _ => None,
            });
            session.clean_up(running.collect()).await
        };
        work.instrument(span)
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        self.session.fail(Error::new(ErrorKind::Aborted, "the backup was dropped before its commit"));
        let clean_up = self.clean_up();
        // What it could not remove is with the store.
        let clean_up = async { drop(clean_up.await) };
        drop(self.session.store.tasks().spawn_on(clean_up, &self.runtime));
    }
}

/// How long the first request of a backup that nobody wants any more may still take.
const UNWANTED_GRACE: Duration = Duration::from_secs(1);

/// One stripe of a backup that is being made.
#[derive(Debug)]
enum Stripe {
    /// Nobody has given it a source yet.
    Waiting,
    Running {
        task: StripeTask,
        /// Of a writer: whether it was shut down.
        is_shut_down: Option<Arc<AtomicBool>>,
    },
    Durable(StripeSummary),
    /// Its error is the session's.
    Failed,
}
