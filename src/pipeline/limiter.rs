//! How many requests may be in flight: halved when the store asks for fewer, raised slowly while all goes well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sync::Mutex;

/// A limit that adapts between 1 and its configured maximum. First come, first served.
#[derive(Debug)]
pub(super) struct Limiter {
    permits: Arc<Semaphore>,
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// Permits that are to be destroyed when they come back.
    debt: usize,
    /// Successes since the limit last changed.
    successes: usize,
    last_cut: Option<Duration>,
    last_success: Option<Duration>,
}

impl Limiter {
    pub(super) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max)),
            max,
            state: Mutex::new(State { limit: max, debt: 0, successes: 0, last_cut: None, last_success: None }),
        }
    }

    /// Waits for a place. Cancel-safe.
    pub(super) async fn enter(&self) -> Place<'_> {
        let permit = match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => permit,
            // The semaphore is private and never closed.
            Err(_closed) => std::future::pending().await,
        };
        Place { limiter: self, permit: Some(permit) }
    }

    /// Requests that may be in flight now.
    pub(super) fn limit(&self) -> usize {
        self.state.lock().limit
    }

    /// Halves the limit; all refusals of one second count as one, because they answer requests that were sent together.
    pub(super) fn on_throttled(&self, now: Duration) {
        let mut state = self.state.lock();
        if state.last_cut.is_some_and(|last| now.saturating_sub(last) < CUT_INTERVAL) {
            return;
        }
        let target = (state.limit / 2).max(1);
        state.debt += state.limit - target;
        state.debt -= self.permits.forget_permits(state.debt);
        state.limit = target;
        state.successes = 0;
        state.last_cut = Some(now);
    }

    /// When any request succeeded last.
    pub(super) fn last_success(&self) -> Option<Duration> {
        self.state.lock().last_success
    }

    /// Raises the limit by one after several rounds without a refusal.
    pub(super) fn on_success(&self, now: Duration) {
        let mut state = self.state.lock();
        state.last_success = Some(now);
        if state.limit == self.max {
            return;
        }
        state.successes += 1;
        if state.successes < state.limit * ROUNDS_PER_RAISE {
            return;
        }
        state.successes = 0;
        state.limit += 1;
        if state.debt > 0 {
            state.debt -= 1;
        } else {
            self.permits.add_permits(1);
        }
    }
}

/// A place in flight; dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct Place<'a> {
    limiter: &'a Limiter,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        if state.debt > 0
            && let Some(permit) = self.permit.take()
        {
            state.debt -= 1;
            permit.forget();
        }
    }
}

const CUT_INTERVAL: Duration = Duration::from_secs(1);
const ROUNDS_PER_RAISE: usize = 4;

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    fn enter(limiter: &Limiter) -> Place<'_> {
        assert_ready!(task::spawn(limiter.enter()).poll())
    }

    #[test]
    fn a_refusal_halves_once_per_second_and_successes_bring_it_back() {
        let limiter = Limiter::new(8);
        let held: Vec<_> = (0..8).map(|_| enter(&limiter)).collect();
        limiter.on_throttled(Duration::from_secs(1));
        limiter.on_throttled(Duration::from_millis(1999));
        assert_eq!(limiter.limit(), 4);
        drop(held);
        let held: Vec<_> = (0..4).map(|_| enter(&limiter)).collect();
        assert_pending!(task::spawn(limiter.enter()).poll());
        drop(held);
        for second in 3..9 {
            limiter.on_throttled(Duration::from_secs(second));
        }
        assert_eq!(limiter.limit(), 1);
        let only = enter(&limiter);
        assert_pending!(task::spawn(limiter.enter()).poll());
        drop(only);
        for _ in 0..ROUNDS_PER_RAISE * (1 + 2 + 3 + 4 + 5 + 6 + 7) {
            limiter.on_success(Duration::ZERO);
        }
        assert_eq!(limiter.limit(), 8);
        let held: Vec<_> = (0..8).map(|_| enter(&limiter)).collect();
        assert_pending!(task::spawn(limiter.enter()).poll());
        drop(held);
    }
}
