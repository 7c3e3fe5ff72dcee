//! A server that can be killed and started again with what it had stored.

use tempfile::TempDir;

use super::Kind;
use super::guard::Running;

/// A server whose data outlives it.
#[derive(Debug)]
pub struct Lasting {
    kind: Kind,
    // Before the directory: fields are dropped in order, and a server goes before its data.
    running: Option<Running>,
    dir: TempDir,
}

impl Lasting {
    /// Starts one on an empty directory.
    ///
    /// # Panics
    ///
    /// When the server is not installed or does not come up.
    pub fn start(kind: Kind) -> Self {
        let dir = TempDir::with_prefix("vdstream-lasting-").expect("a temporary directory");
        let mut lasting = Self { kind, running: None, dir };
        lasting.restart();
        lasting
    }

    /// Where it listens now; another place after each start.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn endpoint(&self) -> &str {
        self.running.as_ref().expect("it runs").endpoint()
    }

    /// Ends it. Garage gets no chance to do anything. Azurite keeps its index in memory and writes it down every few seconds and at
    /// an orderly end, so that one has to be granted: killed outright, it forgets what it had acknowledged. It then waits for everybody
    /// who is connected, so `meanwhile` is called until it has ended, to send them away.
    pub fn kill(&mut self, meanwhile: impl FnMut()) {
        if let Some(running) = self.running.take() {
            running.end(meanwhile);
        }
    }

    /// Starts it again with what it had.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.kill(|| {});
        let signal = if self.kind == Kind::Azurite { "TERM" } else { "KILL" };
        let started = Running::start_in(self.kind.plan(), self.dir.path(), signal);
        self.running = Some(started.unwrap_or_else(|error| panic!("{:?} did not start: {error}", self.kind)));
    }
}
