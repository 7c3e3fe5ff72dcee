//! The memory limit is one number for the whole process: the kernel's own count of the tool is compared with it.

// Processes live in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use integration::data::{Entropy, Pattern};
use integration::tool::vdstream_command;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
/// The program itself, its threads' stacks, the runtime, and what the allocator keeps.
const BESIDE: u64 = 28 * MIB;

/// The most memory that the process ever had, from the kernel.
fn peak(child: &mut Child) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(120);
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the tool does not end");
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
        peak = peak.max(kib << 10);
        std::thread::sleep(Duration::from_millis(1));
    }
    peak
}

fn run(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let peak = peak(&mut child);
    assert!(child.wait().unwrap().success());
    peak
}

/// Reading into fresh memory for each request once cost the tool three times its limit.
#[test]
fn every_level_of_verify_keeps_to_the_memory_limit() {
    let work = TempDir::new().unwrap();
    let file = |name: &str| work.path().join(name).to_string_lossy().into_owned();
    let pattern = Pattern::new(integration::data::seed(), 0, Entropy::Random);
    fs::write(file("in"), pattern.bytes(0, 256 << 20)).unwrap();
    let store = file("store");
    let mut backup = vdstream_command();
    run(backup.args(["backup", &store, "--segment-size", "40MiB", "--input", &file("in"), "--quiet"]));
    for level in ["quick", "stored", "full"] {
        let mut verify = vdstream_command();
        let peak = run(verify.args(["verify", &store, "latest", "--memory", "64MiB", "--level", level]));
        println!("verify --level {level}: {} MiB with a limit of {} MiB", peak / MIB, LIMIT / MIB);
        assert!(peak > 4 * MIB, "the kernel was not asked in time");
        assert!(peak < LIMIT + BESIDE, "level {level} had {} MiB", peak / MIB);
    }
}
