//! The tables of the specification, written out and walked.

mod device_table;
mod set_table;
