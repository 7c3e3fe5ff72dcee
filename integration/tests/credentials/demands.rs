//! What buckets demand: asserted where it arrives.

use integration::place::Place;
use integration::recorder::{Recorder, Request};
use integration::server::Kind;

use super::support::{Home, TlsFront};

const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")];

/// Variables and their values, or headers and theirs.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// The requests of a backup with one segment in parts and one in a single piece, and of its restore.
async fn requests(environment: Pairs<'_>) -> Vec<Request> {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let recorder = Recorder::before(Kind::Moto.endpoint()).await;
    let url = place.url();
    let (large, small) = (home.path("large"), home.write("small", "a few bytes"));
    let content = integration::data::Pattern::new(7, 0, integration::data::Entropy::Random).bytes(0, 9 << 20);
    std::fs::write(&large, &content).unwrap();
    let there = [&KEYS[..], &[("AWS_ENDPOINT_URL", recorder.endpoint())], environment].concat();
    home.succeed(&["backup", &url, "--input", &large, "--input", &small, "--quiet"], &there);
    let outputs = [home.path("out1"), home.path("out2")];
    home.succeed(&["restore", &url, "latest", "--output", &outputs[0], "--output", &outputs[1], "--quiet"], &there);
    assert!(std::fs::read(&outputs[0]).unwrap() == content);
    recorder.requests()
}

/// Requests of each kind; there is one at least.
fn of<'a>(asked: &'a [Request], is: impl Fn(&Request) -> bool + 'a) -> impl Iterator<Item = &'a Request> {
    let found: Vec<&Request> = asked.iter().filter(|request| is(request)).collect();
    assert!(!found.is_empty(), "{asked:?}");
    found.into_iter()
}

fn is_part(request: &Request) -> bool {
    request.method == "PUT" && request.target.contains("partNumber=")
}

fn is_begun(request: &Request) -> bool {
    request.method == "POST" && request.target.contains("?uploads")
}

fn is_segment(request: &Request) -> bool {
    request.method == "PUT" && request.target.ends_with(".zst")
}

fn is_document(request: &Request) -> bool {
    request.method == "PUT" && request.target.ends_with(".json")
}

fn is_read(request: &Request) -> bool {
    request.method == "GET" && request.target.contains(".zst")
}

fn assert_sent(request: &Request, name: &str, value: &str) {
    assert_eq!(request.header(name), value, "{name} of {request:?}");
    assert!(request.signs(name), "{name} of {request:?} is not signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn class_and_tags_go_with_what_is_put() {
    let asked = requests(&[("VDSTREAM_STORAGE_CLASS", "STANDARD_IA"), ("VDSTREAM_TAGS", "team=dba,cost=42")]).await;
    for request in of(&asked, |request| is_begun(request) || is_segment(request)) {
        assert_sent(request, "x-amz-storage-class", "STANDARD_IA");
        assert_sent(request, "x-amz-tagging", "team=dba&cost=42");
    }
    of(&asked, is_begun).next();
    of(&asked, is_segment).next();
    for request in of(&asked, is_document) {
        assert_eq!(request.header("x-amz-storage-class"), "", "listing must not wait for a thaw: {request:?}");
        assert_sent(request, "x-amz-tagging", "team=dba&cost=42");
    }
    for request in of(&asked, |request| is_part(request) || is_read(request)) {
        assert_eq!((request.header("x-amz-storage-class"), request.header("x-amz-tagging")), ("", ""));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_encrypts_with_its_key_or_with_a_named_one() {
    let key = "arn:aws:kms:us-east-1:123456789012:key/abc";
    let ways: [(Pairs<'_>, Pairs<'_>); 2] = [
        (&[("AWS_SERVER_SIDE_ENCRYPTION", "AES256")], &[("x-amz-server-side-encryption", "AES256")]),
        (
            &[
                ("AWS_SERVER_SIDE_ENCRYPTION", "aws:kms"),
                ("AWS_SSE_KMS_KEY_ID", key),
                ("AWS_SSE_BUCKET_KEY_ENABLED", "true"),
            ],
            &[
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-amz-server-side-encryption-aws-kms-key-id", key),
                ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
            ],
        ),
    ];
    for (way, sent) in ways {
        let asked = requests(way).await;
        for request in of(&asked, |request| is_begun(request) || is_segment(request) || is_document(request)) {
            for (name, value) in sent {
                assert_sent(request, name, value);
            }
        }
        for request in of(&asked, is_read) {
            assert_eq!(request.header(sent[0].0), "", "{request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_customer_goes_with_every_request_for_content() {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let asked = requests(&[("AWS_SERVER_SIDE_ENCRYPTION", "sse-c"), ("AWS_SSE_CUSTOMER_KEY_BASE64", key)]).await;
    let kinds = [is_begun, is_segment, is_document, is_part, is_read];
    for kind in kinds {
        for request in of(&asked, kind) {
            assert_sent(request, "x-amz-server-side-encryption-customer-algorithm", "AES256");
            assert_sent(request, "x-amz-server-side-encryption-customer-key", key);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requester_pays_for_every_request() {
    let asked = requests(&[("AWS_REQUEST_PAYER", "requester")]).await;
    for request in &asked {
        assert_sent(request, "x-amz-request-payer", "requester");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_stands_in_the_path_or_in_the_host() {
    let home = Home::new();
    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    // Nothing may be written.
    let service = Recorder::answering(move |request| match request.method.as_str() {
        "GET" => (200, empty.to_owned()),
        _ => (403, String::new()),
    })
    .await;
    let there = [&KEYS[..], &[("AWS_ENDPOINT_URL", service.endpoint())]].concat();
    home.succeed(&["list", "s3://bucket/x"], &there);
    home.succeed(&["list", "s3://bucket/x"], &[&there[..], &[("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")]].concat());
    let asked = service.requests();
    let (first, last) = (&asked[0].target, &asked[asked.len() - 1].target);
    assert!(first.starts_with("/bucket?"), "{asked:?}");
    assert!(last.starts_with("/?"), "the endpoint names the bucket: {asked:?}");
    // The rules of the bucket are asked where it is.
    for (style, bucket) in [("false", "/bucket"), ("true", "/")] {
        let before = service.requests().len();
        let there = [&there[..], &[("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", style)]].concat();
        home.tool(&["doctor", "s3://bucket/x"], &there);
        let asked: Vec<String> = service.requests()[before..].iter().map(|request| request.target.clone()).collect();
        let rules = asked.iter().filter(|target| target.contains("lifecycle") || target.contains("versioning"));
        assert!(rules.eq(&[format!("{bucket}?lifecycle"), format!("{bucket}?versioning")]), "{style}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_asked_for_the_store() {
    let home = Home::new();
    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let proxy = Recorder::answering(move |_| (200, empty.to_owned())).await;
    let store = ("AWS_ENDPOINT_URL", "http://storage.invalid");
    for variable in ["AWS_PROXY_URL", "HTTP_PROXY"] {
        home.succeed(&["list", "s3://bucket/x"], &[&KEYS[..], &[store, (variable, proxy.endpoint())]].concat());
        let asked = proxy.requests();
        assert!(asked.last().unwrap().target.starts_with("http://storage.invalid/bucket?"), "{variable}: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_if_it_is_named() {
    let place = Place::server(Kind::Moto).await;
    let home = Home::new();
    let front = TlsFront::before(Kind::Moto.endpoint(), &home);
    let mut there = place.environment_at(&front.endpoint);

    let unknown = there.clone();
    there.push(("AWS_CA_BUNDLE", front.authority.clone()));
    fn pairs<'a>(there: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
        there.iter().map(|(key, value)| (*key, value.as_str())).collect()
    }
    home.round_trip(&place.url(), &pairs(&there));
    let refused = home.tool(&["list", &place.url()], &pairs(&unknown));
    assert_eq!(refused.status.code(), Some(5), "a certificate that nobody vouches for");
}
