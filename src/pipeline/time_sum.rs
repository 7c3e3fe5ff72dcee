//! Time summed over everything that runs at once. What goes on counts too: a wait that never ends is the one to hear about.

use std::time::Duration;

use crate::clock::Clock;
use crate::meter::Histogram;
use crate::sync::Mutex;

/// A sum of times, for progress and for metrics.
///
/// Progress sees each time up to the moment at which it asks, metrics see it once it has ended.
#[derive(Debug, Default)]
pub(crate) struct TimeSum {
    state: Mutex<State>,
    meter: Option<Histogram>,
}

/// Behind a lock, because the three must fit together: a few nanoseconds twice for each frame or request.
#[derive(Debug, Default)]
struct State {
    ended: Duration,
    /// How many times are under way, and the sum of their beginnings.
    open: u32,
    begun: Duration,
    /// The most that was ever told.
    told: Duration,
}

impl TimeSum {
    pub(super) fn new(meter: Histogram) -> Self {
        Self { state: Mutex::default(), meter: Some(meter) }
    }

    /// Counts from now until the answer is dropped.
    pub(crate) fn begin<'a>(&'a self, clock: &'a dyn Clock) -> UnderWay<'a> {
        let begun = clock.now();
        self.start(begun);
        UnderWay { sum: self, clock, begun }
    }

    /// Counts the time that `future` takes, also if it is dropped before its end.
    pub(crate) async fn of<F: Future>(&self, clock: &dyn Clock, future: F) -> F::Output {
        let _under_way = self.begin(clock);
        future.await
    }

    /// Something begins. [`TimeSum::end`] must follow, with the same time.
    pub(super) fn start(&self, begun: Duration) {
        let mut state = self.state.lock();
        state.open += 1;
        state.begun = state.begun.saturating_add(begun);
    }

    /// It has ended.
    pub(super) fn end(&self, begun: Duration, now: Duration) {
        let time = now.saturating_sub(begun);
        let mut state = self.state.lock();
        state.open -= 1;
        state.begun = state.begun.saturating_sub(begun);
        state.ended = state.ended.saturating_add(time);
        drop(state);
        if let Some(meter) = &self.meter {
            meter.record(time);
        }
    }

    /// The sum at the time `now`. It never goes back, whoever read the clock first.
    pub(crate) fn get(&self, now: Duration) -> Duration {
        let mut state = self.state.lock();
        let under_way = now.saturating_mul(state.open).saturating_sub(state.begun);
        state.told = state.told.max(state.ended.saturating_add(under_way));
        state.told
    }
}

/// A time that is under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay<'a> {
    sum: &'a TimeSum,
    clock: &'a dyn Clock,
    begun: Duration,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.sum.end(self.begun, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, task};

    use super::*;
    use crate::testing::SimClock;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_goes_on_counts_up_to_now() {
        let (clock, sum) = (SimClock::new(), TimeSum::default());
        let told = || sum.get(clock.now());
        assert_eq!(told(), seconds(0));
        clock.advance(seconds(100));
        let first = sum.begin(&clock);
        clock.advance(seconds(2));
        assert_eq!(told(), seconds(2));
        let second = sum.begin(&clock);
        clock.advance(seconds(3));
        assert_eq!(told(), seconds(5 + 3));
        drop(first);
        clock.advance(seconds(4));
        assert_eq!(told(), seconds(5 + 3 + 4));
        drop(second);
        clock.advance(seconds(60));
        assert_eq!(told(), seconds(5 + 7), "nothing is under way");
    }

    #[test]
    fn a_future_that_is_dropped_has_taken_its_time() {
        let (clock, sum) = (SimClock::new(), TimeSum::default());
        let mut wait = task::spawn(sum.of(&clock, std::future::pending::<()>()));
        assert_pending!(wait.poll());
        clock.advance(seconds(7));
        drop(wait);
        clock.advance(seconds(7));
        assert_eq!(sum.get(clock.now()), seconds(7));
    }

    #[test]
    fn it_does_not_go_back_when_times_come_out_of_order() {
        let sum = TimeSum::default();
        sum.start(seconds(10));
        assert_eq!(sum.get(seconds(20)), seconds(10));
        // Its end was read from the clock before that look, and told after it.
        sum.end(seconds(10), seconds(19));
        assert_eq!(sum.get(seconds(20)), seconds(10));
        // Begun after the time of the look.
        sum.start(seconds(30));
        assert_eq!(sum.get(seconds(29)), seconds(10));
        assert_eq!(sum.get(seconds(31)), seconds(10));
        assert_eq!(sum.get(seconds(33)), seconds(12));
    }
}
