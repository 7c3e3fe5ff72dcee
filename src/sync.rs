//! The only place that names mutexes, shared pointers and threads of the code that loom checks.
//!
//! Loom's `Arc` has no weak pointers, no trait objects, and is no `self`; what needs those keeps the standard one. Loom sees every
//! lock all the same, and only the order in which such pointers are dropped is then not tried by itself.

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, MutexGuard},
    thread::{ThreadId, current as current_thread},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Arc, MutexGuard},
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
