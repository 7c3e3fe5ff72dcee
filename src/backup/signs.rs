//! The signs of life that a running backup leaves in the store, so that no collection takes it for dead.

use std::sync::Arc;
use std::time::Duration;

use super::collection::LONGEST_SILENCE;
use super::moment::Moment;
use crate::clock::Clock;
use crate::sync::Mutex;

/// A backup that uploads gives a sign of life about this often if its segments give none: three times within the longest silence
/// after which it need not look whether it was taken for dead.
const SIGN_EVERY: Duration = Duration::from_secs(LONGEST_SILENCE.as_secs() / 3);

/// Objects that a collection sees, with their times by this machine's clocks.
pub(super) struct Signs {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    /// What the newest of them is dated by, or earlier.
    last: Moment,
    /// There was once none for so long that a collection may have taken the backup for dead.
    was_silent: bool,
    /// When it was last tried to give one that is only that, and what is there of it.
    tried: Moment,
    extra: Option<String>,
}

impl Signs {
    /// Of a backup that leaves its first one now.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = Moment::now(clock.as_ref());
        Self { clock, state: Mutex::new(State { last: now, was_silent: false, tried: now, extra: None }) }
    }

    pub(super) fn now(&self) -> Moment {
        Moment::now(self.clock.as_ref())
    }

    /// There is an object now that is dated `dated` or later, and stays until the commit.
    pub(super) fn note(&self, dated: Moment) {
        let mut state = self.state.lock();
        // Asked for under the lock, so that of two at once none finds the other's time to be yet to come.
        let now = self.now();
        state.was_silent |= now.is_long_after(state.last, LONGEST_SILENCE);
        state.last = state.last.max(dated);
    }

    /// True if a collection may have taken the backup for dead, now or before.
    pub(super) fn was_silent(&self) -> bool {
        let mut state = self.state.lock();
        state.was_silent |= self.now().is_long_after(state.last, LONGEST_SILENCE);
        state.was_silent
    }

    /// True if it is time to give one that is only that. Who is told so does it; the next one, if it fails, comes after the same while.
    pub(super) fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let now = self.now();
        let is_due = now.is_long_after(state.last, SIGN_EVERY) && now.is_long_after(state.tried, SIGN_EVERY);
        if is_due {
            state.tried = now;
        }
        is_due
    }

    /// The object `name` is only a sign of life. Answers the one before, which may go now, and not earlier.
    pub(super) fn replace(&self, name: String) -> Option<String> {
        self.state.lock().extra.replace(name)
    }

    /// What is only a sign of life.
    pub(super) fn take(&self) -> Option<String> {
        self.state.lock().extra.take()
    }
}
