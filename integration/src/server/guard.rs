//! A server process that cannot outlive us.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take until it answers. Azurite needs two seconds on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A free port may be taken by someone else before the server binds it.
const ATTEMPTS: u32 = 5;

/// The server runs below this script, which holds the read end of a pipe of ours. When we die, by whatever signal, the pipe
/// closes: the script then kills the server and removes its directory. When the server dies first, the script ends too, and
/// its exit tells us. Arguments: the directory, the signal that ends the server, then the command.
const KEEPER: &str = r#"
dir=$1; signal=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
( read -r _ <&3; kill -$signal $server 2>/dev/null ) &
exec 3<&-
wait $server
status=$?
case $dir in */vdstream-test-*) rm -rf "$dir" ;; esac
kill $! 2>/dev/null
exit $status
"#;

/// A running server. Dropping it stops the server and removes its data.
#[derive(Debug)]
pub struct Running {
    endpoint: String,
    keeper: Child,
}

/// What a server module has to say about its server.
pub(super) struct Plan {
    pub(super) name: &'static str,
    /// How many neighbouring ports it needs; the first is the one that clients use.
    pub(super) ports: u16,
    /// The path that belongs to the endpoint, with its leading slash, or empty.
    pub(super) path: &'static str,
    /// Builds the command, given the first port and an empty directory for its data.
    pub(super) command: fn(u16, &Path) -> Command,
}

impl Running {
    /// Where it listens: `http://127.0.0.1:PORT` and the path that belongs to it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Starts a server and waits until it answers.
    pub(super) fn start(plan: &Plan) -> Self {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Self::attempt(plan) {
                Ok(running) => return running,
                Err(error) => last = error,
            }
        }
        panic!("{} did not start after {ATTEMPTS} attempts: {last}", plan.name)
    }

    fn attempt(plan: &Plan) -> Result<Self, String> {
        let dir = TempDir::with_prefix(format!("vdstream-test-{}-", plan.name)).expect("a temporary directory");
        // From here on the keeper removes the directory.
        Self::start_in(plan, &dir.keep(), "KILL")
    }

    /// Starts a server with its data in `dir`. The keeper removes only directories that [`Self::start`] made.
    pub(super) fn start_in(plan: &Plan, dir: &Path, signal: &str) -> Result<Self, String> {
        let port = free_ports(plan.ports);
        let log = dir.join("log");
        let output = File::create(&log).expect("a log file in our own directory");
        let keeper = keep(&(plan.command)(port, dir), dir, signal, output);
        let mut running = Self { endpoint: format!("http://127.0.0.1:{port}{}", plan.path), keeper };
        running.wait_until_it_answers(port, &log)?;
        Ok(running)
    }

    /// Ends it. What is done `meanwhile` is done again and again until it has ended.
    pub(super) fn end(mut self, mut meanwhile: impl FnMut()) {
        drop(self.keeper.stdin.take());
        while let Ok(None) = self.keeper.try_wait() {
            meanwhile();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_until_it_answers(&mut self, port: u16, log: &PathBuf) -> Result<(), String> {
        let limit = Instant::now() + START_LIMIT;
        // Opened now, because the keeper removes the file when the server ends early.
        let mut log = File::open(log).map_err(|error| format!("its log is gone: {error}"))?;
        let mut tail = || {
            let mut text = String::new();
            let _ = log.read_to_string(&mut text);
            text
        };
        while Instant::now() < limit {
            if let Some(status) = self.keeper.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("it ended with {status} and said: {}", tail()));
            }
            if answers_http(port) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(format!("no answer within {START_LIMIT:?}; it said: {}", tail()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// Starts a command below a keeper, which ends it with `signal` when its own stdin closes.
pub(super) fn keep(command: &Command, dir: &Path, signal: &str, log: File) -> Child {
    let mut keeper = Command::new("sh");
    keeper.arg("-c").arg(KEEPER).arg("keeper").arg(dir).arg(signal);
    keeper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => keeper.env(name, value),
            None => keeper.env_remove(name),
        };
    }
    // Its own process group: an interrupt from the terminal reaches us alone, and the server ends in our wake.
    keeper.process_group(0).current_dir(dir).stdin(Stdio::piped());
    keeper.stdout(log.try_clone().expect("a second handle of the log")).stderr(log);
    keeper.spawn().expect("a shell to run the server in")
}

/// Any HTTP answer will do: a server that refuses an unsigned request is ready.
fn answers_http(port: u16) -> bool {
    let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = connection.set_read_timeout(Some(Duration::from_secs(2)));
    let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let mut head = [0; 5];
    connection.write_all(request).is_ok() && connection.read_exact(&mut head).is_ok() && head == *b"HTTP/"
}

/// The first of `count` neighbouring ports that are free now.
fn free_ports(count: u16) -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = first.local_addr().expect("a bound listener has an address").port();
        let rest: Option<Vec<_>> =
            (1..count).map(|n| TcpListener::bind((Ipv4Addr::LOCALHOST, port.checked_add(n)?)).ok()).collect();
        if rest.is_some() {
            return port;
        }
    }
    panic!("no {count} neighbouring free ports on loopback")
}
