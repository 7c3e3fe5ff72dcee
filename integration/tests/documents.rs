//! Every JSON document and event that the tool prints or stores, held against the schema of the manual. A member without an entry
//! there is an error here.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use integration::tool;
use serde_json::{Value, json};

/// The manual's schema, in which no object may have members that it does not name.
fn strict_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let text = std::fs::read_to_string(tool::repository().join("src/manual/schema.json")).unwrap();
        let mut schema: Value = serde_json::from_str(&text).unwrap();
        close_within(&mut schema);
        schema
    })
}

/// Closes what lies within a schema, not the schema itself: `show` extends `manifest`.
fn close_within(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for (key, inner) in object {
        match key.as_str() {
            "properties" => inner.as_object_mut().unwrap().values_mut().for_each(close),
            "items" => close(inner),
            "prefixItems" => inner.as_array_mut().unwrap().iter_mut().for_each(close),
            "allOf" | "anyOf" => inner.as_array_mut().unwrap().iter_mut().for_each(close_within),
            "$defs" => inner.as_object_mut().unwrap().values_mut().for_each(close_within),
            _ => {}
        }
    }
}

fn close(schema: &mut Value) {
    close_within(schema);
    if let Some(object) = schema.as_object_mut() {
        object.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
    }
}

/// What the validator, which other people keep, has against a document.
fn errors(name: &str, document: &Value) -> Vec<String> {
    const CHECK: &str = "import json, sys; from jsonschema import Draft202012Validator as Validator
schema, document = json.load(sys.stdin)
Validator.check_schema(schema)
for error in Validator(schema).iter_errors(document): print(error.json_path, ascii(error.message)[:300])";
    let mut schema = json!({"$ref": format!("#/$defs/{name}"), "unevaluatedProperties": false});
    schema["$defs"] = strict_schema()["$defs"].clone();
    let mut command = Command::new(tool::installed("JSONSCHEMA"));
    command.args(["-c", CHECK]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(json!([schema, document]).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the validator failed");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_fits(name: &str, document: &Value) {
    assert_eq!(errors(name, document), [""; 0], "{name}: {document:#}");
}

struct Tool {
    directory: tempfile::TempDir,
}

impl Tool {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// The directory of the one backup in `series`.
    fn backup(&self, series: &str) -> PathBuf {
        let backups = std::fs::read_dir(self.directory.path().join("store").join(series)).unwrap();
        backups.map(|entry| entry.unwrap().path()).next().unwrap()
    }

    /// Runs `verb` on the store.
    fn run(&self, code: i32, verb: &str, arguments: &[&str]) -> Output {
        let mut command = tool::vdstream_command();
        command.arg(verb).arg(self.path("store")).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The document that a command prints.
    fn document(&self, code: i32, verb: &str, arguments: &[&str]) -> Value {
        let output = self.run(code, verb, &[&["--json"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The document of a command whose attempts to delete `path` fail with `error`.
fn refused(tool: &Tool, (path, error): (&Path, &str), code: i32, verb: &str, arguments: &[&str]) -> Value {
    let mut command = tool::vdstream_refused(path, error);
    command.args([verb, &tool.path("store"), "--json"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// The only file below `directory`.
fn only(directory: &Path) -> Value {
    let files = tool::files_below(directory);
    assert_eq!(files.len(), 1, "{files:?}");
    read(&files[0])
}

fn events(output: &Output) -> Vec<Value> {
    tool::events(&String::from_utf8_lossy(&output.stderr))
}

/// A public key whose private half nobody kept.
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

#[test]
fn what_the_tool_prints_and_stores_fits_the_schema() {
    let tool = Tool::new();
    let full = tool.document(0, "backup", &["--label", "tier=gold", "--keep-until", "1d", "--", "seq", "100000"]);
    assert_fits("backup", &full);
    let id = full["id"].as_str().unwrap();
    let directory = tool.backup("default");
    assert_fits("intent", &read(&directory.join("intent.json")));
    assert_fits("manifest", &read(&directory.join("manifest.json")));

    assert_fits("list", &tool.document(0, "list", &[]));
    assert_fits("show", &tool.document(0, "show", &[id]));
    assert_fits("restore", &tool.document(0, "restore", &[id, "--output", "/dev/null"]));
    assert_fits("verify", &tool.document(0, "verify", &[id]));
    assert_fits("verify", &tool.document(0, "verify", &[id, "--level", "full", "--sample", "50%"]));
    assert_fits("verify", &tool.document(0, "verify", &[id, "--level", "stored", "--since-last=1h", "--no-record"]));
    for record in tool::files_below(&directory.join("verified")) {
        assert_fits("verification", &read(&record));
    }
    let listed = tool.document(0, "list", &[]);
    assert!(listed["backups"][0]["verified"].is_object(), "{listed}");
    assert_fits("list", &listed);
    assert_fits("show", &tool.document(0, "show", &[id]));
    assert_fits("doctor", &tool.document(0, "doctor", &[]));

    // Four parts, and half a second for each.
    let limit = ["--series", "limited", "--limit-upload", "128KiB", "--part-size", "64KiB"];
    tool.document(0, "backup", &[&limit[..], &["--", "head", "-c", "262144", "/dev/urandom"]].concat());
    let limited = tool.document(0, "show", &["latest", "--series", "limited"]);
    assert!(limited["course"]["limited_millis"].as_u64().is_some_and(|millis| millis > 100), "{limited}");
    assert_fits("show", &limited);
}

#[test]
fn what_is_encrypted_chained_or_pruned_fits_too() {
    let tool = Tool::new();
    std::fs::write(tool.path("passphrase"), b"correct horse battery staple").unwrap();
    let passphrase = tool.path("passphrase");
    let keys = ["--recipient", RECIPIENT, "--passphrase-file", &passphrase, "--series", "secret", "--", "echo", "x"];
    let made = tool.document(0, "backup", &keys);
    assert_fits("backup", &made);
    let directory = tool.backup("secret");
    assert_fits("intent", &read(&directory.join("intent.json")));
    assert_fits("manifest", &read(&directory.join("manifest.json")));

    let full = tool.document(0, "backup", &["--", "echo", "x"]);
    let parent = full["id"].as_str().unwrap();
    let log =
        tool.document(0, "backup", &["--kind", "log", "--parent", parent, "--keep-until", "1d", "--", "echo", "y"]);
    assert_fits("show", &tool.document(0, "show", &[log["id"].as_str().unwrap()]));
    tool.document(0, "backup", &["--", "echo", "z"]);
    // Kept for reasons; and one that cannot be used.
    let plan = tool.document(0, "prune", &["--keep-last", "1", "--keep-daily", "7"]);
    assert_fits("prune", &plan);
    let doomed = tool.document(0, "backup", &["--series", "doomed", "--", "echo", "x"]);
    assert_fits("prune", &tool.document(0, "delete", &["--series", "doomed", doomed["id"].as_str().unwrap()]));
    let deleted = tool.document(0, "delete", &["--series", "doomed", doomed["id"].as_str().unwrap(), "--confirm"]);
    assert_eq!(deleted["series"][0]["report"]["deleted"].as_array().unwrap().len(), 1, "{deleted}");
    assert_fits("prune", &deleted);
    assert_fits("deleted", &only(&tool.backup("doomed").join("deleted")));
    let waiting = tool.document(0, "gc", &[]);
    assert_eq!(waiting["leftovers"][0]["verdict"], "wait", "{waiting}");
    assert_fits("gc", &waiting);
    let gone = tool.document(0, "gc", &["--grace", "0s", "--confirm"]);
    assert_eq!(gone["report"]["backups"].as_array().unwrap().len(), 1, "{gone}");
    assert_fits("gc", &gone);
}

#[test]
fn what_is_damaged_fits_too() {
    let tool = Tool::new();
    tool.document(0, "backup", &["--", "seq", "1000"]);
    let directory = tool.backup("default");
    let segment = directory.join("s00/000000.zst");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let found = tool.document(4, "verify", &["latest", "--level", "full"]);
    assert!(!found["damage"].as_array().unwrap().is_empty(), "{found}");
    assert_fits("verify", &found);
    assert_fits("verification", &only(&directory.join("verified")));
    tool.document(0, "verify", &["latest", "--level", "quick"]);
    let records: Vec<Value> = tool::files_below(&directory.join("verified")).iter().map(|path| read(path)).collect();
    assert_eq!(records[1]["earlier_damage"]["level"], "full", "{records:?}");
    assert_fits("verification", &records[1]);
    let listed = tool.document(0, "list", &[]);
    assert_eq!(listed["backups"][0]["standing_damage"]["level"], "full", "{listed}");
    assert_fits("list", &listed);
    let shown = tool.document(0, "show", &["latest"]);
    assert_eq!((&shown["verified"]["level"], &shown["standing_damage"]["level"]), (&json!("quick"), &json!("full")));
    assert_fits("show", &shown);
    // A record that cannot be used, and the one that says so.
    let unusable = directory.join("verified/21000101T000000.000Z.json");
    std::fs::write(&unusable, b"{}\n").unwrap();
    assert_eq!(tool.document(0, "show", &["latest"])["has_unread_verification"], true);
    tool.document(0, "verify", &["latest", "--level", "quick"]);
    std::fs::remove_file(&unusable).unwrap();
    let last = read(tool::files_below(&directory.join("verified")).last().unwrap());
    assert_fits("verification", &last);
    assert_eq!(last["has_unread"], true, "{last}");
    std::fs::write(directory.join("manifest.json"), b"{}\n").unwrap();
    let listed = tool.document(0, "list", &[]);
    assert_eq!(listed["damaged"].as_array().unwrap().len(), 1, "{listed}");
    assert_fits("list", &listed);
    assert_fits("prune", &tool.document(0, "prune", &["--keep-last", "1"]));
}

#[test]
fn what_stays_although_it_was_to_go_fits_too() {
    let tool = Tool::new();
    let made = tool.document(0, "backup", &["--", "echo", "x"]);
    let id = made["id"].as_str().unwrap();
    let directory = tool.backup("default");
    let kept = refused(&tool, (&directory.join("manifest.json"), "EACCES"), 11, "delete", &[id, "--confirm"]);
    assert_eq!(kept["series"][0]["report"]["kept"].as_array().unwrap().len(), 1, "{kept}");
    assert_fits("prune", &kept);
    tool.document(0, "delete", &[id, "--confirm"]);
    let collect = ["--grace", "0s", "--confirm"];
    let later = refused(&tool, (&directory.join("s00/000000.zst"), "EACCES"), 0, "gc", &collect);
    assert_eq!(later["report"]["later"].as_array().unwrap().len(), 1, "{later}");
    assert_fits("gc", &later);
    // As long as something is left, the mark of the collection is there.
    assert_fits("collected", &only(&directory.join("collected")));
    let gone = tool.document(0, "gc", &collect);
    assert_eq!(gone["report"]["backups"], json!([id]), "{gone}");
    assert_fits("gc", &gone);
}

#[test]
fn what_was_done_before_a_failure_fits_too() {
    let tool = Tool::new();
    let ids = [(); 4].map(|()| tool.document(0, "backup", &["--", "echo", "x"])["id"].as_str().unwrap().to_owned());
    let manifest = tool.path("store/default") + "/" + &ids[1] + "/manifest.json";
    // A file system may be too full even to delete.
    let half = refused(&tool, (Path::new(&manifest), "ENOSPC"), 14, "prune", &["--keep-last", "1", "--confirm"]);
    assert_eq!(half["series"][0]["report"]["deleted"], json!([ids[2]]), "{half}");
    assert_eq!(half["series"][0]["report"]["in_doubt"], json!(ids[1]), "{half}");
    assert!(half["error"].as_str().unwrap().contains(&ids[1]), "{half}");
    assert_fits("prune", &half);

    tool.document(0, "prune", &["--keep-last", "1", "--confirm"]);
    let intent = tool.path("store/default") + "/" + &ids[1] + "/intent.json";
    let collect = ["--grace", "0s", "--confirm"];
    let half = refused(&tool, (Path::new(&intent), "ENOSPC"), 14, "gc", &collect);
    // Where there is no room, the others go first.
    assert_eq!(half["report"]["backups"], json!([ids[0], ids[2]]), "{half}");
    assert!(half["report"]["objects"].as_u64().unwrap() > 4 && half["error"].is_string(), "{half}");
    assert_fits("gc", &half);
}

#[test]
fn a_result_that_cannot_be_recorded_fits_too() {
    let tool = Tool::new();
    tool.document(0, "backup", &["--", "echo", "x"]);
    // A file stands where the directory of the records would be.
    std::fs::write(tool.backup("default").join("verified"), b"").unwrap();
    let unrecorded = tool.document(0, "verify", &["latest"]);
    assert!(unrecorded["record"].is_null() && unrecorded["record_error"].is_string(), "{unrecorded}");
    assert_fits("verify", &unrecorded);
}

#[test]
fn every_event_fits_the_schema() {
    let tool = Tool::new();
    let script = "for i in 1 2 3; do head -c 1000000 /dev/urandom; sleep 0.4; done";
    let progress = ["--progress", "json", "--expect-size", "6MB", "--", "sh", "-c", script];
    let made = events(&tool.run(0, "backup", &progress));
    let restored = events(&tool.run(0, "restore", &["latest", "--progress", "json", "--output", "/dev/null"]));
    assert!(made.len() >= 2 && !restored.is_empty());
    for event in made.iter().chain(&restored) {
        assert_fits("progress", event);
        assert_fits("event", event);
    }
    for level in ["quick", "stored", "full"] {
        let verified = events(&tool.run(0, "verify", &["latest", "--level", level, "--progress", "json"]));
        assert!(!verified.is_empty(), "no event at the level {level}");
        for event in &verified {
            assert_fits("verify_progress", event);
            assert_fits("event", event);
        }
    }
}

/// What is no event has another schema, whoever wrote it.
#[test]
fn what_others_write_is_no_event_for_the_schema_either() {
    for other in
        [json!({"a": 1}), json!({"event": "row"}), json!([{"event": "progress"}]), json!({"event": "progress"})]
    {
        assert!(!errors("event", &other).is_empty(), "{other}");
    }
}

/// The record of an upload is there while it runs, so the tool is killed when it is seen. Who goes on writes claims.
#[test]
fn the_record_of_an_upload_and_the_claims_of_who_goes_on_fit_the_schema() {
    let tool = Tool::new();
    let (data, uploads) = (tool.path("data"), format!("{}/*/*/uploads/*.json", tool.path("store")));
    let made = Command::new("head").args(["-c", "30000000", "/dev/urandom"]).output().unwrap();
    std::fs::write(&data, made.stdout).unwrap();
    let script = format!("cat {data}; for i in $(seq 600); do [ -e {uploads} ] && kill -9 $PPID; sleep 0.05; done");
    let mut command = tool::vdstream_command();
    command.args(["backup", &tool.path("store"), "--", "sh", "-c", &script]);
    assert_eq!(command.output().unwrap().status.code(), None, "it was killed");
    let directory = tool.backup("default");
    assert_fits("upload", &only(&directory.join("uploads")));
    let listed = tool.document(0, "list", &[]);
    assert_eq!(listed["uncommitted"].as_array().unwrap().len(), 1, "{listed}");
    assert_fits("list", &listed);
    let id = listed["uncommitted"][0]["id"].as_str().unwrap().to_owned();
    let options = ["--json", "--progress", "json", "--resume", &id, "--silence", "0s", "--", "cat", &data];
    let resumed = tool.run(0, "backup", &options);
    assert_fits("backup", &serde_json::from_slice(&resumed.stdout).unwrap());
    let looks: Vec<Value> = events(&resumed).into_iter().filter(|event| event["event"] == "resume").collect();
    assert!(!looks.is_empty(), "no event while it is read back");
    for event in &looks {
        assert_fits("resume_progress", event);
        assert_fits("event", event);
    }
    let claims = tool::files_below(&directory.join("claims"));
    assert!(!claims.is_empty(), "nobody claimed it");
    for claim in claims {
        assert_fits("claim", &read(&claim));
    }
    assert_fits("show", &tool.document(0, "show", &[&id]));
}

#[test]
fn a_member_without_an_entry_is_found_wherever_it_is() {
    let tool = Tool::new();
    tool.document(0, "backup", &["--", "echo", "x"]);
    tool.document(0, "verify", &["latest"]);
    let shown = tool.document(0, "show", &["latest"]);
    assert_fits("show", &shown);
    for place in ["", "/codec", "/stripes/0", "/stripes/0/segments/0", "/totals", "/verified", "/producer"] {
        let mut changed = shown.clone();
        let object = changed.pointer_mut(place).unwrap().as_object_mut().unwrap();
        object.insert("surprise".to_owned(), Value::Null);
        assert!(!errors("show", &changed).is_empty(), "not found in `{place}`");
        let mut missing = shown.clone();
        let object = missing.pointer_mut(place).unwrap().as_object_mut().unwrap();
        let first = object.keys().next().unwrap().clone();
        object.remove(&first);
        assert!(place == "/producer" || !errors("show", &missing).is_empty(), "`{first}` is not missed in `{place}`");
    }
}

#[test]
fn the_manual_names_every_document() {
    let page = std::fs::read_to_string(tool::repository().join("src/manual/documents.md")).unwrap();
    let documents = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name);
    let documents: Vec<&str> = documents.collect();
    assert!(documents.len() >= 13, "{documents:?}");
    let source = std::fs::read_to_string(tool::repository().join("integration/tests/documents.rs")).unwrap();
    for name in documents {
        assert!(strict_schema()["$defs"][name].is_object(), "{name} has no schema");
        assert!(source.contains(&format!("assert_fits(\"{name}\"")), "no test holds a document against {name}");
    }
}
