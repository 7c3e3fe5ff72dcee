//! The tables of the specification, written out and walked; what comes too late, and who; and what threads can do to a set, in every
//! order.

mod device_table;
#[cfg(not(loom))]
mod late;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod opening;
mod set_table;
