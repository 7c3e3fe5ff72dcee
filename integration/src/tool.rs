//! Paths: the repository, the command line tool of this build, the installed servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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
