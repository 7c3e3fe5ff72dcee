//! Every order in which threads can meet in a pool, tried by loom. Run like the models of device sets, and with the same meaning of
//! a model's bound: exhaustive without one, and exhaustive within the one that it names.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use super::super::{BufferPool, MemoryBudget, PoolStats};
use crate::sync::explore;

fn pool(slots: usize) -> (MemoryBudget, BufferPool) {
    let budget = MemoryBudget::new(64);
    let pool = BufferPool::new(&budget, 8, slots).unwrap();
    (budget, pool)
}

/// Every slot is back, nobody waits, and with the pool its memory goes.
fn assert_whole(budget: &MemoryBudget, pool: BufferPool, slots: usize) {
    let stats = pool.stats();
    assert_eq!(stats, PoolStats { slots, held: 0, waiting: 0, waits: stats.waits });
    assert!(budget.used() <= 8 * slots as u64, "more memory than slots");
    drop(pool);
    assert_eq!((budget.used(), budget.reserved()), (0, 0));
}

#[test]
fn two_owners_that_wait_for_one_slot_both_get_it() {
    explore("pool: two owners, one slot", None, || {
        let (budget, pool) = pool(1);
        let others = [(); 2].map(|()| {
            let pool = pool.clone();
            thread::spawn(move || drop(block_on(pool.acquire())))
        });
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_whole(&budget, pool, 1);
    });
}

#[test]
fn three_owners_that_wait_for_two_slots_all_get_one() {
    explore("pool: three owners, two slots", Some(2), || {
        let (budget, pool) = pool(2);
        let others = [(); 2].map(|()| {
            let pool = pool.clone();
            thread::spawn(move || drop(block_on(pool.acquire())))
        });
        drop(block_on(pool.acquire()));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_whole(&budget, pool, 2);
    });
}

/// The wait that is given up may have been granted the slot a moment before; then the other one must get it.
#[test]
fn a_waiter_that_gives_up_while_the_slot_comes_back_leaves_it_to_the_next() {
    explore("pool: giving up against giving back", None, || {
        let (budget, pool) = pool(1);
        let slot = pool.try_acquire().unwrap();
        let quitting = pool.clone();
        let quitter = thread::spawn(move || {
            let mut wait = pin!(quitting.acquire());
            let _either = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        });
        let waiting = pool.clone();
        let waiter = thread::spawn(move || drop(block_on(waiting.acquire())));
        drop(slot);
        quitter.join().unwrap();
        waiter.join().unwrap();
        assert_whole(&budget, pool, 1);
    });
}

#[test]
fn nobody_overtakes_who_waits() {
    explore("pool: overtaking", None, || {
        let (budget, pool) = pool(1);
        let slot = pool.try_acquire().unwrap();
        let mut wait = Box::pin(pool.acquire());
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let back = thread::spawn(move || drop(slot));
        assert!(pool.try_acquire().is_none(), "the slot is granted to who waits");
        back.join().unwrap();
        assert!(matches!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_)));
        drop(wait);
        assert_whole(&budget, pool, 1);
    });
}

/// The last slot may outlive its pool; whoever is last gives the memory back.
#[test]
fn the_pool_and_its_last_slot_go_at_once() {
    explore("pool: drop against drop", None, || {
        let (budget, pool) = pool(1);
        let mut slot = pool.try_acquire().unwrap();
        slot.put(b"abc");
        let bytes = slot.freeze().into_bytes();
        let other = bytes.clone();
        let droppers = [thread::spawn(move || drop(bytes)), thread::spawn(move || drop(pool))];
        drop(other);
        droppers.into_iter().for_each(|dropper| dropper.join().unwrap());
        assert_eq!((budget.used(), budget.reserved()), (0, 0));
    });
}

#[test]
fn reservations_that_race_never_exceed_the_limit() {
    explore("budget: reservations", None, || {
        let budget = MemoryBudget::new(100);
        let others = [(); 2].map(|()| {
            let budget = budget.clone();
            thread::spawn(move || {
                let reservation = budget.reserve(60);
                assert!(budget.reserved() <= 100);
                reservation.is_ok()
            })
        });
        let granted = others.map(|other| other.join().unwrap());
        assert!(granted.contains(&true), "one of them fits");
        assert_eq!(budget.reserved(), 0);
        assert!(budget.reserve(100).is_ok());
    });
}
