//! A backup whose process was killed, and one that goes on with it.

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use integration::chaos::Tool;
use integration::place::Place;
use integration::server::Kind;
use integration::tool::{event, events, vdstream_command};
use serde_json::Value;
use tempfile::TempDir;

use crate::progress::{assert_members, documented};
use crate::support::*;

const LEN: usize = 40 << 20;
/// Small frames, so that a segment ends soon.
const SIZES: [&str; 8] = ["--memory", "40MiB", "--threads", "1", "--segment-size", "5MiB", "--part-size", "5MiB"];
const LIMIT: Duration = Duration::from_secs(100);

fn arguments<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["backup", url].into_iter().chain(SIZES).chain(more.iter().copied()).collect()
}

/// Backs up from a pipe that stands still before its end, and kills the tool once so many segments are there. The backup's id.
async fn killed(place: &Place, resumed: Option<&str>, content: &[u8], segments: usize) -> String {
    let url = place.url();
    let more = resumed.map_or_else(Vec::new, |id| vec!["--resume", id, "--silence", "0s"]);
    let mut command = vdstream_command();
    command.envs(place.environment()).args(arguments(&url, &[&["-"][..], &more].concat())).stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    stdin.write_all(&content[..LEN - (2 << 20)]).unwrap();
    let limit = Instant::now() + LIMIT;
    let names = loop {
        let names = place.objects().await;
        if names.iter().filter(|name| name.ends_with(".zst")).count() >= segments {
            break names;
        }
        assert!(Instant::now() < limit && !tool.has_ended(), "{place:?}: {names:?}, {:?}", tool.kill());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(tool.kill().code().is_none(), "it had ended before the signal");
    let intent = names.iter().find(|name| name.ends_with("/intent.json")).unwrap();
    intent.split('/').nth_back(1).unwrap().to_owned()
}

/// What resumes the backup with what `more` names.
fn resuming(place: &Place, id: &str, more: &[&str]) -> Command {
    let url = place.url();
    let mut command = vdstream_command();
    let resumed = ["--resume", id, "--silence", "0s"];
    command.envs(place.environment()).args(arguments(&url, &[&resumed[..], more].concat()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Resumes the backup with what `more` names, or from a pipe that delivers `piped`.
fn resume(place: &Place, id: &str, more: &[&str], piped: Option<&[u8]>) -> Output {
    let mut command = resuming(place, id, more);
    if piped.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let (Some(content), Some(mut stdin)) = (piped, child.stdin.take()) {
        stdin.write_all(content).unwrap();
    }
    child.wait_with_output().unwrap()
}

/// The one backup is there, whole, and nothing beside it.
async fn is_whole(place: &Place, id: &str, content: &[u8], work: &TempDir) {
    let url = place.url();
    let listed = backups(place);
    assert_eq!(listed.len(), 1, "{place:?}");
    assert_eq!(listed[0]["id"], id);
    let verified = run(place, &["verify", &url, id, "--level", "full", "--no-record"]);
    assert!(verified.status.success(), "{place:?}: {}", stderr(&verified));
    let output = work.path().join("restored");
    let restored = run(place, &["restore", &url, id, "--output", output.to_str().unwrap()]);
    assert!(restored.status.success(), "{place:?}: {}", stderr(&restored));
    assert!(fs::read(&output).unwrap() == content, "{place:?}: restored something else");
    fs::remove_file(output).unwrap();
    assert_eq!(place.uploads_with_parts().await, [""; 0], "{place:?}");
    let names = place.objects().await;
    assert!(!names.iter().any(|name| name.contains("/uploads/") || name.contains(".partial-")), "{place:?}: {names:?}");
    let segments = names.iter().filter(|name| name.ends_with(".zst")).count() as u64;
    assert_eq!(listed[0]["segments"].as_u64(), Some(segments), "{place:?}: {names:?}");
}

fn input(work: &TempDir) -> (Vec<u8>, String) {
    let content = pattern().bytes(0, LEN);
    let path = work.path().join("input");
    fs::write(&path, &content).unwrap();
    (content, path.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_was_killed_goes_on_from_a_file_a_pipe_or_a_program() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    for way in ["a file", "a pipe", "a program"] {
        for place in [Place::disk(), Place::server(Kind::Azurite).await, Place::server(Kind::Moto).await] {
            let id = killed(&place, None, &content, 2).await;
            let resumed = match way {
                "a file" => resume(&place, &id, &["--input", &path], None),
                "a pipe" => resume(&place, &id, &["-"], Some(&content)),
                _ => resume(&place, &id, &["--", "cat", &path], None),
            };
            assert!(resumed.status.success(), "{way}, {place:?}: {}", stderr(&resumed));
            assert!(stderr(&resumed).contains("are stored already"), "{way}: {}", stderr(&resumed));
            // A file is read on from there, others are taken in once more.
            assert_eq!(stderr(&resumed).contains(" of it in "), way == "a file", "{way}: {}", stderr(&resumed));
            assert_eq!(String::from_utf8(resumed.stdout).unwrap().trim(), id, "{way}");
            is_whole(&place, &id, &content, &work).await;
        }
    }
}

/// The offset of what is stored counts from where stdin stood when it was handed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirected_file_goes_on_behind_what_is_stored_and_where_it_was_handed_over() {
    let (work, place) = (tempfile::tempdir().unwrap(), Place::disk());
    let (content, path) = input(&work);
    fs::write(&path, [&[7; 512][..], &content].concat()).unwrap();
    let id = killed(&place, None, &content, 2).await;
    let from = |position| {
        let mut stdin = fs::File::open(&path).unwrap();
        stdin.seek(SeekFrom::Start(position)).unwrap();
        let mut shared = stdin.try_clone().unwrap();
        let output = resuming(&place, &id, &["-"]).stdin(stdin).output().unwrap();
        assert_eq!(shared.stream_position().unwrap(), position, "another attempt begins at the same place");
        output
    };
    // The file is long enough, and what was handed over of it is not.
    assert_fails(&from(35 << 20), 2, "stdin has 5243392 bytes, and ");
    let resumed = from(512);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains(" of it in "), "read on, not again: {}", stderr(&resumed));
    is_whole(&place, &id, &content, &work).await;
}

/// What is read back is told before anything moves; what the first process did is not taken for what the second one has done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_back_has_events_and_what_moves_has_the_time() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    let place = Place::disk();
    let id = killed(&place, None, &content, 2).await;
    let kept = consecutive(&place).await;
    let resumed = resume(&place, &id, &["--input", &path, "--json", "--progress", "json"], None);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let (looks, moves): (Vec<Value>, Vec<Value>) =
        events(&stderr(&resumed)).into_iter().partition(|event| event["event"] == "resume");
    let expected = documented("What is read back of a resumed backup");
    assert!(expected.len() > 4, "{expected:?}");
    looks.iter().for_each(|event| assert_members(event, &expected));
    let last = looks.last().expect("an event at the end at least");
    assert_eq!(
        (&last["read_bytes"], &last["total_bytes"], &last["eta_seconds"]),
        (&kept.into(), &kept.into(), &Value::Null),
        "{last}"
    );
    let document: Value = serde_json::from_slice(&resumed.stdout).unwrap();
    let moved = document["moved_bytes"].as_u64().unwrap();
    assert!(moved > 0 && moved < LEN as u64 && document["raw_bytes"] == LEN, "{document}");
    assert_eq!(moves.last().unwrap()["raw_bytes"], moved);
    is_whole(&place, &id, &content, &work).await;
    // Also of what cannot be resumed, and after what is known of it.
    let refused = resume(&place, &id, &["--input", &path, "--progress", "json"], None);
    assert_fails(&refused, 11, "complete already");
    let told = events(&stderr(&refused));
    assert!(!told.is_empty() && told.iter().all(|event| event["total_bytes"].is_null()), "{told:?}");
}

/// At the least rate there is, the first read waits for half a minute: the backup would be complete long before without the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_back_keeps_to_the_limit_on_reading() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    let place = Place::disk();
    let id = killed(&place, None, &content, 2).await;
    let limits = [(&["--limit-download", "1KiB"][..], None), (&[][..], Some(("VDSTREAM_LIMIT_DOWNLOAD", "1KiB")))];
    for (typed, variable) in limits {
        let input = ["--input", &path, "--progress", "json"];
        let mut child = resuming(&place, &id, &[&input[..], typed].concat()).envs(variable).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let look = told.by_ref().find_map(|line| event(&line).filter(|event| event["total_bytes"].is_u64()));
        let look = look.expect("an event of a look that goes on");
        assert_eq!((&look["event"], &look["read_bytes"]), (&"resume".into(), &0.into()), "{look}");
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        // To its end, or it could not go on.
        told.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(143));
    }
    let resumed = resume(&place, &id, &["--input", &path], None);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    is_whole(&place, &id, &content, &work).await;
}

/// Stored bytes of the segments that follow each other from the first on.
async fn consecutive(place: &Place) -> u64 {
    let (store, prefix) = (place.store(), object_store::path::Path::from(place.prefix()));
    let listed: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let size = |index: u32| {
        let name = format!("/s00/{index:06}.zst");
        listed.iter().find(|meta| meta.location.as_ref().ends_with(&name)).map(|meta| meta.size)
    };
    (0..).map_while(size).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_backup_that_was_killed_too_is_resumed_again() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    for place in [Place::disk(), Place::server(Kind::Moto).await] {
        let id = killed(&place, None, &content, 2).await;
        assert_eq!(killed(&place, Some(&id), &content, 3).await, id);
        let resumed = resume(&place, &id, &["--input", &path], None);
        assert!(resumed.status.success(), "{place:?}: {}", stderr(&resumed));
        is_whole(&place, &id, &content, &work).await;
        let again = resume(&place, &id, &["--input", &path], None);
        assert_fails(&again, 11, "complete already");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_to_a_resumed_backup_leaves_what_is_stored_and_says_so() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    let place = Place::disk();
    let (url, id) = (place.url(), killed(&place, None, &content, 2).await);
    let before = place.objects().await;
    let mut command = vdstream_command();
    command.args(arguments(&url, &["-", "--resume", &id, "--silence", "0s"])).stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    // It stands still in the middle of its input.
    let mut stdin = tool.stdin();
    stdin.write_all(&content[..LEN - (2 << 20)]).unwrap();
    assert!(Command::new("kill").arg(tool.id().to_string()).status().unwrap().success());
    let ended = tool.wait(LIMIT);
    assert_eq!(ended.status.and_then(|status| status.code()), Some(143), "{}", ended.stderr);
    let said = format!("ended by SIGTERM; what is stored stays, and `--resume {id}` goes on with it");
    assert!(ended.stderr.trim_end().ends_with(&said), "{}", ended.stderr);
    let (after, is_segment) = (place.objects().await, |name: &&String| name.ends_with(".zst"));
    assert!(before.iter().filter(is_segment).all(|name| after.contains(name)), "{before:?}, then {after:?}");
    let resumed = resume(&place, &id, &["--input", &path], None);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    is_whole(&place, &id, &content, &work).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_and_the_backup_can_still_go_on() {
    let work = tempfile::tempdir().unwrap();
    let (mut content, path) = input(&work);
    let place = Place::disk();
    let (url, id) = (place.url(), killed(&place, None, &content, 2).await);
    let running = run(&place, &["backup", &url, "--resume", &id, "--input", &path]);
    assert_fails(&running, 11, "seems to be running");
    let stripes = resume(&place, &id, &["--input", &path, "--input", "/etc/passwd"], None);
    assert_fails(&stripes, 2, "has 1 stripes");
    let short = work.path().join("short");
    fs::write(&short, b"short").unwrap();
    assert_fails(&resume(&place, &id, &["--input", short.to_str().unwrap()], None), 2, "it is another file");
    content[1_234_567] ^= 1;
    fs::write(&short, &content).unwrap();
    let differs = resume(&place, &id, &["--", "cat", short.to_str().unwrap()], None);
    assert_fails(&differs, 2, "stripe 0, offset 1234567: the replay differs");
    content[1_234_567] ^= 1;
    let ends = resume(&place, &id, &["--", "head", "-c", "1000", &path], None);
    assert_fails(&ends, 2, "stripe 0, offset 1000: the replay differs from what is stored: it ends here");
    let again = ["--resume", &id, "--silence", "0s", "--input", &path];
    let typed = run(&place, &arguments(&url, &[&again[..], &["--recipients-file", &path]].concat()));
    assert_fails(&typed, 2, "goes on without it: leave --recipients-file out");
    // What is meant for backups that are begun says nothing of one that was.
    let resumed = run_with(&place, &arguments(&url, &again), |command| {
        command.envs([("VDSTREAM_RECIPIENTS_FILE", &path), ("VDSTREAM_PASSPHRASE_FILE", &path)]);
    });
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    is_whole(&place, &id, &content, &work).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_create_only_is_refused() {
    let work = tempfile::tempdir().unwrap();
    let (content, path) = input(&work);
    let place = Place::server(Kind::Garage).await;
    let id = killed(&place, None, &content, 2).await;
    let before = place.objects().await;
    assert_fails(&resume(&place, &id, &["--input", &path], None), 2, "ignores create-only writes");
    assert_eq!(place.objects().await, before);
}
