//! CPU work in short jobs on a bounded number of threads.
//!
//! Tokio's blocking pool supplies the threads; we use no more than so many at once, and they take the jobs of all stripes in the
//! order in which their frames became ready. A job is one frame or one part: long enough (several ms) that handing it over
//! (several µs) does not matter, short enough that no stripe waits long for another. A thread that ends a job takes the
//! next one that waits by itself: on a machine whose cores are all busy, whoever had to wake it would first wait for a core.
//! After some jobs it stands behind whoever else waits for a thread of the runtime, and nothing holds a thread when no job
//! waits. Measured on two cores: a backup of 1 GB left them idle for 12 % of its time when each job was
//! handed to a thread anew, and leaves them idle for 3 %.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::progress::Counters;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// The bounded CPU pool of one pipeline. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Cpu {
    line: Arc<Line>,
    threads: usize,
    tracker: TaskTracker,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Cpu {
    pub(super) fn new(threads: usize, tracker: TaskTracker, clock: Arc<dyn Clock>, counters: Arc<Counters>) -> Self {
        Self { line: Arc::default(), threads, tracker, clock, counters }
    }

    /// Starts `job` as soon as a thread is free. Dropping the answer withdraws a job that has not started.
    pub(super) fn start<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Job<T> {
        let (sender, answer) = oneshot::channel();
        let (clock, counters) = (Arc::clone(&self.clock), Arc::clone(&self.counters));
        let waiting = Waiting::new(&clock, &counters);
        let mut places = self.line.places.lock();
        let is_free = places.threads < self.threads;
        let (waiting, no_wait) = if is_free { (None, Some(waiting)) } else { (Some(waiting), None) };
        let work = move || {
            let output = catch_unwind(AssertUnwindSafe(|| {
                drop(waiting);
                let _busy = counters.cpu_busy.begin(&*clock);
                job()
            }));
            // If nobody wants it any more, it is dropped here, while the thread is still counted.
            let _ = sender.send(output.unwrap_or_else(|panic| Err(panicked(&*panic))));
        };
        let number = places.next;
        places.next += 1;
        places.waiting.push_back((number, Box::new(work)));
        places.threads += usize::from(is_free);
        drop(places);
        let thread = is_free.then(|| Thread::new(&self.line, &self.tracker));
        drop(no_wait);
        if let Some(thread) = thread {
            thread.begin();
        }
        Job { answer, end: End::Withdraw { line: Arc::clone(&self.line), number } }
    }

    /// Spawns a tracked task that dies with its handle.
    pub(super) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = Result<T>> + Send + 'static) -> Job<T> {
        let (sender, answer) = oneshot::channel();
        let task = self.tracker.spawn(async move {
            // If nobody wants it any more, it is dropped here, while the task is still counted.
            let _ = sender.send(task.await);
        });
        Job { answer, end: End::Abort(task.abort_handle()) }
    }

    /// Spawns a tracked task that ends by itself.
    pub(super) fn spawn_free(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs `job` on a thread of the pool. Dropping the future withdraws a job that has not started.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.start(|| Ok(job())).wait().await
    }
}

/// The jobs that wait for a thread, in order.
#[derive(Default)]
struct Line {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    waiting: VecDeque<(u64, Work)>,
    /// The number of the next job.
    next: u64,
    /// Threads that take jobs, or will as soon as the runtime lets them.
    threads: usize,
}

type Work = Box<dyn FnOnce() + Send>;

impl Line {
    /// A job that has not started never will.
    fn withdraw(&self, number: u64) {
        let mut places = self.places.lock();
        let found = places.waiting.binary_search_by_key(&number, |(number, _)| *number);
        let work = found.ok().and_then(|at| places.waiting.remove(at));
        drop(places);
        // What it holds goes back outside the lock.
        drop(work);
    }

    /// A thread ends, or never came. Without any, nobody takes the jobs that wait: they end without an answer.
    fn leave(&self, is_counted: &AtomicBool) {
        let mut places = self.places.lock();
        if !is_counted.swap(false, Ordering::Relaxed) {
            return;
        }
        places.threads -= 1;
        let left = if places.threads == 0 { std::mem::take(&mut places.waiting) } else { VecDeque::new() };
        drop(places);
        drop(left);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.places.lock();
        f.debug_struct("Line").field("waiting", &places.waiting.len()).field("threads", &places.threads).finish()
    }
}

/// One thread that takes jobs until none waits.
struct Thread {
    line: Arc<Line>,
    tracker: TaskTracker,
    /// Whether it is one of the line's threads. Changes under the line's lock.
    is_counted: Arc<AtomicBool>,
}

impl Thread {
    /// One that is counted already.
    fn new(line: &Arc<Line>, tracker: &TaskTracker) -> Self {
        Self { line: Arc::clone(line), tracker: tracker.clone(), is_counted: Arc::new(AtomicBool::new(true)) }
    }

    /// Takes jobs as soon as the runtime has a thread.
    fn begin(self) {
        let (line, is_counted, tracker) = (Arc::clone(&self.line), Arc::clone(&self.is_counted), self.tracker.clone());
        let begun = catch_unwind(AssertUnwindSafe(|| drop(tracker.spawn_blocking(move || self.run()))));
        if begun.is_err() {
            // The system gives the runtime no thread. What was begun may stay in the runtime's hands, and come to nothing.
            line.leave(&is_counted);
        }
    }

    fn run(self) {
        for _ in 0..TURN {
            let Some(work) = self.next() else { return };
            work();
        }
        self.begin();
    }

    fn next(&self) -> Option<Work> {
        let mut places = self.line.places.lock();
        if !self.is_counted.load(Ordering::Relaxed) {
            return None;
        }
        let next = places.waiting.pop_front();
        if next.is_none() {
            // Under the same lock: whoever comes now starts a thread.
            places.threads -= 1;
            self.is_counted.store(false, Ordering::Relaxed);
        }
        next.map(|(_, work)| work)
    }
}

impl Drop for Thread {
    /// A runtime that shuts down gives no thread any more.
    fn drop(&mut self) {
        self.line.leave(&self.is_counted);
    }
}

/// Jobs that a thread does before others have it: some hundred milliseconds.
const TURN: usize = 16;

/// The time for which a job waits for a thread.
struct Waiting {
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    begun: Duration,
}

impl Waiting {
    fn new(clock: &Arc<dyn Clock>, counters: &Arc<Counters>) -> Self {
        let begun = clock.now();
        counters.cpu_wait.start(begun);
        Self { clock: Arc::clone(clock), counters: Arc::clone(counters), begun }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.counters.cpu_wait.end(self.begun, self.clock.now());
    }
}

/// Work that ends when its handle is dropped: a task is aborted, a job withdrawn unless it has started.
///
/// The answer of a task travels beside it and not as its output: the runtime drops an unwanted output only after the task
/// counts as ended, and then memory could be held a moment longer than [`Pipeline::wait_idle`](super::Pipeline::wait_idle)
/// promises.
#[derive(Debug)]
pub(super) struct Job<T> {
    answer: oneshot::Receiver<Result<T>>,
    end: End,
}

#[derive(Debug)]
enum End {
    Abort(AbortHandle),
    Withdraw { line: Arc<Line>, number: u64 },
}

impl<T> Job<T> {
    /// Waits for the outcome. Cancel-safe: the wait may be given up and taken up again.
    pub(super) async fn wait(&mut self) -> Result<T> {
        (&mut self.answer).await.map_err(|_closed| gone())?
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        match &self.end {
            End::Abort(task) => task.abort(),
            End::Withdraw { line, number } => line.withdraw(*number),
        }
    }
}

/// Of work that ended, or was lost, without saying how.
pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Internal, "a task of the pipeline ended without an answer")
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(
        ErrorKind::Internal,
        format!("a task of the pipeline panicked: {}", text.unwrap_or("it did not say why")),
    )
}

/// Why a task of ours gave no answer.
pub(super) fn joined(error: tokio::task::JoinError) -> Error {
    if error.is_cancelled() {
        return Error::new(ErrorKind::Aborted, "the runtime stopped the task");
    }
    Error::new(ErrorKind::Internal, "a task of the pipeline panicked").with_source(error)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the gates of tests hold threads, and somebody else's work is not tracked"
)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use futures::FutureExt as _;

    use super::*;
    use crate::pipeline::plan::Direction;
    use crate::testing::SimClock;

    /// Long enough for a thread to do what it is meant to do; only a test that fails waits for so long.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn cpu(threads: usize) -> (Cpu, SimClock, Arc<Counters>) {
        let (clock, counters) = (SimClock::new(), Arc::new(Counters::new(Direction::Backup, 0, Duration::ZERO)));
        let cpu = Cpu::new(threads, TaskTracker::new(), Arc::new(clock.clone()), Arc::clone(&counters));
        (cpu, clock, counters)
    }

    /// A job that tells when it begins, and ends when it is told to.
    fn gate(cpu: &Cpu) -> (Job<()>, Receiver<()>, Sender<()>) {
        let (begins, begun) = channel();
        let (end, ended) = channel();
        let job = cpu.start(move || {
            begins.send(()).unwrap();
            ended.recv().map_err(|_| Error::new(ErrorKind::Aborted, "the test is over"))
        });
        (job, begun, end)
    }

    #[tokio::test]
    async fn waiting_jobs_run_in_order_without_the_help_of_the_runtime() {
        let (cpu, ..) = cpu(1);
        let (mut first, begun, end) = gate(&cpu);
        begun.recv_timeout(PATIENCE).unwrap();
        let (tells, told) = channel();
        let jobs: Vec<_> = (0..5)
            .map(|nth| {
                let tells = tells.clone();
                cpu.start(move || {
                    tells.send(nth).unwrap();
                    Ok(())
                })
            })
            .collect();
        end.send(()).unwrap();
        // This is the runtime's only thread, and it polls nothing meanwhile.
        let order: Vec<i32> = (0..5).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        first.wait().await.unwrap();
        for mut job in jobs {
            job.wait().await.unwrap();
        }
    }

    #[tokio::test]
    async fn no_more_threads_are_used_than_asked_for() {
        let (cpu, ..) = cpu(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gates: Vec<_> = (0..2).map(|_| gate(&cpu)).collect();
        let jobs: Vec<_> = (0..5 * TURN)
            .map(|_| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                cpu.start(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                })
            })
            .collect();
        for (_, begun, _) in &gates {
            begun.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 0, "a job runs beside two others");
        for (_, _, end) in &gates {
            end.send(()).unwrap();
        }
        for (mut job, ..) in gates {
            job.wait().await.unwrap();
        }
        for mut job in jobs {
            job.wait().await.unwrap();
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?} at once");
        cpu.tracker.close();
        cpu.tracker.wait().await;
        assert_eq!(cpu.line.places.lock().threads, 0, "a thread stays without a job");
    }

    #[test]
    fn others_have_a_turn_of_the_only_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let (cpu, ..) = cpu(1);
        runtime.block_on(async {
            let (mut first, begun, end) = gate(&cpu);
            begun.recv_timeout(PATIENCE).unwrap();
            let (done, last) = (Arc::new(AtomicUsize::new(0)), 4 * TURN);
            let jobs: Vec<_> = (0..last)
                .map(|_| {
                    let done = Arc::clone(&done);
                    cpu.start(move || {
                        done.fetch_add(1, Ordering::SeqCst);
                        Ok(())
                    })
                })
                .collect();
            let seen = Arc::clone(&done);
            let others = tokio::task::spawn_blocking(move || seen.load(Ordering::SeqCst));
            end.send(()).unwrap();
            assert_eq!(others.await.unwrap(), TURN - 1, "jobs before somebody else's, beside the first");
            first.wait().await.unwrap();
            for mut job in jobs {
                job.wait().await.unwrap();
            }
            assert_eq!(done.load(Ordering::SeqCst), last);
        });
    }

    #[test]
    fn jobs_for_which_the_system_has_no_thread_are_answered() {
        // More than any process can have.
        let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(1 << 47).build().unwrap();
        let (cpu, ..) = cpu(1);
        runtime.block_on(async {
            for _ in 0..3 {
                let error = cpu.start(|| Ok(())).wait().await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Internal);
                assert_eq!(cpu.line.places.lock().threads, 0);
            }
        });
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_any_more_lets_go_at_once() {
        let (cpu, ..) = cpu(1);
        let (mut first, begun, end) = gate(&cpu);
        begun.recv_timeout(PATIENCE).unwrap();
        let held = Arc::new(());
        let start = || {
            let held = Arc::clone(&held);
            cpu.start(move || {
                drop(held);
                Ok(())
            })
        };
        let (withdrawn, mut kept) = (start(), start());
        assert_eq!(Arc::strong_count(&held), 3);
        drop(withdrawn);
        assert_eq!(Arc::strong_count(&held), 2);
        end.send(()).unwrap();
        first.wait().await.unwrap();
        kept.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_and_not_the_thread() {
        let (cpu, ..) = cpu(1);
        let (mut first, begun, end) = gate(&cpu);
        begun.recv_timeout(PATIENCE).unwrap();
        let mut bad: Job<()> = cpu.start(|| panic!("on purpose"));
        let mut good = cpu.start(|| Ok(7));
        end.send(()).unwrap();
        first.wait().await.unwrap();
        let error = bad.wait().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("panicked: on purpose"), "{error}");
        assert_eq!(good.wait().await.unwrap(), 7);
    }

    #[test]
    fn a_runtime_that_has_ended_leaves_no_job_unanswered() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = handle.enter();
        let (cpu, ..) = cpu(1);
        for _ in 0..3 {
            let mut job = cpu.start(|| Ok(()));
            let answer = job.wait().now_or_never().unwrap();
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
        }
        assert_eq!(cpu.line.places.lock().threads, 0);
    }

    #[tokio::test]
    async fn a_wait_counts_from_the_start_to_the_thread_or_to_the_end_of_interest() {
        let (cpu, clock, counters) = cpu(1);
        let waited = || counters.cpu_wait.get(clock.now()).as_secs();
        let (mut first, begun, end) = gate(&cpu);
        begun.recv_timeout(PATIENCE).unwrap();
        clock.advance(Duration::from_secs(10));
        assert_eq!(waited(), 0, "it found a free thread");
        let (withdrawn, mut kept) = (cpu.start(|| Ok(())), cpu.start(|| Ok(())));
        clock.advance(Duration::from_secs(1));
        drop(withdrawn);
        clock.advance(Duration::from_secs(1));
        end.send(()).unwrap();
        first.wait().await.unwrap();
        kept.wait().await.unwrap();
        assert_eq!(waited(), 1 + 2);
    }
}
