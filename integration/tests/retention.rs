//! `prune` and `delete` of the tool, on disk and on servers.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::Output;

use integration::place::Place;
use integration::server::Kind;
use integration::tool;
use serde_json::Value;

async fn places() -> [Place; 3] {
    let servers = futures::future::join(Place::server(Kind::Garage), Place::server(Kind::Azurite)).await;
    [Place::disk(), servers.0, servers.1]
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    let (verb, rest) = arguments.split_first().unwrap();
    let mut command = tool::vdstream_command();
    command.envs(place.environment()).arg(verb).arg(place.url()).args(rest);
    command.output().unwrap()
}

/// The document that a command prints; it must succeed.
fn document(place: &Place, arguments: &[&str]) -> Value {
    let output = run(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn back_up(place: &Place, options: &[&str]) -> String {
    let arguments: Vec<&str> =
        ["backup", "--json"].iter().chain(options).chain(&["--", "echo", "rows"]).copied().collect();
    document(place, &arguments)["id"].as_str().unwrap().to_owned()
}

fn listed(place: &Place) -> Vec<String> {
    let list = document(place, &["list", "--json"]);
    list["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
}

/// Fails with `code`; the message.
fn refused(place: &Place, code: i32, arguments: &[&str]) -> String {
    let output = run(place, arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    message
}

#[tokio::test]
async fn a_plan_changes_nothing_and_a_confirmed_one_deletes() {
    for place in places().await {
        let ids = [(); 3].map(|()| back_up(&place, &[]));
        let plan = document(&place, &["prune", "--keep-last", "1", "--json"]);
        assert_eq!(plan["confirmed"], false);
        let verdicts: Vec<&str> = plan["series"][0]["backups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|backup| backup["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(verdicts, ["remove", "remove", "keep"]);
        assert_eq!(listed(&place), ids, "nothing was changed");

        let text = run(&place, &["prune", "--keep-last", "1"]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("2 backups") && text.contains("--confirm"), "{text}");

        let done = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
        assert_eq!(done["series"][0]["report"]["deleted"].as_array().unwrap().len(), 2);
        assert_eq!(listed(&place), ids[2..]);
        assert!(refused(&place, 10, &["show", &ids[0]]).contains(&ids[0]));
    }
}

#[tokio::test]
async fn chains_and_protected_backups_are_not_broken() {
    for place in places().await {
        let full = back_up(&place, &[]);
        let log = back_up(&place, &["--parent", "latest", "--kind", "log"]);
        let last = back_up(&place, &["--parent", &log, "--kind", "log", "--keep-until", "1d"]);
        let message = refused(&place, 11, &["delete", &full, "--confirm"]);
        assert!(message.contains(&log) && message.contains("1 more"), "{message}");
        let message = refused(&place, 13, &["delete", &full, "--descendants", "--confirm"]);
        assert!(message.contains(&last) && message.contains("protected"), "{message}");
        let other = back_up(&place, &[]);
        let plan = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
        assert_eq!(plan["series"][0]["report"]["deleted"], serde_json::json!([]), "the chain of a protected one stays");
        assert_eq!(listed(&place).len(), 4);
        document(&place, &["delete", &other, "--confirm", "--json"]);
        assert_eq!(listed(&place), [full, log, last]);
    }
}

#[tokio::test]
async fn wrong_use_is_told_before_anything_happens() {
    let place = Place::disk();
    let id = back_up(&place, &[]);
    assert!(refused(&place, 2, &["prune"]).contains("no rule"));
    assert!(refused(&place, 2, &["prune", "--keep-last", "0", "--confirm"]).contains("no rule"));
    let nobody = id.replace(&id[id.len() - 4..], "0000");
    assert!(refused(&place, 10, &["delete", &nobody, "--confirm"]).contains(&nobody));
    for options in [["--parent", id.as_str()], ["--kind", "log"], ["--kind", "half"]] {
        let arguments: Vec<&str> = ["backup"].iter().chain(&options).chain(&["--", "true"]).copied().collect();
        refused(&place, 2, &arguments);
    }
    let parent = ["backup", "--kind", "log", "--parent", &nobody, "--", "true"];
    assert!(refused(&place, 10, &parent).contains(&nobody));
    refused(&place, 2, &["backup", "--kind", "full", "--parent", &id, "--", "true"]);
    assert_eq!(listed(&place), [id]);
    assert_eq!(
        place.objects().await.len(),
        3,
        "intent, segment and manifest of the one backup: {:?}",
        place.objects().await
    );
}
