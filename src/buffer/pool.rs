//! A bounded number of equal slots, recycled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::{MemoryBudget, Reservation};
use super::slot::SlotMut;
use crate::error::Result;
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
    permits: Arc<Semaphore>,
    /// Slots that came back; at most `slots` in number, because each was allocated under a permit.
    free: Mutex<Vec<Vec<u8>>>,
    reservation: Reservation,
    waiting: AtomicUsize,
    waits: AtomicU64,
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
                permits: Arc::new(Semaphore::new(slots)),
                free: Mutex::new(Vec::new()),
                reservation: budget.reserve(total)?,
                waiting: AtomicUsize::new(0),
                waits: AtomicU64::new(0),
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
        if let Some(slot) = self.try_acquire() {
            return slot;
        }
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.shared.waiting);
        match Arc::clone(&self.shared.permits).acquire_owned().await {
            Ok(permit) => self.slot(permit),
            // The semaphore is private and never closed.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Takes a slot if one is free and nobody waits; never waits.
    pub fn try_acquire(&self) -> Option<SlotMut> {
        Arc::clone(&self.shared.permits).try_acquire_owned().ok().map(|permit| self.slot(permit))
    }

    /// What the pool holds now.
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            slots: self.shared.slots,
            held: self.shared.slots - self.shared.permits.available_permits().min(self.shared.slots),
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            waits: self.shared.waits.load(Ordering::Relaxed),
        }
    }

    fn slot(&self, permit: OwnedSemaphorePermit) -> SlotMut {
        let recycled = self.shared.free.lock().pop();
        let bytes = recycled.unwrap_or_else(|| {
            self.shared.reservation.hold(self.shared.slot_bytes as u64);
            vec![0; self.shared.slot_bytes]
        });
        SlotMut::new(bytes, permit, Arc::clone(&self.shared))
    }
}

impl Shared {
    pub(super) fn put_back(&self, bytes: Vec<u8>) {
        self.free.lock().push(bytes);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The last slot keeps `Shared` alive, so every allocated slot is in `free` here.
        let allocated = self.free.lock().len() as u64;
        self.reservation.release(allocated * self.slot_bytes as u64);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
