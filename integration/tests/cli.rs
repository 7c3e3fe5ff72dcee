//! The command line tool as scripts meet it: exit codes, documents, signals, and what each failure leaves behind.

// Signals and servers live in real time.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::data::{Entropy, Pattern};
use integration::place::Place;
use integration::server::Kind;
use integration::tool::vdstream_command;
use serde_json::Value;
use tempfile::TempDir;

/// The tool with its answer.
fn run(place: &Place, arguments: &[&str]) -> Output {
    run_with(place, arguments, |_| {})
}

fn run_with(place: &Place, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = vdstream_command();
    command.envs(place.environment()).args(arguments).stdin(Stdio::null());
    prepare(&mut command);
    command.output().expect("the tool runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("the tool was not killed")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The failure said one thing on one line, beside progress.
fn assert_fails(output: &Output, expected: i32, part: &str) {
    let text = stderr(output);
    assert_eq!(code(output), expected, "{text}");
    assert!(output.stdout.is_empty(), "a failure prints nothing on stdout");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(part), "expected `{part}` in the last line of:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

fn backups(place: &Place) -> Vec<Value> {
    let output = run(place, &["list", &place.url(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    document["backups"].as_array().expect("a list").clone()
}

fn pattern() -> Pattern {
    Pattern::new(integration::data::seed(), 0, Entropy::Random)
}

async fn places() -> Vec<Place> {
    vec![Place::disk(), Place::server(Kind::Garage).await, Place::server(Kind::Azurite).await]
}

#[tokio::test]
async fn a_program_a_pipe_and_files_come_back_byte_for_byte() {
    for place in places().await {
        let url = place.url();
        let work = TempDir::new().unwrap();
        let file = |name: &str| work.path().join(name).to_string_lossy().into_owned();
        let data = pattern().bytes(0, 9_000_001);
        fs::write(file("in"), &data).unwrap();

        let by_program = run(&place, &["backup", &url, "--json", "--", "cat", &file("in")]);
        assert!(by_program.status.success(), "{}", stderr(&by_program));
        let document: Value = serde_json::from_slice(&by_program.stdout).unwrap();
        assert_eq!(document["raw_bytes"], 9_000_001);
        let id = document["id"].as_str().unwrap().to_owned();

        let by_pipe = run_with(&place, &["backup", &url, "-"], |command| {
            let mut source = Command::new("cat").arg(file("in")).stdout(Stdio::piped()).spawn().unwrap();
            command.stdin(source.stdout.take().unwrap());
            std::thread::spawn(move || source.wait());
        });
        assert!(by_pipe.status.success(), "{}", stderr(&by_pipe));
        let second = String::from_utf8(by_pipe.stdout).unwrap().trim().to_owned();

        let by_redirect = run_with(&place, &["backup", &url, "-"], |command| {
            command.stdin(fs::File::open(file("in")).unwrap());
        });
        assert!(by_redirect.status.success(), "{}", stderr(&by_redirect));

        for (which, target) in [(id.as_str(), "a"), (second.as_str(), "b"), ("latest", "c")] {
            let restored = run(&place, &["restore", &url, which, "--output", &file(target)]);
            assert!(restored.status.success(), "{}", stderr(&restored));
            assert!(fs::read(file(target)).unwrap() == data, "{which} came back changed");
        }
        let to_stdout = run(&place, &["restore", &url, "latest", "--output", "-"]);
        assert!(to_stdout.stdout == data);
        let to_program = run(&place, &["restore", &url, "latest", "--", "sha256sum"]);
        let reference = Command::new("sha256sum").stdin(fs::File::open(file("in")).unwrap()).output().unwrap();
        assert_eq!(to_program.stdout, reference.stdout);

        let listed = backups(&place);
        assert_eq!(listed.len(), 3);
        assert_eq!(listed[0]["id"], id, "oldest first");
        assert_eq!(listed[0]["series"], "default");
        for level in ["quick", "stored", "full"] {
            let verified = run(&place, &["verify", &url, &id, "--level", level, "--json"]);
            assert!(verified.status.success(), "{}", stderr(&verified));
            let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
            assert_eq!((&report["level"], &report["damage"]), (&Value::from(level), &Value::Array(Vec::new())));
        }
        let shown = run(&place, &["show", &url, &id, "--json"]);
        let manifest: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(manifest["producer"]["exit_status"], 0);
    }
}

#[tokio::test]
async fn several_inputs_are_stripes_and_fifos_may_come_in_any_order() {
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let file = |name: &str| work.path().join(name).to_string_lossy().into_owned();
    for fifo in ["one", "two"] {
        assert!(Command::new("mkfifo").arg(file(fifo)).status().unwrap().success());
    }
    fs::write(file("three"), b"").unwrap();
    // One writer opens the second FIFO first.
    let script = format!("exec 4>{}; exec 3>{}; printf first >&3; printf second >&4", file("two"), file("one"));
    let mut writer = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    let (one, two, three) = (file("one"), file("two"), file("three"));
    let done =
        run(&place, &["backup", &place.url(), "--series", "set", "--input", &one, "--input", &two, "--input", &three]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(writer.wait().unwrap().success());
    let too_few = run(&place, &["restore", &place.url(), "latest", "--series", "set", "--output", &file("x")]);
    assert_fails(&too_few, 2, "give --output 3 times");
    let (a, b, c) = (file("a"), file("b"), file("c"));
    let restored = run(
        &place,
        &["restore", &place.url(), "latest", "--series", "set", "--output", &a, "--output", &b, "--output", &c],
    );
    assert!(restored.status.success(), "{}", stderr(&restored));
    let read = |path: &str| fs::read_to_string(path).unwrap();
    assert_eq!((read(&a), read(&b), read(&c)), ("first".to_owned(), "second".to_owned(), String::new()));
}

#[tokio::test]
async fn a_producer_that_fails_leaves_nothing() {
    for place in places().await {
        let url = place.url();
        // At once, after some data, by a signal, after much data.
        let scripts = [
            ("exit 3", "exit status: 3"),
            ("head -c 100 /dev/zero; exit 1", "exit status: 1"),
            ("head -c 3000000 /dev/urandom; kill -9 $$", "signal: 9"),
            ("head -c 40000000 /dev/urandom; exit 7", "exit status: 7"),
        ];
        for (script, status) in scripts {
            let failed = run(&place, &["backup", &url, "--", "sh", "-c", script]);
            assert_fails(&failed, 1, status);
        }
        let unknown = run(&place, &["backup", &url, "--", "no-such-program-here"]);
        assert_fails(&unknown, 10, "cannot start `no-such-program-here`");
        assert!(backups(&place).is_empty());
        place.assert_empty().await;
    }
}

#[tokio::test]
async fn an_input_that_cannot_be_read_leaves_nothing() {
    let place = Place::disk();
    let url = place.url();
    let missing = run(&place, &["backup", &url, "--input", "/no/such/file"]);
    assert_fails(&missing, 10, "cannot read /no/such/file");
    let directory = run(&place, &["backup", &url, "--input", "/etc"]);
    assert_fails(&directory, 2, "-- tar c /etc");
    // Reading unmapped memory fails with an I/O error.
    let failing = run(&place, &["backup", &url, "--input", "/proc/self/mem"]);
    assert_fails(&failing, 5, "cannot read /proc/self/mem");
    let nothing = run(&place, &["backup", &url]);
    assert_fails(&nothing, 2, "nothing to back up");
    place.assert_empty().await;
}

#[tokio::test]
async fn wrong_urls_ids_and_credentials_are_told_apart_in_one_line() {
    let place = Place::disk();
    for (url, part) in [("ftp://host/path", "ftp"), ("s3://", "bucket"), ("http//x y", "")] {
        let wrong = run(&place, &["list", url]);
        let expected = if url.starts_with("http//") { 10 } else { 2 };
        assert_fails(&wrong, expected, part);
    }
    let denied = run(&place, &["list", "s3://bucket/prefix"]);
    assert_fails(&denied, 13, "AWS_ACCESS_KEY_ID");
    let denied = run(&place, &["list", "az://container/prefix"]);
    assert_fails(&denied, 13, "AZURE_STORAGE_ACCOUNT");
    let garage = Place::server(Kind::Garage).await;
    let refused = run_with(&garage, &["backup", &garage.url(), "--", "true"], |command| {
        command.env("AWS_SECRET_ACCESS_KEY", "wrong");
    });
    assert_fails(&refused, 13, "");
    assert!(!stderr(&refused).contains("wrong"), "a secret was printed: {}", stderr(&refused));

    let made = run(&place, &["backup", &place.url(), "--", "echo", "x"]);
    assert!(made.status.success(), "{}", stderr(&made));
    for verb in ["restore", "show", "verify"] {
        let unknown = run(&place, &[verb, &place.url(), "01890000-0000-7000-8000-000000000000"]);
        assert_fails(&unknown, 10, "01890000-0000-7000-8000-000000000000");
        let malformed = run(&place, &[verb, &place.url(), "yesterday"]);
        assert_fails(&malformed, 2, "id");
        let no_series = run(&place, &[verb, &place.url(), "latest", "--series", "other"]);
        assert_fails(&no_series, 10, "other");
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    // A file system of its own, one megabyte large.
    let script = "mount -t tmpfs -o size=1m tmpfs /mnt && \"$1\" backup file:///mnt/store -- head -c 20000000 /dev/urandom; \
                  code=$?; find /mnt -type f; exit $code";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(integration::tool::vdstream())
        .output()
        .unwrap();
    assert_fails(&output, 14, "space");
    let place = Place::disk();
    assert!(run(&place, &["backup", &place.url(), "--", "head", "-c", "5000000", "/dev/zero"]).status.success());
    let full = run(&place, &["restore", &place.url(), "latest", "--output", "/dev/full"]);
    assert_fails(&full, 14, "space");
}

/// Starts a backup of an endless producer, waits until something is stored, sends `signals`, waits for the end.
async fn signalled(place: &Place, signals: &[&str]) -> Output {
    let mut command = vdstream_command();
    let arguments = [
        "backup",
        &place.url(),
        "--memory",
        "64MiB",
        "--",
        "sh",
        "-c",
        "while head -c 1000000 /dev/urandom; do :; done",
    ];
    command.envs(place.environment()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let start = Instant::now();
    while place.objects().await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "nothing is ever stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for signal in signals {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid.as_str()]).status().unwrap().success());
    }
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_signal_aborts_in_good_order() {
    for place in places().await {
        for (signal, expected) in [("-INT", 130), ("-TERM", 143)] {
            let ended = signalled(&place, &[signal]).await;
            assert_fails(&ended, expected, "nothing was left behind");
            assert!(backups(&place).is_empty());
            place.assert_empty().await;
        }
    }
}

#[tokio::test]
async fn a_killed_backup_is_not_listed() {
    for place in places().await {
        let ended = signalled(&place, &["-KILL"]).await;
        assert_eq!(ended.status.code(), None);
        assert!(backups(&place).is_empty());
        // The intent tells a collector what to look for.
        assert!(place.objects().await.iter().any(|name| name.ends_with("/intent.json")));
    }
}

#[tokio::test]
async fn damage_is_found_and_never_restored() {
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let target = work.path().join("out").to_string_lossy().into_owned();
    let made = run(&place, &["backup", &place.url(), "--", "seq", "1000000"]);
    let id = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let root = place.url();
    let segment =
        Path::new(root.strip_prefix("file://").unwrap_or(&root)).join("default").join(&id).join("s00/000000.zst");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::File::create(&segment).unwrap().write_all(&bytes).unwrap();
    fs::write(&target, b"precious").unwrap();

    assert!(run(&place, &["verify", &place.url(), &id]).status.success(), "quick looks at sizes only");
    for level in ["stored", "full"] {
        assert_fails(&run(&place, &["verify", &place.url(), &id, "--level", level]), 4, "is damaged");
    }
    let failed = run(&place, &["restore", &place.url(), &id, "--output", &target]);
    assert_fails(&failed, 4, "/s00/000000.zst, offset 0: expected");
    assert_eq!(fs::read(&target).unwrap(), b"precious", "the old file is untouched");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "no partial file is left");
}

#[test]
fn help_shows_the_exit_codes_and_an_example_of_each_verb() {
    let help = vdstream_command().arg("--help").output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes:"));
    for verb in ["backup", "restore", "list", "show", "verify"] {
        let help = vdstream_command().args([verb, "--help"]).output().unwrap();
        assert!(String::from_utf8(help.stdout).unwrap().contains("Example"), "{verb}");
    }
}
