//! The one memory number.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::meter::{self, Gauge};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A limit in bytes that every buffer of a backup or restore counts against.
///
/// Clones share the same budget. *Reserved* bytes are promised to a stage; *used* bytes are held right now.
/// Used never exceeds reserved, and reserved never exceeds the limit.
#[derive(Clone)]
pub struct MemoryBudget {
    inner: Arc<Counters>,
}

struct Counters {
    limit: u64,
    reserved: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
    held: Gauge,
}

impl MemoryBudget {
    /// Creates a budget of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            inner: Arc::new(Counters {
                limit: limit_bytes,
                reserved: AtomicU64::new(0),
                used: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                held: Gauge::new(&meter::HELD_BYTES, &[]),
            }),
        }
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> u64 {
        self.inner.limit
    }

    /// Bytes promised to reservations that are alive.
    pub fn reserved(&self) -> u64 {
        self.inner.reserved.load(Ordering::Acquire)
    }

    /// Bytes held right now.
    pub fn used(&self) -> u64 {
        self.inner.used.load(Ordering::Acquire)
    }

    /// The most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.inner.peak.load(Ordering::Acquire)
    }

    /// Reserves `bytes` at once or not at all; never waits.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] if less than `bytes` is left; nothing is reserved then.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation> {
        let counters = &self.inner;
        counters
            .reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |reserved| {
                reserved.checked_add(bytes).filter(|sum| *sum <= counters.limit)
            })
            .map_err(|reserved| {
                Error::new(
                    ErrorKind::Exhausted,
                    format!(
                        "memory limit of {} bytes: {reserved} are reserved, {bytes} more do not fit",
                        counters.limit
                    ),
                )
            })?;
        Ok(Reservation { budget: self.clone(), bytes })
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("limit", &self.limit())
            .field("reserved", &self.reserved())
            .field("used", &self.used())
            .field("peak", &self.peak())
            .finish()
    }
}

/// Bytes of a [`MemoryBudget`] promised to one owner; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: u64,
}

impl Reservation {
    /// The size of the reservation, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts `bytes` of the reservation as held.
    pub(crate) fn hold(&self, bytes: u64) {
        let counters = &self.budget.inner;
        let used = counters.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        debug_assert!(used <= counters.limit, "held memory is within the limit");
        counters.peak.fetch_max(used, Ordering::AcqRel);
        counters.held.add(bytes);
    }

    /// Counts `bytes` as no longer held.
    pub(crate) fn release(&self, bytes: u64) {
        let before = self.budget.inner.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "released memory was held");
        self.budget.inner.held.sub(bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.inner.reserved.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_limit_and_return_on_drop() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).unwrap_err().kind(), ErrorKind::Exhausted);
        let second = budget.reserve(40).unwrap();
        assert_eq!(budget.reserved(), 100);
        assert_eq!(budget.reserve(u64::MAX).unwrap_err().kind(), ErrorKind::Exhausted);
        drop(first);
        assert_eq!(budget.reserved(), 40);
        assert_eq!(second.bytes(), 40);
    }

    #[test]
    fn the_peak_is_the_most_held_at_once() {
        let budget = MemoryBudget::new(100);
        let reservation = budget.reserve(100).unwrap();
        reservation.hold(70);
        reservation.release(50);
        reservation.hold(10);
        assert_eq!((budget.used(), budget.peak()), (30, 70));
    }
}
