//! What the harness promises about its own processes.

// Processes live in real time.
#![allow(clippy::disallowed_methods)]

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::server::Kind;
use integration::tool;

fn port_of(endpoint: &str) -> u16 {
    let rest = endpoint.strip_prefix("http://127.0.0.1:").expect("servers listen on loopback");
    rest.split('/').next().expect("a first piece").parse().expect("a port")
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_dropped_server_is_gone() {
    let server = Kind::Garage.start();
    let port = port_of(server.endpoint());
    assert!(listens(port));
    drop(server);
    assert!(!listens(port));
}

#[test]
fn a_killed_harness_leaves_no_server() {
    let mut harness = Command::new(env!("CARGO_BIN_EXE_with-servers"))
        .args(["sh", "-c", "echo $VDSTREAM_TEST_GARAGE; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(harness.stdout.take().unwrap()), &mut line).unwrap();
    let port = port_of(line.trim());
    assert!(listens(port));
    // SIGKILL: nothing in the harness gets to run.
    harness.kill().unwrap();
    harness.wait().unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while listens(port) {
        assert!(Instant::now() < limit, "the server outlived its harness");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_command_beside_the_servers_decides_the_exit_status() {
    let status = Command::new(env!("CARGO_BIN_EXE_with-servers")).args(["sh", "-c", "exit 7"]).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

#[test]
fn installed_tools_are_where_the_script_says() {
    for name in ["GARAGE", "AZURITE", "MOTO", "CARGO_DENY"] {
        assert!(tool::installed(name).is_file(), "{name}");
    }
}
