//! One segment on its way into the store: a single put if it is small, else a multipart upload.
//!
//! A task owns the upload from its beginning to its end, so whatever happens to the stripe (an error, a dropped
//! future), that task, and nobody else, completes the upload or aborts it.

use std::sync::Arc;
use std::time::Duration;

use blake3::Hash;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::cpu::joined;
use super::encrypt::seal::Part;
use super::request::{Operation, Request};
use super::segment::{SegmentId, SegmentUpload};
use super::stop::{Stop, StopOnPanic};
use super::tree::{self, Piece};
use super::writer::Shared;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};

/// The packer's end of an upload. Dropping it without [`Uploader::last`] makes the task give up and clean up.
#[derive(Debug)]
pub(super) struct Uploader {
    parts: mpsc::Sender<Message>,
    task: JoinHandle<Result<Uploaded>>,
}

/// A segment that is durable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uploaded {
    pub(super) stored_bytes: u64,
    pub(super) stored_hash: Hash,
}

#[derive(Debug)]
enum Message {
    /// A full part; more follow.
    Part(Part),
    /// The end of the segment.
    Last(Part),
}

impl Uploader {
    pub(super) fn start(shared: &Arc<Shared>, segment: SegmentId, stop: Arc<Stop>) -> Self {
        // The bound of parts in flight is the number of part slots; the channel only hands over.
        let (parts, messages) = mpsc::channel(1);
        let task =
            Task { shared: Arc::clone(shared), segment, stop, upload: None, parts: JoinSet::new(), newest: None };
        let span = tracing::debug_span!("segment", segment = segment.index);
        Self { parts, task: shared.tracker.spawn(task.run(messages).instrument(span)) }
    }

    pub(super) async fn part(&self, shared: &Shared, part: Part) -> Result<()> {
        self.send(shared, Message::Part(part)).await
    }

    /// Sends the rest of the segment.
    pub(super) async fn last(&self, shared: &Shared, part: Part) -> Result<()> {
        self.send(shared, Message::Last(part)).await
    }

    /// The task, whose answer comes when the segment is durable.
    pub(super) fn into_task(self) -> JoinHandle<Result<Uploaded>> {
        self.task
    }

    /// Lets go of the upload and waits until nothing of it is left.
    pub(super) async fn abandon(self) {
        drop(self.parts);
        // Its error is in the stripe's `Stop` already.
        let _ended = self.task.await;
    }

    /// Parts are still taken.
    #[cfg(test)]
    pub(super) fn is_open(&self) -> bool {
        !self.parts.is_closed()
    }

    /// Waits while the upload is being begun; parts that are on their way hold nothing up here.
    async fn send(&self, shared: &Shared, message: Message) -> Result<()> {
        let sent = shared.counters.store_wait.of(&*shared.clock, self.parts.send(message)).await;
        // The task ends early only by stopping the stripe, whose cause is reported.
        sent.map_err(|_refused| given_up())
    }
}

struct Task {
    shared: Arc<Shared>,
    segment: SegmentId,
    stop: Arc<Stop>,
    upload: Option<Arc<dyn SegmentUpload>>,
    parts: JoinSet<Result<HashedPart>>,
    /// Cancelled when the newest part was sent for the first time, or never will be.
    newest: Option<CancellationToken>,
}

/// A part that is stored, and its place.
type HashedPart = (u32, Vec<Piece>);

impl Task {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<Uploaded> {
        // Who finds that nobody takes parts any more knows no cause, so that comes first: of a panic too, because this goes before
        // `messages`.
        let _guard = StopOnPanic(Arc::clone(&self.stop));
        let outcome = self.drive(&mut messages).await;
        if let Err(error) = &outcome {
            self.stop.fail(error.clone());
            drop(messages);
            self.clean_up().await;
        }
        outcome
    }

    async fn drive(&mut self, messages: &mut mpsc::Receiver<Message>) -> Result<Uploaded> {
        let mut hashed: Vec<HashedPart> = Vec::new();
        let mut sent = 0_u32;
        let mut stored_bytes = 0_u64;
        loop {
            let message = tokio::select! {
                biased;
                cause = self.stop.stopped() => return Err(cause),
                Some(part) = self.parts.join_next() => {
                    hashed.push(part.map_err(joined)??);
                    continue;
                }
                message = messages.recv() => message.ok_or_else(given_up)?,
            };
            match message {
                Message::Last(part) if self.upload.is_none() => {
                    let stored_bytes = part.len() as u64;
                    let stored_hash = self.put(part).await?;
                    return Ok(Uploaded { stored_bytes, stored_hash });
                }
                Message::Part(part) => {
                    stored_bytes += part.len() as u64;
                    self.send_part(sent, part).await?;
                    sent += 1;
                }
                Message::Last(part) => {
                    stored_bytes += part.len() as u64;
                    self.send_part(sent, part).await?;
                    sent += 1;
                    break;
                }
            }
        }
        while hashed.len() < sent as usize {
            let part = tokio::select! {
                biased;
                cause = self.stop.stopped() => return Err(cause),
                Some(part) = self.parts.join_next() => part,
                else => return Err(Error::new(ErrorKind::Internal, "a part was lost")),
            };
            hashed.push(part.map_err(joined)??);
        }
        self.complete(sent, stored_bytes).await?;
        hashed.sort_unstable_by_key(|(index, _)| *index);
        let pieces: Vec<Piece> = hashed.into_iter().flat_map(|(_, pieces)| pieces).collect();
        Ok(Uploaded { stored_bytes, stored_hash: merge(&pieces) })
    }

    /// Stores the whole segment at once.
    async fn put(&self, part: Part) -> Result<Hash> {
        let shared = &self.shared;
        let bytes = self.unless_stopped(part.ready(&shared.cpu)).await?;
        let mut hash = shared.hash_part(0, &bytes);
        let what = format!("put {}", self.segment);
        let size = bytes.len() as u64;
        let put = shared
            .requests
            .run(Request::new(Operation::Put, &what, size), || shared.store.put(self.segment, vec![bytes.clone()]));
        self.unless_stopped(put).await?;
        shared.counters.add_stored(&*shared.clock, size);
        Ok(merge(&hash.wait().await?))
    }

    /// Parts are sent side by side, each for the first time when the one before it is on its way. A store may be able to take one
    /// only then; sent earlier, it would hold the place in flight that the other waits for.
    async fn send_part(&mut self, index: u32, part: Part) -> Result<()> {
        let upload = match &self.upload {
            Some(upload) => Arc::clone(upload),
            None => {
                let upload = self.begin().await?;
                self.upload = Some(Arc::clone(&upload));
                upload
            }
        };
        let shared = Arc::clone(&self.shared);
        let (segment, stop) = (self.segment, Arc::clone(&self.stop));
        let sent = CancellationToken::new();
        let before = self.newest.replace(sent.clone());
        let upload_part = async move {
            let _guard = sent.clone().drop_guard();
            let bytes = part.ready(&shared.cpu).await?;
            // Hashing runs beside the upload, so it costs no time.
            let mut hash = shared.hash_part(index, &bytes);
            let what = format!("put part {index} of {segment}");
            let size = bytes.len() as u64;
            let request =
                Request { stop: Some(&stop), after: before.as_ref(), ..Request::new(Operation::Part, &what, size) };
            let attempt = || {
                let (mut put, sent) = (upload.put_part(index, vec![bytes.clone()]), &sent);
                std::future::poll_fn(move |cx| {
                    let polled = put.as_mut().poll(cx);
                    sent.cancel();
                    polled
                })
            };
            shared.requests.run(request, attempt).await?;
            shared.counters.add_stored(&*shared.clock, size);
            Ok((index, hash.wait().await?))
        };
        self.parts.spawn(self.shared.tracker.track_future(upload_part.in_current_span()));
        Ok(())
    }

    /// Starts the upload. An attempt in flight is never dropped when the stripe stops: its answer is what can be aborted.
    async fn begin(&self) -> Result<Arc<dyn SegmentUpload>> {
        let what = format!("begin {}", self.segment);
        let request = Request { stop: Some(&self.stop), ..Request::new(Operation::Begin, &what, 0) };
        let upload = self.shared.requests.run(request, || self.shared.store.begin(self.segment)).await?;
        Ok(Arc::from(upload))
    }

    async fn complete(&self, parts: u32, bytes: u64) -> Result<()> {
        let Some(upload) = &self.upload else { return Err(Error::new(ErrorKind::Internal, "no upload to complete")) };
        let what = format!("complete {}", self.segment);
        let request = Request { work: completion_time(parts, bytes), ..Request::new(Operation::Complete, &what, 0) };
        let complete = self.shared.requests.run(request, || upload.complete(parts, bytes));
        self.unless_stopped(complete).await
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            cause = self.stop.stopped() => Err(cause),
            outcome = work => outcome,
        }
    }

    /// Removes what was stored. Parts end first: one that is dropped on its way may arrive after the abort.
    async fn clean_up(&mut self) {
        let parts = &mut self.parts;
        let ending = async { while parts.join_next().await.is_some() {} };
        if clock::timeout(&*self.shared.clock, Some(PARTS_END), ending).await.is_err() {
            self.parts.shutdown().await;
        }
        let Some(upload) = self.upload.take() else { return };
        let what = format!("abort {}", self.segment);
        let request = Request { attempts: Some(CLEAN_UP_ATTEMPTS), ..Request::new(Operation::Abort, &what, 0) };
        if let Err(error) = self.shared.requests.run(request, || upload.abort()).await {
            // The first error is what the caller must see; a later collection finds the leftovers.
            tracing::warn!(segment = %self.segment, error = %error.report(), "an aborted upload may have left parts behind");
        }
    }
}

fn merge(pieces: &[Piece]) -> Hash {
    let entries: Vec<_> = pieces.iter().map(|piece| piece.entry(pieces.len())).collect();
    tree::merge(&entries)
}

fn given_up() -> Error {
    Error::new(ErrorKind::Aborted, "the segment was given up")
}

/// What a store may need to join parts beside the time that every attempt has: some look at each part, some copy them.
pub(crate) fn completion_time(parts: u32, bytes: u64) -> Duration {
    PART_JOIN_TIME.saturating_mul(parts).saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / JOIN_RATE))
}

const PART_JOIN_TIME: Duration = Duration::from_millis(50);

/// Bytes per second.
const JOIN_RATE: u64 = 16 << 20;

/// After a failure, parts that are on their way have this long to arrive.
const PARTS_END: Duration = Duration::from_secs(3);

/// A store that fails is likely to fail the clean-up too; the caller waits for it.
const CLEAN_UP_ATTEMPTS: u32 = 4;
