//! The example `service` where its demonstration does not go: a clean-up that fails.

// Helpers of tests fail as loudly as tests; processes live in real time.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use integration::tool;

/// What a service at `address` answers.
fn post(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: service\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

/// No file can be removed, so what the backup has stored stays; that is told, and does not take the place of why it ended.
#[test]
fn why_a_backup_ended_is_told_also_if_its_clean_up_fails() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("strace");
    // As a grandchild, so that the service itself is the child and gets the signal.
    command.args(["-D", "-f", "-o", "/dev/null", "-e", "trace=?unlink,unlinkat"]);
    command.args(["-e", "inject=?unlink,unlinkat:error=EACCES"]);
    command.arg(tool::build_directory().join("examples/service")).arg("127.0.0.1:0").arg(directory.path());
    let mut service = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(service.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("listening at ").unwrap_or_else(|| panic!("{first}"));
    let answer = post(address, "/backups/orders?megabytes=1000000");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    let mut said = String::new();
    lines.read_to_string(&mut said).unwrap();
    let output = service.wait_with_output().unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{said}"));
    assert!(line("orders: no backup ").ends_with(": the service ends"), "{said}");
    assert!(line("the clean-up of ").contains("is not complete: "), "{said}");
}
