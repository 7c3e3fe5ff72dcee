//! Random operation lists against a model of the device set: shared by the test and the fuzz target.
//!
//! | file | what it is |
//! |---|---|
//! | `op` | operations, decoded from any bytes |
//! | `model` | the reference: what each operation should give |
//! | `run` | runs a list on both and compares after every step |

mod model;
mod op;
mod run;

pub(crate) use op::List;
pub(crate) use run::{Seen, run};
