//! What the harness promises about its own processes.

// Processes live in real time.
#![allow(clippy::disallowed_methods)]

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::network::{Fault, Point, Proxy, Rule};
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
fn a_proxy_that_was_healed_refuses_nobody() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&format!("http://{}", upstream.local_addr().unwrap()));
    let port = port_of(proxy.endpoint());
    let rule = proxy.add(Rule::at_total(Point::TotalUp(1), Fault::Refuse(Duration::from_secs(3600))));
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
    let limit = Duration::from_secs(20);
    assert!(proxy.wait_fired(rule, limit));
    let end = Instant::now() + limit;
    while listens(port) {
        assert!(Instant::now() < end, "it still takes connections");
    }
    proxy.heal();
    while !listens(port) {
        assert!(Instant::now() < end, "it was healed, and still refuses");
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
