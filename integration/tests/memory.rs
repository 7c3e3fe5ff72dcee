//! The memory limit is one number for the whole process: the kernel's own count of the tool is compared with it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Stdio};

use integration::data::{Entropy, Pattern};
use integration::tool::{self, vdstream_command};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
/// The program itself, its threads' stacks, the runtime, and what the allocator keeps.
const BESIDE: u64 = 28 * MIB;

fn run(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    tool::peak_memory(&mut child)
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
