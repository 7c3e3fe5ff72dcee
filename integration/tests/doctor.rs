//! `doctor` on disk and on servers: what works, what is less than it could be, and what is missing.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::Output;

use integration::place::Place;
use integration::recorder::{Recorder, Request};
use integration::server::Kind;
use integration::tool;
use serde_json::Value;

fn doctor(url: &str, environment: &[(&str, String)]) -> Output {
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    tool::vdstream_command().envs(environment).args(["doctor", url, "--json"]).output().unwrap()
}

fn findings(output: &Output) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["findings"].as_array().unwrap().clone()
}

fn text<'a>(finding: &'a Value, member: &str) -> &'a str {
    finding[member].as_str().unwrap_or_default()
}

fn verdicts(output: &Output) -> Vec<(String, String)> {
    let own = |finding: &Value, member: &str| text(finding, member).to_owned();
    findings(output).iter().map(|finding| (own(finding, "check"), own(finding, "verdict"))).collect()
}

/// The checks with this verdict, each with its permission.
fn with_verdict(output: &Output, verdict: &str) -> Vec<(String, String)> {
    let found = findings(output).into_iter().filter(|finding| text(finding, "verdict") == verdict);
    found.map(|finding| (text(&finding, "check").to_owned(), text(&finding, "permission").to_owned())).collect()
}

fn names(checks: &[(String, String)]) -> Vec<&str> {
    checks.iter().map(|(check, _)| check.as_str()).collect()
}

fn verdict<'a>(verdicts: &'a [(String, String)], check: &str) -> &'a str {
    &verdicts.iter().find(|(name, _)| name == check).unwrap().1
}

#[tokio::test]
async fn every_operation_is_tried_and_nothing_stays() {
    let servers =
        futures::future::join3(Place::server(Kind::Garage), Place::server(Kind::Moto), Place::server(Kind::Azurite));
    let (garage, moto, azurite) = servers.await;
    for (place, create_only, rule) in [
        (Place::disk(), "good", "skipped"),
        // Garage answers a create-only put with success, and overwrites.
        (garage, "warning", "warning"),
        (moto, "good", "warning"),
        (azurite, "good", "skipped"),
    ] {
        let output = doctor(&place.url(), &place.environment());
        assert_eq!(output.status.code(), Some(0), "{place:?}: {}", String::from_utf8_lossy(&output.stderr));
        let found = verdicts(&output);
        assert_eq!(verdict(&found, "create-only"), create_only, "{place:?}");
        assert_eq!(verdict(&found, "upload-rule"), rule, "{place:?}: {}", String::from_utf8_lossy(&output.stdout));
        let versions = if matches!(rule, "skipped") { "skipped" } else { "good" };
        assert_eq!(verdict(&found, "versions"), versions, "{place:?}: {}", String::from_utf8_lossy(&output.stdout));
        let own = ["create-only", "upload-rule", "versions"];
        let others = found.iter().filter(|(check, _)| !own.contains(&check.as_str()));
        assert!(
            others.clone().count() == 9 && others.clone().all(|(_, verdict)| verdict == "good"),
            "{place:?}: {found:?}"
        );
        place.assert_empty().await;
    }
    // The same store, of which the condition is not asked for: nobody knows then who was first.
    let moto = Place::server(Kind::Moto).await;
    let unconditional = [moto.environment(), vec![("AWS_CONDITIONAL_PUT", "disabled".to_owned())]].concat();
    assert_eq!(verdict(&verdicts(&doctor(&moto.url(), &unconditional)), "create-only"), "warning");
    moto.assert_empty().await;
}

/// The rows of the manual's table: the check, and the permissions that its columns name.
fn documented() -> Vec<(String, [String; 3])> {
    let page = std::fs::read_to_string(tool::repository().join("src/manual/operating.md")).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| check ")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        (cells[1].clone(), [cells[3].clone(), cells[4].clone(), cells[5].clone()])
    });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_what_the_manual_says() {
    let (garage, azurite) = futures::join!(Place::server(Kind::Garage), Place::server(Kind::Azurite));
    // Of a store that refuses everything each permission is told all the same.
    let google = Recorder::answering(|_| (403, String::new())).await;
    let token = ("GOOGLE_OAUTH_ACCESS_TOKEN", "token".to_owned());
    let there = vec![token, ("GOOGLE_BASE_URL", google.endpoint().to_owned())];
    for (url, environment, column) in [
        (garage.url(), garage.environment(), 0),
        (azurite.url(), azurite.environment(), 1),
        ("gs://bucket/prod".to_owned(), there, 2),
    ] {
        let output = doctor(&url, &environment);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(document.as_object().unwrap().keys().eq(["findings", "store"]), "{document}");
        let findings = document["findings"].as_array().unwrap();
        let found: Vec<_> = findings
            .iter()
            .map(|finding| {
                let known = ["check", "verdict", "permission", "detail"];
                assert!(finding.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{finding}");
                let text = |member: &str| finding[member].as_str().unwrap_or_default().to_owned();
                (text("check"), text("permission"))
            })
            .collect();
        let expected: Vec<_> =
            documented().into_iter().map(|(check, permissions)| (check, permissions[column].clone())).collect();
        assert_eq!(found, expected, "{url}");
    }
}

/// What the walk through shows is what the tool prints.
#[tokio::test]
async fn the_walk_through_shows_what_is_printed() {
    let garage = Place::server(Kind::Garage).await;
    let environment = garage.environment();
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    let output = tool::vdstream_command().envs(environment).args(["doctor", &garage.url()]).output().unwrap();
    let page = std::fs::read_to_string(tool::repository().join("src/manual/walkthrough.md")).unwrap();
    let shown: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != "$ vdstream doctor $store")
        .skip(1)
        .take_while(|line| *line != "```")
        .collect();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(shown, printed.lines().collect::<Vec<_>>(), "{printed}");
}

/// The permission that Amazon wants for a request.
fn action(request: &Request) -> &'static str {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let is_bucket = !path.trim_matches('/').contains('/');
    match (request.method.as_str(), is_bucket) {
        ("GET", true) if query.starts_with("lifecycle") => "s3:GetLifecycleConfiguration",
        ("GET", true) if query.starts_with("versioning") => "s3:GetBucketVersioning",
        ("GET", true) => "s3:ListBucket",
        ("GET" | "HEAD", false) => "s3:GetObject",
        ("DELETE", false) if query.contains("uploadId=") => "s3:AbortMultipartUpload",
        // One object, or many.
        ("DELETE", false) | ("POST", true) => "s3:DeleteObject",
        _ => "s3:PutObject",
    }
}

/// A front of moto's that refuses what `is` says, as Amazon does.
async fn refusing(is: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Recorder {
    let refused = |request: &Request| match request.method.as_str() {
        "HEAD" => String::new(),
        _ => "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>".to_owned(),
    };
    let instead = move |request: &Request| is(request).then(|| (403, refused(request)));
    Recorder::before_answering(Kind::Moto.endpoint(), instead).await
}

/// One at a time: exactly the checks that need it fail, and they name it.
#[tokio::test(flavor = "multi_thread")]
async fn each_permission_that_is_missing_is_named_where_it_is_missed_and_nowhere_else() {
    let place = Place::server(Kind::Moto).await;
    let all = ["list", "create", "look-up", "read", "read-range", "clock", "create-only", "multipart"];
    for (denied, failed, skipped) in [
        ("s3:ListBucket", &["list"][..], &[][..]),
        ("s3:PutObject", &["create"], &[&all[2..], &["abort-multipart", "delete"]].concat()),
        ("s3:GetObject", &["look-up", "read", "read-range", "clock"], &[]),
        ("s3:AbortMultipartUpload", &["abort-multipart"], &[]),
        ("s3:DeleteObject", &["delete"], &[]),
        ("s3:GetLifecycleConfiguration", &[], &["upload-rule"]),
        ("s3:GetBucketVersioning", &[], &["versions"]),
    ] {
        let front = refusing(move |request| action(request) == denied).await;
        let environment = place.environment_at(front.endpoint());
        let output = doctor(&place.url(), &environment);
        let what = format!("{denied}: {}", String::from_utf8_lossy(&output.stdout));
        let (bad, untried) = (with_verdict(&output, "failed"), with_verdict(&output, "skipped"));
        assert_eq!(names(&bad), failed, "{what}");
        assert_eq!(names(&untried), skipped, "{what}");
        let needs = |permission: &str| permission.split(", ").any(|one| one == denied);
        assert!(bad.iter().all(|(_, permission)| needs(permission)), "{what}");
        let good = with_verdict(&output, "good");
        assert!(!good.iter().any(|(_, permission)| needs(permission)), "{what}");
        assert_eq!(output.status.code(), Some(if failed.is_empty() { 0 } else { 13 }), "{what}");
        assert!(front.requests().iter().any(|request| action(request) == denied), "{what}");

        let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
        let table = tool::vdstream_command().envs(environment).args(["doctor", &place.url()]).output().unwrap();
        let table = String::from_utf8(table.stdout).unwrap();
        for check in failed {
            let row = table.lines().find(|line| line.split_whitespace().take(2).eq([*check, "failed"]));
            assert!(row.is_some_and(|row| row.contains(denied)), "{check}: {table}");
        }
    }
    // Who may not begin an upload is not told that he may not give it up.
    let front = refusing(|request| request.method == "POST" && request.target.contains("?uploads")).await;
    let output = doctor(&place.url(), &place.environment_at(front.endpoint()));
    assert_eq!(with_verdict(&output, "failed"), [("multipart".to_owned(), "s3:PutObject".to_owned())]);
    assert_eq!(names(&with_verdict(&output, "skipped")), ["abort-multipart"]);
}

/// What objects are given needs permissions of its own, and these are named too.
#[tokio::test(flavor = "multi_thread")]
async fn permissions_for_tags_and_keys_are_named_when_they_are_asked_for() {
    let place = Place::server(Kind::Moto).await;
    let front = refusing(|request| !request.header("x-amz-tagging").is_empty()).await;
    let mut environment = place.environment_at(front.endpoint());
    assert!(doctor(&place.url(), &environment).status.success(), "without tags nothing is refused");
    environment.push(("VDSTREAM_TAGS", "team=dba".to_owned()));
    let output = doctor(&place.url(), &environment);
    let expected = ("create".to_owned(), "s3:PutObject, s3:PutObjectTagging".to_owned());
    assert_eq!(with_verdict(&output, "failed"), [expected], "{}", String::from_utf8_lossy(&output.stdout));

    let mut environment = place.environment();
    environment.push(("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms".to_owned()));
    let output = doctor(&place.url(), &environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let good = with_verdict(&output, "good");
    let permission = |check: &str| good.iter().find(|(name, _)| name == check).unwrap().1.as_str();
    assert_eq!(permission("create"), "s3:PutObject, kms:GenerateDataKey");
    assert_eq!(permission("read"), "s3:GetObject, kms:Decrypt");
    assert_eq!(permission("multipart"), "s3:PutObject, kms:GenerateDataKey, kms:Decrypt");
    place.assert_empty().await;
}

/// A rule for another prefix of the bucket ends no upload of this store.
#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_rule_counts_where_it_meets_the_store() {
    let place = Place::server(Kind::Moto).await;
    let prefix = place.prefix().to_owned();
    for (rule, verdict) in [("logs/", "warning"), ("", "good"), (&format!("{prefix}/"), "good")] {
        let configuration = format!(
            "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix>{rule}</Prefix></Filter><Status>Enabled</Status>\
             <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>\
             </Rule></LifecycleConfiguration>"
        );
        let instead = move |request: &Request| {
            (action(request) == "s3:GetLifecycleConfiguration").then(|| (200, configuration.clone()))
        };
        let front = Recorder::before_answering(Kind::Moto.endpoint(), instead).await;
        let output = doctor(&place.url(), &place.environment_at(front.endpoint()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found = verdicts(&output);
        assert_eq!(self::verdict(&found, "upload-rule"), verdict, "{rule}: {found:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named_and_decides_the_exit_code() {
    let place = Place::disk();
    // A file stands where the directory should be.
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = doctor(file.path().join("below").to_str().unwrap(), &[]);
    assert!(!output.status.success());
    let found = verdicts(&output);
    assert_eq!(verdict(&found, "create"), "failed");
    assert_eq!(verdict(&found, "delete"), "skipped");

    let garage = Place::server(Kind::Garage).await;
    let mut environment = garage.environment();
    for (name, value) in &mut environment {
        if *name == "AWS_SECRET_ACCESS_KEY" {
            *value = "0".repeat(64);
        }
    }
    let output = doctor(&garage.url(), &environment);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(13), "{message}");
    let failed = with_verdict(&output, "failed");
    let expected = [("list", "s3:ListBucket"), ("create", "s3:PutObject")];
    assert_eq!(failed, expected.map(|(check, permission)| (check.to_owned(), permission.to_owned())));
    assert!(with_verdict(&output, "good").is_empty());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains(&"0".repeat(64)) && !message.contains(&"0".repeat(64)), "no secret is printed");
    place.assert_empty().await;
}
