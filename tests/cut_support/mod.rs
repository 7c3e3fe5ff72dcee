//! Dropping a future after every step that the world around it takes.
//!
//! A step is one request of the store getting as far as its effect, or its answer getting back: requests wait at a gate for
//! that. Time is paused, so between two steps everything that can run has run, threads included, and a run is the same
//! every time.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;
use vdstream::backup::Store;
use vdstream::backup::store::PartLimits;

/// A store in memory whose requests wait until they are let through.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    memory: InMemory,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_shut: bool,
    waiting: VecDeque<oneshot::Sender<()>>,
    /// Uploads that were begun and neither completed nor aborted.
    uploads: BTreeSet<MultipartId>,
}

impl Gate {
    /// An open gate, and the store behind it.
    pub(crate) fn new() -> (Self, Store) {
        let gate = Self::default();
        let (objects, multipart) = (Arc::new(gate.clone()), Arc::new(gate.clone()));
        (gate, Store::with_multipart(objects, multipart, "").part_limits(PartLimits::LOCAL))
    }

    pub(crate) fn shut(&self) {
        self.shared.state.lock().unwrap().is_shut = true;
    }

    pub(crate) fn open(&self) {
        let waiting = {
            let mut state = self.shared.state.lock().unwrap();
            state.is_shut = false;
            std::mem::take(&mut state.waiting)
        };
        for request in waiting {
            let _given_up = request.send(());
        }
    }

    /// Lets the oldest request take one step.
    fn step(&self) {
        loop {
            let Some(request) = self.shared.state.lock().unwrap().waiting.pop_front() else { return };
            // Otherwise that request was given up, and the next one is the oldest.
            if request.send(()).is_ok() {
                return;
            }
        }
    }

    /// Requests that wait to be let through.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.state.lock().unwrap().waiting.len()
    }

    /// Uploads in parts that somebody would have to pay for.
    pub(crate) fn uploads(&self) -> usize {
        self.shared.state.lock().unwrap().uploads.len()
    }

    /// Every object, by name.
    pub(crate) async fn names(&self) -> Vec<String> {
        let listed: Vec<_> = self.shared.memory.list(None).collect().await;
        listed.into_iter().map(|meta| meta.unwrap().location.to_string()).collect()
    }

    async fn wait(&self) {
        let waiting = {
            let mut state = self.shared.state.lock().unwrap();
            if !state.is_shut {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            state.waiting.push_back(sender);
            receiver
        };
        let _opened = waiting.await;
    }

    /// Runs a request. Once sent it goes its way, whether or not somebody still waits for the answer; if nobody does, it
    /// arrives when everybody else is through.
    async fn pass<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
        note: impl FnOnce(&mut State, &T) + Send + 'static,
    ) -> Result<T> {
        let gate = self.clone();
        let (sender, answer) = oneshot::channel();
        tokio::spawn(async move {
            gate.wait().await;
            if sender.is_closed() {
                tokio::time::sleep(STRAGGLES).await;
            }
            let output = work.await;
            if let Ok(output) = &output {
                note(&mut gate.shared.state.lock().unwrap(), output);
            }
            gate.wait().await;
            let _given_up = sender.send(output);
        });
        answer.await.unwrap()
    }

    /// The memory behind the gate, for a request of its own.
    fn memory(&self) -> impl Deref<Target = InMemory> + Send + use<> {
        struct Memory(Arc<Shared>);
        impl Deref for Memory {
            type Target = InMemory;
            fn deref(&self) -> &InMemory {
                &self.0.memory
            }
        }
        Memory(Arc::clone(&self.shared))
    }
}

/// Where a future is dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    steps: usize,
    /// The requests that are on their way then stay there until everybody has noticed.
    pub(crate) lingers: bool,
}

impl Cut {
    pub(crate) fn after(steps: usize) -> Self {
        Self { steps, lingers: false }
    }
}

/// Polls `future` up to `at.steps` times, with a step of the world after each, and drops it. What it gave, if it was ready.
pub(crate) async fn cut<F: Future>(gate: &Gate, at: Cut, future: F) -> Option<F::Output> {
    {
        let mut future = pin!(future);
        for _ in 0..at.steps {
            if let Poll::Ready(output) = futures::poll!(future.as_mut()) {
                return Some(output);
            }
            gate.step();
            quiet().await;
        }
    }
    if at.lingers {
        tokio::time::sleep(LINGERS).await;
    }
    None
}

/// Returns when nothing runs any more that does not wait for the gate: paused time goes on only then.
pub(crate) async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The same for requests that were given up.
pub(crate) async fn all_arrived() {
    tokio::time::sleep(STRAGGLES * 2).await;
}

/// Less than the time after which a clean-up is left undone.
const LINGERS: Duration = Duration::from_secs(4);

/// Less than any limit on the time of a request.
const STRAGGLES: Duration = Duration::from_millis(500);

/// Runs `scenario` with a cut after 0, 1, 2 and more steps, until its future is ready: it returns true then. There are
/// `least` places to leave at.
pub(crate) async fn at_every_step(name: &str, least: usize, mut scenario: impl AsyncFnMut(Cut) -> bool) {
    let mut steps = 0;
    loop {
        let mut is_ready = false;
        for lingers in [false, true] {
            let run = scenario(Cut { steps, lingers });
            let ended = tokio::time::timeout(Duration::from_secs(3600), run).await;
            is_ready = ended.unwrap_or_else(|_elapsed| panic!("{name}, dropped after {steps} steps: something hangs"));
        }
        if is_ready {
            break;
        }
        steps += 1;
        assert!(steps < 2000, "{name} is never ready");
    }
    eprintln!("{name}: {steps} places to leave at");
    assert!(steps >= least, "{name} has only {steps} places to leave at");
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test://gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (memory, path) = (self.memory(), path.clone());
        self.pass(async move { memory.put_opts(&path, payload, opts).await }, |_, _| {}).await
    }

    async fn put_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.shared.memory.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let (memory, path) = (self.memory(), path.clone());
        self.pass(async move { memory.get_opts(&path, options).await }, |_, _| {}).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let gate = self.clone();
        let waited = stream::once(async move { gate.wait().await }).flat_map(|()| stream::empty());
        waited.chain(self.shared.memory.delete_stream(paths)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let gate = self.clone();
        let waited = stream::once(async move { gate.wait().await }).flat_map(|()| stream::empty());
        waited.chain(self.shared.memory.list(prefix)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (memory, prefix) = (self.memory(), prefix.cloned());
        self.pass(async move { memory.list_with_delimiter(prefix.as_ref()).await }, |_, _| {}).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.shared.memory.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for Gate {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let (memory, path) = (self.memory(), path.clone());
        let note = |state: &mut State, id: &MultipartId| _ = state.uploads.insert(id.clone());
        self.pass(async move { memory.create_multipart(&path).await }, note).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, index: usize, data: PutPayload) -> Result<PartId> {
        let (memory, path, id) = (self.memory(), path.clone(), id.clone());
        self.pass(async move { memory.put_part(&path, &id, index, data).await }, |_, _| {}).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let (memory, path, id) = (self.memory(), path.clone(), id.clone());
        let ended = id.clone();
        let note = move |state: &mut State, _: &PutResult| _ = state.uploads.remove(&ended);
        self.pass(async move { memory.complete_multipart(&path, &id, parts).await }, note).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let (memory, path, id) = (self.memory(), path.clone(), id.clone());
        let ended = id.clone();
        let note = move |state: &mut State, (): &()| _ = state.uploads.remove(&ended);
        self.pass(async move { memory.abort_multipart(&path, &id).await }, note).await
    }
}
