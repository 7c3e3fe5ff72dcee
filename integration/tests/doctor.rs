//! `doctor` on disk and on servers: what works, what is less than it could be, and what is missing.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::Output;

use integration::place::Place;
use integration::server::Kind;
use integration::tool;
use serde_json::Value;

fn doctor(url: &str, environment: &[(&str, String)]) -> Output {
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    tool::vdstream_command().envs(environment).args(["doctor", url, "--json"]).output().unwrap()
}

fn verdicts(output: &Output) -> Vec<(String, String)> {
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, member: &str| finding[member].as_str().unwrap().to_owned();
    let findings = document["findings"].as_array().unwrap();
    findings.iter().map(|finding| (text(finding, "check"), text(finding, "verdict"))).collect()
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
        let others = found.iter().filter(|(check, _)| check != "create-only" && check != "upload-rule");
        assert!(
            others.clone().count() == 9 && others.clone().all(|(_, verdict)| verdict == "good"),
            "{place:?}: {found:?}"
        );
        place.assert_empty().await;
    }
}

/// The rows of the manual's table: the check, and the permissions that its columns name.
fn documented() -> Vec<(String, [String; 2])> {
    let page = std::fs::read_to_string(tool::repository().join("src/manual/operating.md")).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| check ")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        (cells[1].clone(), [cells[3].clone(), cells[4].clone()])
    });
    rows.collect()
}

#[tokio::test]
async fn the_document_is_what_the_manual_says() {
    let (garage, azurite) = futures::join!(Place::server(Kind::Garage), Place::server(Kind::Azurite));
    for (place, column) in [(garage, 0), (azurite, 1)] {
        let output = doctor(&place.url(), &place.environment());
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
        assert_eq!(found, expected, "{place:?}");
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
    assert_eq!(verdict(&verdicts(&output), "list"), "failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("s3:ListBucket") && text.contains("s3:PutObject"), "{text}");
    assert!(!text.contains(&"0".repeat(64)) && !message.contains(&"0".repeat(64)), "no secret is printed");
    place.assert_empty().await;
}
