//! `gc` of the tool, on disk and on servers: what a killed backup and a deleted one leave goes, uploads included.

// Helpers of tests fail as loudly as tests; uploads on real servers take real time.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use integration::data::{Entropy, Pattern};
use integration::place::Place;
use integration::server::Kind;
use integration::tool;
use serde_json::Value;

/// The smallest part that S3 takes.
const PART: usize = 5 << 20;

async fn places() -> [Place; 3] {
    let servers = futures::future::join(Place::server(Kind::Garage), Place::server(Kind::Azurite)).await;
    [Place::disk(), servers.0, servers.1]
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    let (verb, rest) = arguments.split_first().unwrap();
    let mut command = tool::vdstream_command();
    command.envs(place.environment()).arg(verb).arg(place.url()).args(rest);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn document(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_slice(&run(place, arguments).stdout).unwrap()
}

/// Kills a backup that has stored a segment and is in the middle of the next one.
async fn kill_one(place: &Place) {
    let before = place.objects().await;
    let mut command = tool::vdstream_command();
    command.envs(place.environment()).args(["backup", &place.url(), "-", "--progress", "none", "--memory", "64MiB"]);
    command.args(["--part-size", &PART.to_string(), "--segment-size", &(2 * PART).to_string()]);
    let mut tool = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = tool.stdin.take().unwrap();
    // A segment may be one window of frames longer than asked for: this is one whole segment, and the parts of another.
    stdin.write_all(&Pattern::new(1, 0, Entropy::Random).bytes(0, 10 * PART)).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let names = place.objects().await;
        let has_parts = match place.url().starts_with("s3") {
            true => !place.uploads_with_parts().await.is_empty(),
            false => names.iter().any(|name| name.contains(".partial-")) || !place.uploads().await.is_empty(),
        };
        let has = |part: &str| names.iter().any(|name| name.contains(part) && !before.contains(name));
        if has_parts && has("/uploads/") && has(".zst") {
            break;
        }
        assert!(Instant::now() < limit, "too little arrives in {place:?}: {names:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tool.kill().unwrap();
    tool.wait().unwrap();
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_tool_leaves_is_collected() {
    for place in places().await {
        let id = document(&place, &["backup", "--json", "--", "echo", "rows"])["id"].as_str().unwrap().to_owned();
        let good = place.objects().await;
        kill_one(&place).await;
        let left = place.objects().await;
        assert!(left.len() > good.len() + 2, "{left:?}");

        let plan = document(&place, &["gc", "--json"]);
        assert_eq!((&plan["confirmed"], &plan["grace_seconds"]), (&Value::from(false), &Value::from(86_400)));
        let leftovers = plan["leftovers"].as_array().unwrap();
        assert_eq!(leftovers.len(), 1, "{plan}");
        assert_eq!(
            (&leftovers[0]["reason"], &leftovers[0]["verdict"]),
            (&Value::from("never committed"), &Value::from("wait"))
        );
        run(&place, &["gc", "--confirm"]);
        let text = String::from_utf8(run(&place, &["gc", "--grace", "0s"]).stdout).unwrap();
        assert!(text.contains("never committed") && text.contains("--confirm"), "{text}");
        assert_eq!(place.objects().await, left, "without a confirmation and before its time nothing goes");

        let done = document(&place, &["gc", "--grace", "0s", "--confirm", "--json"]);
        assert_eq!(done["report"]["backups"].as_array().unwrap().len(), 1, "{done}");
        assert!(done["report"]["uploads"].as_u64().unwrap() > 0, "{done}");
        assert_eq!(place.objects().await, good, "{place:?}");
        if !place.url().starts_with("az://") {
            assert_eq!(place.uploads().await, [""; 0], "{place:?}");
        }
        let again = document(&place, &["gc", "--grace", "0s", "--confirm", "--json"]);
        assert_eq!(again["leftovers"], Value::Array(Vec::new()));
        assert_eq!(run(&place, &["restore", &id, "--output", "-"]).stdout, b"rows\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_of_a_deleted_backup_is_collected() {
    for place in places().await {
        let id = document(&place, &["backup", "--json", "--", "echo", "rows"])["id"].as_str().unwrap().to_owned();
        let text = String::from_utf8(run(&place, &["delete", &id, "--confirm"]).stdout).unwrap();
        assert!(text.contains("`vdstream gc`"), "{text}");
        let plan = document(&place, &["gc", "--json"]);
        assert_eq!(plan["leftovers"][0]["reason"], "deleted");
        assert_eq!(plan["leftovers"][0]["verdict"], "wait");
        let text = String::from_utf8(run(&place, &["gc", "--grace", "0s", "--confirm"]).stdout).unwrap();
        assert!(text.contains("removed"), "{text}");
        place.assert_empty().await;
    }
}

/// Of two deleted backups the second cannot be removed to its end. Beside a third one lies what belongs to nobody.
#[tokio::test]
async fn a_collection_that_fails_half_way_prints_what_it_did() {
    let place = Place::disk();
    let ids =
        [(); 3].map(|()| document(&place, &["backup", "--json", "--", "echo", "x"])["id"].as_str().unwrap().to_owned());
    let directory = format!("{}/default", place.url().strip_prefix("file://").unwrap());
    std::fs::write(format!("{directory}/{}/s00/000003.zst", ids[2]), b"of nobody").unwrap();
    run(&place, &["prune", "--keep-last", "1", "--confirm"]);
    let mut command = tool::vdstream_refused(format!("{directory}/{}/intent.json", ids[1]).as_ref(), "ENOSPC");
    let output = command.args(["gc", &place.url(), "--grace", "0s", "--confirm"]).output().unwrap();
    assert_eq!(output.status.code(), Some(14), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    for (leftover, fate) in [(&ids[0], "removed"), (&ids[1], "not finished"), (&ids[2], "removed")] {
        let line = text.lines().find(|line| line.contains(leftover.as_str())).unwrap();
        assert!(line.trim_end().ends_with(fate), "{fate}: {text}");
    }
    // The single one; segment, record, intent and mark of the first; segment and record of the second.
    assert!(text.contains("\nat least 7 objects removed, 0 uploads ended"), "{text}");
    assert!(text.contains("\n1 leftover not finished") && !text.contains("nothing was changed"), "{text}");
    let rest = document(&place, &["gc", "--grace", "0s", "--confirm", "--json"]);
    assert_eq!(rest["report"]["backups"], Value::from(vec![ids[1].clone()]));
}
