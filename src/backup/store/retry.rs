//! Retries of the small requests around a backup: intents, records, manifests, listings.
//!
//! Data requests are retried by the pipeline, which knows their concurrency. Both replace the retries inside
//! `object_store`, which are off: its budget is shared by a whole transfer and its waits cannot be simulated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::work;
use crate::clock::{self, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::{self, Counter, Histogram};
use crate::sync::Mutex;

/// When a failed request is made again.
#[derive(Debug, Clone)]
pub(super) struct RetryPolicy {
    /// The longest first wait; each further one may be twice as long.
    pub(super) first_wait: Duration,
    /// The longest wait of all.
    pub(super) longest_wait: Duration,
    /// No attempt starts later than this after the first.
    pub(super) give_up_after: Duration,
    /// The same while the store has never answered: a wrong address shall not take a minute to show.
    pub(super) give_up_first_contact_after: Duration,
    /// One attempt lasts at most this long; of one that comes in steps, each step. The requests are small, so this is not a limit on
    /// transfers.
    pub(super) attempt: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(200),
            longest_wait: Duration::from_secs(10),
            give_up_after: Duration::from_secs(90),
            give_up_first_contact_after: Duration::from_secs(10),
            attempt: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The same for a request that sends `bytes`: each attempt has their time, and one that has used it up does not stay the only one.
    pub(super) fn sending(&self, bytes: u64) -> Self {
        let time = work::sending(bytes);
        let (attempt, give_up_after) = (self.attempt.saturating_add(time), self.give_up_after.saturating_add(time));
        Self { attempt, give_up_after, ..self.clone() }
    }
}

/// What retries of one store share.
#[derive(Debug)]
pub(super) struct RetryState {
    /// The store has answered at least once.
    reached: AtomicBool,
    jitter: AtomicU64,
    meters: Meters,
}

impl RetryState {
    pub(super) fn new(seed: u64) -> Self {
        Self { reached: AtomicBool::new(false), jitter: AtomicU64::new(seed), meters: Meters::new() }
    }

    /// Runs `attempt` until it succeeds, fails for good, or the time is up.
    pub(super) async fn run<T, F>(
        &self,
        policy: &RetryPolicy,
        clock: &dyn Clock,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let steps = self.steps(policy, clock);
        steps.run(|| steps.next(attempt())).await
    }

    /// A request whose attempts come in steps.
    pub(super) fn steps<'a>(&'a self, policy: &'a RetryPolicy, clock: &'a dyn Clock) -> Steps<'a> {
        let start = Start { time: clock.now(), steps: 0, furthest: 0 };
        Steps { retries: self, policy, clock, start: Mutex::new(start) }
    }

    /// The next number of a fixed sequence, in `0.0..1.0` (splitmix64). It only has to spread clients apart.
    fn fraction(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut x = self.jitter.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        f64::from(u32::try_from(x >> 32).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
    }
}

/// One request, whose attempts come in steps: the pages of a listing, the pieces of a body.
///
/// It may take as long as it goes on: each step has the time of an attempt, and the time after which no further attempt starts runs
/// from the last step that no attempt before had come to. So one that fails at its end is made again, however long it was, and again
/// if it fails at a later one.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    retries: &'a RetryState,
    policy: &'a RetryPolicy,
    clock: &'a dyn Clock,
    start: Mutex<Start>,
}

/// From when on it counts how long the request has come to nothing.
#[derive(Debug)]
struct Start {
    time: Duration,
    /// Of this attempt.
    steps: u64,
    /// Steps that an attempt before has made too tell nothing: each may fail at the same one.
    furthest: u64,
}

impl Steps<'_> {
    /// Waits for a step of an attempt.
    pub(super) async fn next<T>(&self, step: impl Future<Output = Result<T>>) -> Result<T> {
        let came = clock::timeout(self.clock, Some(self.policy.attempt), step).await.unwrap_or_else(|_elapsed| {
            Err(Error::new(ErrorKind::Unavailable, format!("no answer within {:?}", self.policy.attempt)))
        })?;
        self.retries.reached.store(true, Ordering::Relaxed);
        let mut start = self.start.lock();
        start.steps += 1;
        if start.steps > start.furthest {
            (start.time, start.furthest) = (self.clock.now(), start.steps);
        }
        Ok(came)
    }

    /// Waits for something that is not the store's to give. That has no limit, and does not count.
    pub(super) async fn aside<T>(&self, wait: impl Future<Output = T>) -> T {
        let begun = self.clock.now();
        let outcome = wait.await;
        self.start.lock().time += self.clock.now().saturating_sub(begun);
        outcome
    }

    /// Runs `attempt` until it succeeds, fails for good, or the time is up.
    pub(super) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let Self { retries, policy, clock, start } = self;
        let mut longest = policy.first_wait;
        let mut attempts = 1u32;
        loop {
            let begun = clock.now();
            let outcome = attempt().await;
            retries.meters.on_outcome(outcome.as_ref().err(), clock.now().saturating_sub(begun));
            let error = match outcome {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !error.is_retryable() {
                // An answer, if not a welcome one.
                retries.reached.store(true, Ordering::Relaxed);
                return Err(error);
            }
            let limit = if retries.reached.load(Ordering::Relaxed) {
                policy.give_up_after
            } else {
                policy.give_up_first_contact_after
            };
            let since = {
                let mut start = start.lock();
                start.steps = 0;
                start.time
            };
            let wait = longest.mul_f64(retries.fraction());
            if clock.now().saturating_sub(since) + wait > limit {
                return Err(if attempts > 1 {
                    error.context(format!("gave up after {attempts} attempts"))
                } else {
                    error
                });
            }
            tracing::debug!(attempt = attempts, wait = ?wait, error = %error.report(), "store request failed, trying again");
            clock.sleep(wait).await;
            longest = (longest * 2).min(policy.longest_wait);
            attempts += 1;
        }
    }
}

/// What metrics tell of small requests.
#[derive(Debug)]
struct Meters {
    good: Counter,
    /// Those that are made again.
    passing: Counter,
    failed: Counter,
    time: Histogram,
}

impl Meters {
    fn new() -> Self {
        let attempts = |outcome| Counter::new(&meter::SMALL_ATTEMPTS, &[("outcome", outcome)]);
        Self {
            good: attempts("good"),
            passing: attempts("unavailable"),
            failed: attempts("failed"),
            time: Histogram::new(&meter::SMALL_SECONDS, &[]),
        }
    }

    fn on_outcome(&self, error: Option<&Error>, took: Duration) {
        match error {
            None => &self.good,
            Some(error) if error.is_retryable() => &self.passing,
            Some(_) => &self.failed,
        }
        .add(1);
        self.time.record(took);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::clock::SystemClock;

    async fn run(kinds: &[ErrorKind]) -> (Result<u32>, u32, Duration) {
        let clock = SystemClock::new();
        let calls = AtomicU32::new(0);
        let state = RetryState::new(7);
        let outcome = state
            .run(&RetryPolicy::default(), &clock, || {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                let outcome = match kinds.get(call as usize) {
                    Some(kind) => Err(Error::new(*kind, "no")),
                    None => Ok(call),
                };
                async move { outcome }
            })
            .await;
        (outcome, calls.load(Ordering::Relaxed), clock.now())
    }

    #[tokio::test(start_paused = true)]
    async fn passing_faults_are_tried_again_and_others_are_not() {
        let (outcome, calls, _) = run(&[ErrorKind::Unavailable, ErrorKind::Throttled]).await;
        assert_eq!((outcome.unwrap(), calls), (2, 3));
        let (outcome, calls, waited) = run(&[ErrorKind::Denied]).await;
        assert_eq!((outcome.unwrap_err().kind(), calls, waited), (ErrorKind::Denied, 1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answered_is_given_up_early() {
        let (outcome, calls, waited) = run(&[ErrorKind::Unavailable; 1000]).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(calls > 3 && waited <= Duration::from_secs(10), "{calls} calls in {waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_hangs_ends() {
        let clock = SystemClock::new();
        let state = RetryState::new(7);
        let outcome: Result<()> = state.run(&RetryPolicy::default(), &clock, std::future::pending).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(clock.now() <= Duration::from_secs(90));
    }

    /// Three steps, longer together than an attempt may last, and `more` with each attempt; then what `end` says of it.
    async fn run_long(more: u32, end: impl AsyncFn(u32) -> Result<u32>) -> (Result<u32>, u32, Duration) {
        let clock = SystemClock::new();
        let state = RetryState::new(7);
        let policy = RetryPolicy::default();
        let (steps, calls) = (state.steps(&policy, &clock), AtomicU32::new(0));
        let step = async || {
            clock.sleep(Duration::from_secs(50)).await;
            Ok(())
        };
        let outcome = steps.run(|| async {
            let call = calls.fetch_add(1, Ordering::Relaxed);
            for _ in 0..3 + call * more {
                steps.next(step()).await?;
            }
            steps.next(end(call)).await
        });
        let outcome = outcome.await;
        (outcome, calls.load(Ordering::Relaxed), clock.now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_of_many_steps_may_take_long_and_ends_when_it_does_not_go_on() {
        let fails = |call: u32| Err(Error::new(ErrorKind::Unavailable, format!("attempt {call}")));
        let (outcome, calls, took) = run_long(0, async |call| Ok(call)).await;
        assert_eq!((outcome.unwrap(), calls, took.as_secs()), (0, 1, 150));
        let (outcome, calls, took) = run_long(0, async |call| if call == 0 { fails(call) } else { Ok(call) }).await;
        assert_eq!((outcome.unwrap(), calls, took.as_secs()), (1, 2, 300));
        // At the same step each time.
        let (outcome, calls, _) = run_long(0, async |call| fails(call)).await;
        assert_eq!((outcome.unwrap_err().kind(), calls), (ErrorKind::Unavailable, 2));
        // Each a step later.
        let (outcome, calls, _) = run_long(1, async |call| if call < 5 { fails(call) } else { Ok(call) }).await;
        assert_eq!((outcome.unwrap(), calls), (5, 6));
        let (outcome, calls, took) = run_long(0, async |_| std::future::pending().await).await;
        let error = outcome.unwrap_err();
        assert!(error.report().contains("no answer within 60s"), "{}", error.report());
        assert!(calls == 2 && took < Duration::from_secs(2 * 210 + 1), "{calls} calls in {took:?}");
    }
}
