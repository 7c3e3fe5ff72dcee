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
