//! Bytes per second: requests that move data wait for their turn before they start.
//!
//! Time is the currency. A request of `n` bytes costs `n / rate`, and starts when that much time has passed since the one
//! before it was paid for. So the sum over a long time is exact, whatever the sizes are, of what succeeds at once.
//!
//! A request waits once. Sent again after a failure, it pays and goes at once, and what comes after it waits longer. What has been paid so
//! ahead of time is bounded, because a store that cannot be reached refuses the same request again and again, and nothing is sent.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use super::progress::Counters;
use crate::clock::Clock;
use crate::sync::Mutex;

/// A limit that all stripes of a pipeline share, first come, first served. Without a rate nothing waits.
///
/// A request goes at the speed of the link once it has begun, so the wait never counts against the time that an attempt
/// has. What goes above the limit for a moment is bounded by [`CREDIT`], or by the largest request, beside what is sent again: of that,
/// no more is under way at once than there are parts in flight.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// Requests that may be in flight.
    concurrency: u32,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// Who waits at the head of the line holds it; Tokio's mutex keeps the line.
    line: tokio::sync::Mutex<()>,
    /// The time up to which everything is spent.
    spent: Mutex<Duration>,
}

impl Pace {
    pub(super) fn new(
        bytes_per_second: Option<u64>,
        concurrency: usize,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
    ) -> Self {
        let spent = Mutex::new(clock.now());
        let concurrency = u32::try_from(concurrency).unwrap_or(u32::MAX);
        Self { bytes_per_second, concurrency, clock, counters, line: tokio::sync::Mutex::default(), spent }
    }

    /// Waits until `bytes` may be sent or asked for. Cancel-safe: a dropped wait has spent nothing.
    pub(super) async fn wait(&self, bytes: u64) {
        let Some(cost) = self.cost(bytes) else { return };
        let _head = self.count(self.line.lock()).await;
        let kept = self.kept_since(cost);
        loop {
            let left = {
                let mut spent = self.spent.lock();
                let start = (*spent).max(kept).saturating_add(cost);
                let left = start.saturating_sub(self.clock.now());
                if left.is_zero() {
                    *spent = start;
                    return;
                }
                left
            };
            // Meanwhile something may be sent again, which comes first.
            self.count(self.clock.sleep(left)).await;
        }
    }

    /// Pays for `bytes` that are sent or asked for again, and do not wait: never further ahead than as many such requests cost as can be
    /// in flight at once.
    pub(super) fn charge(&self, bytes: u64) {
        let Some(cost) = self.cost(bytes) else { return };
        let kept = self.kept_since(cost);
        let furthest = self.clock.now().saturating_add(cost.saturating_mul(self.concurrency));
        let mut spent = self.spent.lock();
        let paid = (*spent).max(kept).saturating_add(cost);
        *spent = (*spent).max(paid.min(furthest));
    }

    /// What `bytes` cost, if they cost anything.
    fn cost(&self, bytes: u64) -> Option<Duration> {
        self.bytes_per_second.filter(|_| bytes > 0).map(|rate| cost(bytes, rate))
    }

    /// From when on unused time counts for a request that costs so much. It is kept for a moment only, or a pause would end in a
    /// flood.
    fn kept_since(&self, cost: Duration) -> Duration {
        self.clock.now().saturating_sub(cost.max(CREDIT))
    }

    /// Counts the time that `wait` takes, piece by piece, so that metrics tell of a long one while it goes on.
    async fn count<F: Future>(&self, wait: F) -> F::Output {
        let mut wait = pin!(wait);
        loop {
            let piece = async {
                tokio::select! {
                    biased;
                    output = &mut wait => Some(output),
                    () = self.clock.sleep(PIECE) => None,
                }
            };
            if let Some(output) = self.counters.limited.of(&*self.clock, piece).await {
                return output;
            }
        }
    }
}

/// How long `bytes` take at `rate` bytes per second.
fn cost(bytes: u64, rate: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate.max(1)));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Time that was not used and may be caught up on: enough that a late wake-up or a short gap between two requests costs nothing.
const CREDIT: Duration = Duration::from_secs(1);

/// A wait is counted at least so often.
const PIECE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::stream::FuturesUnordered;
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;
    use crate::pipeline::plan::Direction;
    use crate::testing::SimClock;

    const RATE: u64 = 1 << 20;

    fn pace(clock: &SimClock) -> Pace {
        limited(Some(RATE), clock)
    }

    fn limited(bytes_per_second: Option<u64>, clock: &SimClock) -> Pace {
        let counters = Arc::new(Counters::new(Direction::Restore, 0, Duration::ZERO));
        Pace::new(bytes_per_second, 4, clock.shared(), counters)
    }

    /// Moves time to each wake-up until `work` is done; answers how long it took.
    async fn run<T>(clock: &SimClock, work: impl Future<Output = T>) -> (T, Duration) {
        let (begun, mut work) = (clock.now(), pin!(work));
        loop {
            tokio::select! {
                biased;
                output = &mut work => return (output, clock.now() - begun),
                () = std::future::ready(()) => clock.advance(clock.next_wake().unwrap_or_default()),
            }
        }
    }

    #[tokio::test]
    async fn a_long_time_is_exact_whatever_the_sizes_are() {
        for sizes in [&[1_u64][..], &[8 << 20], &[1 << 10, 3 << 20, 777, 64 << 10], &[RATE - 1, RATE, RATE + 1]] {
            let clock = SimClock::new();
            let pace = pace(&clock);
            let total = std::cell::Cell::new(0);
            let work = async {
                for size in sizes.iter().cycle().take(600) {
                    pace.wait(*size).await;
                    total.set(total.get() + size);
                    // No moment at which more went than the rate allows.
                    assert!(total.get() as f64 <= clock.now().as_secs_f64() * RATE as f64 + 1.0, "{sizes:?}");
                }
            };
            let ((), took) = run(&clock, work).await;
            let ideal = total.get() as f64 / RATE as f64;
            assert!((took.as_secs_f64() - ideal).abs() < ideal * 0.001 + 0.001, "{sizes:?}: {took:?}, not {ideal} s");
        }
    }

    #[tokio::test]
    async fn a_pause_is_caught_up_on_within_a_bound() {
        let clock = SimClock::new();
        let pace = pace(&clock);
        for (size, burst) in [(RATE / 8, RATE), (RATE / 2, RATE), (3 * RATE, 3 * RATE)] {
            run(&clock, pace.wait(RATE)).await;
            clock.advance(Duration::from_secs(3600));
            let at_once = async {
                let mut sent = 0;
                let begun = clock.now();
                loop {
                    pace.wait(size).await;
                    if clock.now() > begun {
                        break sent;
                    }
                    sent += size;
                }
            };
            assert_eq!(run(&clock, at_once).await.0, burst, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn who_came_first_goes_first_and_each_gets_its_share() {
        let clock = SimClock::new();
        let (pace, shares) = (pace(&clock), std::cell::RefCell::new([0_u64; 8]));
        let stripes: FuturesUnordered<_> = (0..8_usize)
            .map(|stripe| {
                let (pace, shares) = (&pace, &shares);
                async move {
                    for _ in 0..50 {
                        pace.wait(RATE).await;
                        shares.borrow_mut()[stripe] += 1;
                        let shares = shares.borrow();
                        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
                        assert!(most - least <= 1, "{shares:?}");
                    }
                }
            })
            .collect();
        let (_, took) = run(&clock, stripes.collect::<Vec<()>>()).await;
        assert_eq!(took, Duration::from_secs(400));
    }

    #[test]
    fn a_dropped_wait_has_spent_nothing() {
        let clock = SimClock::new();
        let pace = pace(&clock);
        let mut first = task::spawn(pace.wait(100 * RATE));
        let mut second = task::spawn(pace.wait(RATE));
        assert_pending!(first.poll());
        assert_pending!(second.poll());
        clock.advance(Duration::from_secs(50));
        assert_pending!(first.poll());
        drop(first);
        assert!(second.is_woken());
        assert_ready!(second.poll(), "half a minute was not spent, so its second has passed");
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn what_is_sent_again_does_not_wait_and_the_next_waits_for_it() {
        let clock = SimClock::new();
        let pace = pace(&clock);
        pace.charge(10 * RATE);
        assert_eq!(run(&clock, pace.wait(RATE)).await.1, Duration::from_secs(11));
        // Also who waits already.
        let mut wait = task::spawn(pace.wait(2 * RATE));
        assert_pending!(wait.poll());
        pace.charge(3 * RATE);
        assert_eq!(run(&clock, wait).await.1, Duration::from_secs(5));
        // Unused time pays for it too.
        clock.advance(Duration::from_secs(3600));
        pace.charge(RATE);
        assert_eq!(run(&clock, pace.wait(RATE)).await.1, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_request_that_is_refused_again_and_again_makes_nobody_wait_for_long() {
        for (again, expected) in [(1, 2), (3, 4), (4, 5), (5, 5), (1000, 5)] {
            let clock = SimClock::new();
            let pace = pace(&clock);
            (0..again).for_each(|_| pace.charge(RATE));
            assert_eq!(run(&clock, pace.wait(RATE)).await.1, Duration::from_secs(expected), "{again} times");
        }
    }

    #[test]
    fn a_long_wait_is_counted_while_it_goes_on() {
        let clock = SimClock::new();
        let pace = pace(&clock);
        let mut wait = task::spawn(pace.wait(100 * RATE));
        assert_pending!(wait.poll());
        for _ in 0..10 {
            clock.advance(PIECE);
            assert_pending!(wait.poll());
        }
        clock.advance(PIECE / 2);
        assert_eq!(pace.counters.limited.get(clock.now()), 10 * PIECE + PIECE / 2);
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let clock = SimClock::new();
        let pace = limited(None, &clock);
        assert_ready!(task::spawn(pace.wait(u64::MAX)).poll());
        assert_eq!(cost(u64::MAX, 1), Duration::from_nanos(u64::MAX));
    }
}
