//! A process that goes on with a backup which another one has begun.
//!
//! The manual page on the commit walks through what the two can do to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::try_join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::catalog;
use super::claim::{Claim, Purpose};
use super::dating::is_ahead;
use super::document::corrupt;
use super::id::BackupId;
use super::intent::Intent;
use super::meter::ResumeMeter;
use super::names::{MAX_CLAIMS, MAX_STRIPES, Names, ObjectName, Series};
use super::options::ResumeOptions;
use super::resume_watch::ResumeWatch;
use super::segments::{self, Segments};
use super::session::Session;
use super::store::{Seen, Store};
use super::writer::Backup;
use super::writers::{Run, Writers};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{Direction, Kept, Pipeline, PipelineConfig, SegmentId, StripeSummary};

impl Backup {
    /// Goes on with a backup of `series` that was begun and not committed, by this process or another one, which may have
    /// crashed.
    ///
    /// Segments that are whole are kept, as far as they follow each other from the first of their stripe on. Each is read once and
    /// verified completely, and [`ResumeOptions::watch`] tells how far that is; a damaged one and what follows it is stored again.
    /// [`Backup::offsets`] tells how far each stripe is. Running uploads of the process before are ended, so it fails if it still
    /// lives; should it commit all the same before this one does, this one fails, and the backup is whole.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if no such backup was begun; [`ErrorKind::Conflict`] if it is complete, is being removed, shows signs of
    /// life younger than [`ResumeOptions::silence`], or is resumed by another process; [`ErrorKind::Invalid`] if it is
    /// encrypted, if the store does not keep to create-only puts, or if the configuration does not fit; those of the store, by kind.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: it may have taken the backup over. Then that is given up in the background, and the backup can be resumed
    /// again; [`Store::wait_idle`] sees the end.
    pub async fn resume(store: &Store, series: &str, id: BackupId, options: ResumeOptions) -> Result<Self> {
        let series: Series = series.parse()?;
        let runtime = Handle::try_current()
            .map_err(|error| Error::new(ErrorKind::Invalid, "a backup needs a Tokio runtime").with_source(error))?;
        let names = Names::new(series, id);
        // As when a backup begins: if the caller goes away, the backup comes out of the task and is dropped.
        let (taker, resumed) = oneshot::channel();
        let (caller, span) = (Span::current(), tracing::info_span!("resume", series = %names.series(), %id));
        let work = take_over(store.clone(), names, options, runtime, caller, taker);
        store.tasks().spawn(work.instrument(span));
        resumed.await.map_err(|error| Error::new(ErrorKind::Internal, "resuming panicked").with_source(error))?
    }
}

async fn take_over(
    store: Store,
    names: Names,
    options: ResumeOptions,
    runtime: Handle,
    caller: Span,
    mut taker: oneshot::Sender<Result<Backup>>,
) {
    let (id, meter) = (names.id(), ResumeMeter::new(Arc::clone(store.time())));
    let failed = |error: Error| error.context(format!("cannot resume backup {id}"));
    let claimed = async {
        let (intent, last) = look(&store, &names, &options).await?;
        let claim = Claim::new(&store, &names, last + 1, Purpose::Resume);
        claim.write(&store, &names).await.map_err(taken)?;
        Ok((intent, claim.number))
    };
    let (intent, claim) = match claimed.await {
        Ok(claimed) => claimed,
        Err(error) => {
            meter.on_failure();
            return drop(taker.send(Err(failed(error))));
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = go_on(&store, &names, &intent, options, runtime, &caller, claim) => outcome,
        () = taker.closed() => Err(Error::new(ErrorKind::Aborted, "nobody waits for the backup any more")),
    };
    let outcome = match outcome {
        Ok(backup) => {
            meter.on_resumed(backup.kept_bytes());
            Ok(backup)
        }
        Err(error) => {
            meter.on_failure();
            if let Err(error) = segments::release(&store, &names, claim).await {
                tracing::warn!(%id, error = %error.report(), "the backup cannot be resumed at once");
            }
            Err(failed(error))
        }
    };
    // Dropped here if nobody takes it, while this task still counts.
    drop(taker.send(outcome));
}

/// What is known before anything is written: the intent, and the number of the last claim.
async fn look(store: &Store, names: &Names, options: &ResumeOptions) -> Result<(Intent, u32)> {
    let intent = catalog::intent(store, names.series(), names.id()).await?;
    check_intent(store, names, &intent)?;
    let found = Found::list(store, names).await?;
    found.check()?;
    let mut needs_silence = true;
    if let Some(last) = found.claims.last() {
        match Claim::read(store, names, *last).await?.purpose {
            Purpose::Remove => return Err(removed()),
            Purpose::Release => needs_silence = false,
            Purpose::Resume | Purpose::Continue => {}
        }
    }
    if needs_silence
        && !options.silence.is_zero()
        && let Some(newest) = found.newest
    {
        // The signs are dated by the store. A machine whose clock is ahead of it would take over what lives.
        let skew = store.skew().await.map_err(|error| error.context("cannot ask the store for its time"))?;
        let now = store.time().wall().checked_add(skew).unwrap_or(Timestamp::MAX);
        let needed = SignedDuration::try_from(options.silence).unwrap_or(SignedDuration::MAX);
        let latest = now.checked_add(needed).unwrap_or(Timestamp::MAX);
        let silence = now.duration_since(newest_until(store, names, newest, latest).await?);
        if silence < needed {
            let (seconds, needed) = (silence.as_secs(), needed.as_secs());
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "it was written to {seconds} s ago, and seems to be running; after {needed} s without a sign of life it \
                     can be resumed"
                ),
            ));
        }
    }
    if !store.create_only().await? {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{store} ignores create-only writes, or does not know them, so two processes could go on with one backup; \
                 begin a new one"
            ),
        ));
    }
    Ok((intent, found.claims.last().copied().unwrap_or(0)))
}

/// The newest sign of life that is not too far ahead: on local disk a clock may have been wrong that is right now, and would be waited
/// for.
async fn newest_until(store: &Store, names: &Names, newest: Timestamp, latest: Timestamp) -> Result<Timestamp> {
    if !store.shares_clock() || !is_ahead(newest, latest) {
        return Ok(newest);
    }
    let see = |newest: &mut Option<Timestamp>, seen: Seen| {
        *newest = (*newest).max(Some(seen.modified).filter(|sign| !is_ahead(*sign, latest)));
    };
    Ok(store.fold(&names.directory(), see).await?.unwrap_or(Timestamp::MIN))
}

fn check_intent(store: &Store, names: &Names, intent: &Intent) -> Result<()> {
    let object = || store.show(&names.intent());
    if (intent.id, &intent.series) != (names.id(), names.series()) {
        let found = format!("{}/{}", intent.series, intent.id);
        return Err(corrupt(&object(), "backup", names.directory(), found));
    }
    if intent.stripes == 0 || intent.stripes > MAX_STRIPES {
        return Err(corrupt(&object(), "stripes", format!("1 to {MAX_STRIPES}"), intent.stripes));
    }
    if intent.encryption.is_some() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "it is encrypted, and what is stored of it cannot be checked without its private key; begin a new one",
        ));
    }
    Ok(())
}

/// What a listing shows of the backup.
#[derive(Debug, Default)]
struct Found {
    is_complete: bool,
    is_removed: bool,
    has_intent: bool,
    has_too_many: bool,
    /// In order.
    claims: BTreeSet<u32>,
    /// By segment and claim: the size of each object.
    segments: BTreeMap<(SegmentId, u32), u64>,
    newest: Option<Timestamp>,
}

impl Found {
    async fn list(store: &Store, names: &Names) -> Result<Self> {
        let see = |found: &mut Self, object: Seen| found.see(names, &object);
        store.fold(&names.directory(), see).await
    }

    fn see(&mut self, names: &Names, object: &Seen) {
        self.newest = self.newest.max(Some(object.modified));
        let Some(name) = names.parse(&object.name) else { return };
        match name {
            ObjectName::Manifest => self.is_complete = true,
            ObjectName::Deleted(_) | ObjectName::Collected(_) => self.is_removed = true,
            ObjectName::Intent => self.has_intent = true,
            ObjectName::Claim(number) => drop(self.claims.insert(number)),
            _ => match name.as_segment() {
                Some(_) if self.segments.len() >= MOST_SEGMENTS => self.has_too_many = true,
                Some(segment) => drop(self.segments.insert(segment, object.bytes)),
                None => {}
            },
        }
    }

    /// The segments of `runs` and their sizes, up to the first that is missing.
    fn in_order(&self, names: &Names, stripe: u16, runs: &[Run]) -> impl Iterator<Item = (SegmentId, u64)> {
        let count: u32 = runs.iter().map(|run| run.segments).sum();
        (0..count).map_while(move |index| {
            let id = SegmentId { stripe, index };
            self.segments.get(&(id, names.writers().of(id))).map(|bytes| (id, *bytes))
        })
    }

    fn check(&self) -> Result<()> {
        if self.is_complete {
            return Err(Error::new(ErrorKind::Conflict, "it is complete already"));
        }
        if self.is_removed {
            return Err(removed());
        }
        if self.has_too_many {
            let message = format!("it has more than {MOST_SEGMENTS} segments, of all processes; begin a new one");
            return Err(Error::new(ErrorKind::Exhausted, message));
        }
        Ok(())
    }
}

/// Segments that are kept of a listing: those of the largest backup, stored anew several times. They take some 50 MB of memory.
const MOST_SEGMENTS: usize = 1_000_000;

/// With the claim in hand: what is kept, and the backup that goes on behind it.
async fn go_on(
    store: &Store,
    names: &Names,
    intent: &Intent,
    options: ResumeOptions,
    runtime: Handle,
    caller: &Span,
    claim: u32,
) -> Result<Backup> {
    // Nobody else can have taken it since, so what is seen now counts.
    let found = Found::list(store, names).await?;
    found.check()?;
    if !found.has_intent {
        return Err(removed());
    }
    // Here as with the segments: whoever wrote it may have died before it was sure to stay.
    store.settle(&names.intent()).await?;
    let mut config = options.pipeline;
    (config.level, config.adaptive) = (intent.level, None);
    config.frame_bytes = usize::try_from(intent.frame_bytes).unwrap_or(usize::MAX);
    // What was begun before is ended here, so its process cannot get far any more.
    segments::end_uploads(store, names, |other| other < claim).await?;
    let runs = runs(store, names, intent.stripes, &found, claim).await?;
    let writers = Writers::new(runs.clone(), claim);
    let stored = names.clone().written_by(writers);
    let summaries = survey(store, &stored, config.clone(), &found, &runs, &options.watch).await?;

    let kept = runs.iter().zip(&summaries).map(|(runs, summary)| cut(runs, summary.segments.len())).collect();
    let number = claim + 1;
    if number > MAX_CLAIMS {
        return Err(Error::new(ErrorKind::Exhausted, format!("it was resumed {MAX_CLAIMS} times; begin a new one")));
    }
    let go_on = Claim { kept, ..Claim::new(store, names, number, Purpose::Continue) };
    go_on.write(store, names).await.map_err(taken)?;
    let names = names.clone().written_by(Writers::new(go_on.kept, number));
    let count = summaries.iter().map(|summary| summary.segments.len()).sum();
    let segments = Segments::resumed(store, names.clone(), count);
    let objects = Arc::new(segments.clone());
    let clock = Arc::clone(store.time());
    let pipeline = Pipeline::backup(config, intent.stripes, objects, clock, None, Direction::Resume);
    let pipeline = match pipeline {
        Ok(pipeline) => pipeline,
        Err(error) => {
            if let Err(error) = segments::release(store, &names, number).await {
                tracing::warn!(id = %names.id(), error = %error.report(), "the backup cannot be resumed at once");
            }
            return Err(error);
        }
    };
    let session = Session::new(store.clone(), names, segments, pipeline, options.clean_up_timeout, caller);
    session.set_begun();
    let kept = summaries.into_iter().map(|summary| Kept { summary, is_replayed: false }).collect();
    Ok(Backup::new(session, intent.clone(), kept, options.producer, runtime))
}

/// The segments of each stripe that follow each other from the first on, by who stored them: what the last process that
/// went on kept, and its own behind that.
async fn runs(store: &Store, names: &Names, stripes: u16, found: &Found, claim: u32) -> Result<Vec<Vec<Run>>> {
    let mut last = None;
    for number in found.claims.range(..claim).rev() {
        let earlier = Claim::read(store, names, *number).await?;
        if earlier.purpose == Purpose::Continue {
            last = Some(earlier);
            break;
        }
    }
    let (mut kept, owner) = match last {
        Some(last) => (last.kept, last.number),
        None => (vec![Vec::new(); usize::from(stripes)], 0),
    };
    if kept.len() != usize::from(stripes) {
        let object = store.show(&names.of(&ObjectName::Claim(owner)));
        return Err(corrupt(&object, "kept", format!("{stripes} stripes"), kept.len()));
    }
    for (stripe, runs) in (0..).zip(&mut kept) {
        let start: u32 = runs.iter().map(|run| run.segments).sum();
        let own =
            (start..).take_while(|index| found.segments.contains_key(&(SegmentId { stripe, index: *index }, owner)));
        let segments = u32::try_from(own.count()).unwrap_or(u32::MAX);
        if segments > 0 {
            runs.push(Run { claim: owner, segments });
        }
    }
    Ok(kept)
}

/// Reads what is to be kept, and makes sure that it stays: what is seen of a process that died may not outlive a crash. A segment that
/// is damaged or missing ends what is kept of its stripe.
async fn survey(
    store: &Store,
    names: &Names,
    config: PipelineConfig,
    found: &Found,
    runs: &[Vec<Run>],
    watch: &ResumeWatch,
) -> Result<Vec<StripeSummary>> {
    let stripes = u16::try_from(runs.len()).unwrap_or(u16::MAX);
    let bytes_of =
        |stripe, runs: &[Run]| found.in_order(names, stripe, runs).map(|(_, bytes)| bytes).fold(0, u64::saturating_add);
    // A listing may claim any size.
    watch.begin((0..).zip(runs).map(|(stripe, runs)| bytes_of(stripe, runs)).fold(0, u64::saturating_add));
    let objects = Arc::new(Segments::new(store, names.clone()));
    let pipeline = &Pipeline::restore(config, stripes, objects, Arc::clone(store.time()), false, None)?;
    let stripe = async |stripe: u16, runs: &Vec<Run>| {
        let mut summary = StripeSummary::default();
        let mut left = bytes_of(stripe, runs);
        for (id, bytes) in found.in_order(names, stripe, runs) {
            let on_read = |bytes: u64| {
                left = left.saturating_sub(bytes);
                watch.read(bytes);
            };
            let segment = match pipeline.survey(id, bytes, on_read).await {
                Ok(segment) => segment,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::warn!(error = %error.report(), "a damaged segment and what follows it is stored again");
                    break;
                }
                Err(error) => return Err(error),
            };
            store.settle(&names.segment(id)).await?;
            let raw_offset = summary.raw_bytes;
            summary.raw_bytes += segment.raw_bytes;
            summary.stored_bytes += segment.stored_bytes;
            summary.segments.push(crate::pipeline::SegmentSummary { raw_offset, ..segment });
        }
        watch.spare(left);
        Ok(summary)
    };
    let stripes = (0..).zip(runs).map(|(number, runs): (u16, _)| {
        let span = tracing::debug_span!("stripe", stripe = number);
        stripe(number, runs).instrument(span)
    });
    let summaries = try_join_all(stripes).await;
    // The memory is free again before the next pipeline is planned.
    pipeline.wait_idle().await;
    summaries
}

/// The first `segments` of `runs`.
fn cut(runs: &[Run], segments: usize) -> Vec<Run> {
    let mut left = u32::try_from(segments).unwrap_or(u32::MAX);
    let mut kept = Vec::new();
    for run in runs {
        let segments = run.segments.min(left);
        left -= segments;
        if segments > 0 {
            kept.push(Run { segments, ..*run });
        }
    }
    kept
}

fn removed() -> Error {
    Error::new(ErrorKind::Conflict, "it is being removed; begin a new one")
}

/// The number of the claim was taken meanwhile.
fn taken(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Conflict => Error::new(ErrorKind::Conflict, "another process goes on with it").with_source(error),
        _ => error,
    }
}
