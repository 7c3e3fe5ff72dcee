//! `prune` and `delete` of the tool, on disk and on servers.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::{Output, Stdio};

use integration::data::{Entropy, Pattern};
use integration::place::Place;
use integration::proxy::Proxy;
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
        assert_eq!(done["series"][0]["report"]["keeps_versions"], false);
        assert_eq!(listed(&place), ids[2..]);
        assert!(refused(&place, 10, &["show", &ids[0]]).contains(&ids[0]));
    }
}

/// The newest has a manifest and no data any more. The plan that is shown is the one that is carried out.
#[tokio::test]
async fn a_backup_without_its_data_is_not_the_one_that_is_kept() {
    for place in places().await {
        let ids = [(); 3].map(|()| back_up(&place, &[]));
        let segment = format!("{}/default/{}/s00/000000.zst", place.prefix(), ids[2]);
        let segment = object_store::path::Path::from(segment.trim_start_matches('/'));
        object_store::ObjectStoreExt::delete(&*place.store(), &segment).await.unwrap();
        let shown = document(&place, &["prune", "--keep-last", "1", "--json"]);
        let done = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
        assert_eq!(shown["series"][0]["backups"], done["series"][0]["backups"], "{place:?}");
        let verdicts: Vec<&str> =
            [0, 1, 2].map(|nth| done["series"][0]["backups"][nth]["verdict"].as_str().unwrap()).into();
        assert_eq!(verdicts, ["remove", "keep", "ignore"], "{done}");
        assert_eq!(done["series"][0]["report"]["deleted"], serde_json::json!([ids[0]]));
        document(&place, &["restore", &ids[1], "--json", "--output", "/dev/null"]);
    }
}

/// Three of the first series are to go, and one of the second. The second deletion fails.
#[tokio::test]
async fn a_deletion_that_fails_half_way_prints_what_it_did_and_no_more() {
    let place = Place::disk();
    let ids = [(); 4].map(|()| back_up(&place, &[]));
    let later = [(); 2].map(|()| back_up(&place, &["--series", "later"]));
    let directory = place.url().strip_prefix("file://").unwrap().to_owned();
    let manifest = format!("{directory}/default/{}/manifest.json", ids[1]);
    let mut command = tool::vdstream_refused(manifest.as_ref(), "ENOSPC");
    command.args(["prune", &place.url(), "--keep-last", "1", "--confirm"]);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(14), "{message}");
    assert!(message.contains(&ids[1]), "{message}");
    let text = String::from_utf8(output.stdout).unwrap();
    let fates = [
        (&ids[0], "not reached"),
        (&ids[1], "in doubt"),
        (&ids[2], "deleted"),
        (&ids[3], "keep"),
        (&later[0], "not reached"),
        (&later[1], "keep"),
    ];
    for (id, fate) in fates {
        let line = text.lines().find(|line| line.starts_with(id.as_str())).unwrap();
        assert!(line.split("  ").any(|cell| cell.trim() == fate), "{fate}: {text}");
    }
    assert!(text.contains("\n1 backup deleted") && text.contains("\n3 backups not reached"), "{text}");
    assert_eq!(listed(&place).len(), 5);

    let rest = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
    assert_eq!(rest["series"][0]["report"]["deleted"], serde_json::json!([ids[1], ids[0]]));
    assert_eq!(listed(&place), [&ids[3], &later[1]].map(String::clone));
}

/// The rules themselves are tested where time can be set; here, that each option asks for its rule and no other.
#[tokio::test]
async fn each_option_asks_for_its_rule() {
    let place = Place::disk();
    let old = back_up(&place, &["--label", "keep=forever"]);
    let new = back_up(&place, &[]);
    let options: [(&[&str], &str, bool); 8] = [
        (&["--keep-last", "2"], "last", true),
        (&["--keep-hourly", "1"], "hourly 20", false),
        (&["--keep-daily", "1"], "daily 20", false),
        (&["--keep-weekly", "1"], "weekly 20", false),
        (&["--keep-monthly", "1"], "monthly 20", false),
        (&["--keep-yearly", "1"], "yearly 20", false),
        (&["--keep-within", "1h"], "within", true),
        (&["--keep-tag", "keep=forever"], "label keep", true),
    ];
    for (option, reason, keeps_old) in options {
        let output = run(&place, &[&["prune"], option].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(reason), "{option:?}: {text}");
        let line = |id: &str| text.lines().find(|line| line.starts_with(id)).unwrap().to_owned();
        assert!(line(&new).contains("keep"), "{option:?}: {text}");
        assert_eq!(!line(&old).contains("delete"), keeps_old, "{option:?}: {text}");
    }
    assert_eq!(listed(&place), [old, new], "nothing was changed");
}

#[tokio::test]
async fn chains_and_protected_backups_are_not_broken() {
    for place in places().await {
        let full = back_up(&place, &[]);
        let log = back_up(&place, &["--parent", "latest", "--kind", "log"]);
        let last = back_up(&place, &["--parent", &log, "--kind", "log", "--keep-until", "1d"]);
        let message = refused(&place, 11, &["delete", &full, "--confirm"]);
        assert!(message.contains(&log) && message.contains("1 more"), "{message}");
        let message = refused(&place, 11, &["delete", &full, "--descendants", "--confirm"]);
        assert!(message.contains(&last) && message.contains("protected"), "{message}");
        let other = back_up(&place, &[]);
        let plan = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
        assert_eq!(plan["series"][0]["report"]["deleted"], serde_json::json!([]), "the chain of a protected one stays");
        assert_eq!(listed(&place).len(), 4);
        document(&place, &["delete", &other, "--confirm", "--json"]);
        let shown = String::from_utf8(run(&place, &["show", &last]).stdout).unwrap();
        let row = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        assert_eq!((row("kind "), row("continues ")), (Some("log"), Some(log.as_str())), "{shown}");
        assert!(row("kept until ").is_some_and(|until| until.ends_with('Z')), "{shown}");
        let shown = String::from_utf8(run(&place, &["show", &full]).stdout).unwrap();
        assert!(shown.contains("\nkind        full\n") && !shown.contains("\nkept"), "{shown}");
        assert_eq!(listed(&place), [full, log, last]);
    }
}

#[tokio::test]
async fn wrong_use_is_told_before_anything_happens() {
    let place = Place::disk();
    let id = back_up(&place, &[]);
    assert!(refused(&place, 2, &["prune"]).contains("no rule"));
    assert!(refused(&place, 2, &["prune", "--keep-last", "0", "--confirm"]).contains("no rule"));
    // A name that is mistyped in a cron job would delete nothing for ever.
    assert!(refused(&place, 10, &["prune", "--series", "defualt", "--keep-last", "1"]).contains("`defualt`"));
    assert!(refused(&place, 10, &["list", "--series", "defualt"]).contains("`defualt`"));
    let nothing = run(&place, &["list", "--series", "defualt", "--json"]);
    let nothing: Value = serde_json::from_slice(&nothing.stdout).unwrap();
    assert_eq!(nothing["backups"], serde_json::json!([]), "who reads the document finds none");
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

/// The restore has read the manifest and stands before its first segment; then the backup goes.
#[tokio::test]
async fn a_restore_of_a_backup_that_is_pruned_meanwhile_ends_well() {
    let place = Place::server(Kind::Moto).await;
    let work = tempfile::tempdir().unwrap();
    let input = work.path().join("in");
    let content = Pattern::new(7, 0, Entropy::Random).bytes(0, 3_000_001);
    std::fs::write(&input, &content).unwrap();
    let made = document(&place, &["backup", "--json", "--input", input.to_str().unwrap()]);
    let id = made["id"].as_str().unwrap();
    let newest = back_up(&place, &[]);

    let proxy = Proxy::hold(Kind::Moto.endpoint(), &["GET ", ".zst"]).await;
    let output = work.path().join("out");
    let mut restore = tool::vdstream_command();
    restore.envs(place.environment_at(proxy.endpoint()));
    restore.args(["restore", &place.url(), id, "--quiet", "--output"]).arg(&output).stdin(Stdio::null());
    let restore = tokio::process::Command::from(restore).stderr(Stdio::piped()).spawn().unwrap();
    proxy.holds_one().await;
    let pruned = document(&place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
    assert_eq!(pruned["series"][0]["report"]["deleted"], serde_json::json!([id]));
    assert_eq!(listed(&place), [newest]);
    // A collection waits for its grace time.
    document(&place, &["gc", "--confirm", "--json"]);
    proxy.release();

    let restored = restore.wait_with_output().await.unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(std::fs::read(&output).unwrap() == content);
}

/// Deletions of a backup from many processes at once, while another one is made.
#[tokio::test]
async fn deletions_and_a_backup_at_once_leave_what_is_to_be_kept() {
    for place in [Place::disk(), Place::server(Kind::Moto).await] {
        let ids = [(); 3].map(|()| back_up(&place, &[]));
        let place = &place;
        std::thread::scope(|scope| {
            let prunes = [(); 3].map(|()| {
                scope.spawn(|| {
                    let output = run(place, &["prune", "--keep-last", "1", "--confirm", "--json"]);
                    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                })
            });
            let newest = scope.spawn(|| back_up(place, &[])).join().unwrap();
            prunes.into_iter().for_each(|prune| prune.join().unwrap());
            let left = listed(place);
            assert!(left.contains(&newest), "the newest stays: {left:?}");
            assert!(!left.contains(&ids[0]) && !left.contains(&ids[1]), "{left:?}");
        });
        let left = listed(place);
        document(place, &["restore", "latest", "--json", "--output", "/dev/null"]);
        assert!(left.len() <= 2, "{left:?}");
    }
}
