//! The tables of the specification, written out and walked; and what threads can do to a set, in every order.

mod device_table;
#[cfg(loom)]
mod loom;
mod set_table;
