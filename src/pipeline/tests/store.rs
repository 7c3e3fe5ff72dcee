//! A segment store in memory that records what happens and misbehaves on request.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{SegmentId, SegmentStore, SegmentUpload};
use crate::sync::Mutex;

/// One operation, as faults and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Op {
    Put,
    Begin,
    Part(u32),
    Complete,
    Abort,
    Read,
}

/// What an operation does instead of succeeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Fail(ErrorKind),
    /// The effect happens, the answer is an error.
    LostAnswer,
    Hang,
}

type Rule = dyn Fn(SegmentId, Op, usize) -> Option<Fault> + Send + Sync;

pub(super) struct State {
    pub(super) objects: Mutex<BTreeMap<SegmentId, Bytes>>,
    uploads: Mutex<HashMap<SegmentId, BTreeMap<u32, Bytes>>>,
    attempts: Mutex<HashMap<(SegmentId, Op), usize>>,
    pub(super) log: Mutex<Vec<(SegmentId, Op)>>,
    pub(super) in_flight: AtomicUsize,
    pub(super) most_in_flight: AtomicUsize,
    pub(super) part_sizes: Mutex<Vec<(SegmentId, u32, usize)>>,
    rule: Box<Rule>,
}

#[derive(Clone)]
pub(super) struct MemoryStore {
    pub(super) state: Arc<State>,
    pub(super) min_part_bytes: u64,
    pub(super) max_parts: u32,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl MemoryStore {
    pub(super) fn new() -> Self {
        Self::with_faults(|_, _, _| None)
    }

    /// `rule` is asked with the segment, the operation, and how often it was tried before.
    pub(super) fn with_faults(rule: impl Fn(SegmentId, Op, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::new(State {
                objects: Mutex::default(),
                uploads: Mutex::default(),
                attempts: Mutex::default(),
                log: Mutex::default(),
                in_flight: AtomicUsize::new(0),
                most_in_flight: AtomicUsize::new(0),
                part_sizes: Mutex::default(),
                rule: Box::new(rule),
            }),
            min_part_bytes: 1,
            max_parts: 10_000,
        }
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.state.uploads.lock().len()
    }

    pub(super) fn count(&self, wanted: impl Fn(Op) -> bool) -> usize {
        self.state.log.lock().iter().filter(|(_, op)| wanted(*op)).count()
    }

    /// All objects of a stripe in order.
    pub(super) fn objects(&self, stripe: u16) -> Vec<Bytes> {
        let objects = self.state.objects.lock();
        objects.iter().filter(|(id, _)| id.stripe == stripe).map(|(_, bytes)| bytes.clone()).collect()
    }
}

impl State {
    async fn perform<T>(&self, id: SegmentId, op: Op, effect: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let before = {
            let mut attempts = self.attempts.lock();
            let count = attempts.entry((id, op)).or_default();
            *count += 1;
            *count - 1
        };
        let flying = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(flying, Ordering::SeqCst);
        let _landed = Landed(&self.in_flight);
        tokio::task::yield_now().await;
        self.log.lock().push((id, op));
        match (self.rule)(id, op, before) {
            None => effect(),
            Some(Fault::Fail(kind)) => Err(Error::new(kind, "injected")),
            Some(Fault::LostAnswer) => effect().and(Err(Error::new(ErrorKind::Unavailable, "answer lost"))),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }
}

struct Landed<'a>(&'a AtomicUsize);

impl Drop for Landed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SegmentStore for MemoryStore {
    fn min_part_bytes(&self) -> u64 {
        self.min_part_bytes
    }

    fn max_parts(&self) -> u32 {
        self.max_parts
    }

    async fn put(&self, segment: SegmentId, payload: Vec<Bytes>) -> Result<()> {
        let object = Bytes::from(payload.concat());
        drop(payload);
        self.state
            .perform(segment, Op::Put, || {
                let old = self.state.objects.lock().insert(segment, object.clone());
                assert!(old.is_none_or(|old| old == object), "{segment} was put twice with different content");
                Ok(())
            })
            .await
    }

    async fn begin(&self, segment: SegmentId) -> Result<Box<dyn SegmentUpload>> {
        self.state
            .perform(segment, Op::Begin, || {
                self.state.uploads.lock().insert(segment, BTreeMap::new());
                Ok(())
            })
            .await?;
        Ok(Box::new(Upload { store: self.clone(), segment }))
    }

    async fn read(&self, segment: SegmentId, range: Range<u64>) -> Result<Bytes> {
        let object = self.state.objects.lock().get(&segment).cloned();
        self.state
            .perform(segment, Op::Read, || {
                let object = object.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such segment"))?;
                let (start, end) = (range.start as usize, range.end as usize);
                if end > object.len() {
                    return Err(Error::new(ErrorKind::Corrupt, format!("{segment}: short")));
                }
                Ok(Bytes::copy_from_slice(&object[start..end]))
            })
            .await
    }
}

#[derive(Debug)]
struct Upload {
    store: MemoryStore,
    segment: SegmentId,
}

#[async_trait]
impl SegmentUpload for Upload {
    async fn put_part(&self, index: u32, payload: Vec<Bytes>) -> Result<()> {
        let part = Bytes::from(payload.concat());
        let state = &self.store.state;
        state
            .perform(self.segment, Op::Part(index), || {
                state.part_sizes.lock().push((self.segment, index, part.len()));
                let mut uploads = state.uploads.lock();
                let upload = uploads.get_mut(&self.segment).expect("parts arrive only while the upload is open");
                upload.insert(index, part);
                Ok(())
            })
            .await
    }

    async fn complete(&self, parts: u32, bytes: u64) -> Result<()> {
        let state = &self.store.state;
        state
            .perform(self.segment, Op::Complete, || {
                let Some(upload) = state.uploads.lock().remove(&self.segment) else {
                    assert!(state.objects.lock().contains_key(&self.segment), "completed before");
                    return Ok(());
                };
                assert!(upload.keys().copied().eq(0..parts), "parts {:?} of {parts}", upload.keys());
                let object: Vec<u8> = upload.into_values().flatten().collect();
                assert_eq!(object.len() as u64, bytes);
                assert!(state.objects.lock().insert(self.segment, object.into()).is_none(), "written twice");
                Ok(())
            })
            .await
    }

    async fn abort(&self) -> Result<()> {
        let state = &self.store.state;
        state
            .perform(self.segment, Op::Abort, || {
                state.uploads.lock().remove(&self.segment);
                Ok(())
            })
            .await
    }
}
