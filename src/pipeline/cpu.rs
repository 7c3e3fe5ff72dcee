//! CPU work in short jobs on a bounded number of threads.
//!
//! Tokio's blocking pool supplies the threads; a semaphore bounds how many we use, and serves the stripes in the order
//! in which their frames became ready. A job is one frame or one part: long enough (several ms) that handing it over
//! (several µs) does not matter, short enough that no stripe waits long for another. Nothing holds a thread between jobs.

use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::progress::Counters;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// The bounded CPU pool of one pipeline. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Cpu {
    permits: Arc<Semaphore>,
    tracker: TaskTracker,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Cpu {
    pub(super) fn new(threads: usize, tracker: TaskTracker, clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Self {
        Self { permits: Arc::new(Semaphore::new(threads)), tracker, clock, counters }
    }

    /// Starts `job` as soon as a thread is free. Dropping the answer withdraws a job that has not started.
    pub(super) fn start<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Job<T> {
        let cpu = self.clone();
        self.spawn(async move { cpu.run(job).await? })
    }

    /// Spawns a tracked task that dies with its handle.
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = Result<T>> + Send + 'static) -> Job<T> {
        let (sender, answer) = oneshot::channel();
        let task = self.tracker.spawn(async move {
            // If nobody wants it any more, it is dropped here, while the task is still counted.
            let _ = sender.send(task.await);
        });
        Job { answer, task: task.abort_handle() }
    }

    /// Spawns a tracked task that ends by itself.
    pub(super) fn spawn_free(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs `job` on a thread of the pool.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let permit = self.counters.cpu_wait.of(&*self.clock, Arc::clone(&self.permits).acquire_owned()).await;
        let (clock, counters) = (Arc::clone(&self.clock), Arc::clone(&self.counters));
        let (sender, mut answer) = oneshot::channel();
        let task = self.tracker.spawn_blocking(move || {
            // Moved in: a job whose caller left still counts until it is done.
            let _permit = permit;
            let busy = counters.cpu_busy.begin(&*clock);
            let output = job();
            drop(busy);
            let _ = sender.send(output);
        });
        task.await.map_err(joined)?;
        answer.try_recv().map_err(|_empty| gone())
    }
}

/// A tracked task that is aborted when its handle is dropped.
///
/// The answer travels beside the task and not as its output: the runtime drops an unwanted output only after the task
/// counts as ended, and then memory could be held a moment longer than [`Pipeline::wait_idle`](super::Pipeline::wait_idle)
/// promises.
#[derive(Debug)]
pub(super) struct Job<T> {
    answer: oneshot::Receiver<Result<T>>,
    task: AbortHandle,
}

impl<T> Job<T> {
    /// Waits for the outcome. Cancel-safe: the wait may be given up and taken up again.
    pub(super) async fn wait(&mut self) -> Result<T> {
        (&mut self.answer).await.map_err(|_closed| gone())?
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Internal, "a task of the pipeline ended without an answer")
}

/// Why a task of ours gave no answer.
pub(super) fn joined(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::new(ErrorKind::Aborted, "the runtime stopped the task");
    }
    Error::new(ErrorKind::Internal, "a task of the pipeline panicked").with_source(error)
}
