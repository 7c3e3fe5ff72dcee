//! Bad days: what a backup and a restore meet, and what must still hold afterwards.
//!
//! A [`Trial`] is the command line tool, a store, and where the store is a server a proxy between them. A [`Scenario`] makes one
//! thing go wrong in it. Whatever happens, the tool ends within its time, either well or with an error that says why; every backup
//! that is listed is whole; and a collection leaves nothing else. `tests/network.rs` and `tests/processes.rs` play a selection,
//! `integration/chaos` plays all of them, many times.

mod disk;
mod kill;
mod network;
mod resume;
mod run;
mod scenario;
mod step;
mod syscall;
mod trial;

pub use resume::{Left, Resumed};
pub use run::{Ended, Tool};
pub use scenario::{On, Outcome, Scenario, play_short, scenarios};
pub use step::Step;
pub use trial::{Expect, Trial};
