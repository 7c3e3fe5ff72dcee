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
    WithinIntent,
    BeforeIntent,
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
    pub(super) const ALL: [Self; 12] = [
        Self::WithinIntent,
        Self::BeforeIntent,
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
        matches!(
            self,
            Self::BeforeIntent | Self::WithinPart | Self::AfterSegment | Self::BeforeManifest | Self::AfterManifest
        )
    }

    /// The call, and the file or directory that it is about; none for all files.
    fn trap(self, backup: &Path, stdout: &Path) -> Option<(&'static str, Option<PathBuf>)> {
        // Files are named within their directory, so the directory is what tells the calls apart.
        let (records, segments) = (backup.join("uploads"), backup.join("s00"));
        Some(match self {
            // Of all that a backup writes and names, the intent is the first: nobody has to wait for it.
            Self::WithinIntent => ("pwrite64", None),
            Self::BeforeIntent => ("renameat2", None),
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
            Self::WithinIntent => "within Intent",
            Self::BeforeIntent => "before Intent",
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

/// Starts a backup and kills it there.
pub(super) fn killed_at(seed: u64, call: Call) -> Outcome {
    let mut trial = Trial::disk(seed, super::kill::LEN);
    match call {
        Call::WithinIntent | Call::BeforeIntent => from_the_start(&trial, call)?,
        _ => after_the_intent(&trial, call)?,
    }
    let left = trial.after_kill(seed)?;
    let expected = usize::from(call == Call::AfterManifest);
    if left.committed == expected { Ok(left.describe()) } else { Err(format!("{left:?}, expected {expected}")) }
}

/// `strace` with the trap for this call.
fn strace(name: &str) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={name}")]);
    strace.args(["-e", &format!("inject={name}:signal=KILL:when=1")]);
    strace
}

/// The first such call of the whole program.
fn from_the_start(trial: &Trial, call: Call) -> Result<(), String> {
    let (name, _) = call.trap(Path::new(""), Path::new("")).ok_or("a call to wait for")?;
    let plain = trial.backup_command_from(&trial.input().to_string_lossy());
    let mut command = strace(name);
    command.arg("--").arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = Tool::start(command).wait(LIMIT);
    // strace ends as what it traced.
    if ended.is_hang() || ended.code().is_some() { Err(format!("never got to {name}: {ended:?}")) } else { Ok(()) }
}

/// It gets no input yet, so that its id can be seen; then the trap is set, and the input goes.
fn after_the_intent(trial: &Trial, call: Call) -> Result<(), String> {
    let input = fs::read(trial.input()).map_err(|error| error.to_string())?;
    let mut command = trial.backup_command_from("-");
    command.stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    let backup = directory_with_intent(trial)?;
    let Some((name, path)) = call.trap(&backup, &tool.stdout_path()) else {
        tool.kill();
        return Ok(());
    };
    let mut strace = strace(name);
    strace.args(["-p", &tool.id().to_string()]);
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
    if ended.is_hang() || ended.code().is_some() { Err(format!("never got to {name}: {ended:?}")) } else { Ok(()) }
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
