//! `FaultStore`: the store itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::body;
use super::log::{LogEntry, Numbers};
use super::rule::{Fault, Operation, Rule};
use crate::backup::Store;
use crate::backup::store::PartLimits;
use crate::clock::{Clock, SystemClock};
use crate::sync::Mutex;

/// A store that does to requests what its rules say, and notes every request. See the [module page](super).
///
/// Clones share everything.
#[derive(Clone)]
pub struct FaultStore {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    clock: Arc<dyn Clock>,
    seed: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// How often each rule was applied.
    applied: Vec<u64>,
    /// How often each operation was asked of each object.
    asked: HashMap<(Operation, String), u64>,
    log: Vec<LogEntry>,
    numbers: Numbers,
    /// Paths in the order in which they were written; a stale listing lacks the last ones.
    written: Vec<Path>,
    /// Multipart uploads that are neither complete nor aborted.
    open: Vec<MultipartId>,
    /// Requests of each operation that are under way, and the most at once.
    running: HashMap<Operation, (usize, usize)>,
}

/// What was decided about a request.
struct Fate {
    delay: Duration,
    /// In bytes per second, of what is written or read.
    rates: Vec<u64>,
    fault: Option<Fault>,
    /// Decides what the fault leaves open.
    random: u64,
}

impl Fate {
    /// The time that so many bytes take.
    fn time_of(&self, bytes: u64) -> Duration {
        let time = |rate: &u64| Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / (*rate).max(1));
        self.rates.iter().map(time).sum()
    }
}

impl FaultStore {
    /// Stands in front of a store and its multipart interface. Without rules every request passes.
    pub fn new(objects: Arc<dyn ObjectStore>, multipart: Arc<dyn MultipartStore>, seed: u64) -> Self {
        Self { objects, multipart, clock: SystemClock::shared(), seed, state: Arc::default() }
    }

    /// Stands in front of a new store in memory.
    pub fn memory(seed: u64) -> Self {
        let memory = Arc::new(InMemory::new());
        Self::new(Arc::<InMemory>::clone(&memory), memory, seed)
    }

    /// Waits by this clock; by default by the system's, which follows Tokio's paused time.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds a rule. Rules are asked in order: delays add up, and the first other fault decides.
    #[must_use]
    pub fn rule(self, rule: Rule) -> Self {
        self.add(rule);
        self
    }

    /// Adds a rule from now on.
    pub fn add(&self, rule: Rule) {
        let mut state = self.state.lock();
        state.rules.push(rule);
        state.applied.push(0);
    }

    /// Removes all rules: from now on every request passes.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.applied.clear();
    }

    /// Every request so far, in the order in which they came.
    pub fn log(&self) -> Vec<LogEntry> {
        self.state.lock().log.clone()
    }

    /// Forgets the log and what was counted, so that rules begin anew.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.log.clear();
        state.asked.clear();
        state.applied.fill(0);
    }

    /// Multipart uploads that are neither complete nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().open.len()
    }

    /// The most requests of this operation that were ever under way at once.
    pub fn most_at_once(&self, operation: Operation) -> usize {
        self.state.lock().running.get(&operation).map_or(0, |(_, most)| *most)
    }

    /// A place for backups on this store, with parts of any size.
    pub fn store(&self) -> Store {
        let objects: Arc<dyn ObjectStore> = Arc::new(self.clone());
        let multipart: Arc<dyn MultipartStore> = Arc::new(self.clone());
        Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL).clock(Arc::clone(&self.clock))
    }

    /// Notes a request and decides about it.
    fn decide(&self, operation: Operation, path: &Path) -> Fate {
        let mut state = self.state.lock();
        let state = &mut *state;
        let path = state.numbers.normalise(path.as_ref());
        let asked = state.asked.entry((operation, path.clone())).or_default();
        let before = *asked;
        *asked += 1;
        let random = draw(self.seed, u64::MAX, &path, operation, before);
        let mut fate = Fate { delay: Duration::ZERO, rates: Vec::new(), fault: None, random };
        let mut faults = Vec::new();
        for ((number, rule), applied) in (0..).zip(&state.rules).zip(&mut state.applied) {
            let fault = rule.fault;
            let is_meant = rule.operation.is_none_or(|wanted| wanted == operation)
                && fault.fits(operation)
                && path.contains(&rule.path)
                && before >= rule.after
                && before - rule.after < rule.each
                && *applied < rule.times
                && fraction(draw(self.seed, number, &path, operation, before)) < rule.probability;
            if !is_meant {
                continue;
            }
            *applied += 1;
            faults.push(fault);
            match fault {
                Fault::Latency(time) => fate.delay += time,
                Fault::Bandwidth(rate) => fate.rates.push(rate),
                _ => fate.fault = Some(fault),
            }
            if !fault.is_delay() {
                break;
            }
        }
        state.log.push(LogEntry { operation, path, before, faults });
        fate
    }

    /// Runs a request that writes `bytes` bytes to its fate. The body of a read is neither waited for nor spoiled here.
    async fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        bytes: u64,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Fate)> {
        let mut fate = self.decide(operation, path);
        let _running = Running::enter(&self.state, operation);
        fate.delay += fate.time_of(bytes);
        Ok((self.meet(&fate, work).await?, fate))
    }

    /// Waits as long as the request is delayed, and then does what becomes of it.
    async fn meet<T>(&self, fate: &Fate, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.wait(fate.delay).await;
        let Some(fault) = fate.fault else { return work.await };
        match fault {
            Fault::Hang => std::future::pending::<()>().await,
            Fault::TimeoutBefore(time) => self.clock.sleep(time).await,
            Fault::TimeoutAfter(time) => {
                let _lost = work.await;
                self.clock.sleep(time).await;
            }
            Fault::LostAnswer | Fault::DeniedAfter => {
                let _lost = work.await;
            }
            _ if fault.error().is_none() => return work.await,
            _ => {}
        }
        match fault.error() {
            Some(error) => Err(error),
            None => std::future::pending().await,
        }
    }

    async fn wait(&self, time: Duration) {
        if !time.is_zero() {
            self.clock.sleep(time).await;
        }
    }

    fn wrote(&self, path: &Path) {
        let mut state = self.state.lock();
        state.written.retain(|written| written != path);
        state.written.push(path.clone());
    }

    /// What a listing with this fate does not have.
    fn unseen(&self, fate: &Fate) -> Vec<Path> {
        let Some(Fault::StaleList(count)) = fate.fault else { return Vec::new() };
        let state = self.state.lock();
        state.written.iter().rev().take(count).cloned().collect()
    }

    async fn delete(&self, path: Path) -> Result<Path> {
        self.run(Operation::Delete, &path, 0, async {
            let locations = stream::iter([Ok(path.clone())]).boxed();
            self.objects.delete_stream(locations).try_collect::<Vec<_>>().await
        })
        .await?;
        Ok(path)
    }
}

/// A request that is under way, until it ends or is given up.
struct Running {
    state: Arc<Mutex<State>>,
    operation: Operation,
}

impl Running {
    fn enter(state: &Arc<Mutex<State>>, operation: Operation) -> Self {
        let mut locked = state.lock();
        let (now, most) = locked.running.entry(operation).or_default();
        *now += 1;
        *most = (*most).max(*now);
        drop(locked);
        Self { state: Arc::clone(state), operation }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((now, _)) = self.state.lock().running.get_mut(&self.operation) {
            *now -= 1;
        }
    }
}

/// A number for a request that depends on nothing else. `rule` tells the draws for one request apart.
fn draw(seed: u64, rule: u64, path: &str, operation: Operation, before: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&rule.to_le_bytes()).update(&before.to_le_bytes());
    hasher.update(format!("{operation:?}/{path}").as_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number)
}

fn fraction(number: u64) -> f64 {
    f64::from(u32::try_from(number >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faults://{}", self.seed)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        let work = async {
            let put = self.objects.put_opts(path, payload, opts).await?;
            self.wrote(path);
            Ok(put)
        };
        Ok(self.run(Operation::Put, path, bytes, work).await?.0)
    }

    async fn put_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        // Its parts are the inner store's own business; `MultipartStore` is the way on which they meet faults.
        Ok(self.run(Operation::Begin, path, 0, self.objects.put_multipart_opts(path, opts)).await?.0)
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fate = self.decide(operation, path);
        let _running = Running::enter(&self.state, operation);
        let found = self.meet(&fate, self.objects.get_opts(path, options)).await?;
        // How much there is to read is known only now. Whoever looks an object up reads nothing of it.
        if operation == Operation::Get {
            self.wait(fate.time_of(found.range.end - found.range.start)).await;
        }
        match fate.fault {
            Some(fault) => body::spoil(found, fault, fate.random).await,
            None => Ok(found),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faults = self.clone();
        paths
            .then(move |path| {
                let faults = faults.clone();
                async move { faults.delete(path?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let faults = self.clone();
        let path = prefix.cloned().unwrap_or_default();
        let work = async move {
            let listing = faults.objects.list(Some(&path)).try_collect::<Vec<_>>();
            let (mut found, fate) = faults.run(Operation::List, &path, 0, listing).await?;
            let unseen = faults.unseen(&fate);
            found.retain(|object| !unseen.contains(&object.location));
            Ok::<_, object_store::Error>(stream::iter(found.into_iter().map(Ok)))
        };
        stream::once(work).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let path = prefix.cloned().unwrap_or_default();
        let listing = self.objects.list_with_delimiter(prefix);
        let (mut found, fate) = self.run(Operation::List, &path, 0, listing).await?;
        let unseen = self.unseen(&fate);
        if !unseen.is_empty() {
            found.objects.retain(|object| !unseen.contains(&object.location));
            // A directory is there if something in it is.
            let all: Vec<ObjectMeta> = self.objects.list(prefix).try_collect().await?;
            let seen = |directory: &Path| {
                all.iter().any(|object| object.location.prefix_matches(directory) && !unseen.contains(&object.location))
            };
            found.common_prefixes.retain(seen);
        }
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(Operation::Copy, from, 0, self.objects.copy_opts(from, to, options)).await?;
        Ok(())
    }
}

#[async_trait]
impl MultipartStore for FaultStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let work = async {
            let id = self.multipart.create_multipart(path).await?;
            self.state.lock().open.push(id.clone());
            Ok(id)
        };
        Ok(self.run(Operation::Begin, path, 0, work).await?.0)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let bytes = data.content_length() as u64;
        Ok(self.run(Operation::Part, path, bytes, self.multipart.put_part(path, id, index, data)).await?.0)
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let work = async {
            let put = self.multipart.complete_multipart(path, id, parts).await?;
            self.state.lock().open.retain(|open| open != id);
            self.wrote(path);
            Ok(put)
        };
        Ok(self.run(Operation::Complete, path, 0, work).await?.0)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let work = async {
            self.multipart.abort_multipart(path, id).await?;
            self.state.lock().open.retain(|open| open != id);
            Ok(())
        };
        self.run(Operation::Abort, path, 0, work).await?;
        Ok(())
    }
}
