//! The only place that names mutexes, shared pointers and threads of the code that loom checks.
//!
//! Loom's `Arc` has no weak pointers, no trait objects, and is no `self`; what needs those keeps the standard one. Loom sees every
//! lock all the same, and only the order in which such pointers are dropped is then not tried by itself.

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, MutexGuard, atomic},
    thread::{ThreadId, current as current_thread},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Arc, MutexGuard, atomic},
    thread::{ThreadId, current as current_thread},
};

#[cfg(loom)]
use loom::sync::Mutex as Inner;
#[cfg(not(loom))]
use std::sync::Mutex as Inner;

/// A mutex without poisoning: what it guards stays consistent because no guarded section calls foreign code.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(Inner<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Runs a model in every order in which its threads can meet, and prints how many executions that were.
///
/// Without a `bound` that is exhaustive. A bound limits how often a thread is interrupted where it could have gone on; within it
/// the search is exhaustive too, and two find nearly every race. For a search at depth, `LOOM_MAX_PREEMPTIONS` sets the bound of
/// all models that have one, `LOOM_MAX_DURATION` limits each model to that many seconds, and `VDSTREAM_LOOM_ONLY_BOUNDED` leaves
/// out those that a bound does not change.
#[cfg(all(test, loom))]
#[allow(clippy::disallowed_methods, reason = "loom watches the clock of the machine too")]
pub(crate) fn explore(name: &str, bound: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    if bound.is_none() && std::env::var_os("VDSTREAM_LOOM_ONLY_BOUNDED").is_some_and(|value| !value.is_empty()) {
        return;
    }
    // Loom tries one execution after another; its own threads are not real ones.
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound.map(|bound| builder.preemption_bound.unwrap_or(bound));
    builder.max_branches = 10_000;
    // How often loom looks whether the time is over.
    builder.checkpoint_interval = 100;
    let (limit, time) = (builder.preemption_bound, builder.max_duration);
    let start = std::time::Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let bound = limit.map_or("exhaustive".to_owned(), |bound| format!("up to {bound} preemptions"));
    let end = if time.is_some_and(|time| start.elapsed() >= time) { "; the time was over" } else { ", all of them" };
    println!("loom: {name}: {} executions, {bound}{end}", executions.load(Ordering::Relaxed));
}
