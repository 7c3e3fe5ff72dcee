//! Starts Garage, Azurite and moto, runs a command beside them, stops them.
//!
//! ```text
//! with-servers CMD [ARG…]
//! ```
//!
//! The command finds the servers by the variables of `Kind::variable`, and by those that cloud tools read: `s3://vdstream/…` is
//! Garage, `az://vdstream/…` is Azurite. The exit status is the command's.

// A program of the tests, not of the library.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

use std::process::{Command, ExitCode};

use integration::place::make_bucket;
use integration::server::{Kind, client_environment};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-servers CMD [ARG…]");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(arguments);

    let starting = Kind::ALL.map(|kind| std::thread::spawn(move || (kind, kind.start())));
    let running = starting.map(|thread| thread.join().expect("a server that does not start ends the run"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (kind, server) in &running {
        runtime.block_on(make_bucket(*kind, server.endpoint()));
        command.env(kind.variable(), server.endpoint());
        if *kind != Kind::Moto {
            command.envs(client_environment(*kind, server.endpoint()));
        }
        eprintln!("with-servers: {}={}", kind.variable(), server.endpoint());
    }

    let status = match command.status() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("with-servers: cannot run {command:?}: {error}");
            return ExitCode::from(127);
        }
    };
    drop(running);
    // A command that was killed has no exit code.
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}
