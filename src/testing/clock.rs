//! A clock that stands still until a test moves it.

use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::sync::Mutex;

/// Simulated time, starting at zero. Clones share it.
///
/// Sleepers are woken by [`SimClock::advance`], on the task that calls it and in the order of their time. Wall-clock time is
/// the Unix epoch plus simulated time.
#[derive(Clone, Default)]
pub struct SimClock {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    now: Duration,
    next: u64,
    sleepers: Vec<Sleeper>,
}

struct Sleeper {
    key: u64,
    until: Duration,
    waker: Waker,
}

impl SimClock {
    /// A clock at time zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same clock, shared as a component.
    pub fn shared(&self) -> Arc<dyn Clock> {
        Arc::new(self.clone())
    }

    /// Moves time and wakes whoever slept long enough.
    pub fn advance(&self, by: Duration) {
        let mut inner = self.inner.lock();
        inner.now += by;
        let now = inner.now;
        let (mut due, sleeping): (Vec<_>, Vec<_>) =
            std::mem::take(&mut inner.sleepers).into_iter().partition(|sleeper| sleeper.until <= now);
        inner.sleepers = sleeping;
        drop(inner);
        due.sort_by_key(|sleeper| (sleeper.until, sleeper.key));
        for sleeper in due {
            sleeper.waker.wake();
        }
    }

    /// How many futures sleep now.
    pub fn sleepers(&self) -> usize {
        self.inner.lock().sleepers.len()
    }

    /// How long until the next sleeper wakes.
    pub fn next_wake(&self) -> Option<Duration> {
        let inner = self.inner.lock();
        inner.sleepers.iter().map(|sleeper| sleeper.until.saturating_sub(inner.now)).min()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.inner.lock().now
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut sleep = Sleep { clock: self.clone(), until: self.now().saturating_add(duration), key: None };
        Box::pin(std::future::poll_fn(move |cx| sleep.poll(cx.waker())))
    }
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClock").field("now", &self.now()).field("sleepers", &self.sleepers()).finish()
    }
}

struct Sleep {
    clock: SimClock,
    until: Duration,
    key: Option<u64>,
}

impl Sleep {
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        let _replaced;
        let mut inner = self.clock.inner.lock();
        if inner.now >= self.until {
            return Poll::Ready(());
        }
        let known = self.key.and_then(|key| inner.sleepers.iter_mut().find(|sleeper| sleeper.key == key));
        if let Some(sleeper) = known {
            _replaced = std::mem::replace(&mut sleeper.waker, waker.clone());
            return Poll::Pending;
        }
        let key = inner.next;
        inner.next += 1;
        self.key = Some(key);
        inner.sleepers.push(Sleeper { key, until: self.until, waker: waker.clone() });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let _removed;
        let mut inner = self.clock.inner.lock();
        if let Some(key) = self.key {
            let index = inner.sleepers.iter().position(|sleeper| sleeper.key == key);
            _removed = index.map(|index| inner.sleepers.swap_remove(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    #[test]
    fn sleepers_wake_when_their_time_has_come_and_leave_no_trace_when_dropped() {
        let clock = SimClock::new();
        let mut first = task::spawn(clock.sleep(Duration::from_secs(1)));
        let mut second = task::spawn(clock.sleep(Duration::from_secs(2)));
        assert_pending!(first.poll());
        assert_pending!(second.poll());
        clock.advance(Duration::from_millis(999));
        assert!(!first.is_woken());
        clock.advance(Duration::from_millis(1));
        assert!(first.is_woken() && !second.is_woken());
        assert_ready!(first.poll());
        assert_eq!(clock.next_wake(), Some(Duration::from_secs(1)));
        drop(second);
        assert_eq!(clock.sleepers(), 0);
    }
}
