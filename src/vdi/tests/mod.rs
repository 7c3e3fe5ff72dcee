//! The tables of the specification, written out and walked; what comes too late; and what threads can do to a set, in every
//! order.

mod device_table;
#[cfg(not(loom))]
mod late;
#[cfg(loom)]
mod loom;
mod set_table;
