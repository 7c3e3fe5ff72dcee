//! What goes in comes out.

use std::fs;
use std::process::{Command, Stdio};

use integration::place::Place;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

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

        for (which, target, option) in
            [(id.as_str(), "a", "--quiet"), (second.as_str(), "b", "--no-sync"), ("latest", "c", "--quiet")]
        {
            let restored = run(&place, &["restore", &url, which, "--output", &file(target), option]);
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
