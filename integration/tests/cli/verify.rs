//! What is kept of a verification, and what reaches a terminal.

use integration::place::Place;
use serde_json::Value;

use crate::support::{backups, code, run, stderr};

#[tokio::test]
async fn verifications_are_recorded_and_told_and_what_a_store_holds_commands_no_terminal() {
    let place = Place::disk();
    let url = place.url();
    let label = "who=\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}";
    let made = run(&place, &["backup", &url, "--label", label, "--", "seq", "1000"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(backups(&place)[0]["verified"], Value::Null);
    let sampled =
        run(&place, &["verify", &url, "latest", "--level", "full", "--sample", "50%", "--seed", "7", "--json"]);
    let report: Value = serde_json::from_slice(&sampled.stdout).unwrap();
    assert_eq!((&report["sample"]["seed"], &report["read"]), (&Value::from(7), &Value::from(1)), "{report}");
    let again = run(&place, &["verify", &url, "latest", "--level", "stored", "--since-last=1h", "--json"]);
    let report: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&report["skipped"], &report["read"]), (&Value::from(1), &Value::from(0)), "{report}");
    assert_eq!(backups(&place)[0]["verified"]["level"], "stored");
    assert_eq!(backups(&place)[0]["verified"]["outcome"], "good");

    for verb in [&["show", "latest"][..], &["list"][..]] {
        let arguments: Vec<&str> = [verb[0], &url].into_iter().chain(verb[1..].iter().copied()).collect();
        let shown = String::from_utf8(run(&place, &arguments).stdout).unwrap();
        assert!(shown.contains("stored ") && shown.contains(" good"), "{shown}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}'), "{shown:?}");
    }
    let shown = run(&place, &["show", &url, "latest", "--json"]);
    let document: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(document["labels"]["who"], label.split_once('=').unwrap().1, "documents are for programs");
    assert_eq!(document["verified"]["outcome"], "good");
    let unrecorded = run(&place, &["verify", &url, "latest", "--no-record", "--json"]);
    let report: Value = serde_json::from_slice(&unrecorded.stdout).unwrap();
    assert_eq!(report["record"], Value::Null);
    assert_eq!(place.objects().await.iter().filter(|name| name.contains("/verified/")).count(), 2);
    let no_level = [&["--sample", "5%"][..], &["--since-last"], &["--since-last=30d"]];
    for wrong in no_level.into_iter().chain([&["--sample", "0"][..], &["--since-last=yesterday"], &["--seed", "1"]]) {
        let arguments: Vec<&str> = ["verify", &url, "latest"].into_iter().chain(wrong.iter().copied()).collect();
        assert_eq!(code(&run(&place, &arguments)), 2, "{wrong:?}");
    }
}

/// A quick look after a deep one that found damage must not hide it.
#[test]
fn damage_is_told_until_it_is_shown_to_be_gone() {
    let place = Place::disk();
    let url = place.url();
    let made = run(&place, &["backup", &url, "--", "seq", "1000"]);
    let parent = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let made = run(
        &place,
        &[
            "backup",
            &url,
            "--kind",
            "log",
            "--parent",
            &parent,
            "--keep-until",
            "2100-01-02T00:00:00Z",
            "--",
            "seq",
            "1000",
        ],
    );
    let id = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let directory = url.strip_prefix("file://").unwrap().to_owned();
    let segment = format!("{directory}/default/{id}/s00/000000.zst");
    let page = format!("{directory}/page.html");
    let told = |words: &str| {
        let text = |arguments: &[&str]| String::from_utf8(run(&place, arguments).stdout).unwrap();
        let (listed, shown) = (text(&["list", &url]), text(&["show", &url, &id, "--html", &page]));
        let line = listed.lines().find(|line| line.starts_with(&id)).unwrap();
        assert!(line.contains(words), "list: {line}");
        assert!(shown.contains(words), "show: {shown}");
        (shown, std::fs::read_to_string(&page).unwrap())
    };
    let bytes = std::fs::read(&segment).unwrap();
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    std::fs::write(&segment, damaged).unwrap();
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "full"])), 4);
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "quick"])), 0);
    let (shown, html) = told("damaged (full, 2");
    assert!(html.contains("damaged (full, 2") && !html.contains("committed, verified"), "{html}");
    for (key, value) in [("kind", "log"), ("continues", parent.as_str()), ("kept until", "2100-01-02T00:00:00Z")] {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
        assert!(line.contains(value), "{key}: {shown}");
    }

    std::fs::write(&segment, bytes).unwrap();
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "stored"])), 0);
    told("damaged (full, 2");
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "full"])), 0);
    assert!(told("full 2").1.contains("committed, verified (full)"));

    // One that nobody can read may tell damage.
    let record = format!("{directory}/default/{id}/verified/21000101T000000.000Z.json");
    std::fs::write(&record, "{}\n").unwrap();
    assert!(told("not known (a record cannot be used)").1.contains("a record of a verification cannot be used"));
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "full"])), 4);
    std::fs::remove_file(&record).unwrap();
    told("damaged (full, 2");
    assert_eq!(code(&run(&place, &["verify", &url, &id, "--level", "full"])), 0);
    told("full 2");
}
