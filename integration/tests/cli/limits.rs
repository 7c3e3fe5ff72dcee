//! Limits of the tool, and what it tells of a run that ended: in the manifest and in the metrics file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::tool::{self, repository, vdstream_command};
use serde_json::Value;

use crate::support::*;

/// The bytes of three seconds at the limit below.
const PRODUCER: [&str; 4] = ["--", "head", "-c393216", "/dev/urandom"];

fn last_event(text: &str) -> Value {
    tool::events(text).pop().expect("an event")
}

#[test]
fn limits_hold_in_both_directions_and_progress_says_so() {
    let place = Place::disk();
    let url = place.url();
    let timed = |arguments: &[&str]| {
        let begun = Instant::now();
        let output = run(&place, arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        (output, begun.elapsed())
    };
    // A small part, so that the limit has something to space out.
    let options = ["--progress", "json", "--limit-upload", "128KiB", "--part-size", "64KiB", "--level", "adaptive"];
    let (made, took) = timed(&[&["backup", &url][..], &options, &PRODUCER].concat());
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    let event = last_event(&stderr(&made));
    assert_eq!(event["bottleneck"], "throttled", "{event}");
    assert!(event["stages"]["store"]["limited_seconds"].as_f64().unwrap() > 2.0, "{event}");

    let (restored, took) = timed(&[
        "restore",
        &url,
        "latest",
        "--output",
        "/dev/null",
        "--progress",
        "json",
        "--limit-download",
        "128KiB",
    ]);
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    assert_eq!(last_event(&stderr(&restored))["bottleneck"], "throttled");
    for level in ["stored", "full"] {
        let (_, took) = timed(&["verify", &url, "latest", "--level", level, "--limit-download", "128KiB"]);
        assert!(took >= Duration::from_millis(2900), "{level}: {took:?}");
    }

    let shown = run(&place, &["show", &url, "latest", "--json"]);
    let manifest: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let codec = &manifest["codec"];
    assert_eq!(codec["name"], "zstd");
    assert!((1..=9).contains(&codec["level"].as_i64().unwrap()), "{codec}");
}

#[test]
fn wrong_limits_are_refused_before_anything_is_done() {
    let place = Place::disk();
    for option in [["--limit-upload", "1023"], ["--level", "23"], ["--level", "fast"], ["--concurrency", "257"]] {
        let output = run(&place, &[&["backup", &place.url()], &option[..], &["--", "true"]].concat());
        assert_eq!(code(&output), 2, "{option:?}: {}", stderr(&output));
    }
    let begun = ["backup", &place.url(), "--limit-download", "1KiB", "--", "true"];
    assert_fails(&run(&place, &begun), 2, "--limit-download is for what --resume reads back");
    // The variable is for every command.
    let backup = ["backup", &place.url(), "--", "true"];
    let made = run_with(&place, &backup, |command| {
        command.env("VDSTREAM_LIMIT_DOWNLOAD", "1KiB");
    });
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(backups(&place).len(), 1, "the only one");
}

type Samples = BTreeMap<(String, String), f64>;

/// The samples of a file, which must be what the format says.
fn samples(path: &Path) -> Samples {
    let text = std::fs::read_to_string(path).unwrap();
    let mut samples = Samples::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(comment.starts_with("HELP vdstream_") || comment.starts_with("TYPE vdstream_"), "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap();
        let key = (name.to_owned(), labels.trim_end_matches('}').to_owned());
        assert!(samples.insert(key, value.parse().unwrap()).is_none(), "twice: {line}");
    }
    samples
}

fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(repository().join("src/manual/observing.md")).unwrap();
    let table = page.split("## The metrics file").nth(1).unwrap();
    let names = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_metrics_file_tells_of_each_series_and_keeps_the_last_success() {
    let (place, directory) = (Place::disk(), tempfile::tempdir().unwrap());
    let (url, path) = (place.url(), directory.path().join("backup.prom"));
    let file = path.to_str().unwrap();
    let backup = |series: &str, producer: &[&str]| {
        run(&place, &[&["backup", &url, "--series", series, "--metrics-file", file, "--"], producer].concat())
    };
    let value = |name: &str, series: &str| {
        let labels = format!("command=\"backup\",series=\"{series}\"");
        samples(&path).get(&(format!("vdstream_{name}"), labels)).copied()
    };
    // The producer backs up what the file says while it runs.
    assert_eq!(code(&backup("a", &["cat", file])), 0);
    let restored = run(&place, &["restore", &url, "latest", "--series", "a", "--output", "-"]);
    let during = String::from_utf8(restored.stdout).unwrap();
    assert!(during.contains("vdstream_running{command=\"backup\",series=\"a\"} 1\n"), "{during}");
    assert!(!during.contains("vdstream_exit_code"), "{during}");

    let names: BTreeSet<_> = samples(&path).into_keys().map(|(name, _)| name).collect();
    assert_eq!(names, documented());
    let success = value("last_success_timestamp_seconds", "a").unwrap();
    assert!(success > 1.7e9 && value("start_timestamp_seconds", "a").unwrap() <= success);
    assert_eq!((value("exit_code", "a"), value("running", "a")), (Some(0.0), Some(0.0)));
    assert_eq!(value("raw_bytes", "a"), Some(during.len() as f64));
    assert!(value("stored_bytes", "a").unwrap() > 0.0);

    assert_eq!(code(&backup("b", &["false"])), 1);
    assert_eq!((value("exit_code", "b"), value("last_success_timestamp_seconds", "b")), (Some(1.0), None));
    assert_eq!(value("exit_code", "a"), Some(0.0), "the other series is still there");
    assert_eq!(code(&backup("a", &["sh", "-c", "echo x; exit 3"])), 1);
    assert_eq!(value("exit_code", "a"), Some(1.0));
    assert_eq!(value("last_success_timestamp_seconds", "a"), Some(success), "a failure is no success");

    for (command, level) in [("restore", &["--output", "/dev/null"][..]), ("verify", &["--level", "stored"])] {
        let arguments = [&[command, &url, "latest", "--series", "a", "--metrics-file", file], level].concat();
        assert_eq!(code(&run(&place, &arguments)), 0);
        let key = ("vdstream_exit_code".to_owned(), format!("command=\"{command}\",series=\"a\""));
        assert_eq!(samples(&path).get(&key), Some(&0.0));
    }
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no temporary file stays");

    // A mistyped path: what stands there stays, and nothing is begun.
    std::fs::write(&path, "the only copy\n").unwrap();
    let before = backups(&place).len();
    assert_fails(&backup("a", &["echo", "x"]), 2, "it has lines that are not vdstream's: name another file");
    assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), backups(&place).len()), ("the only copy\n", before));
}

/// A run that a signal ends writes its last numbers, and neither the last success nor a half of a file.
#[test]
fn the_metrics_file_tells_of_a_run_that_a_signal_ended() {
    let (place, directory) = (Place::disk(), tempfile::tempdir().unwrap());
    let (url, path) = (place.url(), directory.path().join("backup.prom"));
    let file = path.to_str().unwrap();
    let value = |command: &str, name: &str| {
        let labels = format!("command=\"{command}\",series=\"default\"");
        samples(&path).get(&(format!("vdstream_{name}"), labels)).copied()
    };
    assert_eq!(code(&run(&place, &["backup", &url, "--metrics-file", file, "--", "seq", "300000"])), 0);
    let success = value("backup", "last_success_timestamp_seconds");
    assert!(success.is_some());
    let out = directory.path().join("out");
    for arguments in [
        &["backup", &url, "--", "sh", "-c", "head -c 9000000 /dev/urandom; sleep 60"][..],
        &["verify", &url, "latest", "--level", "stored", "--limit-download", "1KiB"],
        &["restore", &url, "latest", "--limit-download", "1KiB", "--output", out.to_str().unwrap()],
    ] {
        let command = arguments[0];
        let mut tool = vdstream_command();
        tool.args(arguments).envs([("VDSTREAM_METRICS_FILE", file), ("VDSTREAM_PROGRESS", "json")]);
        let mut child = tool.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // After the first event it is in the middle of its work.
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(told.any(|line| tool::event(&line).is_some()), "{command} does not begin");
        assert_eq!(value(command, "running"), Some(1.0), "{command}");
        assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
        // To its end, or it could not go on.
        told.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(143), "{command}");
        assert_eq!((value(command, "running"), value(command, "exit_code")), (Some(0.0), Some(143.0)), "{command}");
        assert!(value(command, "duration_seconds").unwrap() >= 0.9, "{command}");
    }
    assert!(value("backup", "raw_bytes").unwrap() > 1e6, "what had moved until then");
    assert_eq!(value("backup", "last_success_timestamp_seconds"), success);
    assert_eq!(value("verify", "last_success_timestamp_seconds"), None);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_metrics_file_that_cannot_be_written_is_told_and_changes_nothing() {
    let place = Place::disk();
    let made = run(&place, &["backup", &place.url(), "--metrics-file", "/nowhere/x.prom", "--", "true"]);
    assert_eq!(code(&made), 0);
    assert!(stderr(&made).contains("the metrics file /nowhere/x.prom cannot be written"), "{}", stderr(&made));
}
