//! What the kernel is asked to make durable, as strace sees it.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::process::{Command, Output};

use integration::data::{Entropy, Pattern};
use integration::tool;
use tempfile::TempDir;

/// A system call, with the lines of the log at which it began and ended.
#[derive(Debug)]
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

/// Puts together what other threads have cut in two.
fn calls(log: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(beginning) = text.strip_suffix(" <unfinished ...>") {
            open.insert(thread, (number, beginning));
        } else if let Some(rest) = text.strip_prefix("<... ") {
            let (began, beginning) = open.remove(thread).unwrap();
            let rest = rest.split_once("resumed>").unwrap().1;
            calls.push(Call { began, ended: number, text: format!("{beginning}{rest}") });
        } else {
            calls.push(Call { began: number, ended: number, text: text.to_owned() });
        }
    }
    calls
}

/// `renameat2(5</a/b>, "from", 5</a/b>, "to", RENAME_NOREPLACE) = 0` as the two paths.
fn renamed(call: &str) -> Option<(String, String)> {
    let arguments = call.strip_prefix("renameat2(")?.strip_suffix(" = 0")?;
    let mut names = arguments.split('"').skip(1).step_by(2);
    let directory = arguments.split_once('<')?.1.split_once('>')?.0;
    Some((format!("{directory}/{}", names.next()?), format!("{directory}/{}", names.next()?)))
}

/// `fsync(7</a/b>) = 0` as the path.
fn synced(call: &str) -> Option<&str> {
    call.strip_prefix("fsync(")?.strip_suffix(" = 0")?.split_once('<')?.1.split_once('>').map(|(path, _)| path)
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::with_prefix("vdstream-durable-").unwrap());
        let input = Pattern::new(1, 0, Entropy::Random).bytes(0, 3_000_000);
        std::fs::write(place.path("input"), input).unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A backup of several segments, in parts, under strace.
    fn back_up(&self, options: &[&str]) -> Output {
        let (store, input) = (self.path("store"), self.path("input"));
        let sizes = ["--part-size", "256KiB", "--segment-size", "1MiB"];
        self.traced(options, &[&["backup", &store, "--input", &input][..], &sizes].concat())
    }

    /// The program under strace.
    fn traced(&self, options: &[&str], arguments: &[&str]) -> Output {
        let plain = tool::vdstream_command();
        let mut command = Command::new("strace");
        let trace = "trace=fsync,fdatasync,renameat2";
        command.args(["-f", "-y", "-s", "4096", "-o", &self.path("log"), "-e", trace]).args(options);
        command.arg(plain.get_program()).args(arguments).args(["--quiet", "--progress", "none"]);
        for (name, value) in plain.get_envs().filter(|(_, value)| value.is_none()) {
            assert!(value.is_none());
            command.env_remove(name);
        }
        command.output().expect("strace is installed by integration/servers/install")
    }

    fn listed(&self) -> String {
        let listed = tool::vdstream_command().args(["list", &self.path("store"), "--json"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    }
}

#[test]
fn every_file_is_synced_before_it_gets_its_name_and_its_directory_afterwards() {
    let place = Place::new();
    let output = place.back_up(&[]);
    assert!(output.status.success(), "{output:?}");
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    let calls = calls(&log);
    let mut named = Vec::new();
    for call in &calls {
        let Some((from, to)) = renamed(&call.text) else { continue };
        let (directory, name) = to.rsplit_once('/').unwrap();
        let file = calls.iter().find(|other| synced(&other.text) == Some(&from));
        assert!(file.is_some_and(|file| file.ended < call.began), "{to} got its name unsynced: {log}");
        let after = calls.iter().any(|other| other.began > call.ended && synced(&other.text) == Some(directory));
        assert!(after, "the directory of {to} was not synced: {log}");
        named.push(name.to_owned());
    }
    named.sort();
    named.dedup();
    for name in ["000000.zst", "intent.json", "manifest.json", "s00-000000.json"] {
        assert!(named.iter().any(|named| named == name), "{name} is missing among {named:?}");
    }
    // Nothing has its name without all that.
    let files = tool::files_below(std::path::Path::new(&place.path("store")));
    assert!(files.iter().all(|path| named.iter().any(|name| path.ends_with(name))), "{files:?}, {named:?}");
}

#[test]
fn a_disk_that_syncs_nothing_gets_no_backup() {
    let place = Place::new();
    let output = place.back_up(&["-e", "inject=fsync:error=EIO"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("Input/output error"), "{said}");
    let store = place.path("store");
    let files = tool::files_below(std::path::Path::new(&store));
    assert!(files.iter().all(|path| !path.ends_with("manifest.json")), "{files:?}");
}

/// The first sync of every thread fails. What is written anew is synced anew, and what cannot be is no backup.
#[test]
fn a_disk_that_fails_now_and_then_gets_a_backup_or_an_error() {
    let place = Place::new();
    let output = place.back_up(&["-e", "inject=fsync:error=EIO:when=1"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    let calls = calls(&log);
    let failed: Vec<_> = calls.iter().filter(|call| call.text.contains("EIO")).collect();
    assert!(!failed.is_empty(), "{log}");
    for call in &failed {
        let path = call.text.split_once('<').unwrap().1.split_once('>').unwrap().0;
        let gets_its_name = calls.iter().any(|other| renamed(&other.text).is_some_and(|(from, _)| from == path));
        assert!(!gets_its_name, "{path} got its name although its sync failed: {log}");
    }
    if output.status.success() {
        for call in &failed {
            let path = call.text.split_once('<').unwrap().1.split_once('>').unwrap().0;
            let is_directory = std::path::Path::new(path).is_dir();
            let later = calls.iter().any(|other| other.began > call.ended && synced(&other.text) == Some(path));
            assert!(!is_directory || later, "{path} was not synced again: {log}");
        }
        assert!(place.listed().contains("\"id\""), "{said}");
    } else {
        assert!(said.contains("Input/output error"), "{said}");
        assert!(!place.listed().contains("\"id\""), "{said}");
    }
}

/// A segment is synced while it grows, and the system tells of lost data once: the sync at its end would succeed.
#[test]
fn a_segment_that_the_disk_did_not_take_in_its_middle_is_no_backup() {
    let place = Place::new();
    let output = place.back_up(&["-e", "inject=fdatasync:error=EIO:when=2"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(log.contains("EIO") && !output.status.success(), "{said}{log}");
    assert!(
        said.contains("the disk did not take all that was written") && said.contains("Input/output error"),
        "{said}"
    );
    assert!(!place.listed().contains("\"id\""), "{said}");
}

/// The same of a restored file.
#[test]
fn a_file_that_the_disk_did_not_take_in_its_middle_is_not_restored() {
    let place = Place::new();
    let input = Pattern::new(2, 0, Entropy::Random).bytes(0, 40_000_000);
    std::fs::write(place.path("input"), &input).unwrap();
    assert!(place.back_up(&[]).status.success());
    std::fs::create_dir(place.path("restored")).unwrap();
    let (store, file) = (place.path("store"), place.path("restored/file"));
    let restore = ["restore", &store, "latest", "--output", &file];
    let output = place.traced(&["-e", "inject=fdatasync:error=EIO:when=1"], &restore);
    let said = String::from_utf8(output.stderr).unwrap();
    let log = std::fs::read_to_string(place.path("log")).unwrap();
    assert!(log.contains("EIO") && !output.status.success() && said.contains("Input/output error"), "{said}{log}");
    assert_eq!(std::fs::read_dir(place.path("restored")).unwrap().count(), 0);

    assert!(place.traced(&[], &restore).status.success());
    assert!(std::fs::read(&file).unwrap() == input);
}

/// A block device keeps what is written in memory too, and is synced before it is said to be restored. What the kernel says of the
/// output is changed, so that no device is needed: the mode of `statx` is that of a block device.
#[test]
fn a_block_device_that_the_disk_did_not_take_is_not_restored() {
    let place = Place::new();
    assert!(place.back_up(&[]).status.success());
    let (store, device) = (place.path("store"), place.path("device"));
    // Mask, block size, attributes, links, user, group, mode: little-endian.
    let answer = concat!("ff0f0000", "00100000", "0000000000000000", "01000000", "00000000", "00000000", "8061");
    let inject = format!("inject=statx:poke_exit=@arg5={answer}");
    let only = ["-e", "trace=statx,fsync,fdatasync", "-P", &device, "-e", &inject];
    let restore = |options: &[&str], more: &[&str]| {
        std::fs::write(&device, b"what was there").unwrap();
        let arguments = [&["restore", &store, "latest", "--output", &device], more].concat();
        let output = place.traced(&[&only[..], options].concat(), &arguments);
        let log = std::fs::read_to_string(place.path("log")).unwrap();
        assert!(log.contains("S_IFBLK"), "{log}");
        (output, log)
    };
    let (output, log) = restore(&[], &[]);
    assert!(output.status.success() && std::fs::read(&device).unwrap() == std::fs::read(place.path("input")).unwrap());
    assert!(calls(&log).iter().any(|call| synced(&call.text) == Some(&device)), "{log}");
    // In its place, and under no other name in between.
    let beside = std::fs::read_dir(place.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!beside.into_iter().any(|name| name.to_string_lossy().ends_with(".partial")));

    let (output, log) = restore(&["-e", "inject=fsync:error=EIO"], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("Input/output error") && log.contains("EIO"), "{said}{log}");

    let (output, log) = restore(&[], &["--no-sync"]);
    assert!(output.status.success() && !log.contains("sync("), "{output:?}{log}");
}
