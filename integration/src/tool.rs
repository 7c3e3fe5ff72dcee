//! Paths: the repository, the command line tool of this build, the installed servers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in a folder of the repository")
}

/// All files below a directory, in order; none if there is no such directory.
///
/// # Panics
///
/// When a directory cannot be read to its end.
pub fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap_or_else(|error| panic!("below {}: {error}", root.display())).path();
            if path.is_dir() { pending.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// The `vdstream` binary of the same build as this test.
///
/// Cargo hands a binary's path only to tests of its own package, so it is looked for where Cargo puts it: two levels above the
/// test. `cargo build --workspace --all-features` builds it.
///
/// # Panics
///
/// When it is not there.
pub fn vdstream() -> PathBuf {
    let path = build_directory().join("vdstream");
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --all-features` first", path.display());
    path
}

/// The command line tool with an environment that holds no credentials and no settings of the caller's.
pub fn vdstream_command() -> Command {
    let mut command = Command::new(vdstream());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["AWS_", "AZURE_", "GOOGLE_", "VDSTREAM_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// The same, for which the kernel answers every attempt to remove the file `path`, or another one in its directory, with `error`,
/// such as `EACCES`.
pub fn vdstream_refused(path: &Path, error: &str) -> Command {
    // A file is removed by its name in its directory, so the directory is what the kernel is given.
    let directory = path.parent().expect("a file is in a directory").to_string_lossy();
    let inject = format!("inject=?unlink,unlinkat:error={error}");
    vdstream_traced(&["-o", "/dev/null", "-e", "trace=?unlink,unlinkat", "-e", &inject, "-P", &directory])
}

/// The same, for which the kernel now and then answers one of these `calls` that has to do with a connection as if the other side
/// had closed it. `log` gets all of them.
pub fn vdstream_disconnected(calls: &str, log: &Path) -> Command {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EPIPE:when=3+60"));
    vdstream_traced(&["-o", &log.to_string_lossy(), "-e", &trace, "-e", &inject])
}

/// The same, for which the kernel answers a rename only a while after it was done. The process is the tool itself.
pub fn vdstream_slow_to_rename(while_it: Duration) -> Command {
    let calls = "?rename,?renameat,?renameat2";
    let inject = format!("inject={calls}:delay_exit={}", while_it.as_micros());
    vdstream_traced(&["-D", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject])
}

/// The same below strace with these options.
fn vdstream_traced(options: &[&str]) -> Command {
    let (tool, mut command) = (vdstream_command(), Command::new("strace"));
    for (name, value) in tool.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg("-f").args(options).arg(tool.get_program());
    command
}

/// The events in what the tool, and whoever shares its stderr, have written there; told apart as the manual's page on progress says.
pub fn events(stderr: &str) -> Vec<Value> {
    stderr.lines().filter_map(event).collect()
}

/// The event that a line is, if it is one.
pub fn event(line: &str) -> Option<Value> {
    let document: Value = serde_json::from_str(line).ok()?;
    matches!(document["event"].as_str(), Some("progress" | "resume" | "verify")).then_some(document)
}

/// Waits for a process that must succeed, and answers the most memory that it ever had, in bytes, as the kernel counts it.
///
/// # Panics
///
/// When the process fails, or does not end within five minutes.
pub fn peak_memory(child: &mut Child) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(300);
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("the kernel prints a number");
        peak = peak.max(kib << 10);
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(status.success(), "the process failed: {status}");
    peak
}

/// The directory of this build's products, such as `target/debug`.
///
/// # Panics
///
/// When the running program does not lie below such a directory.
pub fn build_directory() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    test.ancestors()
        .find(|dir| dir.join("deps").is_dir())
        .unwrap_or_else(|| panic!("{} does not lie in a build directory", test.display()))
        .to_owned()
}

/// Where the install script put a tool: `GARAGE`, `AZURITE`, `MOTO`, …
///
/// # Panics
///
/// When something that the tests need is not installed; the message is the script's.
pub fn installed(name: &str) -> PathBuf {
    static LISTING: OnceLock<String> = OnceLock::new();
    let listing = LISTING.get_or_init(|| {
        let script = repository().join("integration/servers/install");
        let output = Command::new(&script).arg("--locate").output().expect("the install script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("paths of tools are UTF-8")
    });
    listing
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("the install script knows no {name}"))
        .into()
}
