//! Managed identities, workload identities, the Azure command line tool, signatures and connection strings.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use integration::recorder::{Answer, Recorder, Request};
use integration::server::{AZURE_ACCOUNT, AZURE_KEY};

use super::support::{Home, SECRET};

/// A service that gives tokens, and a container without blobs.
fn answer(request: &Request) -> Answer {
    if request.target.contains("comp=list") {
        let empty = "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>";
        return (200, empty.to_owned());
    }
    (
        200,
        format!(
            r#"{{"access_token": "{SECRET}", "expires_in": 3600, "expires_on": "4070908800", "token_type": "Bearer"}}"#
        ),
    )
}

/// The listing was asked for with the token.
fn assert_used(asked: &[Request]) {
    let list = asked.iter().find(|request| request.target.contains("comp=list")).unwrap();
    assert_eq!(list.header("authorization"), format!("Bearer {SECRET}"), "{asked:?}");
}

const URL: &str = "az://container/backups";

fn storage(service: &Recorder) -> [(&'static str, &str); 2] {
    [("AZURE_STORAGE_ACCOUNT_NAME", "acc"), ("AZURE_STORAGE_ENDPOINT", service.endpoint())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_is_asked_where_the_service_says() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let address = format!("{}/msi/token", service.endpoint());
    let identity =
        [("IDENTITY_ENDPOINT", address.as_str()), ("IDENTITY_HEADER", "a-header"), ("AZURE_CLIENT_ID", "client")];
    home.succeed(&["list", URL], &[&storage(&service)[..], &identity].concat());
    let asked = service.requests();
    assert!(asked[0].target.starts_with("/msi/token?") && asked[0].target.contains("client_id=client"), "{asked:?}");
    assert_eq!(asked[0].header("x-identity-header"), "a-header");
    assert_used(&asked);
}

/// Once it has given a token, one bad answer is not taken for a machine without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_that_is_busy_for_a_moment_ends_nothing() {
    let home = Home::new();
    let [tokens, listings] = [AtomicU32::new(0), AtomicU32::new(0)];
    // A proxy stands in the place of its address.
    let service = Recorder::answering(move |request| {
        if request.target.starts_with("http://169.254.169.254/metadata/") {
            return match tokens.fetch_add(1, Ordering::Relaxed) {
                1 => (429, String::new()),
                _ => (200, format!(r#"{{"access_token": "{SECRET}", "expires_on": "1", "token_type": "Bearer"}}"#)),
            };
        }
        match listings.fetch_add(1, Ordering::Relaxed) {
            0 => (500, String::new()),
            _ => answer(request),
        }
    })
    .await;
    let proxy = [("HTTP_PROXY", service.endpoint()), ("NO_PROXY", "127.0.0.1")];
    home.succeed(&["list", URL], &[&storage(&service)[..], &proxy].concat());
    let asked = service.requests();
    let tokens = asked.iter().filter(|request| request.target.contains("/metadata/identity/")).count();
    assert!(tokens >= 3, "given, busy, given: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_identity_is_exchanged_for_a_token() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let file = home.write("token", "a-federated-token");
    // With a slash at its end, as Kubernetes writes it.
    let authority = format!("{}/", service.endpoint());
    let identity = [
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", &file),
        ("AZURE_AUTHORITY_HOST", &authority),
    ];
    home.succeed(&["list", URL], &[&storage(&service)[..], &identity].concat());
    let asked = service.requests();
    assert_eq!(asked[0].target, "/tenant/oauth2/v2.0/token");
    assert!(asked[0].body.contains("client_assertion=a-federated-token"), "{asked:?}");
    assert_used(&asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_azure_command_line_tool_gives_a_token() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let token = format!(
        r#"{{"accessToken": "{SECRET}", "expiresOn": "2099-01-01 00:00:00.000000", "subscription": "s", "tenant": "t", "tokenType": "Bearer"}}"#
    );
    home.program("bin/az", &token, 0);
    let path = format!("{}:{}", home.path("bin"), std::env::var("PATH").unwrap());
    let way = [("AZURE_USE_AZURE_CLI", "true"), ("PATH", path.as_str())];
    home.succeed(&["list", URL], &[&storage(&service)[..], &way].concat());
    assert_used(&service.requests());
    let calls = fs::read_to_string(home.path("bin/az.calls")).unwrap();
    assert!(calls.starts_with("account get-access-token "), "{calls}");
    // Nobody is signed in.
    home.program("bin/az", "", 1);
    let failed = home.tool(&["list", URL], &[&storage(&service)[..], &way].concat());
    assert!(!failed.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_a_part_of_each_request_and_of_no_message() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let signature = format!("?sv=2024-01-01&sp=rl&sig={SECRET}");
    home.succeed(&["list", URL], &[&storage(&service)[..], &[("AZURE_STORAGE_SAS_TOKEN", &signature)]].concat());
    let asked = service.requests();
    assert!(asked[0].target.contains(&format!("sig={SECRET}")), "{asked:?}");
    let refusing = Recorder::answering(|_| (403, "<Error><Code>AuthorizationFailure</Code></Error>".to_owned())).await;
    home.denied(URL, &[&storage(&refusing)[..], &[("AZURE_STORAGE_SAS_TOKEN", &signature)]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_string_says_where_and_as_whom() {
    let home = Home::new();
    let service = Recorder::answering(answer).await;
    let endpoint = service.endpoint();
    let text = format!("AccountName={AZURE_ACCOUNT};AccountKey={AZURE_KEY};BlobEndpoint={endpoint}/;");
    home.succeed(&["list", URL], &[("AZURE_STORAGE_CONNECTION_STRING", &text)]);
    let asked = service.requests();
    assert!(asked[0].header("authorization").starts_with(&format!("SharedKey {AZURE_ACCOUNT}:")), "{asked:?}");
}
