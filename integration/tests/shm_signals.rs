//! Signals and failures of the tool as the agent of a device set: it ends soon, in good order, and says what it leaves.

// Real processes take real time, and helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use integration::party::{PATIENCE, Party, Stage};
use integration::place::Place;
use integration::proxy::Proxy;
use integration::server::Kind;
use integration::tool;

/// Enough for what may take some seconds, and far from what hangs.
const SOON: Duration = Duration::from_secs(30);

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The tool as agent: `verb` on a store, with what `more` says.
fn agent(stage: &Stage, verb: &[&str], more: &[&str]) -> Party {
    let mut command = tool::vdstream_command();
    command.args(verb).args(["--device-set", "ending", "--hub"]).arg(stage.hub()).args(more);
    Party::spawn("agent", command)
}

/// An engine that sends what comes through the FIFO `pages`.
fn engine(stage: &Stage) -> Party {
    make_fifo(&stage.path("pages"));
    let mut command = tool::vdstream_command();
    command.args(["engine", "backup", "--device-set", "ending", "--hub"]).arg(stage.hub());
    command.arg("--input").arg(stage.path("pages"));
    Party::spawn("engine", command)
}

fn open(path: &Path) -> File {
    File::options().write(true).open(path).unwrap()
}

/// It ends soon after a signal, with this status and these words at the end.
#[track_caller]
fn ends(party: &mut Party, code: i32, words: &str) -> String {
    let status = party.wait(SOON).and_then(|status| status.code());
    let said = party.stderr();
    assert_eq!(status, Some(code), "it said: {said}");
    assert!(said.lines().last().unwrap_or_default().contains(words), "{said}");
    said
}

/// Nothing would come of it, so it is most likely not what was meant.
#[test]
fn what_is_for_device_sets_only_is_refused_where_it_means_nothing() {
    let stage = Stage::new();
    let store = stage.path("store");
    let (store, hub) = (store.to_str().unwrap(), stage.hub());
    let run = |arguments: &[&[&str]]| {
        let mut command = tool::vdstream_command();
        command.args(arguments.concat()).env("VDSTREAM_HUB", &hub);
        Party::spawn("tool", command)
    };
    let (backup, restore) = (["backup", store], ["restore", store, "latest"]);
    let (producer, output, set) = (["--", "true"], ["--output", "/dev/null"], ["--device-set", "x"]);
    // The variable is for every command.
    run(&[&backup, &producer]).succeeds();
    for option in [["--devices", "4"], ["--allow-user", "1"], ["--allow-group", "1"], ["--hub", "/elsewhere"]] {
        ends(&mut run(&[&backup, &option, &producer]), 2, "--");
        ends(&mut run(&[&restore, &option, &output]), 2, "--");
    }
    ends(&mut run(&[&restore, &set, &["--devices", "4"]]), 2, "--");
    for engine in [&["engine", "backup", "--input", store][..], &["engine", "restore", "--output", "/dev/null"]] {
        let mut ended = run(&[engine, &set, &["--wait", "0s", "--devices", "4"]]);
        let said = ends(&mut ended, 2, "--");
        assert!(said.contains("unexpected argument '--devices'"), "{said}");
    }
    assert_eq!(stage.backups(), 1, "of all of them, one backup was made");
}

/// The file with the passphrase is a FIFO that nobody writes to, so the beginning waits for ever.
#[test]
fn a_signal_ends_an_agent_that_is_beginning() {
    let stage = Stage::new();
    let (store, fifo, pages) = (stage.path("store"), stage.path("passphrase"), stage.path("file"));
    let (store, passphrase) = (store.to_str().unwrap(), fifo.to_str().unwrap());
    make_fifo(&fifo);
    let mut engine = engine(&stage);
    let mut backup = agent(&stage, &["backup", store], &["--passphrase-file", passphrase]);
    let held = open(&fifo);
    backup.signal("-INT");
    ends(&mut backup, 130, "ended by SIGINT, nothing was left behind");
    let status = engine.wait(PATIENCE).and_then(|status| status.code());
    let said = engine.stderr();
    assert!(status == Some(1) && said.contains("ended by SIGINT"), "the engine said: {said}");
    drop(held);

    fs::write(&pages, "correct horse battery staple 7391\n").unwrap();
    let mut command = tool::vdstream_command();
    command.args(["backup", store, "--passphrase-file", pages.to_str().unwrap(), "--", "echo", "x"]);
    Party::spawn("backup", command).succeeds();
    let mut restore = agent(&stage, &["restore", store, "latest"], &["--passphrase-file", passphrase]);
    let held = open(&fifo);
    restore.signal("-TERM");
    ends(&mut restore, 143, "ended by SIGTERM, nothing was left behind");
    drop(held);
    stage.assert_empty("after signals");
}

/// It has not even found its backup yet.
#[tokio::test]
async fn a_signal_ends_an_agent_whose_first_request_hangs() {
    let (stage, place) = (Stage::new(), Place::server(Kind::Garage).await);
    let proxy = Proxy::hold(Kind::Garage.endpoint(), &["HTTP"]).await;
    let numbers = stage.path("numbers.prom");
    let mut command = tool::vdstream_command();
    command.envs(place.environment_at(proxy.endpoint())).args(["restore", &place.url(), "latest"]);
    command.args(["--device-set", "ending", "--hub"]).arg(stage.hub()).arg("--metrics-file").arg(&numbers);
    let mut agent = Party::spawn("agent", command);
    proxy.holds_one().await;
    agent.signal("-TERM");
    ends(&mut agent, 143, "ended by SIGTERM, nothing was left behind");
    let numbers = fs::read_to_string(numbers).unwrap();
    assert!(numbers.contains("vdstream_exit_code{command=\"restore\",series=\"default\"} 143\n"), "{numbers}");
}

/// Something is stored, and then the store answers nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_cannot_remove_is_told_and_not_said_to_be_removed() {
    for signal in [true, false] {
        let (stage, place) = (Stage::new(), Place::server(Kind::Garage).await);
        let proxy = Proxy::hold(Kind::Garage.endpoint(), &["never held"]).await;
        let mut command = tool::vdstream_command();
        command.envs(place.environment_at(proxy.endpoint())).args(["backup", &place.url(), "--clean-up-timeout", "2s"]);
        command.args(["--device-set", "ending", "--hub"]).arg(stage.hub());
        let mut agent = Party::spawn("agent", command);
        let mut engine = engine(&stage);
        let _pages = open(&stage.path("pages"));
        let start = Instant::now();
        while !place.objects().await.iter().any(|name| name.ends_with("/intent.json")) {
            assert!(start.elapsed() < PATIENCE, "nothing is ever stored");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.change(&["HTTP"]);
        let said = if signal {
            agent.signal("-TERM");
            ends(&mut agent, 5, "ended by SIGTERM")
        } else {
            engine.kill();
            ends(&mut agent, 1, "peer died")
        };
        assert!(said.contains("`vdstream gc` removes them later"), "{said}");
        assert!(!said.contains("nothing was left behind"), "{said}");
    }
}

#[test]
fn the_page_of_an_agent_that_fails_tells_which_backup_it_was_and_how_far_it_came() {
    let stage = Stage::new();
    let (store, page) = (stage.path("store"), stage.path("page.html"));
    let mut agent = agent(
        &stage,
        &["backup", store.to_str().unwrap()],
        &["--report", page.to_str().unwrap(), "--progress", "none"],
    );
    let mut engine = engine(&stage);
    let mut pages = open(&stage.path("pages"));
    // More than the engine keeps for itself.
    pages.write_all(&vec![7; 9 << 20]).unwrap();
    engine.kill();
    ends(&mut agent, 1, "peer died");
    let page = fs::read_to_string(page).unwrap();
    for part in ["There is no backup", "would have been", "taken in", "Throughput", "stripe 0"] {
        assert!(page.contains(part), "`{part}` is not on the page:\n{page}");
    }
    stage.assert_empty("after a failure");
}
