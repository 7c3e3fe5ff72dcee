//! PostgreSQL: a cluster of its own for each test, which accepts replication on a socket in its directory.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::guard;
use crate::tool;

/// How long the server may take until it answers; it may have to recover first.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The account that the server runs under when the tests run as root, which PostgreSQL refuses to be.
const ACCOUNT: &str = "65534";
/// Its name for the superuser of the database.
const USER: &str = "vdstream";

/// A cluster in a temporary directory. Dropping it stops the server and removes the data; a server whose
/// test was killed ends too.
#[derive(Debug)]
pub struct Cluster {
    data: PathBuf,
    socket: PathBuf,
    keeper: Option<Child>,
    // The last field: dropped when the server is gone.
    dir: TempDir,
}

impl Cluster {
    /// Makes an empty cluster with checksums and starts it.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not come up.
    pub fn start() -> Self {
        let mut cluster = Self::empty();
        let data = cluster.data.clone();
        let data = data.to_str().expect("a path that is text");
        cluster.expect(&["initdb", "-D", data, "-U", USER, "--auth=trust", "--data-checksums", "--no-sync"]);
        cluster.begin();
        cluster
    }

    /// A directory for a cluster that is yet to be restored into [`Self::data`].
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    pub fn empty() -> Self {
        let dir = TempDir::with_prefix("vdstream-postgres-").expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
        let (data, socket) = (dir.path().join("data"), dir.path().join("socket"));
        for path in [&data, &socket] {
            fs::create_dir(path).expect("our own directory");
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("our own directory");
        }
        let cluster = Self { data, socket, keeper: None, dir };
        cluster.hand_over();
        cluster
    }

    /// Where its files are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Gives what was restored to the account of the server.
    ///
    /// # Panics
    ///
    /// When that is not allowed.
    pub fn hand_over(&self) {
        if is_root() {
            let owner = format!("{ACCOUNT}:{ACCOUNT}");
            let done = Command::new("chown").args(["-R", &owner]).arg(self.dir.path()).status();
            assert!(done.expect("chown runs").success());
        }
    }

    /// Starts the server on what is in [`Self::data`].
    ///
    /// # Panics
    ///
    /// When it does not come up; the message is its log.
    pub fn begin(&mut self) {
        let log = self.dir.path().join("log");
        let mut server = self.command("postgres");
        // No TCP: two clusters never meet, and nobody else comes in.
        let socket = format!("unix_socket_directories={}", self.socket.display());
        server.arg("-D").arg(&self.data).args(["-c", "listen_addresses=", "-c", &socket, "-c", "fsync=off"]);
        // The WAL of a backup is fetched at its end, however much was written meanwhile.
        server.args(["-c", "wal_level=replica", "-c", "max_wal_senders=4", "-c", "wal_keep_size=512MB"]);
        let output = File::create(&log).expect("a log file in our own directory");
        self.keeper = Some(guard::keep(&server, self.dir.path(), "INT", output));
        let limit = Instant::now() + START_LIMIT;
        while !self.answers() {
            let ended = self.keeper.as_mut().is_none_or(|keeper| !matches!(keeper.try_wait(), Ok(None)));
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(!ended && Instant::now() < limit, "PostgreSQL does not come up: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        self.client("pg_isready").arg("-q").status().is_ok_and(|status| status.success())
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }

    /// What `psql` answers to a statement, without decoration.
    ///
    /// # Panics
    ///
    /// When the statement fails.
    pub fn query(&self, statement: &str) -> String {
        let socket = self.socket.display().to_string();
        let user = ["psql", "-h", &socket, "-U", USER, "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAtc", statement];
        self.expect(&user).trim().to_owned()
    }

    /// A program of PostgreSQL, under the account of the server, with the arguments that lead to it.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-h").arg(&self.socket).args(["-U", USER]);
        command
    }

    /// A program of PostgreSQL, under the account of the server.
    pub fn command(&self, program: &str) -> Command {
        let program = tool::installed("POSTGRES").join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={ACCOUNT}"), &format!("--regid={ACCOUNT}"), "--clear-groups", "--"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path()).stdin(Stdio::null()).env("HOME", self.dir.path()).env("LC_ALL", "C");
        command
    }

    /// Runs a program of PostgreSQL and gives what it printed.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn expect(&self, arguments: &[&str]) -> String {
        let mut command = self.command(arguments[0]);
        let output = command.args(&arguments[1..]).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
