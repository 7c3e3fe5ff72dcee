//! Progress for people and for programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::tool::{self, events, repository};
use serde_json::Value;

use crate::support::*;

/// The members of an event as the manual lists them in a section, sorted; `a.b` for one inside another.
pub(crate) fn documented(section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository().join("src/manual/progress.md")).unwrap();
    let section = page.lines().skip_while(|line| line.strip_prefix("## ") != Some(section));
    let table = section.skip_while(|line| !line.starts_with("| member ")).take_while(|line| line.starts_with('|'));
    let rows = table.filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let mut members: Vec<String> = rows.map(|(name, _)| name.to_owned()).collect();
    members.sort();
    members
}

/// Its members are these and no other.
#[track_caller]
pub(crate) fn assert_members(event: &Value, expected: &[String]) {
    let mut found = Vec::new();
    members(event, "", &mut found);
    found.sort();
    found.dedup();
    assert_eq!(found, expected, "{event}");
}

fn members(value: &Value, prefix: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                let name = format!("{prefix}{name}");
                match inner {
                    Value::Object(_) => members(inner, &format!("{name}."), into),
                    Value::Array(items) => {
                        into.push(format!("{name}[]"));
                        items.iter().for_each(|item| members(item, &format!("{name}[]."), into));
                    }
                    _ => into.push(name),
                }
            }
        }
        _ => into.push(prefix.to_owned()),
    }
}

#[test]
fn every_event_has_the_documented_members_and_no_other() {
    let place = Place::disk();
    let script = "for i in 1 2 3; do head -c 1000000 /dev/urandom; sleep 0.5; done";
    let made =
        run(&place, &["backup", &place.url(), "--progress", "json", "--expect-size", "6MB", "--", "sh", "-c", script]);
    assert!(made.status.success(), "{}", stderr(&made));
    let restored = run(&place, &["restore", &place.url(), "latest", "--progress", "json", "--output", "/dev/null"]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    let expected = documented("A backup or a restore");
    assert!(expected.len() > 15, "{expected:?}");
    let (backup, restore) = (events(&stderr(&made)), events(&stderr(&restored)));
    assert!(backup.len() >= 2 && !restore.is_empty(), "a line per second, and one at the end");
    for event in backup.iter().chain(&restore) {
        assert_members(event, &expected);
    }
    let last = backup.last().unwrap();
    assert_eq!(
        (&last["direction"], &last["raw_bytes"], &last["total_bytes"]),
        (&"backup".into(), &3_000_000.into(), &6_000_000.into())
    );
    assert_eq!(last["bottleneck"], "producer");
    assert!(last["eta_seconds"].as_u64().is_some(), "{last}");
    assert_eq!(last["stripes"][0]["position"], 3_000_000);
    let last = restore.last().unwrap();
    assert_eq!(
        (&last["direction"], &last["raw_bytes"], &last["total_bytes"]),
        (&"restore".into(), &3_000_000.into(), &3_000_000.into())
    );
}

/// A producer shares stderr, and what it says there may be JSON as well.
#[test]
fn events_are_told_from_what_a_producer_says() {
    let place = Place::disk();
    let others = [
        r#"{"a":1}"#,
        r#"{"level":"info","event":"started"}"#,
        r#"{"event":{"progress":1}}"#,
        r#"[{"event":"progress"}]"#,
        "{ no JSON",
        "a few words",
    ];
    let script = format!("printf '%s\\n' '{}' >&2; sleep 1.2; echo row", others.join("' '"));
    let made = run(&place, &["backup", &place.url(), "--progress", "json", "--", "sh", "-c", &script]);
    assert!(made.status.success(), "{}", stderr(&made));
    let (text, expected) = (stderr(&made), documented("A backup or a restore"));
    let found = events(&text);
    assert!(found.len() >= 2, "one after a second, and one at the end: {text}");
    found.iter().for_each(|event| assert_members(event, &expected));
    let rest: Vec<&str> = text.lines().filter(|line| tool::event(line).is_none()).collect();
    let (ours, theirs): (Vec<&str>, Vec<&str>) = rest.into_iter().partition(|line| line.starts_with("vdstream: "));
    assert_eq!(theirs, others, "{text}");
    assert!(!ours.is_empty(), "{text}");
    let page = std::fs::read_to_string(repository().join("src/manual/progress.md")).unwrap();
    assert!(
        page.contains("whose member `event` is `progress`, `resume` or `verify`"),
        "as these tests tell them apart"
    );
}

/// The numbers of a restore that a signal ends are those of its end.
#[test]
fn a_restore_that_is_ended_by_a_signal_says_how_far_it_was() {
    let place = Place::disk();
    segments(&place);
    let work = tempfile::TempDir::new().unwrap();
    let (begun, metrics) = (work.path().join("begun"), work.path().join("x.prom"));
    let mut command = tool::vdstream_command();
    command.args(["restore", &place.url(), "latest", "--progress", "json", "--metrics-file"]).arg(&metrics);
    command.args(["--", "sh", "-c", &format!("head -c 1000000 >/dev/null; touch {}; sleep 60", begun.display())]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !begun.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is restored");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 143, "{}", stderr(&output));
    let text = std::fs::read_to_string(&metrics).unwrap();
    let value = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(&format!("vdstream_{name}{{"))).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert_eq!((value("running"), value("exit_code")), (0, 143), "{text}");
    assert!(value("raw_bytes") >= 1_000_000 && value("stored_bytes") >= 1_000_000, "{text}");
    let last = events(&stderr(&output)).pop().expect("an event at the end");
    assert_eq!(
        (&last["raw_bytes"], &last["stored_bytes"]),
        (&value("raw_bytes").into(), &value("stored_bytes").into())
    );
}

/// Who is silent ends no wait, and that is when somebody looks.
#[test]
fn who_hangs_is_named_while_it_hangs() {
    let place = Place::disk();
    let url = place.url();
    let script = "seq 1000000; sleep 3.5; echo end";
    let made = run(&place, &["backup", &url, "--progress", "json", "--", "sh", "-c", script]);
    // More than a pipe holds, so the tool cannot get rid of it.
    let script = "sleep 3.5; cat >/dev/null";
    let restored = run(&place, &["restore", &url, "latest", "--progress", "json", "--", "sh", "-c", script]);
    for (output, word) in [(made, "producer"), (restored, "consumer")] {
        assert!(output.status.success(), "{}", stderr(&output));
        let mut during = events(&stderr(&output));
        during.retain(|event| event["seconds"].as_f64().unwrap() < 3.3);
        assert!(during.len() >= 2, "an event comes each second: {}", stderr(&output));
        for event in during {
            assert_eq!(event["bottleneck"], word, "{event}");
            let (told, passed) = (&event["stages"]["source"]["wait_seconds"], event["seconds"].as_f64().unwrap());
            assert!((told.as_f64().unwrap() - passed).abs() < 0.5, "{event}");
        }
    }
}

#[test]
fn a_verification_tells_how_much_it_has_read_of_what_it_will_read() {
    let place = Place::disk();
    let url = place.url();
    let stored = segments(&place);
    let expected = documented("A verification");
    assert!(expected.len() > 10, "{expected:?}");
    for (level, readings) in [("quick", 0), ("stored", 1), ("full", 2)] {
        let arguments = ["verify", &url, "latest", "--level", level, "--progress", "json", "--limit-download", "6MB"];
        let verified = run(&place, &arguments);
        assert!(verified.status.success(), "{}", stderr(&verified));
        let events = events(&stderr(&verified));
        for event in &events {
            assert_members(event, &expected);
            assert_eq!((&event["event"], &event["level"]), (&"verify".into(), &level.into()));
        }
        let last = events.last().unwrap();
        assert_eq!(last["read_bytes"], readings * stored, "{last}");
        assert_eq!((&last["findings"], &last["eta_seconds"]), (&0.into(), &Value::Null), "{last}");
        assert_eq!(last["raw_bytes"], if level == "full" { 9_000_000 } else { 0 });
        if readings == 0 {
            assert_eq!((&last["total_bytes"], &last["bottleneck"]), (&Value::Null, &Value::Null), "{last}");
        } else {
            assert!(events.len() >= 2, "an event comes each second");
            assert_eq!(
                (&last["total_bytes"], &last["bottleneck"]),
                (&last["read_bytes"], &"throttled".into()),
                "{last}"
            );
        }
    }
    // A segment that is damaged is read once to its end, and what is wrong, its hash and its first frame, is told before the end.
    let segment =
        tool::files_below(&directory(&place)).into_iter().find(|path| path.ends_with("s00/000000.zst")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let verified = run(&place, &["verify", &url, "latest", "--level", "full", "--progress", "json"]);
    assert_eq!(code(&verified), 4);
    let events = events(&stderr(&verified));
    let last = events.last().unwrap();
    let read = 2 * stored - bytes.len() as u64;
    assert_eq!((&last["findings"], &last["read_bytes"], &last["total_bytes"]), (&2.into(), &read.into(), &read.into()));
}

#[test]
fn a_terminal_has_a_bar() {
    let place = Place::disk();
    segments(&place);
    let tool = tool::vdstream();
    let verify = format!("{} verify {} latest --level stored --limit-download 6MB", tool.display(), place.url());
    let shown = |command: &str| {
        let output =
            Command::new("script").args(["-qefc", command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        text
    };
    let bar = shown(&format!("stty cols 120 rows 40; {verify}"));
    assert!(bar.contains(" %  hashes: ") && bar.contains(" of 8.6 MiB"), "{bar:?}");
    let none = shown(&format!("stty cols 120 rows 40; {verify} --progress none"));
    assert!(!none.contains(" %  ") && none.contains("good at level stored"), "{none:?}");
}

/// Makes a backup of three segments, and answers their stored bytes.
fn segments(place: &Place) -> u64 {
    let producer = ["--memory", "48MiB", "--threads", "1", "--", "head", "-c", "9000000", "/dev/urandom"];
    let made = run(place, &[&["backup", &place.url(), "--json", "--segment-size", "1MiB"][..], &producer].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    let document: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(document["segments"].as_u64().unwrap() > 1, "{document}");
    document["stored_bytes"].as_u64().unwrap()
}

/// Where the backups of the default series are.
fn directory(place: &Place) -> PathBuf {
    Path::new(place.url().strip_prefix("file://").unwrap()).join("default")
}

#[test]
fn no_progress_is_shown_where_it_was_not_asked_for() {
    let place = Place::disk();
    for (options, lines) in
        [(&["--progress", "none"][..], 2), (&["--quiet"], 0), (&["--quiet", "--progress", "json"], 0)]
    {
        let made = run(&place, &[&["backup", &place.url()], options, &["--", "sleep", "1.2"]].concat());
        assert!(made.status.success(), "{}", stderr(&made));
        assert_eq!(stderr(&made).lines().count(), lines, "{options:?}: {}", stderr(&made));
    }
}
