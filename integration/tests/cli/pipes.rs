//! Stdin and stdout as shells hand them over: full, closed, given up, the same twice.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use integration::place::Place;
use integration::tool::{files_below, vdstream, vdstream_command};
use tempfile::TempDir;

use crate::support::*;

/// Runs a shell script whose `$0` is the tool and whose `$1` is the place.
fn shell(place: &Place, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(vdstream()).arg(place.url()).stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn a_report_that_cannot_be_printed_says_that_the_backup_is_committed() {
    let place = Place::disk();
    for (made, script) in [
        "\"$0\" backup \"$1\" -- echo x >/dev/full",
        "\"$0\" backup \"$1\" --json -- echo x | true; exit ${PIPESTATUS[0]}",
    ]
    .iter()
    .enumerate()
    {
        let output = shell(&place, script);
        let listed = backups(&place);
        assert_eq!(listed.len(), made + 1, "{}", stderr(&output));
        let id = listed[made]["id"].as_str().unwrap();
        assert_fails(&output, 6, &format!("backup {id} is committed, but its report could not be printed"));
    }
}

/// Where stdout goes when it takes nothing: a full disk, and a reader that is gone.
const TAKES_NOTHING: [&str; 2] = [">/dev/full", "| true; exit ${PIPESTATUS[0]}"];

#[test]
fn damage_is_told_whether_or_not_the_report_can_be_printed() {
    let place = Place::disk();
    assert!(run(&place, &["backup", &place.url(), "--", "seq", "1000"]).status.success());
    let verify = |options: &str, nothing: &str| {
        // So slow that the reader is gone.
        shell(&place, &format!("(sleep 0.3; exec \"$0\" verify \"$1\" latest --level stored {options}) {nothing}"))
    };
    // What is good is no report without its report.
    for (nothing, expected) in TAKES_NOTHING.into_iter().zip([14, 141]) {
        for options in ["", "--json"] {
            let good = verify(options, nothing);
            assert_eq!(code(&good), expected, "{options} {nothing}: {}", stderr(&good));
        }
    }
    let root = place.url();
    let files = files_below(Path::new(root.strip_prefix("file://").unwrap()));
    let segment = files.iter().find(|path| path.ends_with("s00/000000.zst")).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    bytes[20] ^= 1;
    fs::write(segment, bytes).unwrap();
    for nothing in TAKES_NOTHING {
        let damaged = verify("--json", nothing);
        assert_fails(&damaged, 4, "is damaged: 1 finding");
        assert!(stderr(&damaged).contains("s00/000000.zst, offset"), "{nothing}: {}", stderr(&damaged));
        // A directory that nobody can make.
        let doctor = shell(&place, &format!("(sleep 0.3; exec \"$0\" doctor /proc/none) {nothing}"));
        assert!(![0, 14, 141].contains(&code(&doctor)), "{nothing}: {}", stderr(&doctor));
        assert!(stderr(&doctor).contains("does not let backups do all that they need"), "{}", stderr(&doctor));
    }
}

#[test]
fn what_was_deleted_is_told_whether_or_not_the_report_can_be_printed() {
    let place = Place::disk();
    for nothing in TAKES_NOTHING {
        for _ in 0..3 {
            assert!(run(&place, &["backup", &place.url(), "--quiet", "--", "seq", "1000"]).status.success());
        }
        let newest = backups(&place).iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).max().unwrap();
        let delete = format!("delete \"$1\" {newest} --json");
        let cases = [
            ("prune \"$1\" --keep-last 2", "1 backup deleted"),
            (delete.as_str(), "1 backup deleted"),
            ("gc \"$1\" --grace 0s --quiet", "objects removed, 0 uploads ended"),
        ];
        for (command, done) in cases {
            let run = |more: &str| shell(&place, &format!("(sleep 0.3; exec \"$0\" {command} {more}) {nothing}"));
            let before = backups(&place).len();
            // A plan that nobody sees is nothing that was done.
            let planned = run("");
            assert!([14, 141].contains(&code(&planned)), "{command} {nothing}: {}", stderr(&planned));
            assert_eq!(backups(&place).len(), before, "{command}");
            assert_fails(&run("--confirm"), 6, &format!("{done}, but its report could not be printed"));
            assert_eq!(backups(&place).len(), before - usize::from(!command.starts_with("gc")), "{command}");
        }
        assert!(run(&place, &["delete", &place.url(), "latest", "--confirm"]).status.success());
    }
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_tool_quietly() {
    let place = Place::disk();
    assert!(run(&place, &["backup", &place.url(), "--", "head", "-c", "5000000", "/dev/urandom"]).status.success());
    // The tool starts when its reader is gone; of the last ones, it is in the middle.
    for script in [
        "(sleep 0.3; exec \"$0\" list \"$1\") | true",
        "(sleep 0.3; exec \"$0\" show \"$1\" latest --json) | true",
        "\"$0\" restore \"$1\" latest --output - | head -c 1 >/dev/null",
        "\"$0\" restore \"$1\" latest --output /dev/stdout | head -c 1 >/dev/null",
    ] {
        let quiet = shell(&place, &format!("{script}; exit ${{PIPESTATUS[0]}}"));
        assert_eq!((code(&quiet), stderr(&quiet).as_str()), (141, ""), "{script}");
    }
}

#[test]
fn a_closed_stdin_is_not_an_empty_backup() {
    let place = Place::disk();
    for script in ["\"$0\" backup \"$1\" - <&-", "\"$0\" backup \"$1\" - </dev/null"] {
        assert_fails(&shell(&place, script), 2, "stdin is closed or /dev/null");
    }
    let empty = shell(&place, "\"$0\" backup \"$1\" --input /dev/null; true | \"$0\" backup \"$1\" -");
    assert!(empty.status.success(), "{}", stderr(&empty));
    assert_eq!(backups(&place).len(), 2);
}

#[test]
fn stdout_is_stdout_whatever_it_is_called() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    assert!(run(&place, &["backup", &place.url(), "--", "echo", "data"]).status.success());
    let archive = work.path().join("archive").display().to_string();
    for name in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        // No document beside the data.
        let piped = run(&place, &["restore", &place.url(), "latest", "--json", "--output", name]);
        assert!(piped.status.success() && piped.stdout == b"data\n", "{name}: {:?}", String::from_utf8(piped.stdout));
    }
    for name in ["-", "/dev/stdout", archive.as_str()] {
        fs::write(&archive, b"before\n").unwrap();
        let script = format!("\"$0\" restore \"$1\" latest --json --output {name} >>{archive}");
        let appended = shell(&place, &script);
        assert!(appended.status.success(), "{name}: {}", stderr(&appended));
        assert_eq!(fs::read_to_string(&archive).unwrap(), "before\ndata\n", "{name}");
    }
}

/// What another program has read of stdin before is not the tool's.
#[test]
fn a_redirected_file_is_backed_up_from_where_stdin_stands() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let (disk, header) = (work.path().join("disk.img"), work.path().join("header"));
    let content = pattern().bytes(0, 100_000);
    fs::write(&disk, &content).unwrap();
    let read_first = format!("dd bs=512 count=1 status=none of={}", header.display());
    let script = format!("{{ {read_first}; \"$0\" backup \"$1\" -; }} <{}", disk.display());
    let made = shell(&place, &script);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(fs::read(&header).unwrap(), content[..512]);
    let restored = run(&place, &["restore", &place.url(), "latest", "--output", "-"]);
    assert!(restored.stdout == content[512..], "{} bytes came, {}", restored.stdout.len(), stderr(&restored));
}

/// What a wrapper does that tries again: both attempts share one redirection.
#[test]
fn a_second_attempt_on_the_same_redirected_file_has_all_of_it() {
    let (place, work) = (Place::disk(), TempDir::new().unwrap());
    let disk = work.path().join("disk.img");
    fs::write(&disk, pattern().bytes(0, 100_000)).unwrap();
    let script = format!("{{ \"$0\" backup \"$1\" - && \"$0\" backup \"$1\" -; }} <{}", disk.display());
    let made = shell(&place, &script);
    assert!(made.status.success(), "{}", stderr(&made));
    let sizes: Vec<_> = backups(&place).iter().map(|backup| backup["raw_bytes"].as_u64()).collect();
    assert_eq!(sizes, [Some(100_000); 2]);
}

#[test]
fn a_named_pipe_whose_writer_has_gone_is_read_to_its_end() {
    let (place, dir) = (Place::disk(), TempDir::new().unwrap());
    let pipe = dir.path().join("pipe");
    let script = format!(
        "mkfifo '{0}' && exec 4<>'{0}' 5<'{0}' && seq 1000 >&4 && exec 4>&- && timeout 60 \"$0\" backup \"$1\" - <&5",
        pipe.display()
    );
    let output = shell(&place, &script);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(backups(&place)[0]["raw_bytes"], 3893);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_opened() {
    let place = Place::disk();
    let work = TempDir::new().unwrap();
    let file = |name: &str| work.path().join(name).to_string_lossy().into_owned();
    // A FIFO that nobody writes: opening it would wait for ever.
    assert!(Command::new("mkfifo").arg(file("fifo")).status().unwrap().success());
    let url = place.url();
    let (fifo, other) = (file("fifo"), file("./fifo"));
    let twice = run(&place, &["backup", &url, "--input", &fifo, "--input", &other]);
    assert_fails(&twice, 2, "are the same");
    let many: Vec<&str> = ["--input", &fifo].into_iter().cycle().take(2 * 65).collect();
    assert_fails(&run(&place, &[&["backup", url.as_str()], many.as_slice()].concat()), 2, "at most 64 stripes");
    for verb in [&["backup", "memory://x", "--", "echo"][..], &["doctor", "memory://x"], &["list", "memory://x"]] {
        assert_fails(&run(&place, verb), 2, "memory:// ends with this process");
    }

    let (one, two) = (file("one"), file("two"));
    fs::write(&one, b"1").unwrap();
    fs::write(&two, b"2").unwrap();
    let made = run(&place, &["backup", &url, "--input", &one, "--input", &two]);
    assert!(made.status.success(), "{}", stderr(&made));
    for [a, b] in [["o", "o"], ["o", "./o"], ["one", "../one"], ["-", "-"]] {
        let mut command = vdstream_command();
        command.current_dir(work.path()).args(["restore", &url, "latest", "-o", a, "-o", &b.replace("..", &file("."))]);
        assert_fails(&command.stdin(Stdio::null()).output().unwrap(), 2, "each stripe needs its own");
    }
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 3, "nothing was written");
    let both = run(&place, &["restore", &url, "latest", "-o", "/dev/null", "-o", "/dev/null"]);
    assert!(both.status.success(), "{}", stderr(&both));
}

#[test]
fn the_restore_hint_can_be_pasted_into_a_shell() {
    let work = TempDir::new().unwrap();
    let root = work.path().join("it's $HOME").to_string_lossy().into_owned();
    let made = vdstream_command().args(["backup", &root, "--", "echo", "x"]).stdin(Stdio::null()).output().unwrap();
    let text = stderr(&made);
    let hint = text.lines().find_map(|line| line.split_once("restore with: vdstream ")).unwrap().1;
    let script = format!("\"$0\" {}", hint.replace("FILE", "-"));
    let restored = Command::new("sh").args(["-c", &script]).arg(vdstream()).output().unwrap();
    assert_eq!(restored.stdout, b"x\n", "{}", stderr(&restored));
}

/// The command is pasted wherever somebody stands who needs the backup.
#[test]
fn the_command_that_restores_does_so_from_any_directory() {
    let work = TempDir::new().unwrap();
    let tool = |arguments: &[&str]| {
        let output = vdstream_command().current_dir(work.path()).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let said = tool(&["backup", "a/store", "--report", "made.html", "--", "echo", "x"]);
    tool(&["show", "a/store", "latest", "--html", "shown.html"]);
    let pages = ["made.html", "shown.html"].map(|name| fs::read_to_string(work.path().join(name)).unwrap());
    for text in [&said, &pages[0], &pages[1]] {
        let (_, command) = text.split_once("vdstream restore ").unwrap();
        let (command, _) = command.split_once(" --output FILE").unwrap();
        let script = format!("\"$0\" restore {command} --output -");
        let elsewhere = Command::new("sh").args(["-c", &script]).arg(vdstream()).current_dir("/").output().unwrap();
        assert_eq!(elsewhere.stdout, b"x\n", "{script}: {}", stderr(&elsewhere));
    }
}

#[test]
fn a_limit_that_is_too_small_is_told_in_units_and_in_bytes() {
    let place = Place::disk();
    let small = run(&place, &["backup", &place.url(), "--memory", "1MiB", "--", "echo"]);
    assert_fails(&small, 2, "memory_limit is 1.0 MiB, but this needs at least ");
    let text = stderr(&small);
    let least = text.trim().rsplit(' ').next().unwrap();
    let enough = run(&place, &["backup", &place.url(), "--memory", least, "--", "echo"]);
    assert!(enough.status.success(), "{}", stderr(&enough));
}
