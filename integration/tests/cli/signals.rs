//! Signals: orderly at the first, at once at the second, and never a doubt about the commit.

use std::io::Read as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::place::Place;
use integration::proxy::Proxy;
use integration::server::Kind;
use integration::tool::{vdstream_command, vdstream_slow_to_rename};

use crate::support::*;

/// Starts a backup of an endless producer, waits until something is stored, sends `signals`, waits for the end.
async fn signalled(place: &Place, signals: &[&str]) -> Output {
    let mut command = vdstream_command();
    let arguments = [
        "backup",
        &place.url(),
        "--memory",
        "64MiB",
        "--",
        "sh",
        "-c",
        "while head -c 1000000 /dev/urandom; do :; done",
    ];
    command.envs(place.environment()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let start = Instant::now();
    // On disk a file that has not got its name yet is listed too.
    while !place.objects().await.iter().any(|name| name.ends_with("/intent.json")) {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is ever stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for signal in signals {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid.as_str()]).status().unwrap().success());
    }
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_signal_aborts_in_good_order() {
    for place in places().await {
        for (signal, expected) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
            let ended = signalled(&place, &[signal]).await;
            assert_fails(&ended, expected, "nothing was left behind");
            assert!(backups(&place).is_empty());
            place.assert_empty().await;
        }
    }
}

#[tokio::test]
async fn a_killed_backup_is_not_listed() {
    for place in places().await {
        let ended = signalled(&place, &["-KILL"]).await;
        assert_eq!(ended.status.code(), None);
        assert!(backups(&place).is_empty());
        // The intent tells a collector what to look for.
        assert!(place.objects().await.iter().any(|name| name.ends_with("/intent.json")));
    }
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

async fn ended(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

/// A backup of `script` to Garage through a proxy that holds requests with all of `words`.
async fn held(words: &[&'static str], script: &str, more: &[&str]) -> (Place, Proxy, Child) {
    let place = Place::server(Kind::Garage).await;
    let proxy = Proxy::hold(Kind::Garage.endpoint(), words).await;
    let mut command = vdstream_command();
    command.envs(place.environment_at(proxy.endpoint())).args(["backup", &place.url()]).args(more);
    command.args(["--", "sh", "-c", script]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    (place, proxy, child)
}

#[tokio::test]
async fn the_first_signal_during_a_commit_waits_for_the_commit() {
    let (place, proxy, child) = held(&["PUT", "manifest.json"], "echo x", &[]).await;
    proxy.holds_one().await;
    send("-TERM", &child);
    // Nothing can be waited for: the tool must go on waiting itself.
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.release();
    let output = ended(child).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("SIGTERM: all data is stored, finishing the commit first"), "{}", stderr(&output));
    assert_eq!(backups(&place).len(), 1);
}

#[tokio::test]
async fn the_second_signal_during_a_commit_leaves_at_once() {
    let (_place, proxy, child) = held(&["PUT", "manifest.json"], "echo x", &[]).await;
    proxy.holds_one().await;
    send("-INT", &child);
    tokio::time::sleep(Duration::from_millis(300)).await;
    send("-INT", &child);
    assert_fails(&ended(child).await, 130, "leaving at once, without cleaning up");
}

#[tokio::test]
async fn a_signal_ends_a_backup_whose_first_request_hangs() {
    let (_place, proxy, child) = held(&["PUT", "intent.json"], "echo x", &[]).await;
    proxy.holds_one().await;
    proxy.change(&["HTTP"]);
    let start = Instant::now();
    send("-INT", &child);
    let output = ended(child).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_fails(&output, 5, "may be left; `vdstream gc` removes them later");
    assert!(stderr(&output).contains("ended by SIGINT"), "{}", stderr(&output));
}

/// The output has its name already when the signal comes.
#[test]
fn a_signal_while_files_get_their_names_waits_for_that() {
    let (place, work) = (Place::disk(), tempfile::TempDir::new().unwrap());
    assert!(run(&place, &["backup", &place.url(), "--", "echo", "new"]).status.success());
    let output = work.path().join("output");
    std::fs::write(&output, b"old\n").unwrap();
    let mut command = vdstream_slow_to_rename(Duration::from_secs(15));
    command.args(["restore", &place.url(), "latest", "--output"]).arg(&output);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while std::fs::read(&output).unwrap() != b"new\n" {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is ever restored");
        std::thread::sleep(Duration::from_millis(5));
    }
    send("-INT", &child);
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("SIGINT: all data is restored, giving the files their names first"));
}

#[test]
fn a_signal_to_a_restore_says_whether_something_of_its_output_stays() {
    let (place, work) = (Place::disk(), tempfile::TempDir::new().unwrap());
    let limits = ["--segment-size", "1MiB", "--memory", "48MiB", "--threads", "1"];
    let producer = ["--", "head", "-c", "9000000", "/dev/urandom"];
    assert!(run(&place, &[&["backup", &place.url()][..], &limits, &producer].concat()).status.success());
    let (fifo, file) = (work.path().join("fifo"), work.path().join("file"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, last) in [(&fifo, "ended by SIGINT, the output is incomplete"), (&file, "nothing was left behind")] {
        let mut command = vdstream_command();
        // Slow enough to be in the middle for seconds.
        command.args(["restore", &place.url(), "latest", "--limit-download", "500KB", "--output"]).arg(path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let reader = (path == &fifo).then(|| {
            let mut reader = std::fs::File::open(path).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        let start = Instant::now();
        while reader.is_none() && std::fs::read_dir(work.path()).unwrap().count() < 2 {
            assert!(start.elapsed() < Duration::from_secs(30), "nothing is ever restored");
            std::thread::sleep(Duration::from_millis(5));
        }
        send("-INT", &child);
        assert_fails(&child.wait_with_output().unwrap(), 130, last);
    }
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 1, "only the FIFO is there");
}

/// The program of a backup cannot be started, and the store does not answer when what was begun is to be removed.
#[tokio::test]
async fn what_is_left_of_a_backup_that_could_not_start_its_program_is_told() {
    let place = Place::server(Kind::Garage).await;
    let proxy = Proxy::hold(Kind::Garage.endpoint(), &["PUT ", "/claims/"]).await;
    let mut command = vdstream_command();
    command.envs(place.environment_at(proxy.endpoint())).args(["backup", &place.url(), "--clean-up-timeout", "2s"]);
    command.args(["--", "no-such-program-here"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = ended(child).await;
    assert_fails(&output, 10, "cannot start `no-such-program-here`");
    assert!(stderr(&output).contains("`vdstream gc` removes them later"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_clean_up_that_hangs_ends_in_its_time_and_the_cause_is_still_told() {
    // The data of a program that fails cannot be removed, because the store stopped answering.
    let work = tempfile::TempDir::new().unwrap();
    let go = work.path().join("go");
    let script = format!("head -c 20000000 /dev/urandom; until [ -e {} ]; do sleep 0.05; done; exit 3", go.display());
    let (place, proxy, child) = held(&["never held"], &script, &["--clean-up-timeout", "2s"]).await;
    let start = Instant::now();
    while !place.objects().await.iter().any(|name| name.contains("/uploads/")) {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is uploaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.change(&["HTTP"]);
    std::fs::write(&go, b"").unwrap();
    let start = Instant::now();
    let output = ended(child).await;
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_fails(&output, 1, "`sh` failed (exit status: 3)");
    assert!(stderr(&output).contains("`vdstream gc` removes them later"), "{}", stderr(&output));
}

/// A command on a place through a proxy that holds requests with all of `words`; `arguments` follow the verb and the URL.
async fn held_at(place: &Place, words: &[&'static str], verb: &str, arguments: &[&str]) -> (Proxy, Child) {
    let proxy = Proxy::hold(Kind::Garage.endpoint(), words).await;
    let mut command = vdstream_command();
    command.envs(place.environment_at(proxy.endpoint())).args([verb, &place.url()]).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    proxy.holds_one().await;
    (proxy, child)
}

#[tokio::test]
async fn a_signal_in_the_middle_of_a_deletion_or_a_collection_prints_what_was_done() {
    let place = Place::server(Kind::Garage).await;
    let ids = ["first", "first", "later", "later"].map(|series| {
        let made = run(&place, &["backup", &place.url(), "--series", series, "--", "echo", "x"]);
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    });
    let words = "ended by SIGTERM before all was done; the same command goes on from there";
    // The first series is done, and the second has its first request.
    let (_proxy, child) =
        held_at(&place, &["PUT ", "/later/", "/deleted/"], "prune", &["--keep-last", "1", "--confirm"]).await;
    send("-TERM", &child);
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for (id, fate) in ids.iter().zip(["deleted", "keep", "not reached", "keep"]) {
        let line = text.lines().find(|line| line.starts_with(id.as_str())).unwrap();
        assert!(line.split("  ").any(|cell| cell.trim() == fate), "{fate}: {text}");
    }
    assert_eq!(backups(&place).len(), 3);

    let pruned = run(&place, &["prune", &place.url(), "--keep-last", "1", "--confirm"]);
    assert!(pruned.status.success(), "{}", stderr(&pruned));
    let (_proxy, child) =
        held_at(&place, &["PUT ", "/later/", "/collected/"], "gc", &["--grace", "0s", "--confirm", "--json"]).await;
    send("-INT", &child);
    let output = ended(child).await;
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["report"]["backups"], serde_json::json!([ids[0]]), "{document}");
    assert_eq!(document["error"], words.replace("SIGTERM", "SIGINT"));
}

/// Nobody knows yet which upload it is, so only whoever waits for the answer can end it.
#[tokio::test]
async fn a_signal_leaves_no_upload_that_doctor_has_begun() {
    let place = Place::server(Kind::Garage).await;
    let (proxy, child) = held_at(&place, &["POST ", "?uploads"], "doctor", &[]).await;
    send("-TERM", &child);
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.release();
    assert_fails(&ended(child).await, 143, "nothing was left behind");
    place.assert_empty().await;
}
