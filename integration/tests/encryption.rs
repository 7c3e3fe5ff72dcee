//! Encrypted backups, as people and as strangers meet them: every kind of key, the plain tools, wrong keys, damage, and what can
//! be seen without a key.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::server::Kind;
use integration::terminal::at_terminal;
use integration::tool::{self, vdstream_command};
use object_store::ObjectStoreExt as _;
use serde_json::Value;
use tempfile::TempDir;

const PASSPHRASE: &str = "correct horse battery staple 7391";

/// A directory with keys of every kind, made by the tools that people make them with.
struct Keys {
    dir: TempDir,
    public: Vec<String>,
}

/// Files with private keys.
const KINDS: [&str; 4] = ["x25519", "ed25519", "rsa", "ed25519-locked"];

impl Keys {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let made = command("age-keygen").args(["-o", &path("x25519")]).output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        for (kind, name, passphrase) in
            [("ed25519", "ed25519", ""), ("rsa", "rsa", ""), ("ed25519", "ed25519-locked", PASSPHRASE)]
        {
            let made = command("ssh-keygen")
                .args(["-q", "-t", kind, "-N", passphrase, "-C", "a comment", "-f", &path(name)])
                .args(if kind == "rsa" { &["-b", "2048"][..] } else { &[] })
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", stderr(&made));
        }
        let text = fs::read_to_string(path("x25519")).unwrap();
        let x25519 = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned();
        let mut public = vec![x25519];
        public.extend(KINDS[1..].iter().map(|name| fs::read_to_string(path(&format!("{name}.pub"))).unwrap()));
        fs::write(path("recipients"), format!("# everyone\n\n{}\n", public.join("\n"))).unwrap();
        fs::write(path("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
        fs::write(path("wrong"), "not this one\n").unwrap();
        let made = command("age-keygen").args(["-o", &path("stranger")]).output().unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        Self { dir, public }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    /// What must be seen nowhere: the passphrase, and every line of every private key.
    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![PASSPHRASE.to_owned(), "not this one".to_owned()];
        for name in KINDS.into_iter().chain(["stranger"]) {
            let text = fs::read_to_string(self.file(name)).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("-----"));
            // The first lines of SSH keys hold the public half too.
            secrets.extend(lines.skip(if name == "x25519" || name == "stranger" { 0 } else { 2 }).map(str::to_owned));
        }
        assert!(secrets.len() > 8);
        secrets
    }
}

fn command(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    vdstream_command().envs(place.environment()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn succeed(place: &Place, arguments: &[&str]) -> Output {
    let output = run(place, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pattern(stripe: u16) -> Pattern {
    Pattern::new(data::seed(), stripe, Entropy::Random)
}

/// Three files, the last one empty: paths and content.
fn inputs(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let contents = [pattern(0).bytes(0, 9_000_001), pattern(1).bytes(0, 65_536), Vec::new()];
    let mut files = Vec::new();
    for (nth, content) in contents.into_iter().enumerate() {
        let path = dir.join(format!("in{nth}"));
        fs::write(&path, &content).unwrap();
        files.push((path.to_string_lossy().into_owned(), content));
    }
    files
}

/// Everything that the store holds for this test.
async fn objects(place: &Place) -> Vec<(String, Vec<u8>)> {
    let store = place.store();
    let prefix = object_store::path::Path::from(place.prefix());
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let mut found = Vec::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        found.push((meta.location.to_string(), bytes.to_vec()));
    }
    found
}

/// The directory of the one backup on disk.
fn directory(place: &Place) -> std::path::PathBuf {
    let root = place.url().strip_prefix("file://").unwrap().to_owned();
    let series = Path::new(&root).join("default");
    let mut backups: Vec<_> = fs::read_dir(series).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(backups.len(), 1);
    backups.remove(0)
}

#[tokio::test]
async fn every_kind_of_key_opens_a_backup_on_every_store() {
    let keys = Keys::make();
    for place in [Place::disk(), Place::server(Kind::Garage).await, Place::server(Kind::Azurite).await] {
        let url = place.url();
        let work = TempDir::new().unwrap();
        let files = inputs(work.path());
        let mut backup =
            vec!["backup", &url, "--segment-size", "1MiB", "--memory", "48MiB", "--threads", "1", "--json"];
        for (path, _) in &files {
            backup.extend(["--input", path]);
        }
        let (recipients, passphrase) = (keys.file("recipients"), keys.file("passphrase"));
        backup.extend(["--recipients-file", &recipients, "--passphrase-file", &passphrase]);
        let id = json(&succeed(&place, &backup))["id"].as_str().unwrap().to_owned();

        // Without a key.
        let list = json(&succeed(&place, &["list", &url, "--json"]));
        assert_eq!(list["backups"][0]["id"], id);
        let manifest = json(&succeed(&place, &["show", &url, &id, "--json"]));
        assert_eq!(manifest["encryption"]["recipients"], 5);
        assert!(manifest["stripes"][0]["segments"].as_array().unwrap().len() > 1, "several segments");
        assert!(manifest["stripes"][0]["segments"][0]["object"].as_str().unwrap().ends_with(".zst.age"));
        for level in ["quick", "stored"] {
            let verified = json(&succeed(&place, &["verify", &url, &id, "--level", level, "--json"]));
            assert_eq!(verified["damage"], Value::Array(Vec::new()));
        }

        // With each of them.
        let mut ways: Vec<Vec<String>> = KINDS.iter().map(|name| vec!["--identity".into(), keys.file(name)]).collect();
        ways[3].extend(["--passphrase-file".into(), keys.file("passphrase")]);
        ways.push(vec!["--passphrase-file".into(), keys.file("passphrase")]);
        ways.push(vec!["-i".into(), keys.file("stranger"), "-i".into(), keys.file("rsa")]);
        // The store does not see who opens: where every process is a round of requests, the first and the passphrase suffice.
        let ways = if place.url().starts_with("file:") { ways } else { vec![ways[0].clone(), ways[4].clone()] };
        for way in ways {
            let outputs: Vec<String> =
                (0..3).map(|nth| work.path().join(format!("out{nth}")).to_string_lossy().into()).collect();
            let mut restore = vec!["restore", &url, "latest"];
            restore.extend(outputs.iter().flat_map(|path| ["--output", path]));
            restore.extend(way.iter().map(String::as_str));
            succeed(&place, &restore);
            for ((_, content), path) in files.iter().zip(&outputs) {
                assert!(fs::read(path).unwrap() == *content, "{path} with {way:?} in {place:?}");
                fs::remove_file(path).unwrap();
            }
        }
        let identity = keys.file("x25519");
        let verified =
            json(&succeed(&place, &["verify", &url, &id, "--level", "full", "--identity", &identity, "--json"]));
        assert_eq!(verified["damage"], Value::Array(Vec::new()));
        assert_eq!(verified["raw_bytes"], 9_065_537);
    }
}

#[tokio::test]
async fn age_and_zstd_are_enough_to_read_a_backup() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let (path, content) = inputs(work.path()).remove(0);
    let (recipients, passphrase) = (keys.file("recipients"), keys.file("passphrase"));
    succeed(
        &place,
        &[
            "backup",
            &place.url(),
            "--segment-size",
            "1MiB",
            "--memory",
            "48MiB",
            "--threads",
            "1",
            "--input",
            &path,
            "--recipients-file",
            &recipients,
            "--passphrase-file",
            &passphrase,
        ],
    );
    let directory = directory(&place);
    for name in &KINDS[..3] {
        let script = format!(
            "set -e; for f in s00/*.zst.age; do age -d -i {} \"$f\"; done | zstd -d | cmp - {path} && ls s00 | wc -l",
            keys.file(name)
        );
        let output = command("bash").current_dir(&directory).args(["-o", "pipefail", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let count: usize = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        assert!(count > 1, "several segments");
    }
    // The passphrase, at a terminal, as the manual says.
    let script = format!("age -d -i identity.age s00/000000.zst.age > {}", keys.file("segment.zst"));
    let output = at_terminal(&directory, &script, &[PASSPHRASE]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let raw = command("zstd").args(["-d", "--stdout", &keys.file("segment.zst")]).output().unwrap();
    assert!(!raw.stdout.is_empty() && content.starts_with(&raw.stdout));
}

#[tokio::test]
async fn a_passphrase_is_asked_for_without_echo() {
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let (path, content) = inputs(work.path()).remove(1);
    let tool = tool::vdstream();
    let (tool, url) = (tool.display(), place.url());
    let differ = at_terminal(work.path(), &format!("{tool} backup {url} --passphrase --input {path}"), &["one", "two"]);
    assert_eq!(differ.status.code(), Some(2), "{}", String::from_utf8_lossy(&differ.stdout));
    place.assert_empty().await;

    let script = format!("{tool} backup {url} --passphrase --input {path} && stty -a | grep -o ' echo '");
    let made = at_terminal(work.path(), &script, &[PASSPHRASE, PASSPHRASE]);
    let seen = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "the tool failed, or left the echo off: {seen}");
    assert!(seen.contains("New passphrase: ") && !seen.contains(PASSPHRASE), "{seen}");

    let restored = at_terminal(work.path(), &format!("{tool} restore {url} latest --output back"), &[PASSPHRASE]);
    let seen = String::from_utf8_lossy(&restored.stdout).into_owned();
    assert!(restored.status.success() && !seen.contains(PASSPHRASE), "{seen}");
    assert!(fs::read(work.path().join("back")).unwrap() == content);

    let wrong = at_terminal(work.path(), &format!("{tool} restore {url} latest --output back2"), &["wrong"]);
    assert_eq!(wrong.status.code(), Some(15), "{}", String::from_utf8_lossy(&wrong.stdout));
    assert!(!work.path().join("back2").exists());

    // Interrupted while it asks: the echo is on again.
    let script = format!("{tool} restore {url} latest --output back3; echo code $?; stty -a | grep -o ' echo '");
    let interrupted = at_terminal(work.path(), &script, &["\u{3}"]);
    let seen = String::from_utf8_lossy(&interrupted.stdout).into_owned();
    assert!(interrupted.status.success() && seen.contains("code 130"), "{seen}");

    // No terminal to ask at.
    let mut nobody = command("setsid");
    let nobody = nobody.arg(tool::vdstream()).args(["restore", &url, "latest", "--output", "-"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(15), "{}", stderr(&nobody));
    assert!(stderr(&nobody).contains("--passphrase-file"), "{}", stderr(&nobody));
}

#[tokio::test]
async fn wrong_and_missing_keys_have_an_exit_code_of_their_own() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let path = inputs(work.path()).remove(1).0;
    let url = place.url();
    succeed(&place, &["backup", &url, "--input", &path, "--recipient", &keys.public[0]]);
    let out = work.path().join("out").to_string_lossy().into_owned();
    let (stranger, wrong, locked, passphrase) =
        (keys.file("stranger"), keys.file("wrong"), keys.file("ed25519-locked"), keys.file("passphrase"));
    let restore = ["restore", &url, "latest", "--output", &out];
    let verify = ["verify", &url, "latest", "--level", "full"];
    let none: &[&str] = &[];
    for (way, part) in [
        (none, "no key was given"),
        (&["--identity", &stranger], "the key is the wrong one"),
        (&["--identity", &locked, "--passphrase-file", &wrong], "passphrase of the SSH key is wrong"),
        (&["--identity", &locked, "--passphrase-file", &passphrase], "the key is the wrong one"),
    ] {
        for verb in [&restore, &verify] {
            let failed = run(&place, &[verb, way].concat());
            let text = stderr(&failed);
            assert_eq!(failed.status.code(), Some(15), "{text}");
            assert!(text.lines().last().unwrap().contains(part), "expected `{part}` in:\n{text}");
            assert!(!Path::new(&out).exists());
        }
    }
    // What is no key at all is a wrong use.
    for file in ["passphrase", "recipients", "rsa.pub", "missing"] {
        let file = keys.file(file);
        let failed = run(&place, &[&restore[..], &["--identity", &file]].concat());
        assert!(matches!(failed.status.code(), Some(2 | 10)), "{file}: {}", stderr(&failed));
    }
    // A passphrase for a backup that has none.
    let failed = run(&place, &[&restore[..], &["--passphrase-file", &passphrase]].concat());
    assert_eq!(failed.status.code(), Some(15), "{}", stderr(&failed));
}

#[test]
fn two_passphrases_are_refused_and_named_where_they_come_from() {
    let (keys, place) = (Keys::make(), Place::disk());
    let passphrase = keys.file("passphrase");
    let asked = ["backup", &place.url(), "--passphrase"];
    let (typed, producer) = (["--passphrase-file", &passphrase], ["--", "echo", "x"]);
    for (arguments, variable, part) in [
        ([&asked[..], &typed, &producer].concat(), None, "--passphrase-file name two"),
        ([&asked[..], &producer].concat(), Some(&passphrase), "VDSTREAM_PASSPHRASE_FILE names one: unset it"),
    ] {
        let mut command = vdstream_command();
        let output = command.args(arguments).envs(variable.map(|file| ("VDSTREAM_PASSPHRASE_FILE", file)));
        let output = output.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn damage_is_damage_and_not_a_wrong_key() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let path = inputs(work.path()).remove(1).0;
    let url = place.url();
    let (identity, passphrase) = (keys.file("x25519"), keys.file("passphrase"));
    let recipient = &keys.public[0];
    succeed(&place, &["backup", &url, "--input", &path, "--recipient", recipient, "--passphrase-file", &passphrase]);
    let directory = directory(&place);
    let restore = ["restore", &url, "latest", "--output", "-", "--identity", &identity];
    let segment = directory.join("s00/000000.zst.age");
    let good = fs::read(&segment).unwrap();
    for at in [0, 30, 100, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&segment, &bad).unwrap();
        let failed = run(&place, &restore);
        assert_eq!(failed.status.code(), Some(4), "byte {at}: {}", stderr(&failed));
        assert!(failed.stdout.is_empty(), "a byte of a damaged frame came out");
        for level in ["stored", "full"] {
            let found = run(&place, &["verify", &url, "latest", "--level", level, "--identity", &identity]);
            assert_eq!(found.status.code(), Some(4), "byte {at}: {}", stderr(&found));
        }
    }
    fs::write(&segment, &good).unwrap();
    succeed(&place, &restore);
    // The key of the passphrase is a part of the backup.
    let wrapped = directory.join("identity.age");
    let file = fs::read(&wrapped).unwrap();
    fs::write(&wrapped, &file[..file.len() - 1]).unwrap();
    for level in ["quick", "stored"] {
        let found = run(&place, &["verify", &url, "latest", "--level", level]);
        assert_eq!(found.status.code(), Some(4), "{level}: {}", stderr(&found));
    }
    let failed = run(&place, &["restore", &url, "latest", "--output", "-", "--passphrase-file", &passphrase]);
    assert_eq!(failed.status.code(), Some(4), "{}", stderr(&failed));
    fs::remove_file(&wrapped).unwrap();
    let found = run(&place, &["verify", &url, "latest"]);
    assert_eq!(found.status.code(), Some(4), "{}", stderr(&found));
    succeed(&place, &restore);
}

#[tokio::test]
async fn no_secret_is_logged_printed_or_stored() {
    let keys = Keys::make();
    let place = Place::server(Kind::Garage).await;
    let work = TempDir::new().unwrap();
    let path = inputs(work.path()).remove(1).0;
    let url = place.url();
    let (recipients, passphrase, wrong) = (keys.file("recipients"), keys.file("passphrase"), keys.file("wrong"));
    let (x25519, locked, stranger) = (keys.file("x25519"), keys.file("ed25519-locked"), keys.file("stranger"));
    let backup = ["backup", &url, "--input", &path, "--recipients-file", &recipients, "--passphrase-file", &passphrase];
    let restore = ["restore", &url, "latest", "--output", "/dev/null"];
    let verify = ["verify", &url, "latest", "--level", "full"];
    let ways: [Vec<&str>; 8] = [
        backup.to_vec(),
        [&restore[..], &["--identity", &x25519]].concat(),
        [&restore[..], &["--passphrase-file", &passphrase]].concat(),
        [&restore[..], &["--passphrase-file", &wrong]].concat(),
        [&restore[..], &["--identity", &locked, "--passphrase-file", &passphrase]].concat(),
        [&verify[..], &["--identity", &stranger, "--json"]].concat(),
        // A file of another kind, whose lines must not be quoted.
        [&restore[..], &["--identity", &passphrase]].concat(),
        [&backup[..4], &["--recipients-file", &x25519]].concat(),
    ];
    let mut seen = Vec::new();
    for arguments in ways {
        let output = vdstream_command()
            .envs(place.environment())
            .env("VDSTREAM_LOG", "trace")
            .args(&arguments)
            .args(["--progress", "lines"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.stderr.len() > 1000 || !output.status.success(), "the log is on");
        seen.push((format!("{arguments:?}"), [output.stdout, output.stderr].concat()));
    }
    seen.extend(objects(&place).await);
    assert!(seen.iter().any(|(name, _)| name.ends_with("identity.age")));
    for (name, bytes) in &seen {
        for secret in keys.secrets() {
            let hit = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!hit, "a secret is in {name}");
        }
    }
}

#[tokio::test]
async fn what_is_there_is_listed_verified_and_deleted_without_a_key() {
    let keys = Keys::make();
    for place in [Place::disk(), Place::server(Kind::Garage).await] {
        let url = place.url();
        let encrypted =
            ["backup", &url, "--json", "--recipient", &keys.public[0], "--passphrase-file", &keys.file("passphrase")];
        let ids: Vec<String> = (0..3)
            .map(|_| json(&succeed(&place, &[&encrypted[..], &["--", "echo", "rows"]].concat()))["id"].to_string())
            .map(|id| id.trim_matches('"').to_owned())
            .collect();
        let listed =
            || -> usize { json(&succeed(&place, &["list", &url, "--json"]))["backups"].as_array().unwrap().len() };
        succeed(&place, &["show", &url, &ids[0]]);
        for level in ["quick", "stored"] {
            succeed(&place, &["verify", &url, &ids[0], "--level", level]);
        }
        succeed(&place, &["prune", &url, "--keep-last", "2", "--confirm"]);
        assert_eq!(listed(), 2);
        succeed(&place, &["delete", &url, &ids[1], "--confirm"]);
        assert_eq!(listed(), 1);
        succeed(&place, &["gc", &url, "--confirm"]);
        succeed(&place, &["verify", &url, "latest", "--level", "stored"]);
    }
}

/// What a program started by the tool could see of keys: the tool's arguments, its own environment and open files.
#[tokio::test]
async fn no_secret_is_in_arguments_or_in_what_a_program_inherits() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let url = place.url();
    let (seen, keep) = (work.path().join("seen"), work.path().join("keep"));
    let spy = format!(
        "tr '\\0' '\\n' < /proc/$PPID/cmdline >> {0}; env >> {0}; ls -l /proc/$$/fd >> {0}; cat > {1}; echo rows",
        seen.display(),
        keep.display()
    );
    let (passphrase, locked) = (keys.file("passphrase"), keys.file("ed25519-locked"));
    let run = |arguments: &[&str], variable: (&str, &str)| {
        let mut tool = vdstream_command();
        tool.env(variable.0, variable.1).args(arguments).args(["--", "sh", "-c", &spy]).stdin(Stdio::null());
        let output = tool.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    };
    let recipients = keys.file("recipients");
    run(&["backup", &url, "--recipients-file", &recipients], ("VDSTREAM_PASSPHRASE_FILE", &passphrase));
    run(&["restore", &url, "latest", "--passphrase-file", &passphrase], ("VDSTREAM_IDENTITY", &locked));
    let text = fs::read_to_string(&seen).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("PATH=")).count(), 2, "both programs looked: {text}");
    assert!(text.contains("--recipients-file") && fs::read_to_string(keep).unwrap().contains("rows"), "{text}");
    for secret in keys.secrets() {
        assert!(!text.contains(&secret), "{text}");
    }
    let files = text.lines().filter(|line| line.contains(" -> "));
    assert!(files.clone().count() > 4 && files.clone().all(|line| !line.contains("passphrase")), "{text}");
    assert!(files.clone().all(|line| !line.contains("ed25519")), "{text}");
}

/// Writes the memory that a process can write to, as it is now, to a file.
fn dump(pid: u32, path: &Path) {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut file = fs::File::create(path).unwrap();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split_whitespace().next().unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut region = vec![0; usize::try_from(end - start).unwrap()];
        // Some regions cannot be read, and threads that end take their stacks with them.
        if memory.read_exact_at(&mut region, start).is_ok() {
            file.write_all(&region).unwrap();
        }
    }
}

/// How often a regular expression fits in a file of any bytes.
fn count(file: &str, pattern: &str) -> usize {
    let found = command("grep").env("LC_ALL", "C").args(["-a", "-o", "-E", "-e", pattern, file]).output().unwrap();
    assert!(matches!(found.status.code(), Some(0 | 1)), "{}", stderr(&found));
    found.stdout.iter().filter(|byte| **byte == b'\n').count()
}

/// A private key of age in the text form that files have.
const KEY_TEXT: &str = "AGE-SECRET-KEY-1[A-Z0-9]{58}";

/// The tool has opened what it needs, and the program at its other end waits: what it read of keys and passphrases is gone.
#[tokio::test]
async fn passphrases_and_the_text_of_keys_are_gone_from_memory_before_data_moves() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let url = place.url();
    let (passphrase, recipients, x25519) = (keys.file("passphrase"), keys.file("recipients"), keys.file("x25519"));
    assert_eq!((count(&x25519, KEY_TEXT), count(&passphrase, PASSPHRASE)), (1, 1), "this is what is looked for");
    let restore = ["restore", &url, "latest"];
    for (nth, arguments) in [
        vec!["backup", &url, "--recipients-file", &recipients, "--passphrase-file", &passphrase],
        [&restore[..], &["--passphrase-file", &passphrase]].concat(),
        [&restore[..], &["--identity", &x25519]].concat(),
        [&restore[..], &["--identity", &keys.file("ed25519-locked"), "--passphrase-file", &passphrase]].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let [waits, goes_on] = ["waits", "goes-on"].map(|word| work.path().join(format!("{nth}-{word}")));
        let script = format!(
            "touch {}; until [ -e {} ]; do sleep 0.05; done; if [ {nth} = 0 ]; then echo rows; else cat; fi",
            waits.display(),
            goes_on.display()
        );
        let mut tool = vdstream_command();
        tool.args(&arguments).args(["--memory", "32MiB", "--threads", "1", "--", "sh", "-c", &script]);
        let child = tool.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while !waits.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{arguments:?}: the program never ran");
            std::thread::sleep(Duration::from_millis(20));
        }
        let memory = work.path().join("memory");
        dump(child.id(), &memory);
        fs::write(&goes_on, b"").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        let count = |pattern: &str| count(&memory.to_string_lossy(), pattern);
        assert!(count(place.prefix()) > 0, "the memory is not read: not even the URL is in it");
        assert_eq!(count(PASSPHRASE), 0, "{arguments:?}: a passphrase is in memory");
        assert_eq!(count(KEY_TEXT), 0, "{arguments:?}: a private key is in memory as text");
    }
}

/// Given where a file or a public key belongs, a private key is refused and not repeated.
#[tokio::test]
async fn a_private_key_as_an_argument_is_refused() {
    let keys = Keys::make();
    let place = Place::disk();
    let url = place.url();
    let text = fs::read_to_string(keys.file("x25519")).unwrap();
    let secret = text.lines().last().unwrap();
    for arguments in [
        ["backup", &url, "-", "--recipient", secret],
        ["backup", &url, "-", "--recipients-file", secret],
        ["backup", &url, "-", "--passphrase-file", secret],
    ] {
        let failed = run(&place, &arguments);
        assert_eq!(failed.status.code(), Some(2), "{}", stderr(&failed));
        assert!(!stderr(&failed).contains(&secret[15..]), "{}", stderr(&failed));
    }
    place.assert_empty().await;
    succeed(&place, &["backup", &url, "--recipient", &keys.public[0], "--", "true"]);
    let failed = run(&place, &["restore", &url, "latest", "--output", "-", "--identity", secret]);
    assert_eq!(failed.status.code(), Some(2), "{}", stderr(&failed));
    assert!(!stderr(&failed).contains(&secret[15..]), "{}", stderr(&failed));
}

/// `--passphrase` asks for one. Given one all the same, the tool says so without repeating it.
#[tokio::test]
async fn a_passphrase_as_an_argument_is_refused_and_not_repeated() {
    let place = Place::disk();
    let url = place.url();
    for arguments in [
        &["backup", &url, "--passphrase", "hunter2", "--", "true"][..],
        &["backup", &url, "--passphrase=hunter2", "--", "true"],
        &["restore", &url, "latest", "--passphrase", "hunter2"],
    ] {
        let failed = run(&place, arguments);
        let text = stderr(&failed);
        assert_eq!(failed.status.code(), Some(2), "{text}");
        assert!(failed.stdout.is_empty() && text.contains("--passphrase takes no value"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    place.assert_empty().await;
}

/// `--passphrase-file` wants the name of a file. What is no such name may be the passphrase, which neither the tool nor its page repeats.
#[tokio::test]
async fn a_passphrase_in_place_of_its_file_is_not_repeated() {
    let (keys, place, work) = (Keys::make(), Place::disk(), TempDir::new().unwrap());
    let (url, page) = (place.url(), work.path().join("page.html"));
    let typed = ["--passphrase-file", "hunter2"];
    let told = |arguments: &[&[&str]]| {
        let failed = run(&place, &arguments.concat());
        assert_eq!(failed.status.code(), Some(10), "{}", stderr(&failed));
        stderr(&failed)
    };
    let said = told(&[&["backup", &url, "--report", page.to_str().unwrap()], &typed, &["--", "true"]]);
    place.assert_empty().await;
    succeed(&place, &["backup", &url, "--passphrase-file", &keys.file("passphrase"), "--", "true"]);
    let restored = told(&[&["restore", &url, "latest", "--output", "-"], &typed]);
    for text in [said, fs::read_to_string(page).unwrap(), restored] {
        assert!(
            text.contains("cannot read the file that --passphrase-file or VDSTREAM_PASSPHRASE_FILE names"),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// The one passphrase that can be given is the backup's or an identity file's, whichever identities a variable brings in.
#[tokio::test]
async fn a_passphrase_opens_its_backup_whatever_identities_there_are() {
    let (keys, place, work) = (Keys::make(), Place::disk(), TempDir::new().unwrap());
    let (path, content) = inputs(work.path()).remove(1);
    let (url, out) = (place.url(), work.path().join("out"));
    let (good, bad) = (keys.file("passphrase"), keys.file("wrong"));
    let (mine, stranger, locked) = (keys.file("x25519"), keys.file("stranger"), keys.file("ed25519-locked"));
    let restore = |variable: &str, passphrase: &str| {
        let mut command = vdstream_command();
        command.args(["restore", &url, "latest", "--passphrase-file", passphrase, "--output"]).arg(&out);
        let output = command.env("VDSTREAM_IDENTITY", variable).stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            assert!(fs::read(&out).unwrap() == content);
            fs::remove_file(&out).unwrap();
        }
        output
    };
    // The passphrase of this backup is not that of the locked key.
    succeed(&place, &["backup", &url, "--input", &path, "--recipient", &keys.public[0], "--passphrase-file", &bad]);
    for (identity, passphrase) in [(&stranger, &bad), (&locked, &bad), (&mine, &bad), (&mine, &good)] {
        let restored = restore(identity, passphrase);
        assert!(restored.status.success(), "{identity} {passphrase}: {}", stderr(&restored));
    }
    // An identity that opens it needs no passphrase, whatever the one that was given opens.
    let neither = work.path().join("neither").to_str().unwrap().to_owned();
    fs::write(&neither, "opens nothing").unwrap();
    let both =
        ["--identity", &mine, "--identity", &locked, "--passphrase-file", &neither, "--output", out.to_str().unwrap()];
    succeed(&place, &[&["restore", &url, "latest"][..], &both].concat());
    fs::remove_file(&out).unwrap();
    for (identity, parts) in [
        (&stranger, &["the passphrase is wrong", "the key is the wrong one"][..]),
        // It opens the key, and that is the wrong one.
        (&locked, &["the key is the wrong one"]),
    ] {
        let failed = restore(identity, &good);
        let text = stderr(&failed);
        assert_eq!(failed.status.code(), Some(15), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "expected {parts:?} in:\n{text}");
        assert!(!out.exists());
    }
}

#[tokio::test]
async fn an_encrypted_backup_that_fails_leaves_nothing() {
    let keys = Keys::make();
    for place in [Place::disk(), Place::server(Kind::Garage).await] {
        let passphrase = keys.file("passphrase");
        let script = "head -c 20000000 /dev/urandom; exit 7";
        let failed = run(
            &place,
            &[
                "backup",
                &place.url(),
                "--segment-size",
                "6MiB",
                "--recipient",
                &keys.public[0],
                "--passphrase-file",
                &passphrase,
                "--",
                "sh",
                "-c",
                script,
            ],
        );
        assert_eq!(failed.status.code(), Some(1), "{}", stderr(&failed));
        place.assert_empty().await;
    }
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn encryption_keeps_to_the_memory_limit() {
    let keys = Keys::make();
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let path = work.path().join("in").to_string_lossy().into_owned();
    fs::write(&path, pattern(0).bytes(0, 40 << 20)).unwrap();
    let (url, passphrase, identity) = (place.url(), keys.file("passphrase"), keys.file("x25519"));
    let limit = ["--memory", "32MiB", "--segment-size", "10MiB", "--quiet"];
    let backup = [
        &["backup", &url, "--input", &path, "--recipient", &keys.public[0], "--passphrase-file", &passphrase][..],
        &limit,
    ]
    .concat();
    let restore = |way: [&'static str; 1], file: &str| -> Vec<String> {
        let restore =
            ["restore", &url, "latest", "--output", "/dev/null", "--memory", "32MiB", "--quiet", way[0], file];
        restore.map(str::to_owned).to_vec()
    };
    let by_key = restore(["--identity"], &identity);
    let by_passphrase = restore(["--passphrase-file"], &passphrase);
    let backup: Vec<String> = backup.into_iter().map(str::to_owned).collect();
    for arguments in [backup, by_key, by_passphrase] {
        let mut tool = vdstream_command();
        let mut child = tool.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let peak = tool::peak_memory(&mut child);
        println!("{}: {} MiB", arguments[0], peak / MIB);
        assert!(peak > 4 * MIB && peak < (32 + 34) * MIB, "{arguments:?}: {} MiB", peak / MIB);
    }
}
