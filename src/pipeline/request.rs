//! Requests to the store: bounded in number and time, tried again while that can help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::config::PipelineConfig;
use super::limiter::Limiter;
use super::pace::Pace;
use super::progress::{Counters, count};
use super::stop::Stop;
use crate::clock::{self, Clock};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::{self, Counted, Counter, Gauge};

/// The way to the store that all stripes of a pipeline share.
///
/// A request holds its place in flight only while an attempt runs, not while it pauses, so one that keeps failing does
/// not starve the others.
#[derive(Debug)]
pub(super) struct Requests {
    limiter: Limiter,
    pace: Pace,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    attempts: u32,
    outage: Duration,
    backoff_base: Duration,
    backoff_cap: Duration,
    attempt_timeout: Duration,
    min_bytes_per_second: u64,
    /// The longest time that an attempt of any request had so far, in milliseconds.
    longest_limit: AtomicU64,
    jitter: Jitter,
    meters: Meters,
}

/// What a request asks of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Abort,
    Begin,
    Complete,
    Part,
    Put,
    Read,
}

impl Operation {
    const ALL: [Self; 6] = [Self::Abort, Self::Begin, Self::Complete, Self::Part, Self::Put, Self::Read];

    const fn name(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Begin => "begin",
            Self::Complete => "complete",
            Self::Part => "part",
            Self::Put => "put",
            Self::Read => "read",
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    /// For the error message: "cannot" and this.
    pub(super) what: &'a str,
    /// Bytes that it moves.
    pub(super) bytes: u64,
    /// Time that the store needs for its own part of the work, beside the bytes.
    pub(super) work: Duration,
    /// Ends the wait for an attempt, and no attempt that has begun.
    pub(super) stop: Option<&'a Stop>,
    /// The first attempt begins after this is cancelled.
    pub(super) after: Option<&'a CancellationToken>,
    /// So many attempts, however short the time; if none, as configured.
    pub(super) attempts: Option<u32>,
}

impl<'a> Request<'a> {
    pub(super) fn new(operation: Operation, what: &'a str, bytes: u64) -> Self {
        Self { operation, what, bytes, work: Duration::ZERO, stop: None, after: None, attempts: None }
    }
}

impl Requests {
    pub(super) fn new(
        config: &PipelineConfig,
        concurrency: usize,
        bytes_per_second: Option<u64>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        let seed = u64::try_from(clock.wall().as_nanosecond().unsigned_abs() & u128::from(u64::MAX)).unwrap_or(0);
        Self {
            limiter: Limiter::new(concurrency),
            pace: Pace::new(bytes_per_second, concurrency, Arc::clone(&clock), Arc::clone(&counters)),
            clock,
            counters,
            attempts: config.attempts,
            outage: config.outage,
            backoff_base: config.backoff_base,
            backoff_cap: config.backoff_cap,
            attempt_timeout: config.attempt_timeout,
            min_bytes_per_second: config.min_bytes_per_second,
            longest_limit: AtomicU64::new(0),
            jitter: Jitter(AtomicU64::new(seed)),
            meters: Meters::new(),
        }
    }

    /// Requests that may be in flight now.
    pub(super) fn concurrency(&self) -> usize {
        self.limiter.limit()
    }

    /// Runs `attempt` until it succeeds, fails for good, or has failed too often.
    ///
    /// Dropping the future drops the attempt in flight; its effect is unknown then.
    pub(super) async fn run<T, F>(&self, request: Request<'_>, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (operation, bytes) = (request.operation.name(), request.bytes);
        let span = tracing::debug_span!("request", operation, bytes, attempts = tracing::field::Empty);
        self.try_until_done(request, attempt).instrument(span).await
    }

    async fn try_until_done<T, F>(&self, request: Request<'_>, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let meters = self.meters.of(request.operation);
        let limit = self.attempt_limit(request.bytes).saturating_add(request.work);
        let longest_limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.longest_limit.fetch_max(longest_limit, Ordering::Relaxed);
        let attempts = request.attempts.map_or(self.attempts, |fewer| fewer.min(self.attempts));
        let outage = if request.attempts.is_some() { Duration::ZERO } else { self.outage };
        let mut tried = 0;
        let mut failing_since = None;
        loop {
            let turn = async {
                if tried == 0 {
                    // Before the place: who waits for its turn keeps nobody else from the store.
                    self.pace.wait(request.bytes).await;
                    if let Some(after) = request.after {
                        after.cancelled().await;
                    }
                }
                let place = self.limiter.enter().await;
                if tried > 0 {
                    // It had its turn: another one, hours later on a low limit, would hide that the store is gone.
                    self.pace.charge(request.bytes);
                }
                place
            };
            let place = match request.stop {
                None => turn.await,
                Some(stop) => tokio::select! {
                    biased;
                    cause = stop.stopped() => return Err(cause),
                    place = turn => place,
                },
            };
            let busy = self.counters.store_busy.begin(&*self.clock);
            let flying = Counted::new(&self.meters.in_flight);
            let outcome = clock::timeout(&*self.clock, Some(limit), attempt()).await;
            let now = self.clock.now();
            let outcome = outcome.unwrap_or_else(|_elapsed| {
                // On a slow link, requests share what there is: fewer at a time are each faster.
                self.limiter.on_throttled(now);
                Err(Error::new(ErrorKind::Unavailable, format!("no answer within {} s", limit.as_secs_f32())))
            });
            drop((busy, flying, place));
            tried += 1;
            meters.on_outcome(outcome.as_ref().err());
            tracing::Span::current().record("attempts", tried);
            let error = match outcome {
                Ok(value) => {
                    self.limiter.on_success(now);
                    count(&self.counters.requests, 1);
                    return Ok(value);
                }
                Err(error) => error,
            };
            if error.kind() == ErrorKind::Throttled {
                count(&self.counters.throttles, 1);
                self.limiter.on_throttled(now);
            }
            let since = *failing_since.get_or_insert(now);
            let failing = now.saturating_sub(since);
            // Those that fail take turns when fewer may go at once, so that none of them would come to its last attempt for hours.
            let silent_since = since.max(self.limiter.last_success().unwrap_or_default());
            let silent = now.saturating_sub(silent_since);
            // A clean-up is waited for, and less patient.
            let limit = if request.attempts.is_some() { limit } else { self.longest_limit() };
            let is_over = tried >= attempts && failing >= outage || silent >= self.longest(limit, attempts).max(outage);
            if !error.is_retryable() || is_over {
                let after = format!("attempt {tried}, {} s after the first failure", failing.as_secs());
                return Err(error.context(format!("cannot {} ({after})", request.what)));
            }
            count(&self.counters.retries, 1);
            meters.retries.add(1);
            let pause = self.jitter.within(self.backoff(tried));
            tracing::debug!(what = request.what, tried, ?pause, error = %error.report(), "trying again");
            let _pausing = self.counters.throttled.begin(&*self.clock);
            let pausing = self.clock.sleep(pause);
            match request.stop {
                None => pausing.await,
                Some(stop) => tokio::select! {
                    cause = stop.stopped() => return Err(cause),
                    () = pausing => {}
                },
            }
        }
    }

    /// The time that an attempt has: something fixed, and enough for its bytes on the slowest link that counts.
    fn attempt_limit(&self, bytes: u64) -> Duration {
        self.attempt_timeout
            .saturating_add(Duration::from_millis(bytes.saturating_mul(1000) / self.min_bytes_per_second))
    }

    /// The longest time that an attempt had so far: who waits for a place waits for the attempts of others.
    fn longest_limit(&self) -> Duration {
        Duration::from_millis(self.longest_limit.load(Ordering::Relaxed))
    }

    /// Between the first failure and the one before the last, at most, if a request need not wait for its place.
    fn longest(&self, limit: Duration, attempts: u32) -> Duration {
        let pauses = (1..attempts).map(|tried| self.backoff(tried)).fold(Duration::ZERO, Duration::saturating_add);
        limit.saturating_mul(attempts.saturating_sub(2)).saturating_add(pauses)
    }

    /// The longest pause after `tried` failures.
    fn backoff(&self, tried: u32) -> Duration {
        self.backoff_base.saturating_mul(1_u32.checked_shl(tried - 1).unwrap_or(u32::MAX)).min(self.backoff_cap)
    }
}

/// What metrics tell of requests.
#[derive(Debug)]
struct Meters {
    in_flight: Gauge,
    /// By operation, in the order of [`Operation::ALL`].
    operations: [Meter; Operation::ALL.len()],
}

#[derive(Debug)]
struct Meter {
    retries: Counter,
    /// Those that succeeded, those that were asked to come later, those without a good answer, and those refused.
    good: Counter,
    throttled: Counter,
    unavailable: Counter,
    failed: Counter,
}

impl Meters {
    fn new() -> Self {
        let meter = |operation: Operation| {
            let operation = ("operation", operation.name());
            let attempts = |outcome| Counter::new(&meter::ATTEMPTS, &[operation, ("outcome", outcome)]);
            Meter {
                retries: Counter::new(&meter::RETRIES, &[operation]),
                good: attempts("good"),
                throttled: attempts("throttled"),
                unavailable: attempts("unavailable"),
                failed: attempts("failed"),
            }
        };
        Self { in_flight: Gauge::new(&meter::REQUESTS_IN_FLIGHT, &[]), operations: Operation::ALL.map(meter) }
    }

    fn of(&self, operation: Operation) -> &Meter {
        &self.operations[operation as usize]
    }
}

impl Meter {
    fn on_outcome(&self, error: Option<&Error>) {
        let counter = match error.map(Error::kind) {
            None => &self.good,
            Some(ErrorKind::Throttled) => &self.throttled,
            Some(ErrorKind::Unavailable) => &self.unavailable,
            Some(_) => &self.failed,
        };
        counter.add(1);
    }
}

/// Random numbers for pauses; nothing depends on their quality, only that processes differ.
#[derive(Debug)]
struct Jitter(AtomicU64);

impl Jitter {
    /// A time from nothing to `most`, all alike ("full jitter").
    fn within(&self, most: Duration) -> Duration {
        // SplitMix64: a counter and a finaliser, so that threads may share it.
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let fraction = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        most.mul_f64(fraction)
    }
}
