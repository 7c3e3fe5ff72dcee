//! Access tokens, service accounts and the machine's own account of Google Cloud.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use integration::recorder::{Answer, Recorder, Request};

use super::support::{Home, SECRET};

const URL: &str = "gs://bucket/backups";

/// A service that gives tokens, and a bucket without objects.
fn answer(request: &Request) -> Answer {
    if request.target.starts_with("/computeMetadata/") {
        return (200, format!(r#"{{"access_token": "{SECRET}", "expires_in": 3600, "token_type": "Bearer"}}"#));
    }
    let empty = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount>\
                 <IsTruncated>false</IsTruncated></ListBucketResult>";
    (200, empty.to_owned())
}

/// With what the bucket was listed.
fn bearer(asked: &[Request]) -> String {
    let list = asked.iter().find(|request| request.target.starts_with("/bucket?")).unwrap();
    list.header("authorization").strip_prefix("Bearer ").unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_sent_as_it_is() {
    let home = Home::new();
    for variable in ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"] {
        let service = Recorder::answering(answer).await;
        home.succeed(&["list", URL], &[("GOOGLE_BASE_URL", service.endpoint()), (variable, SECRET)]);
        assert_eq!(bearer(&service.requests()), SECRET);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_asks_its_metadata_server() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let host = service.endpoint().trim_start_matches("http://");
    home.succeed(&["list", URL], &[("GOOGLE_BASE_URL", service.endpoint()), ("GCE_METADATA_HOST", host)]);
    let asked = service.requests();
    assert!(asked[0].target.starts_with("/computeMetadata/v1/instance/service-accounts/default/token"), "{asked:?}");
    assert_eq!(asked[0].header("metadata-flavor"), "Google");
    assert_eq!(bearer(&asked), SECRET);
}

/// Once it has given a token, one bad answer is not taken for a machine without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_server_that_is_busy_for_a_moment_ends_nothing() {
    let home = Home::new();
    let [tokens, listings] = [AtomicU32::new(0), AtomicU32::new(0)];
    // A proxy stands in the place of its name and of its address.
    let service = Recorder::answering(move |request| {
        if request.target.starts_with("http://") {
            return match tokens.fetch_add(1, Ordering::Relaxed) {
                1 | 2 => (503, String::new()),
                _ => (200, format!(r#"{{"access_token": "{SECRET}", "expires_in": 0, "token_type": "Bearer"}}"#)),
            };
        }
        match listings.fetch_add(1, Ordering::Relaxed) {
            0 => (500, String::new()),
            _ => answer(request),
        }
    })
    .await;
    let proxy = [("HTTP_PROXY", service.endpoint()), ("NO_PROXY", "127.0.0.1")];
    home.succeed(&["list", URL], &[&proxy[..], &[("GOOGLE_BASE_URL", service.endpoint())]].concat());
    let asked = service.requests();
    let tokens = asked.iter().filter(|request| request.target.starts_with("http://"));
    let hosts: Vec<&str> = tokens.map(|request| request.target.split('/').nth(2).unwrap()).take(3).collect();
    assert_eq!(hosts, ["metadata.google.internal", "metadata.google.internal", "169.254.169.254"], "{asked:?}");
}

/// Runs openssl and gives what it prints.
fn openssl(home: &Home, arguments: &[&str], input: Option<&str>) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).current_dir(home.dir.path()).stderr(Stdio::null());
    command.stdin(input.map_or_else(Stdio::null, |name| std::fs::File::open(home.path(name)).unwrap().into()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

/// The bytes of a part of a token.
fn decoded(home: &Home, part: &str) -> Vec<u8> {
    let text = part.replace('-', "+").replace('_', "/");
    let padding = "=".repeat((4 - text.len() % 4) % 4);
    home.write("part", &format!("{text}{padding}"));
    openssl(home, &["base64", "-d", "-A"], Some("part"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_signs_for_itself() {
    let home = Home::new();
    let pem = openssl(&home, &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], None);
    let pem = home.write("key.pem", &String::from_utf8(pem).unwrap());
    let public = openssl(&home, &["pkey", "-in", &pem, "-pubout"], None);
    home.write("public.pem", &String::from_utf8(public).unwrap());
    let account = serde_json::json!({
        "type": "service_account",
        "private_key_id": "one",
        "private_key": std::fs::read_to_string(&pem).unwrap(),
        "client_email": "backups@project.iam.gserviceaccount.com",
        "client_id": "1",
    });
    let file = home.write("account.json", &account.to_string());
    for variable in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
        let service = Recorder::answering(answer).await;
        home.succeed(&["list", URL], &[("GOOGLE_BASE_URL", service.endpoint()), (variable, &file)]);
        let token = bearer(&service.requests());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let claims: serde_json::Value =
            serde_json::from_slice(&decoded(&home, message.split('.').nth(1).unwrap())).unwrap();
        assert_eq!(claims["iss"], "backups@project.iam.gserviceaccount.com", "{claims}");
        // With that account's key.
        let signature = decoded(&home, signature);
        std::fs::write(home.path("signature"), signature).unwrap();
        home.write("message", message);
        let verify = ["dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"];
        openssl(&home, &verify, None);
    }
}
