//! A disk that is full or closed, and a clock that goes back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::run::Tool;
use super::scenario::{On, Outcome, Scenario};
use super::trial::{Expect, SEGMENT, Trial};
use crate::tool;

const LEN: usize = 4 * SEGMENT;
const LIMIT: Duration = Duration::from_secs(100);

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new("the disk is full in the middle", On::Disk, full).runs(3).short(),
        Scenario::new("the permission is lost in the middle", On::Disk, permission_lost).runs(3).short(),
        Scenario::new("the target is read-only", On::Disk, read_only).short(),
        Scenario::new("the clock goes back a day in the middle", On::Disk, clock_back).runs(3).short(),
        Scenario::new("the clock was a year ahead before", On::Disk, clock_was_ahead).short(),
    ]
}

/// On a file system of 24 MiB of its own: a backup that fits stays whole beside one that does not.
const FULL: &str = r#"
set -e
mount -t tmpfs -o size=24m tmpfs /mnt
tool=$1 input=$2
head -c 5000000 "$input" >/mnt/first
"$tool" backup file:///mnt/store --quiet --input /mnt/first >/dev/null
code=0
"$tool" backup file:///mnt/store --quiet --progress none --segment-size 15MiB --input "$input" >/dev/null || code=$?
[ "$code" = 14 ] || { echo "exit $code, not 14" >&2; exit 1; }
"$tool" verify file:///mnt/store latest --level full --quiet >/dev/null
"$tool" restore file:///mnt/store latest --quiet --output /mnt/second >/dev/null
cmp /mnt/first /mnt/second
"$tool" list file:///mnt/store --json
find /mnt/store -type f -not -path '*/verified/*'
"#;

fn full(_: On, seed: u64) -> Outcome {
    let trial = Trial::disk(seed, LEN);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-c", FULL, "sh"]).arg(tool::vdstream()).arg(trial.input());
    let ended = Tool::start(command).wait(LIMIT);
    if !ended.is_success() {
        return Err(format!("{ended:?}"));
    }
    let files = ended.stdout.lines().filter(|line| line.starts_with('/')).count();
    // The intent, the segment and the manifest of the first.
    if ended.stdout.matches("\"id\"").count() != 1 || files != 3 {
        return Err(format!("leak: {}", ended.stdout));
    }
    Ok("exit 14; the backup beside it is whole, nothing else left".to_owned())
}

/// Permissions mean nothing to root, so root runs the tool as nobody.
fn as_nobody(command: &Command, owned: &[&Path]) -> Command {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut wrapped = if is_root {
        for path in owned {
            let _ = Command::new("chown").args(["-R", "65534:65534"]).arg(path).status();
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
        }
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(command.get_program());
        wrapped
    } else {
        Command::new(command.get_program())
    };
    wrapped.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn store_of(trial: &Trial) -> PathBuf {
    PathBuf::from(trial.place.url().trim_start_matches("file://"))
}

/// The tool where everybody may run it: a build directory may lie in a closed home.
fn public_tool(trial: &Trial) -> Result<PathBuf, String> {
    let copy = trial.file("tool");
    fs::copy(tool::vdstream(), &copy).map_err(|error| error.to_string())?;
    Ok(copy)
}

fn permission_lost(_: On, seed: u64) -> Outcome {
    let mut trial = Trial::disk(seed, LEN);
    let store = store_of(&trial);
    let (plain, work) = (trial.backup_command_from("-"), trial.input());
    let mut copied = Command::new(public_tool(&trial)?);
    copied.args(plain.get_args());
    let parent = store.parent().ok_or("a directory above")?.to_owned();
    let mut command = as_nobody(&copied, &[&parent, work.parent().ok_or("a directory above")?]);
    command.stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    let input = fs::read(trial.input()).map_err(|error| error.to_string())?;
    // All but the end is in, and the first segment is there; then its directory is closed.
    let _ = std::io::Write::write_all(&mut stdin, &input[..LEN - (1 << 20)]);
    let Some(segment) = wait_for(&store, "000000.zst") else {
        return Err(format!("no segment was stored: {:?}", tool.wait(Duration::ZERO)));
    };
    let directory = segment.parent().ok_or("a directory above")?.to_owned();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o000)).map_err(|error| error.to_string())?;
    let _ = std::io::Write::write_all(&mut stdin, &input[LEN - (1 << 20)..]);
    drop(stdin);
    let ended = tool.wait(LIMIT);
    trial.judge(&ended, Expect::Failure)?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
    match trial.check()? {
        0 => Ok(trial.summary()),
        count => Err(format!("{count} backups")),
    }
}

fn wait_for(below: &Path, name: &str) -> Option<PathBuf> {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        let found = tool::files_below(below).into_iter().find(|path| path.file_name().is_some_and(|file| file == name));
        if found.is_some() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn read_only(_: On, seed: u64) -> Outcome {
    let mut trial = Trial::disk(seed, 1 << 20);
    trial.healthy_backup()?;
    let (store, input) = (store_of(&trial), trial.input());
    let parent = store.parent().ok_or("a directory above")?.to_owned();
    let closed = trial.file("closed");
    fs::create_dir(&closed).map_err(|error| error.to_string())?;
    let tool = public_tool(&trial)?;
    let run = |arguments: &[&str], mode: u32, target: &Path| -> Result<_, String> {
        let mut command = Command::new(&tool);
        command.args(arguments);
        let wrapped = as_nobody(&command, &[&parent, input.parent().ok_or("a directory above")?]);
        fs::set_permissions(target, fs::Permissions::from_mode(mode)).map_err(|error| error.to_string())?;
        let ended = Tool::start(wrapped).wait(LIMIT);
        fs::set_permissions(target, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        Ok(ended)
    };
    let url = trial.place.url();
    let source = input.to_string_lossy().into_owned();
    let backup = run(&["backup", &url, "--series", "other", "--input", &source], 0o555, &store)?;
    trial.judge(&backup, Expect::Failure)?;
    let output = closed.join("output").to_string_lossy().into_owned();
    let restore = run(&["restore", &url, "latest", "--output", &output], 0o555, &closed)?;
    trial.judge(&restore, Expect::Failure)?;
    for ended in [&backup, &restore] {
        if ended.code() != Some(13) {
            return Err(format!("not exit 13: {ended:?}"));
        }
    }
    match trial.check()? {
        1 => Ok(trial.summary()),
        count => Err(format!("{count} backups")),
    }
}

/// The variables that give a process another clock: the offset stands in a file and may change.
fn other_clock(file: &Path) -> Result<Vec<(&'static str, String)>, String> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let library = libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let library = library.ok_or("libfaketime is not installed: run integration/servers/install")?;
    Ok(vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // The wall clock goes wrong; the machine's own count of time does not.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}

fn clock_back(_: On, seed: u64) -> Outcome {
    let mut trial = Trial::disk(seed, LEN);
    let offset = trial.file("offset");
    fs::write(&offset, "+0").map_err(|error| error.to_string())?;
    let mut command = trial.backup_command_from("-");
    command.envs(other_clock(&offset)?).stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    let input = fs::read(trial.input()).map_err(|error| error.to_string())?;
    let _ = std::io::Write::write_all(&mut stdin, &input[..LEN / 2]);
    fs::write(&offset, "-1d").map_err(|error| error.to_string())?;
    let _ = std::io::Write::write_all(&mut stdin, &input[LEN / 2..]);
    drop(stdin);
    let ended = tool.wait(LIMIT);
    trial.judge(&ended, Expect::Success)?;
    // Otherwise nobody saw another clock.
    for (created, finished) in trial.times()? {
        if finished >= created {
            return Err(format!("the clock did not go back: created at {created}, finished at {finished}"));
        }
    }
    match trial.check()? {
        1 => Ok(trial.summary()),
        count => Err(format!("{count} backups")),
    }
}

/// What was made then stays, and what is made now is listed beside it, is the latest, and does not go.
fn clock_was_ahead(_: On, seed: u64) -> Outcome {
    let mut trial = Trial::disk(seed, 1 << 20);
    let offset = trial.file("offset");
    fs::write(&offset, "+365d").map_err(|error| error.to_string())?;
    let mut command = trial.backup_command_from(&trial.input().to_string_lossy());
    command.envs(other_clock(&offset)?);
    let ended = Tool::start(command).wait(LIMIT);
    trial.judge(&ended, Expect::Success)?;
    let (before, ahead) = (trial.listed()?, trial.times()?);
    trial.healthy_backup()?;
    // Otherwise nobody saw another clock: it is not even the same month.
    let mut times = trial.times()?;
    times.retain(|time| !ahead.contains(time));
    let ([(then, _)], [(now, _)]) = (&ahead[..], &times[..]) else {
        return Err(format!("two backups were made: {ahead:?}, {times:?}"));
    };
    if then[..7] <= now[..7] {
        return Err(format!("the clock was not ahead: created at {then}, and now it is {now}"));
    }
    let mut made = trial.listed()?;
    made.retain(|id| !before.contains(id));
    let url = trial.place.url();
    let latest = trial.document(&["show", &url, "latest", "--json"])?;
    if made != [latest["id"].as_str().unwrap_or("?")] {
        return Err(format!("the latest is {}, and {made:?} was made now", latest["id"]));
    }
    trial.document(&["prune", &url, "--keep-last", "1", "--keep-within", "30d", "--confirm", "--json"])?;
    match trial.check()? {
        2 => Ok(trial.summary()),
        count => Err(format!("{count} backups")),
    }
}
