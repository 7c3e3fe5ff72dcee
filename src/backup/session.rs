//! What the parts of one running backup share: where it writes, and the first reason to stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::manifest::Manifest;
use super::meter::Meter;
use super::names::Names;
use super::segments::Segments;
use super::store::Store;
use crate::clock::timeout;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Input, Kept, Pipeline, StripeSummary};
use crate::sync::Mutex;

/// A stripe's task.
pub(super) type StripeTask = JoinHandle<Result<StripeSummary>>;

/// After the backup failed, a stripe has this long to end in good order before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// The most that the clean-up of a backup whose intent was never answered may take. Such a store hangs, and there is nothing
/// but the intent to remove.
const UNBEGUN_CLEAN_UP: Duration = Duration::from_secs(5);

pub(super) struct Session {
    pub(super) store: Store,
    pub(super) names: Names,
    pub(super) segments: Segments,
    pub(super) pipeline: Pipeline,
    /// The store has answered that the intent is there.
    is_begun: AtomicBool,
    clean_up_timeout: Duration,
    /// What everything of the backup is traced in.
    pub(super) span: Span,
    pub(super) meter: Meter,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cause: Option<Error>,
    /// Tells the other side of the streams why they end.
    on_stop: Vec<OnStop>,
}

type OnStop = Box<dyn FnOnce(Error) + Send>;

impl Session {
    /// `caller` is the span in which the backup was asked for.
    pub(super) fn new(
        store: Store,
        names: Names,
        segments: Segments,
        pipeline: Pipeline,
        clean_up_timeout: Duration,
        caller: &Span,
    ) -> Self {
        let (is_begun, stop, state) = Default::default();
        let (series, id, stripes) = (names.series(), names.id(), pipeline.plan().stripes);
        let span = tracing::info_span!(parent: caller.id(), "backup", %series, %id, stripes);
        let meter = Meter::new(Arc::clone(store.time()));
        Self { store, names, segments, pipeline, is_begun, clean_up_timeout, span, meter, stop, state }
    }

    /// The intent is stored: from now on there is something to remove, at a store that answers.
    pub(super) fn set_begun(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
    }

    /// Stops the backup. The first cause stays; it is returned.
    pub(super) fn fail(&self, cause: Error) -> Error {
        let (first, told) = {
            let mut state = self.state.lock();
            let first = state.cause.get_or_insert(cause).clone();
            (first, std::mem::take(&mut state.on_stop))
        };
        self.stop.cancel();
        for tell in told {
            tell(first.clone());
        }
        first
    }

    /// Why the backup stopped, if it did.
    pub(super) fn cause(&self) -> Option<Error> {
        self.state.lock().cause.clone()
    }

    /// Calls `tell` with the cause when the backup stops; at once if it has.
    pub(super) fn on_stop(&self, tell: impl FnOnce(Error) + Send + 'static) {
        let cause = {
            let mut state = self.state.lock();
            match &state.cause {
                Some(cause) => cause.clone(),
                None => {
                    state.on_stop.push(Box::new(tell));
                    return;
                }
            }
        };
        tell(cause);
    }

    async fn stopped(&self) -> Error {
        self.stop.cancelled().await;
        self.cause().unwrap_or_else(|| Error::new(ErrorKind::Aborted, "the backup was given up"))
    }

    /// Runs one stripe to its end, behind what is kept of it. Its failure stops the others.
    pub(super) async fn run_stripe<S>(self: Arc<Self>, stripe: u16, kept: Kept, source: S) -> Result<StripeSummary>
    where
        S: Stream<Item = Result<Input>> + Send + 'static,
    {
        let mut is_complete = false;
        let outcome = {
            // The cause goes through the stream first, so that every answer that is still owed carries it.
            let stopped = stream::once(async { Err(self.stopped().await) });
            let source = stream::select(source.map(Some).chain(stream::iter([None])), stopped.map(Some))
                .take_while(|item| std::future::ready(item.is_some()))
                .filter_map(std::future::ready)
                .inspect(|item| is_complete |= matches!(item, Ok(Input::Complete(_))));
            // Told before the stripe cleans up: whatever comes in that time is not the first cause.
            let noticed = Arc::clone(&self);
            let on_failure = move |cause| drop(noticed.fail(cause));
            let run = self.pipeline.resume_stripe(stripe, kept, source, on_failure);
            tokio::select! {
                biased;
                outcome = run => outcome,
                cause = async {
                    let cause = self.stopped().await;
                    self.store.time().sleep(STOP_GRACE).await;
                    cause
                } => Err(cause),
            }
        };
        let outcome = match outcome {
            Ok(_) if !is_complete => Err(Error::new(
                ErrorKind::Aborted,
                format!("stripe {stripe} ended before its producer said that it is complete"),
            )),
            outcome => outcome,
        };
        outcome.map_err(|error| self.fail(error))
    }

    /// Before the commit: waits for requests that nobody waits for any more, for as long as a clean-up may take. What they can
    /// still do then is known to be harmless: an upload without parts, or the same bytes once more.
    pub(super) async fn settle(&self) {
        let clock = self.store.time();
        if timeout(clock.as_ref(), Some(self.clean_up_timeout), self.segments.settle()).await.is_err() {
            tracing::warn!(id = %self.names.id(), "a request of this backup hangs; its commit goes on without it");
            self.segments.abandon().await;
        }
    }

    /// After the commit of a backup that was resumed: removes what it does not consist of, as far as that goes.
    pub(super) async fn tidy(&self, manifest: &Manifest) {
        let clock = self.store.time();
        let tidied = timeout(clock.as_ref(), Some(self.clean_up_timeout), self.segments.tidy(manifest)).await;
        let left = |error: Error| {
            error.context(format!(
                "backup {} is committed; what an interrupted process left is not all removed",
                manifest.id
            ))
        };
        match tidied {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.store.note_leftovers(left(error)),
            Err(_elapsed) => self.store.note_leftovers(left(Error::new(
                ErrorKind::Unavailable,
                format!("the removal did not end within {:?}", self.clean_up_timeout),
            ))),
        }
    }

    /// After the commit: removes what was only a sign of life, as far as that goes. A collection removes what stays.
    pub(super) async fn end_signs(&self) {
        let clock = self.store.time();
        let ended = timeout(clock.as_ref(), Some(self.clean_up_timeout), self.segments.end_signs()).await;
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!(id = %self.names.id(), "the backup is committed, and its last sign of life stays");
        }
    }

    /// After the backup stopped: waits for its tasks and removes every object that it made. When its time is up, everything
    /// that still runs is ended, and what it would have removed stays.
    pub(super) async fn clean_up(&self, stripes: Vec<StripeTask>) -> Result<()> {
        let is_begun = self.is_begun.load(Ordering::Relaxed);
        let limit = match is_begun {
            true => self.clean_up_timeout,
            false => self.clean_up_timeout.min(UNBEGUN_CLEAN_UP),
        };
        let handles: Vec<AbortHandle> = stripes.iter().map(JoinHandle::abort_handle).collect();
        let work = async {
            for task in stripes {
                // Its error is the cause or follows from it; a panic was counted as one.
                let _ended = task.await;
            }
            self.pipeline.wait_idle().await;
            self.segments.remove_all(is_begun).await
        };
        let outcome = match timeout(self.store.time().as_ref(), Some(limit), work).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                handles.iter().for_each(AbortHandle::abort);
                self.segments.abandon().await;
                self.pipeline.wait_idle().await;
                Err(Error::new(ErrorKind::Unavailable, format!("the clean-up did not end within {limit:?}")))
            }
        };
        outcome.map_err(|error| self.note_remains(error))
    }

    /// Nobody waits for the request that records the intent any more. It may have its effect after the clean-up has looked.
    pub(super) fn note_unanswered_intent(&self) {
        self.note_remains(Error::new(ErrorKind::Unavailable, "the store did not answer the backup's first request"));
    }

    /// Something may be left, because of `error`: whoever asks the store is told.
    pub(super) fn note_remains(&self, error: Error) -> Error {
        let (id, directory) = (self.names.id(), self.store.show(&self.names.directory()));
        let remains = if self.names.writers().is_resumed() {
            format!(
                "backup {id} stays as it was, and running uploads below {directory} may be left; resume it again, or `vdstream gc` removes it later"
            )
        } else {
            format!(
                "backup {id} was given up, and objects or uploads below {directory} may be left; `vdstream gc` removes them later"
            )
        };
        let error = error.context(remains);
        tracing::warn!(error = %error.report(), "leftovers stay");
        self.store.note_leftovers(error.clone());
        error
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("names", &self.names).field("cause", &self.cause()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backup::id::BackupId;
    use crate::pipeline::PipelineConfig;

    #[test]
    fn whoever_asks_is_told_the_first_cause_once() {
        let store = Store::memory();
        let clock = Arc::clone(store.time());
        let names = Names::new(Default::default(), BackupId::generate(clock.wall()));
        let segments = Segments::new(&store, names.clone());
        let pipeline = Pipeline::for_backup(PipelineConfig::default(), 1, Arc::new(segments.clone()), clock).unwrap();
        let session = Session::new(store, names, segments, pipeline, Duration::ZERO, &Span::none());
        let (sender, receiver) = std::sync::mpsc::sync_channel(9);
        let early = sender.clone();
        session.on_stop(move |cause| early.send(cause.to_string()).unwrap());
        for message in ["first", "second"] {
            let cause = session.fail(Error::new(ErrorKind::Aborted, message));
            assert_eq!(cause.to_string(), "first");
        }
        session.on_stop(move |cause| sender.send(cause.to_string()).unwrap());
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["first", "first"]);
    }
}
