//! The script that restores a backup without us.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::tool;
use tempfile::TempDir;

const LENGTHS: [usize; 3] = [26_000_001, 1, 0];

/// A backup of three stripes, and its directory.
fn back_up(place: &Place, work: &Path, encryption: &[&str]) -> PathBuf {
    let mut command = tool::vdstream_command();
    command.args(["backup", &place.url(), "--segment-size", "1MiB"]).args(encryption).stdin(Stdio::null());
    for (stripe, len) in (0..).zip(LENGTHS) {
        let path = work.join(format!("in{stripe}"));
        fs::write(&path, Pattern::new(data::seed(), stripe, Entropy::Random).bytes(0, len)).unwrap();
        command.arg("--input").arg(path);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    Path::new(place.url().strip_prefix("file://").unwrap()).join("default").join(id)
}

fn restore(backup: &Path, stripe: usize, output: &Path, keys: &[&str]) -> Output {
    let script = tool::repository().join("examples/restore.sh");
    let mut command = Command::new(script);
    command.arg(backup).arg(stripe.to_string()).arg(output).args(keys).stdin(Stdio::null());
    command.output().unwrap()
}

fn comes_back(backup: &Path, work: &Path, keys: &[&str]) {
    for stripe in 0..LENGTHS.len() {
        let output = work.join(format!("out{stripe}"));
        let done = restore(backup, stripe, &output, keys);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let (original, restored) = (fs::read(work.join(format!("in{stripe}"))), fs::read(output));
        assert!(original.unwrap() == restored.unwrap(), "stripe {stripe} came back changed");
    }
}

#[test]
fn a_backup_comes_back_and_damage_is_refused() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let backup = back_up(&place, work.path(), &[]);
    comes_back(&backup, work.path(), &[]);

    let output = work.path().join("again");
    let segment = backup.join("s00/000001.zst");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a flipped bit");
    fs::write(&segment, &bytes[..middle]).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a cut object");
    fs::remove_file(&segment).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a lost object");
    let left: Vec<_> = tool::files_below(work.path()).into_iter().filter(|path| path.starts_with(&output)).collect();
    assert!(left.is_empty() && !output.exists(), "a failure leaves {left:?}");
}

#[test]
fn an_encrypted_backup_comes_back_with_age() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let key = work.path().join("key").to_string_lossy().into_owned();
    let made = Command::new("age-keygen").args(["-o", &key]).output().unwrap();
    assert!(made.status.success());
    let text = fs::read_to_string(&key).unwrap();
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    let backup = back_up(&place, work.path(), &["--recipient", public]);
    comes_back(&backup, work.path(), &["-i", &key]);
    let output = work.path().join("again");
    assert!(!restore(&backup, 0, &output, &[]).status.success() && !output.exists(), "no key");
}
