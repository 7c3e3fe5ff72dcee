//! Web identities, containers and machines.

use std::sync::atomic::{AtomicU32, Ordering};

use integration::place::Place;
use integration::recorder::Recorder;
use integration::server::{Kind, S3_KEY_ID, S3_SECRET};

use super::support::{Home, SECRET, TlsFront};

const EXPIRY: &str = "2099-01-01T00:00:00Z";

/// What the token service answers.
fn session(action: &str) -> String {
    format!(
        r#"<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>
        <AccessKeyId>{S3_KEY_ID}</AccessKeyId><SecretAccessKey>{S3_SECRET}</SecretAccessKey>
        <SessionToken>a-session</SessionToken><Expiration>{EXPIRY}</Expiration></Credentials>
        <AssumedRoleUser><AssumedRoleId>a:b</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/b</Arn></AssumedRoleUser>
        </{action}Result><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged_for_credentials() {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let token = home.write("token", SECRET);
    let service = Recorder::answering(|_| (200, session("AssumeRoleWithWebIdentity"))).await;
    // As Kubernetes names it, and over TLS only.
    let front = TlsFront::before(service.endpoint(), &home);
    let pod = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod"),
        ("AWS_ENDPOINT_URL_STS", &front.endpoint),
        ("AWS_CA_BUNDLE", &front.authority),
        ("AWS_ENDPOINT_URL", Kind::Moto.endpoint()),
    ];
    home.round_trip(&place.url(), &pod);
    let asked = service.requests();
    assert_eq!(asked.len(), 2, "once for each process: {asked:?}");
    assert!(asked.iter().all(|request| request.target.contains("role%2Fpod")), "{asked:?}");
}

/// What services of containers and machines answer.
fn given(until: &str) -> String {
    format!(
        r#"{{"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": "{S3_KEY_ID}", "SecretAccessKey": "{S3_SECRET}", "Token": "a-session", "Expiration": "{until}", "LastUpdated": "2026-01-01T00:00:00Z"}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_asks_the_address_that_it_was_given() {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let service = Recorder::answering(|_| (200, given(EXPIRY))).await;
    let there = ("AWS_ENDPOINT_URL", Kind::Moto.endpoint());
    let address = format!("{}/credentials", service.endpoint());
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", address.as_str());
    let file = home.write("token", SECRET);
    let ways: [&[(&str, &str)]; 2] = [
        &[full, ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file)],
        // The address of Amazon's containers cannot be had here, so a proxy stands in its place.
        &[
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/credentials"),
            ("HTTP_PROXY", service.endpoint()),
            ("NO_PROXY", "127.0.0.1"),
        ],
    ];
    for (nth, way) in ways.into_iter().enumerate() {
        home.succeed(&["list", &place.url()], &[way, &[there]].concat());
        let asked = service.requests();
        assert_eq!(asked.len(), nth + 1, "{asked:?}");
        let last = &asked[nth];
        assert!(last.target.ends_with("/credentials"), "{asked:?}");
        assert_eq!(last.header("authorization"), [SECRET, ""][nth], "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_asks_its_metadata_service() {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let service = Recorder::answering(|request| match (request.method.as_str(), request.target.as_str()) {
        ("PUT", "/latest/api/token") => (200, SECRET.to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "backup-role".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/backup-role") => (200, given(EXPIRY)),
        _ => (404, String::new()),
    })
    .await;
    let there =
        [("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint()), ("AWS_ENDPOINT_URL", Kind::Moto.endpoint())];
    home.round_trip(&place.url(), &there);
    let asked = service.requests();
    assert_eq!(asked.len(), 6, "three for each process: {asked:?}");
    assert_eq!(asked[2].header("x-aws-ec2-metadata-token"), SECRET, "version 2 of the protocol: {asked:?}");
    // Its words when there is nothing to give are no credentials either.
    let nothing = Recorder::answering(|_| (404, String::new())).await;
    let there = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", nothing.endpoint()), there[1]];
    let said = home.denied(&place.url(), &there);
    assert!(said.contains("the metadata service gave no credentials: the server answered 404"), "{said}");
    // Whoever has a profile expects that it is read.
    let profiles = home.write(".aws/credentials", "[default]\naws_access_key_id = a\n");
    for there in [&there[..], &there[1..]] {
        let said = home.denied(&place.url(), there);
        assert!(said.contains(&profiles) && said.contains("aws configure export-credentials"), "{said}");
    }
}

/// Hours into a backup one bad answer of the metadata service was taken for a machine that has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_is_busy_for_a_moment_ends_nothing() {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let asked = AtomicU32::new(0);
    // Its address cannot be had here, so a proxy stands in its place. What it gives has expired, so it is asked for each request.
    let service = Recorder::answering(move |request| {
        let path = request.target.strip_prefix("http://169.254.169.254/latest/").unwrap_or_default();
        match path {
            "api/token" => match asked.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => (200, SECRET.to_owned()),
                1 => (429, String::new()),
                _ => (503, String::new()),
            },
            "meta-data/iam/security-credentials/" => (200, "backup-role".to_owned()),
            "meta-data/iam/security-credentials/backup-role" => (200, given("2026-01-01T00:00:00Z")),
            _ => (404, String::new()),
        }
    })
    .await;
    let there = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254"),
        ("AWS_ENDPOINT_URL", Kind::Moto.endpoint()),
        ("HTTP_PROXY", service.endpoint()),
        ("NO_PROXY", "127.0.0.1"),
    ];
    home.round_trip(&place.url(), &there);
    let tokens = service.requests().iter().filter(|request| request.target.ends_with("/latest/api/token")).count();
    assert!(tokens > 6, "it was busy in between: {tokens}");
}
