//! What fails leaves nothing, and says why in one line.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use integration::place::Place;
use integration::server::Kind;
use integration::tool;
use tempfile::TempDir;

use crate::support::*;

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
async fn a_protection_that_has_ended_is_refused_and_leaves_nothing() {
    let place = Place::disk();
    for until in ["2020-01-01", "2020-01-01T00:00:00Z", "0s"] {
        let wrong = run(&place, &["backup", &place.url(), "--keep-until", until, "--", "echo", "x"]);
        assert_fails(&wrong, 2, "it protects nothing; give a later time, or none");
    }
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

/// Who sets it wants to see something, and would see nothing.
#[test]
fn a_filter_of_the_log_that_cannot_be_read_is_told() {
    let place = Place::disk();
    let logged = |filter: &str| {
        run_with(&place, &["backup", &place.url(), "--", "true"], |command| {
            command.env("VDSTREAM_LOG", filter);
        })
    };
    for filter in ["vdstream=loud", "vdstream=debug,a=b=c"] {
        assert_fails(&logged(filter), 2, &format!("VDSTREAM_LOG is `{filter}`, and that is no filter"));
    }
    let filters = ["vdstream=debug", "info,vdstream::pipeline=trace", "off", ""];
    for filter in filters {
        let made = logged(filter);
        assert!(made.status.success(), "{filter}: {}", stderr(&made));
    }
    assert_eq!(backups(&place).len(), filters.len(), "no others were made");
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_nothing() {
    // A file system of its own, one megabyte large.
    let script = "mount -t tmpfs -o size=1m tmpfs /mnt && \"$1\" backup file:///mnt/store -- head -c 20000000 /dev/urandom; \
                  code=$?; find /mnt -type f; exit $code";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(tool::vdstream())
        .output()
        .unwrap();
    assert_fails(&output, 14, "space");
    let place = Place::disk();
    assert!(run(&place, &["backup", &place.url(), "--", "head", "-c", "5000000", "/dev/zero"]).status.success());
    let full = run(&place, &["restore", &place.url(), "latest", "--output", "/dev/full"]);
    assert_fails(&full, 14, "space");
}

/// A server that closes a connection, as opposed to whoever reads the tool's own output.
#[tokio::test]
async fn a_store_that_closes_connections_ends_no_backup_and_cuts_no_restore() {
    let place = Place::server(Kind::Garage).await;
    let work = TempDir::new().unwrap();
    let path = |name: &str| work.path().join(name).to_string_lossy().into_owned();
    let (input, output, log) = (path("input"), path("output"), work.path().join("log"));
    fs::write(&input, pattern().bytes(0, 9_000_000)).unwrap();
    let disconnected = |calls: &str, arguments: &[&str]| {
        let mut command = tool::vdstream_disconnected(calls, &log);
        let ended = command.envs(place.environment()).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(fs::read_to_string(&log).unwrap().contains("INJECTED"), "nothing was disconnected");
        ended
    };
    let limits = ["--segment-size", "1MiB", "--memory", "64MiB", "--threads", "1"];
    let made = disconnected("sendto,writev", &[&["backup", &place.url(), "--input", &input][..], &limits].concat());
    assert!(made.status.success(), "{}", stderr(&made));
    let script = format!("cat >{output}");
    for outputs in [&["--output", "-"][..], &["--", "sh", "-c", &script]] {
        let restored = disconnected("recvfrom", &[&["restore", &place.url(), "latest"], outputs].concat());
        assert!(restored.status.success(), "{outputs:?}: {}", stderr(&restored));
        let content = if outputs.len() == 2 { restored.stdout } else { fs::read(&output).unwrap() };
        assert!(content == fs::read(&input).unwrap(), "{outputs:?}: {} bytes came", content.len());
    }
}

/// On a disk of 24 MiB a backup is killed in the middle of a segment, and another program takes the rest.
const KILLED_AND_FULL: &str = r#"
set -e
mount -t tmpfs -o size=24m tmpfs /mnt
tool=$1
"$tool" backup file:///mnt/store --quiet -- seq 100000 >/dev/null
"$tool" backup file:///mnt/store --quiet --progress none -- sh -c 'head -c 18000000 /dev/urandom; sleep 30' >/dev/null 2>&1 &
tries=0
until find /mnt/store -name '*.partial-*' -size +7000k | grep -q .; do
  tries=$((tries + 1)); [ "$tries" -lt 600 ] || { echo "no file that is half written" >&2; exit 1; }
  sleep 0.1
done
kill -9 $!
cat /dev/zero >/mnt/others 2>/dev/null || true
code=0
"$tool" delete file:///mnt/store latest --confirm --quiet >/dev/null 2>/dev/null || code=$?
[ "$code" = 14 ] || { echo "delete: exit $code, not 14" >&2; exit 1; }
"$tool" verify file:///mnt/store latest --level quick --no-record --quiet >/dev/null
"$tool" gc file:///mnt/store --confirm --grace 0s --quiet
"$tool" verify file:///mnt/store latest --level full --quiet >/dev/null
find /mnt/store -type f -not -path '*/verified/*'
"#;

#[tokio::test]
async fn a_disk_that_a_killed_backup_has_filled_is_cleaned_up() {
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", KILLED_AND_FULL, "sh"])
        .arg(tool::vdstream())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let left: Vec<&str> = text.lines().filter(|line| line.starts_with("/mnt/store")).collect();
    assert_eq!(left.len(), 3, "the intent, the segment and the manifest of the first: {text}");
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
    assert_fails(&failed, 4, "/s00/000000.zst, offset 0 to ");
    assert_eq!(fs::read(&target).unwrap(), b"precious", "the old file is untouched");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 1, "no partial file is left");
}
