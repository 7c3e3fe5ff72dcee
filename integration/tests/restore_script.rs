//! The script that restores a backup without us.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::server::Kind;
use integration::terminal::at_terminal;
use integration::tool;
use tempfile::TempDir;

const LENGTHS: [usize; 3] = [26_000_001, 1, 0];

/// A backup of three stripes; what the script calls it.
fn back_up(place: &Place, work: &Path, encryption: &[&str]) -> String {
    let mut command = tool::vdstream_command();
    command.envs(place.environment());
    // The least memory, so that segments end soon and many have the same size.
    let small = ["--segment-size", "1MiB", "--memory", "64MiB", "--threads", "1"];
    command.args(["backup", &place.url()]).args(small).args(encryption).stdin(Stdio::null());
    for (stripe, len) in (0..).zip(LENGTHS) {
        let path = work.join(format!("in{stripe}"));
        fs::write(&path, Pattern::new(data::seed(), stripe, Entropy::Random).bytes(0, len)).unwrap();
        command.arg("--input").arg(path);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    format!("{}/default/{id}", place.url())
}

/// The directory of a backup on disk.
fn directory(backup: &str) -> &Path {
    Path::new(backup.strip_prefix("file://").unwrap())
}

fn script(backup: &str, stripe: usize, output: &Path, keys: &[&str]) -> Command {
    let mut command = Command::new(tool::repository().join("examples/restore.sh"));
    command.arg(backup).arg(stripe.to_string()).arg(output).args(keys).stdin(Stdio::null());
    command
}

fn restore(backup: &str, stripe: usize, output: &Path, keys: &[&str]) -> Output {
    script(backup, stripe, output, keys).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn comes_back(backup: &str, work: &Path, keys: &[&str], environment: &[(&str, String)]) {
    for stripe in 0..LENGTHS.len() {
        let output = work.join(format!("out{stripe}"));
        let mut command = script(backup, stripe, &output, keys);
        let done = command.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", stderr(&done));
        let (original, restored) = (fs::read(work.join(format!("in{stripe}"))), fs::read(&output));
        assert!(original.unwrap() == restored.unwrap(), "stripe {stripe} came back changed");
        fs::remove_file(output).unwrap();
    }
}

#[test]
fn a_backup_comes_back_and_damage_is_refused() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let backup = back_up(&place, work.path(), &[]);
    comes_back(&backup, work.path(), &[], &[]);
    // A plain path too.
    comes_back(&directory(&backup).to_string_lossy(), work.path(), &[], &[]);

    let output = work.path().join("again");
    let segment = directory(&backup).join("s00/000001.zst");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a flipped bit");
    fs::write(&segment, &bytes[..middle]).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a cut object");
    fs::remove_file(&segment).unwrap();
    assert!(!restore(&backup, 0, &output, &[]).status.success(), "a lost object");
    let left: Vec<_> = tool::files_below(work.path()).into_iter().filter(|path| path.starts_with(&output)).collect();
    assert!(left.is_empty() && !output.exists(), "a failure leaves {left:?}");
}

/// Every frame of a swapped segment is whole, and so is its size: only its hash tells.
#[test]
fn segments_in_the_places_of_others_are_refused_or_said_to_go_unseen() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let backup = back_up(&place, work.path(), &[]);
    let mut by_size: HashMap<u64, Vec<PathBuf>> = HashMap::new();
    for segment in tool::files_below(&directory(&backup).join("s00")) {
        by_size.entry(fs::metadata(&segment).unwrap().len()).or_default().push(segment);
    }
    let alike = by_size.into_values().find(|alike| alike.len() >= 2).expect("segments of the same size");
    let (first, second) = (fs::read(&alike[0]).unwrap(), fs::read(&alike[1]).unwrap());
    assert!(first != second);
    fs::write(&alike[0], second).unwrap();
    fs::write(&alike[1], first).unwrap();

    let output = work.path().join("again");
    let refused = restore(&backup, 0, &output, &[]);
    assert!(!refused.status.success() && stderr(&refused).contains("does not have the hash"), "{}", stderr(&refused));
    let tools = tools_without("b3sum");
    let blind = |unchecked: &str| {
        let mut command = script(&backup, 0, &output, &[]);
        command.env("PATH", tools.path()).env("UNCHECKED", unchecked).output().unwrap()
    };
    for unchecked in ["", "0"] {
        let refused = blind(unchecked);
        assert!(!refused.status.success() && stderr(&refused).contains("b3sum is missing"), "{}", stderr(&refused));
    }
    assert!(!output.exists());
    let warned = blind("1");
    assert!(warned.status.success() && stderr(&warned).contains("WARNING: no hash is checked"), "{}", stderr(&warned));
    assert!(
        fs::read(&output).unwrap() != fs::read(work.path().join("in0")).unwrap(),
        "nothing else would have seen it"
    );
}

/// A directory with everything that is on the path, but for one tool.
fn tools_without(missing: &str) -> TempDir {
    let tools = TempDir::new().unwrap();
    for directory in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() != missing {
                // The first one of a name counts, as on the path.
                let _ = symlink(entry.path(), tools.path().join(entry.file_name()));
            }
        }
    }
    tools
}

/// A key, as a file, and its public half.
fn key(work: &Path) -> (String, String) {
    let path = work.join("key").to_string_lossy().into_owned();
    assert!(Command::new("age-keygen").args(["-o", &path]).output().unwrap().status.success());
    let text = fs::read_to_string(&path).unwrap();
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    (path, public.to_owned())
}

#[test]
fn an_encrypted_backup_comes_back_with_age() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let (key, public) = key(work.path());
    let backup = back_up(&place, work.path(), &["--recipient", &public]);
    comes_back(&backup, work.path(), &["-i", &key], &[]);
    let output = work.path().join("again");
    assert!(!restore(&backup, 0, &output, &[]).status.success() && !output.exists(), "no key");
}

/// What the script asks of `aws`, by the client that came with one of the test servers.
const AWS: &str = r#"
import sys, boto3
assert sys.argv[1:4] == ["s3", "cp", "--quiet"] and len(sys.argv) == 6, sys.argv
bucket, _, key = sys.argv[4].removeprefix("s3://").partition("/")
boto3.client("s3").download_file(bucket, key, sys.argv[5])
"#;

const PASSPHRASE: &str = "correct horse battery staple 2604";

/// From a bucket: with a key, and with the passphrase, whose key lies beside the manifest and is opened at a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_comes_back_from_a_bucket_with_a_key_or_its_passphrase() {
    let (place, directory) = (Place::server(Kind::Garage).await, TempDir::new().unwrap());
    let (work, bin) = (directory.path(), directory.path().join("bin"));
    fs::create_dir(&bin).unwrap();
    let python = tool::installed("MOTO").with_file_name("python");
    fs::write(bin.join("aws"), format!("#!{}{AWS}", python.display())).unwrap();
    fs::set_permissions(bin.join("aws"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut environment = place.environment();
    environment.push(("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())));
    environment.push(("AWS_DEFAULT_REGION", "us-east-1".to_owned()));

    let (key, public) = key(work);
    let passphrase = work.join("passphrase");
    fs::write(&passphrase, PASSPHRASE).unwrap();
    let passphrase = passphrase.to_string_lossy();
    let backup = back_up(&place, work, &["--recipient", &public, "--passphrase-file", &passphrase]);
    assert!(backup.starts_with("s3://"), "{backup}");
    comes_back(&backup, work, &["-i", &key], &environment);

    // Of one segment, so that the passphrase is asked for once.
    let sets: Vec<String> = environment.iter().map(|(name, value)| format!("export {name}='{value}'")).collect();
    let path = tool::repository().join("examples/restore.sh");
    let line = format!("{}; {} {backup} 1 out -i identity.age", sets.join("; "), path.display());
    let wrong = at_terminal(work, &line, &["another one"]);
    assert!(!wrong.status.success() && !work.join("out").exists(), "{}", String::from_utf8_lossy(&wrong.stdout));
    let asked = at_terminal(work, &line, &[PASSPHRASE]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stdout));
    assert_eq!(fs::read(work.join("out")).unwrap(), fs::read(work.join("in1")).unwrap());

    let mut nothing = script(&format!("{backup}0"), 0, &work.join("none"), &[]);
    let nothing = nothing.envs(environment.iter().map(|(name, value)| (name, value))).output().unwrap();
    assert!(
        !nothing.status.success() && stderr(&nothing).contains("cannot read manifest.json"),
        "{}",
        stderr(&nothing)
    );
    let left = fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let left: Vec<String> = left.filter(|name| name.starts_with("none") || name.contains("partial")).collect();
    assert_eq!(left, [""; 0]);
}
