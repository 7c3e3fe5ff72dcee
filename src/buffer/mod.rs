//! Memory shared by device queues and pipeline stages: pools of fixed-size slots under one byte budget.
//!
//! | part | what it is |
//! |---|---|
//! | [`MemoryBudget`] | the one memory number: who reserved how much of it, how much is in use, the peak |
//! | [`BufferPool`] | a bounded number of equal slots, allocated on first use and then recycled |
//! | [`SlotMut`] | one slot, one owner, writable |
//! | [`Slot`] | the same bytes frozen: shared, read-only, convertible to [`bytes::Bytes`] without copying |
//!
//! A pool reserves its whole size when it is created, so acquiring a slot never waits for *memory*, only for
//! another slot of the same pool to come back. Pools therefore cannot starve each other, and a chain of stages in
//! which each stage waits only for the pool of the stage after it cannot deadlock.

mod budget;
mod line;
mod pool;
mod slot;
#[cfg(all(test, loom))]
mod tests;

pub use budget::{MemoryBudget, Reservation};
pub use pool::{BufferPool, PoolStats};
pub use slot::{Slot, SlotMut};
