//! SIGKILL at a system call: strace stops the tool as it enters the call on one path, and the signal comes there.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::run::Tool;
use super::scenario::Outcome;
use super::trial::Trial;

const LIMIT: Duration = Duration::from_secs(60);

/// A named point of a backup to local disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    AfterIntent,
    BeforeRecord,
    AfterRecord,
    WithinPart,
    BeforeSegment,
    AfterSegment,
    BeforeForget,
    AfterForget,
    BeforeManifest,
    AfterManifest,
}

impl Call {
    pub(super) const ALL: [Self; 10] = [
        Self::AfterIntent,
        Self::BeforeRecord,
        Self::AfterRecord,
        Self::WithinPart,
        Self::BeforeSegment,
        Self::AfterSegment,
        Self::BeforeForget,
        Self::AfterForget,
        Self::BeforeManifest,
        Self::AfterManifest,
    ];

    pub(super) fn is_short(self) -> bool {
        matches!(self, Self::WithinPart | Self::AfterSegment | Self::BeforeManifest | Self::AfterManifest)
    }

    /// The call, and the file or directory that it is about; none for all files.
    fn trap(self, backup: &Path, stdout: &Path) -> Option<(&'static str, Option<PathBuf>)> {
        // Files are named within their directory, so the directory is what tells the calls apart.
        let (records, segments) = (backup.join("uploads"), backup.join("s00"));
        Some(match self {
            // Nothing to wait for: the input is held back, and the tool stands there.
            Self::AfterIntent => return None,
            Self::BeforeRecord => ("renameat2", Some(records)),
            // After a file got its name, its directory is synced.
            Self::AfterRecord => ("fsync", Some(records)),
            Self::WithinPart => ("pwrite64", None),
            Self::BeforeSegment => ("renameat2", Some(segments)),
            Self::AfterSegment => ("fsync", Some(segments)),
            Self::BeforeForget => ("unlinkat", Some(records)),
            // The record was the last in its directory, which goes too.
            Self::AfterForget => ("unlinkat", Some(backup.to_owned())),
            Self::BeforeManifest => ("renameat2", Some(backup.to_owned())),
            // Then it prints the id.
            Self::AfterManifest => ("write", Some(stdout.to_owned())),
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfterIntent => "after Intent",
            Self::BeforeRecord => "before Record",
            Self::AfterRecord => "after Record",
            Self::WithinPart => "within Part",
            Self::BeforeSegment => "before Complete",
            Self::AfterSegment => "after Complete",
            Self::BeforeForget => "before Forget",
            Self::AfterForget => "after Forget",
            Self::BeforeManifest => "before Manifest",
            Self::AfterManifest => "after Manifest",
        })
    }
}

/// Starts a backup that gets no input yet, so that its id can be seen; sets the trap; lets the input go.
pub(super) fn killed_at(seed: u64, call: Call) -> Outcome {
    let mut trial = Trial::disk(seed, super::kill::LEN);
    let input = fs::read(trial.input()).map_err(|error| error.to_string())?;
    let mut command = trial.backup_command_from("-");
    command.stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    let backup = directory_with_intent(&trial)?;
    if let Some((name, path)) = call.trap(&backup, &tool.stdout_path()) {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={name}")]);
        strace.args(["-e", &format!("inject={name}:signal=KILL:when=1"), "-p", &tool.id().to_string()]);
        if let Some(path) = path {
            strace.arg("-P").arg(path);
        }
        let mut strace = strace.stderr(Stdio::piped()).spawn().map_err(|error| format!("strace: {error}"))?;
        let mut said = BufReader::new(strace.stderr.take().ok_or("strace has a stderr")?);
        let mut line = String::new();
        while !line.contains("attached") {
            line.clear();
            if said.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err("strace could not attach: may processes be traced here?".to_owned());
            }
        }
        // Its stderr stays open until it ends, or it could not go on.
        let drained = std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        // The tool may be gone before it has read everything.
        let _ = stdin.write_all(&input);
        drop(stdin);
        let ended = tool.wait(LIMIT);
        let _ = (strace.wait(), drained.join());
        if ended.is_hang() || ended.code().is_some() {
            return Err(format!("never got to {name}: {ended:?}"));
        }
    } else {
        tool.kill();
    }
    let left = trial.after_kill(seed)?;
    let expected = usize::from(call == Call::AfterManifest);
    if left.committed == expected { Ok(left.describe()) } else { Err(format!("{left:?}, expected {expected}")) }
}

/// The directory of the backup, once its intent is there.
fn directory_with_intent(trial: &Trial) -> Result<PathBuf, String> {
    let url = trial.place.url();
    let series = Path::new(url.strip_prefix("file://").ok_or("a directory")?).join("default");
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        for entry in fs::read_dir(&series).into_iter().flatten().flatten() {
            if entry.path().join("intent.json").exists() {
                return Ok(entry.path());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err("no intent appeared".to_owned())
}
