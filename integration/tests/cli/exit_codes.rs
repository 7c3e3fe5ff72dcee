//! The exit codes of `--help`, one by one: each row of the table has a scenario here, and each scenario a row.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::tool::{self, vdstream, vdstream_command};

use crate::support::*;

/// The codes of the table, each with its meaning. A row may have several.
fn table() -> Vec<(i32, String)> {
    let help = vdstream_command().arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    let mut rows = text.lines().skip_while(|line| !line.starts_with("Exit codes: 0 done,"));
    let mut table = vec![(0, rows.next().expect("a table").to_owned())];
    for row in rows.map_while(|line| line.strip_prefix("  ")) {
        let (codes, meaning) = row.split_once("  ").expect("codes and their meaning");
        let codes = codes.split(", ").map(|code| (code.parse().expect("a number"), meaning.trim().to_owned()));
        table.extend(codes);
    }
    table.sort_unstable_by_key(|(code, _)| *code);
    table
}

/// What has each code as its answer. `None` for a code without a scenario.
fn scenario(code: i32, place: &Place) -> Option<Output> {
    let url = place.url();
    let run = |arguments: &[&str]| run(place, arguments);
    Some(match code {
        0 => run(&["backup", &url, "--", "echo", "x"]),
        1 => run(&["backup", &url, "--", "sh", "-c", "exit 3"]),
        2 => run(&["backup", &url]),
        4 => {
            let id = made(place, &["--", "seq", "1000"]);
            let segment = directory(place).join(&id).join("s00/000000.zst");
            let mut bytes = fs::read(&segment).unwrap();
            bytes[20] ^= 1;
            fs::write(&segment, bytes).unwrap();
            run(&["verify", &url, &id, "--level", "stored"])
        }
        // Nobody listens there.
        5 => run_with(place, &["doctor", "s3://bucket/prefix"], |command| {
            command.envs([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_REGION", "c")]);
            command.envs([("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ALLOW_HTTP", "true")]);
        }),
        6 => shell(place, "\"$0\" backup \"$1\" -- echo x >/dev/full"),
        10 => run(&["show", &url, "01890000-0000-7000-8000-000000000000"]),
        11 => {
            let full = made(place, &["--", "echo", "x"]);
            made(place, &["--kind", "log", "--parent", &full, "--", "echo", "y"]);
            run(&["delete", &url, &full, "--confirm"])
        }
        13 => run(&["list", "s3://bucket/prefix"]),
        14 => {
            made(place, &["--", "head", "-c", "5000000", "/dev/zero"]);
            run(&["restore", &url, "latest", "--output", "/dev/full"])
        }
        15 => {
            made(place, &["--recipient", RECIPIENT, "--", "echo", "x"]);
            run(&["restore", &url, "latest", "--output", "/dev/null"])
        }
        129 => signalled(place, "HUP"),
        130 => signalled(place, "INT"),
        141 => {
            made(place, &["--", "echo", "x"]);
            shell(place, "(sleep 0.3; exec \"$0\" list \"$1\") | true; exit ${PIPESTATUS[0]}")
        }
        143 => signalled(place, "TERM"),
        _ => return None,
    })
}

/// A public key whose private half nobody kept.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// The id of a backup that is made for the scenario.
fn made(place: &Place, arguments: &[&str]) -> String {
    let made = run(place, &[&["backup", place.url().as_str()], arguments].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// Where the backups of the default series are.
fn directory(place: &Place) -> std::path::PathBuf {
    std::path::Path::new(place.url().strip_prefix("file://").expect("a place on disk")).join("default")
}

/// Runs a shell script whose `$0` is the tool and whose `$1` is the place.
fn shell(place: &Place, script: &str) -> Output {
    Command::new("bash").args(["-c", script]).arg(vdstream()).arg(place.url()).output().unwrap()
}

/// A backup that gets a signal when it has begun.
fn signalled(place: &Place, signal: &str) -> Output {
    let mut command = vdstream_command();
    command.args(["backup", &place.url(), "--", "sleep", "60"]);
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !tool::files_below(&directory(place)).iter().any(|path| path.ends_with("intent.json")) {
        assert!(start.elapsed() < Duration::from_secs(30), "the backup does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

#[test]
fn every_row_of_the_table_happens() {
    let table = table();
    assert!(table.len() >= 15, "the table is not read as it is printed: {table:?}");
    for (expected, meaning) in table {
        let place = Place::disk();
        let output = scenario(expected, &place).unwrap_or_else(|| panic!("no scenario for {expected}: {meaning}"));
        assert_eq!(output.status.code(), Some(expected), "{meaning}: {}", stderr(&output));
        let lines = stderr(&output).lines().filter(|line| tool::event(line).is_none()).count();
        match expected {
            // Told by its silence, and by what it did.
            141 => assert_eq!(lines, 0, "{}", stderr(&output)),
            _ => assert!(lines > 0, "{expected} says nothing"),
        }
    }
}

/// `any` is an age for `verify --since-last`. As a silence it would be one that no backup ever keeps.
#[test]
fn a_silence_is_a_time() {
    let place = Place::disk();
    let id = "01890000-0000-7000-8000-000000000000";
    let resumed = |silence| run(&place, &["backup", &place.url(), "--resume", id, "--silence", silence, "--", "true"]);
    let refused = resumed("any");
    assert_eq!(code(&refused), 2, "{}", stderr(&refused));
    assert!(stderr(&refused).contains("expected a number with a unit"), "{}", stderr(&refused));
    // Accepted, and there is no such backup.
    assert_fails(&resumed("0s"), 10, id);
}

#[test]
fn every_scenario_has_a_row() {
    let codes: Vec<i32> = table().into_iter().map(|(code, _)| code).collect();
    let mut sorted = codes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(codes, sorted, "each once, in order");
    for code in (0..=255).filter(|code| !codes.contains(code)) {
        assert!(scenario(code, &Place::disk()).is_none(), "{code} is not in the table");
    }
}
