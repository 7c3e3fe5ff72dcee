//! Who gets the next slot: the line of a pool, without lock and without memory.

use std::collections::VecDeque;
use std::task::Waker;

/// A number of places, and those who wait for one, first come, first served.
///
/// A place that comes back is granted to the first of the line right away, so nobody overtakes: while somebody waits, no
/// place is free.
#[derive(Debug)]
pub(super) struct Line {
    free: usize,
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
    /// Those who were granted a place and have not come to take it.
    granted: Vec<u64>,
}

/// What somebody who gives up leaves to be dealt with after unlocking.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Who got the place that was granted to the one who left.
    pub(super) next: Option<Waker>,
    /// Dropping a waker may drop the task it belongs to.
    _own: Option<Waker>,
}

impl Line {
    pub(super) fn new(places: usize) -> Self {
        Self { free: places, next: 0, waiting: VecDeque::new(), granted: Vec::new() }
    }

    /// Places that nobody has, and nobody was granted.
    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// How many wait, those included who were granted a place and have not come to take it.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.granted.len()
    }

    /// Takes a place if one is free.
    pub(super) fn try_take(&mut self) -> bool {
        let is_free = self.free > 0;
        self.free -= usize::from(is_free);
        is_free
    }

    /// Takes the place that `key` was granted, if it was.
    pub(super) fn take_granted(&mut self, key: u64) -> bool {
        let granted = self.granted.iter().position(|other| *other == key);
        granted.map(|index| self.granted.swap_remove(index)).is_some()
    }

    /// Joins the line, or renews the waker. Returns the waker that it replaces, to be dropped after unlocking.
    #[must_use]
    pub(super) fn wait(&mut self, key: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        if let Some(key) = *key
            && let Some((_, known)) = self.waiting.iter_mut().find(|(other, _)| *other == key)
        {
            return (!known.will_wake(waker)).then(|| std::mem::replace(known, waker.clone()));
        }
        self.next += 1;
        *key = Some(self.next);
        self.waiting.push_back((self.next, waker.clone()));
        None
    }

    /// Gives a place back. Returns who was granted it, to be woken after unlocking.
    #[must_use]
    pub(super) fn give_back(&mut self) -> Option<Waker> {
        match self.waiting.pop_front() {
            Some((key, waker)) => {
                self.granted.push(key);
                Some(waker)
            }
            None => {
                self.free += 1;
                None
            }
        }
    }

    /// Leaves the line; a place that was granted goes to the next.
    pub(super) fn leave(&mut self, key: u64) -> Left {
        if self.take_granted(key) {
            return Left { next: self.give_back(), _own: None };
        }
        let index = self.waiting.iter().position(|(other, _)| *other == key);
        Left { next: None, _own: index.and_then(|index| self.waiting.remove(index)).map(|(_, waker)| waker) }
    }
}
