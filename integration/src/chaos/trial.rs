//! One store behind a proxy, one file to back up, and the checks that hold after everything.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::run::{Ended, Tool, quiet};
use crate::data::{Entropy, Pattern};
use crate::network::Proxy;
use crate::place::Place;
use crate::server::{Kind, Lasting};
use crate::tool;

/// The parts of the backups here: the smallest that S3 takes.
pub(super) const PART: usize = 5 << 20;
/// Their segments: three parts.
pub(super) const SEGMENT: usize = 3 * PART;
/// A command on a healthy store has this long.
pub(super) const HEALTHY: Duration = Duration::from_secs(120);

/// What a run must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// It goes on and succeeds.
    Success,
    /// It fails with an error, within the time.
    Failure,
    /// One or the other.
    Either,
}

/// One bad day.
#[derive(Debug)]
pub struct Trial {
    /// Where the backups go; through the proxy if there is one.
    pub place: Place,
    /// None on disk.
    proxy: Option<Proxy>,
    /// The server that belongs to this trial alone, if one does.
    server: Option<Lasting>,
    work: TempDir,
    pattern: Pattern,
    len: usize,
    /// Variables for the tool, beside those that name the store.
    variables: Vec<(&'static str, String)>,
    runtime: tokio::runtime::Runtime,
    log: Vec<String>,
}

impl Trial {
    /// On local disk, with this much to back up.
    ///
    /// # Panics
    ///
    /// When the machine does not do what a machine does.
    pub fn disk(seed: u64, len: usize) -> Self {
        let place = Place::disk();
        // A store that nothing was ever written to is not there; here it always is.
        fs::create_dir_all(place.url().trim_start_matches("file://")).expect("room for a directory");
        Self::with(place, None, None, seed, len, runtime())
    }

    /// On the shared server of this kind, behind a proxy of its own.
    ///
    /// # Panics
    ///
    /// When the server is not to be had.
    pub fn server(kind: Kind, seed: u64, len: usize) -> Self {
        Self::behind(Proxy::start(kind.endpoint()), kind, None, seed, len)
    }

    /// On a server that can be killed.
    ///
    /// # Panics
    ///
    /// When the server is not to be had.
    pub fn lasting(kind: Kind, seed: u64, len: usize) -> Self {
        let server = Lasting::start(kind);
        Self::behind(Proxy::start(server.endpoint()), kind, Some(server), seed, len)
    }

    fn behind(proxy: Proxy, kind: Kind, server: Option<Lasting>, seed: u64, len: usize) -> Self {
        let runtime = runtime();
        let place = runtime.block_on(Place::at(kind, proxy.endpoint()));
        Self::with(place, Some(proxy), server, seed, len, runtime)
    }

    fn with(
        place: Place,
        proxy: Option<Proxy>,
        server: Option<Lasting>,
        seed: u64,
        len: usize,
        runtime: tokio::runtime::Runtime,
    ) -> Self {
        let work = TempDir::with_prefix("vdstream-trial-").expect("a temporary directory");
        let pattern = Pattern::new(seed, 0, Entropy::Random);
        fs::write(work.path().join("input"), pattern.bytes(0, len)).expect("room for the input");
        Self { place, proxy, server, work, pattern, len, variables: Vec::new(), runtime, log: Vec::new() }
    }

    /// The proxy.
    ///
    /// # Panics
    ///
    /// On disk, where there is none.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a trial on a server")
    }

    /// The file that is backed up.
    pub fn input(&self) -> PathBuf {
        self.work.path().join("input")
    }

    /// Objects in the store; on disk, files that are not finished count as well.
    pub fn files(&self) -> usize {
        self.objects().len()
    }

    /// The names of all objects.
    pub(super) fn objects(&self) -> Vec<String> {
        self.runtime.block_on(self.place.objects())
    }

    /// A name in a directory that goes with the trial.
    pub fn file(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The tool with these arguments and the variables for the store.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = quiet(tool::vdstream_command());
        command.envs(self.place.environment()).envs(self.variables.iter().cloned()).args(arguments);
        command
    }

    /// A backup of `source`, a path or `-`.
    pub fn backup_command_from(&self, source: &str) -> Command {
        let url = self.place.url();
        let mut command = self.command(&["backup", &url, "--progress", "none", "--memory", "64MiB"]);
        command.args(["--concurrency", "3", "--threads", "2"]);
        command.args(["--part-size", &PART.to_string(), "--segment-size", &SEGMENT.to_string()]);
        match source {
            "-" => command.arg("-"),
            path => command.args(["--input", path]),
        };
        command
    }

    /// Starts a backup of the input.
    pub fn start_backup(&self) -> Tool {
        Tool::start(self.backup_command_from(&self.input().to_string_lossy()))
    }

    /// Starts the restore of the newest backup into a file.
    pub fn start_restore(&self) -> Tool {
        let (url, output) = (self.place.url(), self.file("output"));
        let mut command = self.command(&["restore", &url, "latest", "--progress", "none", "--memory", "64MiB"]);
        command.args(["--concurrency", "3", "--threads", "2", "--output"]).arg(output);
        Tool::start(command)
    }

    /// Starts the verification of the newest backup, at this level and with the settings that the tool has by itself.
    pub fn start_verify(&self, level: &str) -> Tool {
        let url = self.place.url();
        Tool::start(self.command(&["verify", &url, "latest", "--level", level, "--progress", "none"]))
    }

    /// A backup on a healthy store.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn healthy_backup(&mut self) -> Result<(), String> {
        let ended = self.start_backup().wait(HEALTHY);
        self.judge(&ended, Expect::Success).map(drop)
    }

    /// Whether a run did what it had to: its time was enough, and a failure says one thing in one line.
    ///
    /// # Errors
    ///
    /// When it did not.
    pub fn judge(&mut self, ended: &Ended, expect: Expect) -> Result<bool, String> {
        if ended.is_hang() {
            return Err(format!("hang: {} did not end within {:?}: {}", ended.what, ended.elapsed, ended.stderr));
        }
        let success = ended.is_success();
        if !success {
            let code = ended.code().ok_or_else(|| format!("{}: ended by a signal: {}", ended.what, ended.stderr))?;
            if ended.stderr.contains("panicked") || code == 101 {
                return Err(format!("panic: {}: {}", ended.what, ended.stderr));
            }
            if ended.last_line().len() < 10 {
                return Err(format!("{}: no clear error: {}", ended.what, ended.stderr));
            }
            self.log.push(format!("exit {code} after {:.1} s: {}", ended.elapsed.as_secs_f64(), ended.last_line()));
        } else {
            self.log.push(format!("done after {:.1} s", ended.elapsed.as_secs_f64()));
        }
        match (expect, success) {
            (Expect::Success, false) => {
                Err(format!("{} failed after {:?}: {}", ended.what, ended.elapsed, ended.stderr))
            }
            (Expect::Failure, true) => Err(format!("{} succeeded", ended.what)),
            _ => Ok(success),
        }
    }

    /// Like [`Trial::judge`], and a failure is the store's: exit 5, and the error says which store.
    ///
    /// # Errors
    ///
    /// When it is another one.
    pub fn judge_unavailable(&mut self, ended: &Ended, expect: Expect) -> Result<bool, String> {
        let success = self.judge(ended, expect)?;
        let url = self.place.url();
        let container = url.split('/').nth(2).ok_or("a URL with a bucket")?;
        if !success && (ended.code() != Some(5) || !ended.stderr.contains(container)) {
            return Err(format!("not exit 5 that names {container}: {ended:?}"));
        }
        Ok(success)
    }

    /// What was noted on the way, for the table.
    pub fn summary(&self) -> String {
        self.log.join("; ")
    }

    /// More variables for the tool.
    pub fn set(&mut self, variables: &[(&'static str, &str)]) {
        self.variables.extend(variables.iter().map(|(name, value)| (*name, (*value).to_owned())));
    }

    /// Kills the server of this trial, and with it every connection.
    ///
    /// # Panics
    ///
    /// When the server is shared.
    pub fn kill_server(&mut self) {
        let proxy = self.proxy.as_ref().expect("a trial on a server");
        // More than once: the tool connects anew, and a server that is allowed an orderly end would wait for it.
        self.server.as_mut().expect("a server of its own").kill(|| proxy.reset_all());
    }

    /// Starts it again.
    ///
    /// # Panics
    ///
    /// When the server is shared, or does not start.
    pub fn restart_server(&mut self) {
        let server = self.server.as_mut().expect("a server of its own");
        server.restart();
        let endpoint = server.endpoint().to_owned();
        self.proxy().set_upstream(&endpoint);
    }

    /// What the killed tool had on its way is lost with its connections. A server may still be busy with what had arrived.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        if let Some(proxy) = &self.proxy {
            proxy.reset_all();
            proxy.heal();
        }
        let end = Instant::now() + HEALTHY;
        let mut last = None;
        loop {
            let now = self.runtime.block_on(async { (self.place.objects().await, self.place.uploads().await) });
            if last.as_ref() == Some(&now) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the store does not come to rest: {now:?}"));
            }
            last = Some(now);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The restored file is the input.
    ///
    /// # Errors
    ///
    /// When it is not there or differs.
    pub fn compare_output(&self) -> Result<(), String> {
        let output = fs::read(self.file("output")).map_err(|error| format!("the restored file: {error}"))?;
        self.pattern.check(&output, self.len)
    }

    /// A failed restore has left no file under the name that was asked for, and none beside it.
    ///
    /// # Errors
    ///
    /// When there is one.
    pub fn no_output(&self) -> Result<(), String> {
        let names = fs::read_dir(self.work.path()).expect("our own directory");
        let left: Vec<_> =
            names.map(|entry| entry.expect("an entry").file_name()).filter(|name| name != "input").collect();
        if left.is_empty() { Ok(()) } else { Err(format!("a failed restore left {left:?}")) }
    }

    /// The day is over and everything works again: every backup that is listed comes back byte for byte, and `gc` leaves
    /// nothing but those. Says how many there are.
    ///
    /// # Errors
    ///
    /// Says what does not hold.
    pub fn check(&mut self) -> Result<usize, String> {
        if let Some(proxy) = &self.proxy {
            proxy.heal();
            if let Some(broken) = proxy.broken() {
                return Err(format!("the proxy could not follow: {broken}"));
            }
        }
        let before = self.listed()?;
        self.collect()?;
        let listed = self.listed()?;
        if listed != before {
            return Err(format!("the collection changed what is listed: {before:?}, then {listed:?}"));
        }
        for id in &listed {
            self.restore_and_compare(id)?;
        }
        self.nothing_else(&listed)?;
        Ok(listed.len())
    }

    /// The ids of the backups that a reader sees; none may be damaged.
    ///
    /// # Errors
    ///
    /// When one is, or the store does not answer.
    pub fn listed(&self) -> Result<Vec<String>, String> {
        let url = self.place.url();
        let document = self.document(&["list", &url, "--json"])?;
        if document["damaged"].as_array().is_none_or(|damaged| !damaged.is_empty()) {
            return Err(format!("a damaged backup is visible: {document}"));
        }
        let backups = document["backups"].as_array().ok_or("no list")?;
        backups.iter().map(|backup| Ok(backup["id"].as_str().ok_or("no id")?.to_owned())).collect()
    }

    /// When each listed backup was created and finished, as its own clock told.
    pub(super) fn times(&self) -> Result<Vec<(String, String)>, String> {
        let url = self.place.url();
        let time = |manifest: &Value, name: &str| {
            manifest[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name} in {manifest}"))
        };
        self.listed()?
            .iter()
            .map(|id| {
                let manifest = self.document(&["show", &url, id, "--json"])?;
                Ok((time(&manifest, "created")?, time(&manifest, "finished")?))
            })
            .collect()
    }

    fn restore_and_compare(&self, id: &str) -> Result<(), String> {
        let url = self.place.url();
        self.document(&["verify", &url, id, "--level", "full", "--json"])?;
        let output = self.file("checked");
        let path = output.to_str().ok_or("a path that is text")?;
        self.document_or_nothing(&["restore", &url, id, "--output", path])?;
        let bytes = fs::read(&output).map_err(|error| error.to_string())?;
        fs::remove_file(&output).map_err(|error| error.to_string())?;
        self.pattern.check(&bytes, self.len)
    }

    fn collect(&self) -> Result<(), String> {
        let url = self.place.url();
        self.document_or_nothing(&["gc", &url, "--grace", "0s", "--confirm"]).map(drop)
    }

    /// Every object belongs to a listed backup, no segment is there that its manifest does not name, and no open upload holds
    /// data.
    fn nothing_else(&self, listed: &[String]) -> Result<(), String> {
        let mut expected = Vec::new();
        for id in listed {
            let url = self.place.url();
            let manifest = self.document(&["show", &url, id, "--json"])?;
            let base = format!("default/{id}");
            expected.extend([format!("{base}/intent.json"), format!("{base}/manifest.json")]);
            let stripes = manifest["stripes"].as_array().into_iter().flatten();
            let segments = stripes.flat_map(|stripe| stripe["segments"].as_array().into_iter().flatten());
            expected.extend(segments.map(|segment| format!("{base}/{}", segment["object"].as_str().unwrap_or("?"))));
        }
        expected.sort();
        let mut found = self.objects();
        found.retain(|name| !name.contains("/verified/"));
        if found != expected {
            return Err(format!("leak: there are {found:?}, wanted are {expected:?}"));
        }
        // One that was begun and not recorded has no parts; nobody but the store knows of it.
        let uploads = self.runtime.block_on(self.place.uploads_with_parts());
        if uploads.is_empty() { Ok(()) } else { Err(format!("leak: open uploads of {uploads:?}")) }
    }

    pub(super) fn document(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.document_or_nothing(arguments)?;
        serde_json::from_str(&text).map_err(|error| format!("{arguments:?}: {error}: {text}"))
    }

    fn document_or_nothing(&self, arguments: &[&str]) -> Result<String, String> {
        let ended = Tool::start(self.command(arguments)).wait(HEALTHY);
        if ended.is_hang() {
            return Err(format!("hang: {arguments:?}"));
        }
        if !ended.is_success() {
            return Err(format!("{arguments:?} failed: {}", ended.stderr));
        }
        Ok(ended.stdout)
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
