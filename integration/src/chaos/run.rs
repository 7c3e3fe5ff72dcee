//! The tool as a process with a deadline.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A run of the tool that has begun.
#[derive(Debug)]
pub struct Tool {
    child: Child,
    // Files, not pipes: a pipe that nobody reads would stop the tool.
    output: TempDir,
    begun: Instant,
    what: String,
}

/// How a run of the tool went.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit status; none if it had to be killed because its time was up.
    pub status: Option<ExitStatus>,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
    /// How long it took.
    pub elapsed: Duration,
    /// Its arguments.
    pub what: String,
}

impl Tool {
    /// Starts a command; its stdout and stderr are kept.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let output = TempDir::with_prefix("vdstream-output-").expect("a temporary directory");
        let file = |name: &str| File::create(output.path().join(name)).expect("a file in our own directory");
        command.stdout(file("stdout")).stderr(file("stderr"));
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, output, begun: Instant::now(), what }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its end of a piped stdin.
    ///
    /// # Panics
    ///
    /// When there is none, or it was taken before.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a piped stdin")
    }

    /// The file that its stdout goes to.
    pub fn stdout_path(&self) -> PathBuf {
        self.output.path().join("stdout")
    }

    /// Whether it is over.
    ///
    /// # Panics
    ///
    /// When it cannot be waited for.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// The time since it was started.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Ends it at once, by SIGKILL.
    ///
    /// # Panics
    ///
    /// When the signal cannot be sent.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("our own child");
        let status = self.child.wait().expect("our own child");
        self.ended(Some(status))
    }

    /// Waits for its end, from now on at most this long; then it is killed.
    ///
    /// # Panics
    ///
    /// When it cannot be waited for.
    pub fn wait(mut self, limit: Duration) -> Ended {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return self.ended(Some(status));
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return self.ended(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn ended(&self, status: Option<ExitStatus>) -> Ended {
        let read = |name: &str| {
            let bytes = fs::read(self.output.path().join(name)).expect("a file that we made");
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ended {
            status,
            stdout: read("stdout"),
            stderr: read("stderr"),
            elapsed: self.begun.elapsed(),
            what: self.what.clone(),
        }
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// It did what it was asked to do.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// It hung: its time was up.
    pub fn is_hang(&self) -> bool {
        self.status.is_none()
    }

    /// The exit code; none after a signal or a hang.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// The last line of what it said: the error, if it failed.
    pub fn last_line(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// A command whose stdin is empty.
pub(super) fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}
