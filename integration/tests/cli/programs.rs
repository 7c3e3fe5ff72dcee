//! Programs beside the tool: what their ends mean, and that nothing of them stays.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::tool::vdstream_command;
use tempfile::TempDir;

use crate::support::*;

#[test]
fn a_consumers_exit_status_is_what_a_restore_reports() {
    let place = Place::disk();
    let made = run(&place, &["backup", &place.url(), "--", "head", "-c", "5000000", "/dev/urandom"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let restore = |script: &str| run(&place, &["restore", &place.url(), "latest", "--", "sh", "-c", script]);
    for script in ["exit 7", "head -c 10 >/dev/null; exit 7", "cat >/dev/null; exit 7"] {
        assert_fails(&restore(script), 1, "`sh` failed (exit status: 7)");
    }
    // One that has seen enough is content.
    let early = restore("head -c 3 | wc -c");
    assert!(early.status.success(), "{}", stderr(&early));
    assert_eq!(early.stdout, b"3\n");
    assert!(stderr(&early).contains("did not want all of the 4.8 MiB"), "{}", stderr(&early));
}

#[test]
fn what_outlives_a_producer_cannot_hold_the_backup_up() {
    let place = Place::disk();
    let start = Instant::now();
    let failed = run(&place, &["backup", &place.url(), "--", "sh", "-c", "sleep 300 & echo x; exit 4"]);
    assert_fails(&failed, 1, "`sh` failed (exit status: 4)");
    assert!(start.elapsed() < Duration::from_secs(9), "a bad exit status is enough: {:?}", start.elapsed());
    let writing = run(&place, &["backup", &place.url(), "--", "sh", "-c", "yes & sleep 0.2"]);
    assert_fails(&writing, 1, "something that it started still writes to its stdout");
    let holding = run(&place, &["backup", &place.url(), "--", "sh", "-c", "sleep 300 & echo x"]);
    assert_fails(&holding, 1, "something that it started still holds its stdout");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(backups(&place).is_empty());
    // What ends soon after the program is waited for.
    let soon = run(&place, &["backup", &place.url(), "--", "sh", "-c", "(sleep 0.3; echo late) & echo early"]);
    assert!(soon.status.success(), "{}", stderr(&soon));
    let restored = run(&place, &["restore", &place.url(), "latest", "--output", "-"]);
    assert_eq!(restored.stdout, b"early\nlate\n");
}

#[test]
fn what_a_producer_started_ends_with_it() {
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let file = work.path().join("pid");
    let script = format!("sleep 300 & echo $! >{0}.new; mv {0}.new {0}; wait", file.display());
    let mut command = vdstream_command();
    command.args(["backup", &place.url(), "--", "sh", "-c", &script]).stdin(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let start = Instant::now();
    while !file.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "the program does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 143, "{}", stderr(&output));
    let pid = fs::read_to_string(&file).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // Nobody may have collected it yet.
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}
