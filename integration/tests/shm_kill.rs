//! Real processes of one device set, of which one is killed at every step of a session: whoever survives is free within a
//! second, says who died, and leaves nothing.

// Real processes take real time, and helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::panic)]

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use integration::party::{FREE_WITHIN, Party, Stage};
use integration::tool;
use vdstream::vdi::CommandCode;

fn per_command(verb: &str) -> Vec<String> {
    CommandCode::ALL.iter().map(|code| format!("{verb}-{code}")).collect()
}

fn steps(first: &[&str], verb: &str, last: &[&str]) -> Vec<String> {
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [text(first), per_command(verb), text(last)].concat()
}

fn server_steps() -> Vec<String> {
    steps(&["opened", "begun", "configured", "device-open", "grown"], "sent", &["device-closed", "closing"])
}

fn client_steps() -> Vec<String> {
    steps(&["configured", "device-open"], "holding", &["closing"])
}

/// Steps at which the data is through: whoever is left may have ended well.
fn is_late(step: &str) -> bool {
    ["device-closed", "closing"].contains(&step)
}

/// Runs the scenes a few at a time: they mostly wait for processes to start.
fn all_of(scenes: Vec<String>, scene: impl Fn(&str) + Sync) {
    let next = std::sync::Mutex::new(scenes.iter());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(step) = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next() else {
                        return;
                    };
                    scene(step);
                }
            });
        }
    });
}

/// `victim` dies at `step`; the other parties survive.
fn kill(victim: &'static str, dead: &str, others: &[&'static str], step: &str) {
    let scene = format!("{victim} killed at {step}, beside {others:?}");
    let stage = Stage::new();
    let mut dying = Party::start(victim, &stage.hub(), step);
    let mut survivors: Vec<_> = others
        .iter()
        .map(|role| match *role {
            // Whoever has not joined when the set ends has no part in it.
            "secondary" => Party::start_joined(role, &stage.hub()),
            role => Party::start(role, &stage.hub(), "none"),
        })
        .collect();
    dying.reach(step);
    let pid = dying.child.id();
    let since = Instant::now();
    dying.kill();
    for survivor in &mut survivors {
        survivor.survives(since, dead, pid, is_late(step), &scene);
    }
    stage.assert_empty(&scene);
}

#[test]
fn a_client_is_free_when_the_server_is_killed_at_any_step() {
    all_of(server_steps(), |step| kill("server", "the server", &["primary"], step));
}

#[test]
fn a_server_is_free_when_the_client_is_killed_at_any_step() {
    all_of(client_steps(), |step| kill("primary", "the primary client", &["server"], step));
}

#[test]
fn both_are_free_when_a_secondary_client_is_killed_at_any_step() {
    // Before it has joined nobody knows it.
    all_of(client_steps(), |step| kill("secondary", "a secondary client", &["watcher", "server"], step));
}

#[test]
fn a_secondary_client_is_free_when_another_process_is_killed() {
    let server = server_steps().into_iter().filter(|step| step.starts_with("sent-") || step == "grown");
    all_of(server.collect(), |step| kill("server", "the server", &["watcher", "secondary"], step));
    all_of(per_command("sent"), |step| {
        let scene = format!("watcher killed while the server is at {step}");
        let stage = Stage::new();
        let mut dying = Party::start("watcher", &stage.hub(), "none");
        let mut server = Party::start("server", &stage.hub(), step);
        let mut secondary = Party::start_joined("secondary", &stage.hub());
        server.reach(step);
        let (pid, since) = (dying.child.id(), Instant::now());
        dying.kill();
        server.go_on();
        secondary.survives(since, "the primary client", pid, false, &scene);
        server.survives(since, "the primary client", pid, false, &scene);
        stage.assert_empty(&scene);
    });
}

/// The name is the client's to remove when it learns of the server's end, and the server waits for that. Here one of them is
/// stopped while the other closes, and killed then.
#[test]
fn nothing_is_left_when_one_is_killed_while_the_other_closes() {
    all_of(vec!["primary".to_owned(), "server".to_owned()], |victim| {
        let scene = format!("{victim} killed while the other closes");
        let stage = Stage::new();
        let mut primary = Party::start("primary", &stage.hub(), "closing");
        let mut server = Party::start("server", &stage.hub(), "closing");
        primary.reach("closing");
        server.reach("closing");
        let (mut dying, mut closing, dead) = match victim {
            "primary" => (primary, server, "the primary client"),
            _ => (server, primary, "the server"),
        };
        dying.signal("-STOP");
        closing.go_on();
        // It has said goodbye, or is about to: both orders are right.
        std::thread::sleep(Duration::from_millis(20));
        let since = Instant::now();
        dying.kill();
        closing.survives(since, dead, dying.child.id(), true, &scene);
        stage.assert_empty(&scene);
    });
}

/// The steps of an engine whose agent is the tool, which does not ask for `PrepareToFreeze`.
fn steps_beside_the_tool() -> Vec<String> {
    server_steps().into_iter().filter(|step| step != "sent-PrepareToFreeze").collect()
}

/// The tool as agent, into a directory of its own.
fn agent(stage: &Stage) -> Party {
    let mut command = tool::vdstream_command();
    command.arg("backup").arg(stage.path("store")).args(["--device-set", "killed", "--hub"]).arg(stage.hub());
    Party::spawn("agent", command)
}

#[test]
fn no_backup_appears_when_the_engine_is_killed_before_it_has_closed_its_devices() {
    all_of(steps_beside_the_tool(), |step| {
        let scene = format!("engine killed at {step}, beside the tool");
        let stage = Stage::new();
        let mut agent = agent(&stage);
        let mut engine = Party::start("server", &stage.hub(), step);
        engine.reach(step);
        let (pid, since) = (engine.child.id(), Instant::now());
        engine.kill();
        agent.survives(since, "the server", pid, is_late(step), &scene);
        stage.assert_empty(&scene);
        if !is_late(step) {
            assert_eq!(stage.backups(), 0, "{scene}");
        }
    });
}

#[test]
fn an_engine_is_free_and_no_backup_appears_when_the_agent_is_killed() {
    let steps = steps_beside_the_tool().into_iter().filter(|step| !is_late(step)).collect();
    all_of(steps, |step| {
        let scene = format!("the tool killed while the engine is at {step}");
        let stage = Stage::new();
        let mut agent = agent(&stage);
        let mut engine = Party::start("server", &stage.hub(), step);
        engine.reach(step);
        let pid = agent.child.id();
        let since = Instant::now();
        agent.kill();
        engine.go_on();
        engine.survives(since, "the primary client", pid, false, &scene);
        stage.assert_empty(&scene);
        assert_eq!(stage.backups(), 0, "{scene}");
    });
}

/// `vdstream engine` on a set of one device, whose stripe is the FIFO `pages`.
fn engine(stage: &Stage, what: &str, option: &str) -> Party {
    let mut command = tool::vdstream_command();
    command.args(["engine", what, "--device-set", "killed", "--hub"]).arg(stage.hub());
    command.arg(option).arg(stage.path("pages"));
    Party::spawn("engine", command)
}

fn make_fifo(stage: &Stage) {
    let status = Command::new("mkfifo").arg(stage.path("pages")).status().expect("mkfifo is there");
    assert!(status.success());
}

/// Both sides are the tool. The engine reads a FIFO, so the test says how far it is.
#[test]
fn of_two_tools_the_one_that_is_left_says_who_died_and_there_is_no_backup() {
    let scenes = [0_usize, 1, 300_000, 5 << 20].iter().flat_map(|sent| ["engine", "agent"].map(|who| (*sent, who)));
    for (sent, victim) in scenes {
        let scene = format!("{victim} killed after {sent} bytes");
        let stage = Stage::new();
        make_fifo(&stage);
        let agent = agent(&stage);
        let engine = engine(&stage, "backup", "--input");
        // Opened once the engine has opened it, which is after the configuration.
        let mut pages = std::fs::OpenOptions::new().write(true).open(stage.path("pages")).expect("the FIFO opens");
        pages.write_all(&vec![7; sent]).expect("the engine reads");
        let (mut dying, mut left, dead) = match victim {
            "engine" => (engine, agent, "the server"),
            _ => (agent, engine, "the primary client"),
        };
        let since = Instant::now();
        dying.kill();
        left.survives(since, dead, dying.child.id(), false, &scene);
        stage.assert_empty(&scene);
        assert_eq!(stage.backups(), 0, "{scene}");
    }
}

#[test]
fn a_restore_between_two_tools_ends_with_either_of_them() {
    let stage = Stage::new();
    let pages = stage.path("source");
    std::fs::write(&pages, vec![7; 20 << 20]).expect("a file");
    let mut command = tool::vdstream_command();
    command.arg("backup").arg(stage.path("store")).args(["--device-set", "killed", "--hub"]).arg(stage.hub());
    let mut agent = Party::spawn("agent", command);
    let mut command = tool::vdstream_command();
    command.args(["engine", "backup", "--device-set", "killed", "--hub"]).arg(stage.hub()).arg("--input").arg(&pages);
    let mut sender = Party::spawn("engine", command);
    agent.succeeds();
    sender.succeeds();
    make_fifo(&stage);
    for victim in ["engine", "agent"] {
        let scene = format!("{victim} killed during a restore");
        let mut command = tool::vdstream_command();
        command.arg("restore").arg(stage.path("store")).args(["latest", "--device-set", "killed", "--hub"]);
        command.arg(stage.hub());
        let agent = Party::spawn("agent", command);
        let engine = engine(&stage, "restore", "--output");
        // It is opened, and not read: the engine waits in the middle of the data.
        let reader = std::fs::File::open(stage.path("pages")).expect("the FIFO opens");
        let (mut dying, mut left, dead) = match victim {
            "engine" => (engine, agent, "the server"),
            _ => (agent, engine, "the primary client"),
        };
        let since = Instant::now();
        dying.kill();
        left.survives(since, dead, dying.child.id(), false, &scene);
        drop(reader);
        stage.assert_empty(&scene);
    }
}

#[test]
fn a_server_gives_up_a_client_that_was_stopped_after_two_intervals() {
    let stage = Stage::new();
    let mut command = integration::party::command("primary", &stage.hub(), "holding-Flush");
    command.env("SHM_PARTY_TIMEOUT", "200");
    let mut stopped = Party::spawn("primary", command);
    let mut server = Party::start("server", &stage.hub(), "none");
    stopped.reach("holding-Flush");
    let since = Instant::now();
    stopped.signal("-STOP");
    let status = server.wait(integration::party::PATIENCE).expect("the server is free while the client is stopped");
    assert!(since.elapsed() > Duration::from_millis(200), "not before its time");
    assert!(since.elapsed() < Duration::from_millis(400) + FREE_WITHIN, "and soon after it");
    assert_eq!(status.code(), Some(1));
    let said = server.stderr();
    assert!(said.contains("1 commands are pending and none ended"), "{said}");
    stopped.signal("-CONT");
    stopped.go_on();
    assert_eq!(stopped.wait(integration::party::PATIENCE).and_then(|status| status.code()), Some(1));
    let said = stopped.stderr();
    assert!(said.contains("1 commands are pending and none ended"), "the reason waited for it: {said}");
    stage.assert_empty("after a stopped client went on");
}
