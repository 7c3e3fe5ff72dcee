//! Processes of one device set: `shm-party` in one of its roles, or the tool.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::tool;

/// The promise: whoever survives another process is free within this time.
pub const FREE_WITHIN: Duration = Duration::from_secs(1);

/// For what is no promise, such as the start of a process.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A user and a group that own nothing.
pub const NOBODY: u32 = 65_534;

/// A process that has a part in a device set. It is killed when this is dropped, so that a failed test leaves none.
#[derive(Debug)]
pub struct Party {
    /// What it is called in messages.
    pub what: &'static str,
    /// The process.
    pub child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Party {
    /// Starts `shm-party` in a role, on a hub, to pause at a step.
    pub fn start(role: &'static str, hub: &Path, step: &str) -> Self {
        Self::spawn(role, command(role, hub, step))
    }

    /// Starts a party that is in the set before this returns.
    pub fn start_joined(role: &'static str, hub: &Path) -> Self {
        let mut party = Self::start(role, hub, "configured");
        party.reach("configured");
        party.go_on();
        party
    }

    /// Starts any process with its streams at hand.
    pub fn spawn(what: &'static str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the process starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { what, child, stdout }
    }

    /// Its next line; empty when it ended before.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("stdout is text");
        line.trim_end().to_owned()
    }

    /// Waits until it pauses at its step.
    pub fn reach(&mut self, step: &str) {
        let line = self.line();
        if line != format!("at {step}") {
            let said = self.stderr();
            panic!("the {} did not come to {step}, but said {line:?}, {said}", self.what);
        }
    }

    /// Lets it go on from a step.
    pub fn go_on(&mut self) {
        self.say("");
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("it waits for the line");
    }

    /// `kill -9`, and no more of it: not even as a zombie.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Sends a signal by its name, such as `-STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().expect("kill is there");
        assert!(status.success());
    }

    /// Its status, if it ends in time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            match self.child.try_wait().expect("it is our child") {
                Some(status) => return Some(status),
                None if Instant::now() > end => return None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// It ends well.
    pub fn succeeds(&mut self) {
        let is_good = self.wait(PATIENCE).is_some_and(|status| status.success());
        let said = self.stderr();
        assert!(is_good, "the {} said: {said}", self.what);
    }

    /// All that it wrote to stderr, once it has ended; what there is may be empty.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ended = self.child.kill();
            stderr.read_to_string(&mut text).expect("stderr is text");
        }
        text
    }

    /// It ends in time, with 1 and the dead process in its message; or well, if it was through before.
    pub fn survives(&mut self, since: Instant, dead: &str, pid: u32, may_be_through: bool, scene: &str) {
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
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `shm-party` in a role, on a hub, to pause at a step.
pub fn command(role: &str, hub: &Path, step: &str) -> Command {
    let mut command = Command::new(tool::build_directory().join("shm-party"));
    command.arg(role).arg(hub).arg(step);
    command
}

/// The same command as [`NOBODY`]. It needs root, or `sudo` that asks nothing.
pub fn as_nobody(command: &Command) -> Command {
    let ids = format!("--reuid={NOBODY}");
    let groups = format!("--regid={NOBODY}");
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut wrapped = Command::new(if is_root { "setpriv" } else { "sudo" });
    if !is_root {
        wrapped.args(["-n", "setpriv"]);
    }
    wrapped.args([ids, groups, "--clear-groups".to_owned(), "--".to_owned(), "env".to_owned()]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let mut pair = name.to_owned();
            pair.push("=");
            pair.push(value);
            wrapped.arg(pair);
        }
    }
    wrapped.arg(command.get_program()).args(command.get_args());
    wrapped
}

/// A directory with a hub in it, and room for a store beside it.
#[derive(Debug)]
pub struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    /// A new one, empty.
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory") }
    }

    /// A path below it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The hub's directory.
    pub fn hub(&self) -> PathBuf {
        self.path("hub")
    }

    /// The files in the hub.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.hub()).expect("the hub is there");
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Nothing is left in the hub.
    pub fn assert_empty(&self, scene: &str) {
        let names = self.names();
        assert!(names.is_empty(), "{scene}: {names:?} is left");
    }

    /// How many backups the store beside the hub shows.
    pub fn backups(&self) -> usize {
        let mut command = tool::vdstream_command();
        let listed = command.arg("list").arg(self.path("store")).arg("--json").output().expect("the tool runs");
        if listed.stdout.is_empty() {
            return 0;
        }
        let document: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("a document");
        document["backups"].as_array().expect("a list").len()
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}
