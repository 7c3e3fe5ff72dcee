//! Tasks that wait for something of a set, and the wakers collected under a lock for after it.

use std::task::Waker;

/// Registered waiters. A waiter that is dropped takes itself out, so the list is as long as there are waiting futures.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    next: u64,
    list: Vec<(u64, Waker)>,
}

/// A waiter's place in [`Waiters`].
#[derive(Debug, Default)]
pub(crate) struct Place(Option<u64>);

impl Waiters {
    /// Registers `waker`, or renews it. Returns the waker that it replaces, to be dropped after unlocking: dropping a waker
    /// may drop the task it belongs to.
    #[must_use]
    pub(crate) fn register(&mut self, place: &mut Place, waker: &Waker) -> Option<Waker> {
        if let Some(key) = place.0
            && let Some((_, known)) = self.list.iter_mut().find(|(other, _)| *other == key)
        {
            return renew(known, waker);
        }
        self.next += 1;
        place.0 = Some(self.next);
        self.list.push((self.next, waker.clone()));
        None
    }

    /// Takes a waiter out. Returns its waker, to be dropped after unlocking.
    #[must_use]
    pub(crate) fn remove(&mut self, place: &mut Place) -> Option<Waker> {
        let key = place.0.take()?;
        let index = self.list.iter().position(|(other, _)| *other == key)?;
        Some(self.list.swap_remove(index).1)
    }

    /// Hands over every waiter, to be woken after unlocking.
    pub(crate) fn wake_into(&mut self, wakes: &mut Wakes) {
        for (_, waker) in self.list.drain(..) {
            wakes.push(waker);
        }
    }
}

/// Puts `waker` into a slot for one waiter. Returns what it replaces, to be dropped after unlocking.
#[must_use]
pub(crate) fn register_one(slot: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    match slot {
        Some(known) => renew(known, waker),
        None => {
            *slot = Some(waker.clone());
            None
        }
    }
}

fn renew(known: &mut Waker, waker: &Waker) -> Option<Waker> {
    if known.will_wake(waker) { None } else { Some(std::mem::replace(known, waker.clone())) }
}

/// Wakers to be woken once the lock is released.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakes {
    // A command wakes one task, and that must not cost an allocation.
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Wakes {
    pub(crate) fn push(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    pub(crate) fn push_from(&mut self, slot: &mut Option<Waker>) {
        if let Some(waker) = slot.take() {
            self.push(waker);
        }
    }

    pub(crate) fn wake(self) {
        if let Some(waker) = self.first {
            waker.wake();
        }
        for waker in self.rest {
            waker.wake();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counts(number: usize) -> Vec<Arc<Count>> {
        (0..number).map(|_| Arc::default()).collect()
    }

    fn wake(waiters: &mut Waiters) {
        let mut wakes = Wakes::default();
        waiters.wake_into(&mut wakes);
        wakes.wake();
    }

    fn woken(counts: &[Arc<Count>]) -> Vec<usize> {
        counts.iter().map(|count| count.0.load(Ordering::SeqCst)).collect()
    }

    #[test]
    fn everybody_in_the_list_is_woken_once() {
        for number in [0, 1, 2, 3, 10] {
            let (mut waiters, counts) = (Waiters::default(), counts(number));
            for count in &counts {
                assert!(waiters.register(&mut Place::default(), &Waker::from(Arc::clone(count))).is_none());
            }
            for _ in 0..2 {
                wake(&mut waiters);
                assert_eq!(woken(&counts), vec![1; number]);
            }
        }
    }

    #[test]
    fn a_waiter_that_registers_again_is_woken_by_its_last_waker_only() {
        let (mut waiters, counts, mut place) = (Waiters::default(), counts(2), Place::default());
        for count in &counts {
            drop(waiters.register(&mut place, &Waker::from(Arc::clone(count))));
        }
        // Its own waker replaces nothing, if it is known for its own: std promises no more than its best effort.
        let own = Waker::from(Arc::clone(&counts[1]));
        let is_known = waiters.list[0].1.will_wake(&own);
        assert_eq!(waiters.register(&mut place, &own).is_none(), is_known);
        assert_eq!(waiters.list.len(), 1);
        wake(&mut waiters);
        assert_eq!(woken(&counts), [0, 1]);
    }

    #[test]
    fn a_waiter_that_gave_up_leaves_nothing_in_the_list() {
        let (mut waiters, counts) = (Waiters::default(), counts(3));
        let mut places: Vec<_> = counts.iter().map(|_| Place::default()).collect();
        for (place, count) in places.iter_mut().zip(&counts) {
            drop(waiters.register(place, &Waker::from(Arc::clone(count))));
        }
        assert!(waiters.remove(&mut places[1]).is_some());
        assert!(waiters.remove(&mut places[1]).is_none(), "it is gone");
        assert_eq!(Arc::strong_count(&counts[1]), 1, "its task can go");
        wake(&mut waiters);
        assert_eq!(woken(&counts), [1, 0, 1]);
        assert!(waiters.remove(&mut places[0]).is_none(), "woken is out of the list");
    }
}
