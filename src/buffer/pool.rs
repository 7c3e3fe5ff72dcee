//! A bounded number of equal slots, recycled.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::budget::{MemoryBudget, Reservation};
use super::line::Line;
use super::slot::SlotMut;
use crate::error::Result;
use crate::meter::{self, Gauge};
use crate::sync::Mutex;

/// A pool of `slots` buffers of `slot_bytes` each.
///
/// The memory of all slots is reserved from the budget at creation, allocated on first use, and kept for reuse
/// until the pool and its last slot are dropped. Waiters are served in the order in which they came. Clones share the pool.
#[derive(Debug, Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    slot_bytes: usize,
    slots: usize,
    reservation: Reservation,
    in_use: Gauge,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Memory of slots that came back; at most `slots` in number, because each was allocated by who had a slot.
    free: Vec<Vec<u8>>,
    /// Acquisitions that ever had to wait.
    waits: u64,
}

/// A snapshot of a [`BufferPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Slots in the pool.
    pub slots: usize,
    /// Slots that are with an owner now.
    pub held: usize,
    /// Calls of [`BufferPool::acquire`] that wait now.
    pub waiting: usize,
    /// Calls of [`BufferPool::acquire`] that ever had to wait.
    pub waits: u64,
}

impl BufferPool {
    /// Creates a pool and reserves `slots` times `slot_bytes` of `budget`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted) if the budget has less than that left.
    pub fn new(budget: &MemoryBudget, slot_bytes: usize, slots: usize) -> Result<Self> {
        let total = (slot_bytes as u64).saturating_mul(slots as u64);
        Ok(Self {
            shared: Arc::new(Shared {
                slot_bytes,
                slots,
                reservation: budget.reserve(total)?,
                in_use: Gauge::new(&meter::SLOTS_IN_USE, &[]),
                state: Mutex::new(State { line: Line::new(slots), free: Vec::new(), waits: 0 }),
            }),
        })
    }

    /// The size of every slot, in bytes.
    pub fn slot_bytes(&self) -> usize {
        self.shared.slot_bytes
    }

    /// Waits for a slot; first come, first served.
    ///
    /// Do not wait in the task that must give slots back: see the [module page](super).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a dropped wait loses its place in the line and nothing else.
    pub async fn acquire(&self) -> SlotMut {
        let mut place = Place { shared: &self.shared, key: None };
        poll_fn(|cx| place.poll(cx.waker())).await
    }

    /// Takes a slot if one is free and nobody waits; never waits.
    pub fn try_acquire(&self) -> Option<SlotMut> {
        let recycled = {
            let mut state = self.shared.state.lock();
            if !state.line.try_take() {
                return None;
            }
            state.free.pop()
        };
        Some(Shared::slot(&self.shared, recycled))
    }

    /// What the pool holds now.
    pub fn stats(&self) -> PoolStats {
        let state = self.shared.state.lock();
        PoolStats {
            slots: self.shared.slots,
            held: self.shared.slots - state.line.free(),
            waiting: state.line.waiting(),
            waits: state.waits,
        }
    }
}

impl Shared {
    /// A slot for who has taken a place; its memory is used again, or allocated now.
    fn slot(this: &Arc<Self>, recycled: Option<Vec<u8>>) -> SlotMut {
        let bytes = recycled.unwrap_or_else(|| {
            this.reservation.hold(this.slot_bytes as u64);
            vec![0; this.slot_bytes]
        });
        this.in_use.add(1);
        SlotMut::new(bytes, Arc::clone(this))
    }

    pub(super) fn put_back(&self, bytes: Vec<u8>) {
        self.in_use.sub(1);
        let next = {
            let mut state = self.state.lock();
            state.free.push(bytes);
            state.line.give_back()
        };
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last slot keeps `Shared` alive, so every allocated slot is in `free` here.
        let allocated = self.state.lock().free.len() as u64;
        self.reservation.release(allocated * self.slot_bytes as u64);
    }
}

/// An acquisition's place in the line.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    key: Option<u64>,
}

impl Place<'_> {
    fn poll(&mut self, waker: &Waker) -> Poll<SlotMut> {
        // Declared before the guard: a waker is dropped only after unlocking.
        let _replaced;
        let mut state = self.shared.state.lock();
        let is_first = self.key.is_none();
        let taken = match self.key {
            None => state.line.try_take(),
            Some(key) => state.line.take_granted(key),
        };
        if !taken {
            state.waits += u64::from(is_first);
            _replaced = state.line.wait(&mut self.key, waker);
            return Poll::Pending;
        }
        self.key = None;
        let recycled = state.free.pop();
        drop(state);
        Poll::Ready(Shared::slot(self.shared, recycled))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let left = self.shared.state.lock().line.leave(key);
        if let Some(next) = left.next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    fn pool(slots: usize) -> (MemoryBudget, BufferPool) {
        let budget = MemoryBudget::new(1 << 20);
        let pool = BufferPool::new(&budget, 1024, slots).unwrap();
        (budget, pool)
    }

    #[test]
    fn a_pool_larger_than_the_budget_is_refused() {
        let budget = MemoryBudget::new(1023);
        assert!(BufferPool::new(&budget, 1024, 1).is_err());
        assert!(BufferPool::new(&budget, usize::MAX, 2).is_err());
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn waiters_are_served_in_order_and_a_dropped_waiter_leaves_no_trace() {
        let (budget, pool) = pool(1);
        let held = pool.try_acquire().unwrap();
        let mut first = task::spawn(pool.acquire());
        let mut second = task::spawn(pool.acquire());
        let mut third = task::spawn(pool.acquire());
        assert_pending!(first.poll());
        assert_pending!(second.poll());
        assert_pending!(third.poll());
        assert_eq!(pool.stats().waiting, 3);
        drop(first);
        drop(held);
        assert!(second.is_woken() && !third.is_woken());
        let slot = assert_ready!(second.poll());
        assert!(pool.try_acquire().is_none());
        drop(slot);
        drop(assert_ready!(third.poll()));
        drop((second, third));
        assert_eq!(pool.stats(), PoolStats { slots: 1, held: 0, waiting: 0, waits: 3 });
        assert_eq!(budget.used(), 1024, "the slot is kept for reuse");
        drop(pool);
        assert_eq!((budget.used(), budget.reserved(), budget.peak()), (0, 0, 1024));
    }

    #[test]
    fn a_waiter_dropped_after_any_poll_leaves_no_trace() {
        for polls in 0..4 {
            let (_budget, pool) = pool(1);
            let mut held = pool.try_acquire();
            let mut quitter = task::spawn(pool.acquire());
            let mut other = task::spawn(pool.acquire());
            for _ in 0..polls.min(2) {
                assert_pending!(quitter.poll());
                assert_pending!(other.poll());
            }
            if polls == 3 {
                held = None;
            }
            drop(quitter);
            assert_eq!(pool.stats().waiting, usize::from(polls > 0), "after {polls} polls");
            assert_eq!(other.is_woken(), held.is_none(), "the slot goes to the next");
            drop(other);
            assert_eq!((pool.stats().waiting, pool.stats().held), (0, usize::from(held.is_some())));
        }
    }

    #[test]
    fn a_waiter_dropped_after_it_was_granted_gives_the_slot_back() {
        let (_budget, pool) = pool(1);
        let held = pool.try_acquire().unwrap();
        let mut waiter = task::spawn(pool.acquire());
        assert_pending!(waiter.poll());
        drop(held);
        drop(waiter);
        assert!(pool.try_acquire().is_some());
    }

    #[test]
    fn memory_stays_counted_until_the_last_shared_slot_is_gone() {
        let (budget, pool) = pool(2);
        let mut slot = pool.try_acquire().unwrap();
        slot.put(b"abc");
        let bytes = slot.freeze().into_bytes();
        drop(pool);
        assert_eq!(&bytes[..], b"abc");
        assert_eq!((budget.used(), budget.reserved()), (1024, 2048));
        drop(bytes);
        assert_eq!((budget.used(), budget.reserved()), (0, 0));
    }
}
