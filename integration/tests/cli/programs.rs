//! Programs beside the tool: what their ends mean, and that nothing of them stays.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::tool::{files_below, vdstream_command};
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
    assert!(is_gone(&file), "what the program started still runs");
}

/// Whether the process that has left its id in this file has ended.
fn is_gone(file: &Path) -> bool {
    let pid = fs::read_to_string(file).unwrap();
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // Nobody may have collected it yet.
    state.is_empty() || state.contains(") Z ")
}

/// A consumer that no polite signal ends, and that leaves the file `end` when it has seen the end of its input. The files are in
/// `work`; `begun` has its id.
fn to_the_end(work: &Path) -> String {
    let work = work.display();
    format!("trap '' TERM; echo $$ >{work}/new; mv {work}/new {work}/begun; cat >/dev/null; touch {work}/end")
}

/// Backs up three segments, each more than a pipe holds.
fn segments(place: &Place) {
    let limits = ["--segment-size", "1MiB", "--memory", "48MiB", "--threads", "1"];
    let producer = ["--", "head", "-c", "9000000", "/dev/urandom"];
    let made = run(place, &[&["backup", &place.url()][..], &limits, &producer].concat());
    assert!(made.status.success(), "{}", stderr(&made));
}

#[test]
fn a_consumer_does_not_take_damage_for_the_end_of_its_input() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    segments(&place);
    let restore = || run(&place, &["restore", &place.url(), "latest", "--", "sh", "-c", &to_the_end(work.path())]);
    assert!(restore().status.success());
    assert!(work.path().join("end").exists(), "this is what the end of the input looks like");
    fs::remove_file(work.path().join("end")).unwrap();

    let root = place.url();
    let files = files_below(Path::new(root.strip_prefix("file://").unwrap()));
    let segment = files.iter().find(|path| path.ends_with("s00/000002.zst")).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    bytes[20] ^= 1;
    fs::write(segment, bytes).unwrap();
    assert_fails(&restore(), 4, "s00/000002.zst");
    assert!(is_gone(&work.path().join("begun")), "the program still runs");
    assert!(!work.path().join("end").exists(), "the program saw the end of its input");
}

#[test]
fn a_consumer_does_not_take_a_signal_to_the_tool_for_the_end_of_its_input() {
    let place = Place::disk();
    segments(&place);
    let (once, twice) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // Slow enough to be in the middle for seconds.
    let start = |work: &TempDir| -> Child {
        let mut command = vdstream_command();
        command.args(["restore", &place.url(), "latest", "--limit-download", "500KB", "--", "sh", "-c"]);
        command.arg(to_the_end(work.path())).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let terminate =
        |child: &Child| assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let children = [&once, &twice].map(|work| (work.path(), start(work)));
    let begun = Instant::now();
    for (work, child) in &children {
        while !work.join("begun").exists() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the program does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        terminate(child);
    }
    // Nothing can be waited for: the tool must go on waiting for the program.
    std::thread::sleep(Duration::from_millis(300));
    terminate(&children[1].1);
    for ((work, child), last) in children.into_iter().zip(["the output is incomplete", "leaving at once"]) {
        let output = child.wait_with_output().unwrap();
        assert_fails(&output, 143, last);
        while !is_gone(&work.join("begun")) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{last}: the program still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!work.join("end").exists(), "{last}: the program saw the end of its input");
    }
}
