//! Harness for black-box tests against real servers.
//!
//! | module | what it gives |
//! |---|---|
//! | [`chaos`] | what goes wrong in networks, servers, processes and disks, and what must still hold |
//! | [`network`] | a network that fails at a named point |
//! | [`server`] | Garage, Azurite and moto on free loopback ports, each gone with the process that started it; PostgreSQL |
//! | [`place`] | a store for one test: a directory, or a corner of such a server, with checks that nothing was left in it |
//! | [`party`] | the processes of one device set |
//! | [`proxy`] | a server in the way of another, which holds chosen requests back |
//! | [`recorder`] | a server that writes down what it is asked, and answers by itself or hands on |
//! | [`counting`] | a store that counts requests and can be given any number of bytes |
//! | [`data`] | test data that shows where a misplaced byte came from |
//! | [`sample`] | small backups: sizes around every boundary, made and read back |
//! | [`terminal`] | a terminal, and somebody who answers at it |
//! | [`tool`] | the command line tool of this build, and the files of this repository |
//!
//! `with-servers CMD…` (a binary of this crate) starts all servers once and runs a command beside them; the test script uses it
//! so that every test process shares them. A test run on its own starts what it needs. A server that is missing or does not start
//! fails the test: nothing is ever skipped.

// Tests of real servers live in real time, and failing loudly is what a harness is for.
#![allow(clippy::disallowed_methods, clippy::missing_panics_doc, clippy::panic, clippy::print_stdout)]

pub mod chaos;
pub mod counting;
pub mod data;
mod http;
pub mod network;
pub mod party;
pub mod place;
pub mod proxy;
pub mod recorder;
pub mod sample;
pub mod server;
pub mod terminal;
pub mod tool;
