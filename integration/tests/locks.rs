//! What a bucket does not let go: versions under Object Lock, and objects whose deletion its policy forbids.
//!
//! moto holds both; its bucket is one of the test's own. It wants a header of Amazon's own clients with every object that a rule of
//! the bucket locks, where Amazon takes any checksum: a front adds it to what has one.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Output;

use integration::data;
use integration::place::Place;
use integration::recorder::{Recorder, Request};
use integration::server::Kind;
use integration::tool;
use serde_json::Value;

/// A bucket of its own, seen through a front.
struct Bucket {
    name: String,
    place: Place,
    front: Recorder,
}

impl Bucket {
    /// `headers`: of the request that makes it.
    async fn new(headers: &str) -> Self {
        let place = Place::server(Kind::Moto).await;
        let front = Recorder::before_adding(Kind::Moto.endpoint(), |request: &Request| {
            match request.header("x-amz-checksum-sha256") {
                "" => "",
                _ => "x-amz-sdk-checksum-algorithm: SHA256\r\n",
            }
        })
        .await;
        let bucket = Self { name: data::unique("locked"), place, front };
        bucket.ask_with("PUT", "", headers, "");
        bucket
    }

    /// The tool at this bucket.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let (verb, rest) = arguments.split_first().unwrap();
        let mut command = tool::vdstream_command();
        command.envs(self.place.environment_at(self.front.endpoint())).envs(environment.iter().copied());
        command.arg(verb).arg(format!("s3://{}/backups", self.name)).args(rest).output().unwrap()
    }

    /// It succeeds; the document that it prints.
    fn document(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&arguments[..1], &["--json"], &arguments[1..]].concat(), &[CHECKSUM]);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn back_up(&self) -> String {
        self.document(&["backup", "--", "echo", "rows"])["id"].as_str().unwrap().to_owned()
    }

    fn listed(&self) -> Vec<String> {
        let list = self.document(&["list"]);
        list["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect()
    }

    /// A request of its owner, which must succeed: what comes behind the bucket's name, and a body.
    fn ask(&self, method: &str, rest: &str, body: &str) -> String {
        self.ask_with(method, rest, "", body)
    }

    fn ask_with(&self, method: &str, rest: &str, headers: &str, body: &str) -> String {
        let answer = self.answer(method, rest, headers, body);
        assert!(answer.starts_with("HTTP/1.1 2"), "{method} {rest}: {answer}");
        answer
    }

    /// The whole answer. moto checks no signature, but treats whoever has none as a stranger.
    fn answer(&self, method: &str, rest: &str, headers: &str, body: &str) -> String {
        let address = Kind::Moto.endpoint().trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).unwrap();
        let (name, length) = (&self.name, body.len());
        write!(
            connection,
            "{method} /{name}{rest} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=owner/20260101/us-east-1/s3/aws4_request\r\n\
             {headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// `/key?versionId=…` of every version of every object (`Version`), or of every marker that hides one (`DeleteMarker`).
    fn versions(&self, kind: &str) -> Vec<String> {
        let listing = self.ask("GET", "?versions", "");
        let tag = format!("<{kind}>");
        let entries = listing.split(&tag).skip(1);
        let mut found: Vec<String> = entries
            .map(|entry| {
                let text = |name: &str| entry.split(&format!("<{name}>")).nth(1).unwrap().split('<').next().unwrap();
                format!("/{}?versionId={}", text("Key"), text("VersionId"))
            })
            .collect();
        found.sort();
        found
    }

    fn set_policy(&self, denied: &str) {
        let name = &self.name;
        let policy = format!(
            r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::{name}/{denied}"}}]}}"#
        );
        self.ask("PUT", "?policy", &policy);
    }
}

const CHECKSUM: (&str, &str) = ("AWS_CHECKSUM_ALGORITHM", "SHA256");

/// Each object is locked for a day, whoever asks, by the bucket's rule. What is deleted is hidden, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_locks_is_hidden_and_stays() {
    let bucket = Bucket::new("x-amz-bucket-object-lock-enabled: true\r\n").await;
    let rule = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                <Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    bucket.ask("PUT", "?object-lock", rule);

    let refused = bucket.run(&["backup", "--", "echo", "rows"], &[]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && message.contains("AWS_CHECKSUM_ALGORITHM"), "{message}");
    assert_eq!(bucket.versions("Version"), [""; 0]);

    let ids = [(); 3].map(|()| bucket.back_up());
    let made = bucket.versions("Version");
    assert!(made.len() >= 9, "intent, segment and manifest of each: {made:?}");
    let is_locked = |version: &str| {
        let head = bucket.ask("HEAD", version, "");
        assert!(head.contains("x-amz-object-lock-mode: COMPLIANCE"), "{version}: {head}");
        let bypass = "x-amz-bypass-governance-retention: true\r\n";
        let answer = bucket.answer("DELETE", version, bypass, "");
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("AccessDenied"), "{version}: {answer}");
    };
    made.iter().for_each(|version| is_locked(version));

    let pruned = bucket.document(&["prune", "--keep-last", "2", "--confirm"]);
    let report = &pruned["series"][0]["report"];
    assert_eq!((&report["deleted"], &report["keeps_versions"]), (&serde_json::json!([ids[0]]), &Value::from(true)));
    let deleted = bucket.document(&["delete", &ids[1], "--confirm"]);
    assert_eq!(deleted["series"][0]["report"]["keeps_versions"], true, "{deleted}");
    assert_eq!(bucket.listed(), ids[2..]);
    let collected = bucket.document(&["gc", "--grace", "0s", "--confirm"]);
    let report = &collected["report"];
    assert_eq!((report["backups"].as_array().unwrap().len(), &report["later"]), (2, &serde_json::json!([])));
    assert_eq!(report["keeps_versions"], true, "{report}");

    let after = bucket.versions("Version");
    assert!(made.iter().all(|version| after.contains(version)), "a version is gone: {made:?} {after:?}");
    made.iter().for_each(|version| is_locked(version));
    // Without the markers both are there as before.
    for marker in bucket.versions("DeleteMarker") {
        bucket.ask("DELETE", &marker, "");
    }
    assert_eq!(bucket.listed(), ids);
    for id in &ids {
        let restored = bucket.run(&["restore", id, "--output", "-"], &[]);
        assert_eq!(restored.stdout, b"rows\n", "{}", String::from_utf8_lossy(&restored.stderr));
    }
}

/// A refusal is an answer to a deletion: it is reported, everything else goes, and the rest goes when it may.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_forbids_to_delete_is_reported_and_left() {
    let bucket = Bucket::new("").await;
    let ids = [(); 3].map(|()| bucket.back_up());
    bucket.set_policy(&format!("backups/default/{}/manifest.json", ids[0]));
    for arguments in
        [&["prune", "--keep-last", "1", "--confirm", "--json"][..], &["delete", &ids[0], "--confirm", "--json"]]
    {
        let output = bucket.run(arguments, &[]);
        assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kept = document["series"][0]["report"]["kept"].as_array().unwrap().clone();
        assert_eq!((kept.len(), &kept[0][0]), (1, &Value::from(ids[0].as_str())), "{document}");
        assert!(kept[0][1].as_str().unwrap().contains("manifest.json"), "{document}");
        assert_eq!(bucket.listed(), [ids[0].clone(), ids[2].clone()], "the others went");
    }

    bucket.set_policy("*.zst");
    bucket.document(&["delete", &ids[0], "--confirm"]);
    for _ in 0..2 {
        let report = bucket.document(&["gc", "--grace", "0s", "--confirm"])["report"].clone();
        assert_eq!(
            (&report["backups"], &report["keeps_versions"]),
            (&serde_json::json!([]), &Value::from(false)),
            "{report}"
        );
        let later = report["later"].as_array().unwrap();
        assert_eq!(later.len(), 2, "a segment of each: {report}");
        assert!(later.iter().all(|left| left["what"].as_str().unwrap().ends_with(".zst")), "{report}");
    }
    let text = bucket.run(&["gc", "--grace", "0s", "--confirm"], &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("2 objects cannot be removed now and will be later"), "{text}");

    bucket.ask("DELETE", "?policy", "");
    let report = bucket.document(&["gc", "--grace", "0s", "--confirm"])["report"].clone();
    assert_eq!(report["backups"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(bucket.listed(), ids[2..]);
}
