//! Real processes of one device set, of which one is killed at every step of a session: whoever survives is free within a
//! second, says who died, and leaves nothing.

// Real processes take real time, and helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::panic)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use integration::tool;
use vdstream::vdi::CommandCode;

/// The promise.
const FREE_WITHIN: Duration = Duration::from_secs(1);
/// For what is no promise, such as the start of a process.
const PATIENCE: Duration = Duration::from_secs(60);

struct Party {
    what: &'static str,
    child: Child,
}

impl Party {
    fn start(role: &'static str, hub: &Path, step: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shm-party"));
        command.arg(role).arg(hub).arg(step);
        Self::spawn(role, command)
    }

    fn spawn(what: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { what, child: command.spawn().expect("the process starts") }
    }

    /// Waits until it is at its step. False if it ended before.
    fn reach(&mut self, step: &str) -> bool {
        let stdout = self.child.stdout.take().expect("piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("stdout is text");
        line == format!("at {step}\n")
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it waits for the line");
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => return Some(status),
                None if Instant::now() > end => return None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.as_mut().expect("piped").read_to_string(&mut text).expect("stderr is text");
        text
    }

    /// It ends in time, with 1 and the dead process in its message; or well, if it was through before.
    fn survives(&mut self, since: Instant, dead: &str, pid: u32, may_be_through: bool, scene: &str) {
        let left = FREE_WITHIN.saturating_sub(since.elapsed());
        let Some(status) = self.wait(left) else {
            let late = self.wait(PATIENCE).map(|_| since.elapsed());
            panic!("{scene}: the {} is not free within {FREE_WITHIN:?}, but after {late:?}", self.what);
        };
        let said = self.stderr();
        if may_be_through && status.success() {
            return;
        }
        assert_eq!(status.code(), Some(1), "{scene}: the {} said: {said}", self.what);
        let expected = format!("peer died: {dead} (process {pid}) is gone");
        assert!(said.contains(&expected), "{scene}: the {} said: {said}", self.what);
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        // A failed test must not leave processes.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

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

struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    fn hub(&self) -> PathBuf {
        self.root.path().join("hub")
    }

    fn assert_empty(&self, scene: &str) {
        let names: Vec<_> = std::fs::read_dir(self.hub()).expect("the hub is there").collect();
        assert!(names.is_empty(), "{scene}: {names:?} is left");
    }
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
    let mut survivors: Vec<_> = others.iter().map(|role| Party::start(role, &stage.hub(), "none")).collect();
    assert!(dying.reach(step), "{scene}: the step was not reached: {}", dying.stderr());
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
    let server: Vec<_> = server_steps().into_iter().skip_while(|step| step != "device-open").collect();
    let server =
        server.into_iter().filter(|step| ["sent-Write", "sent-Read", "sent-Complete", "grown"].contains(&&**step));
    all_of(server.collect(), |step| kill("server", "the server", &["watcher", "secondary"], step));
    for step in ["sent-Write", "sent-Flush", "sent-Complete"] {
        let scene = format!("watcher killed while the server is at {step}");
        let stage = Stage::new();
        let mut dying = Party::start("watcher", &stage.hub(), "none");
        let mut secondary = Party::start("secondary", &stage.hub(), "none");
        let mut server = Party::start("server", &stage.hub(), step);
        assert!(server.reach(step), "{scene}: the step was not reached");
        let (pid, since) = (dying.child.id(), Instant::now());
        dying.kill();
        server.go_on();
        secondary.survives(since, "the primary client", pid, false, &scene);
        server.survives(since, "the primary client", pid, false, &scene);
        stage.assert_empty(&scene);
    }
}

/// The steps of an engine whose agent is the tool, which does not ask for `PrepareToFreeze`.
fn steps_beside_the_tool() -> Vec<String> {
    server_steps().into_iter().filter(|step| step != "sent-PrepareToFreeze").collect()
}

/// The tool as agent, into a directory of its own.
fn agent(stage: &Stage) -> Party {
    let mut command = tool::vdstream_command();
    command
        .arg("backup")
        .arg(stage.root.path().join("store"))
        .args(["--device-set", "killed", "--hub"])
        .arg(stage.hub());
    Party::spawn("agent", command)
}

fn backups(stage: &Stage) -> usize {
    let listed = tool::vdstream_command().arg("list").arg(stage.root.path().join("store")).arg("--json").output();
    let listed = listed.expect("the tool runs");
    if listed.stdout.is_empty() {
        return 0;
    }
    let document: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("a document");
    document["backups"].as_array().expect("a list").len()
}

#[test]
fn no_backup_appears_when_the_engine_is_killed_before_it_has_closed_its_devices() {
    all_of(steps_beside_the_tool(), |step| {
        let scene = format!("engine killed at {step}, beside the tool");
        let stage = Stage::new();
        let mut agent = agent(&stage);
        let mut engine = Party::start("server", &stage.hub(), step);
        assert!(engine.reach(step), "{scene}: the step was not reached: {}", engine.stderr());
        let (pid, since) = (engine.child.id(), Instant::now());
        engine.kill();
        agent.survives(since, "the server", pid, is_late(step), &scene);
        stage.assert_empty(&scene);
        if !is_late(step) {
            assert_eq!(backups(&stage), 0, "{scene}");
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
        assert!(engine.reach(step), "{scene}: the step was not reached: {}", engine.stderr());
        let pid = agent.child.id();
        let since = Instant::now();
        agent.kill();
        engine.go_on();
        engine.survives(since, "the primary client", pid, false, &scene);
        stage.assert_empty(&scene);
        assert_eq!(backups(&stage), 0, "{scene}");
    });
}

/// Sends a signal by its name.
fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").arg(name).arg(pid.to_string()).status().expect("kill is there");
    assert!(status.success());
}

#[test]
fn a_server_gives_up_a_client_that_was_stopped_after_two_intervals() {
    let stage = Stage::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_shm-party"));
    command
        .args(["primary".as_ref(), stage.hub().as_os_str(), "holding-Flush".as_ref()])
        .env("SHM_PARTY_TIMEOUT", "200");
    let mut stopped = Party::spawn("primary", command);
    let mut server = Party::start("server", &stage.hub(), "none");
    assert!(stopped.reach("holding-Flush"));
    let since = Instant::now();
    signal("-STOP", stopped.child.id());
    let status = server.wait(PATIENCE).expect("the server is free while the client is stopped");
    assert!(since.elapsed() > Duration::from_millis(200), "not before its time");
    assert_eq!(status.code(), Some(1));
    let said = server.stderr();
    assert!(said.contains("1 commands are pending and none ended"), "{said}");
    signal("-CONT", stopped.child.id());
    stopped.go_on();
    assert_eq!(stopped.wait(PATIENCE).and_then(|status| status.code()), Some(1));
    let said = stopped.stderr();
    assert!(said.contains("1 commands are pending and none ended"), "the reason waited for it: {said}");
    stage.assert_empty("after a stopped client went on");
}

#[test]
fn a_backup_and_a_restore_go_through_two_processes() {
    let stage = Stage::new();
    let path = |name: &str| stage.root.path().join(name);
    let parts: Vec<Vec<u8>> = [3_000_001_usize, 0, 70_000]
        .iter()
        .map(|len| (0..*len).map(|at| u8::try_from(at * 7 % 251).expect("below 251")).collect())
        .collect();
    for (number, part) in parts.iter().enumerate() {
        std::fs::write(path(&format!("in{number}")), part).expect("a file");
    }
    let engine = |what: &str, option: &str, prefix: &str| {
        let mut command = tool::vdstream_command();
        command.args(["engine", what, "--device-set", "killed", "--hub"]).arg(stage.hub());
        for number in 0..parts.len() {
            command.arg(option).arg(path(&format!("{prefix}{number}")));
        }
        Party::spawn("engine", command)
    };
    // The engine comes first: it waits for the agent.
    let mut sending = engine("backup", "--input", "in");
    let mut command = tool::vdstream_command();
    command
        .arg("backup")
        .arg(path("store"))
        .args(["--device-set", "killed", "--devices", "3", "--hub"])
        .arg(stage.hub());
    let mut agent = Party::spawn("agent", command);
    assert!(agent.wait(PATIENCE).is_some_and(|status| status.success()), "{}", agent.stderr());
    assert!(sending.wait(PATIENCE).is_some_and(|status| status.success()), "{}", sending.stderr());
    assert_eq!(backups(&stage), 1);

    let mut command = tool::vdstream_command();
    command.arg("restore").arg(path("store")).args(["latest", "--device-set", "killed", "--hub"]).arg(stage.hub());
    let mut agent = Party::spawn("agent", command);
    let mut receiving = engine("restore", "--output", "out");
    assert!(agent.wait(PATIENCE).is_some_and(|status| status.success()), "{}", agent.stderr());
    assert!(receiving.wait(PATIENCE).is_some_and(|status| status.success()), "{}", receiving.stderr());
    for (number, part) in parts.iter().enumerate() {
        assert!(std::fs::read(path(&format!("out{number}"))).expect("restored") == *part, "part {number}");
    }
    stage.assert_empty("after a backup and a restore");
}
