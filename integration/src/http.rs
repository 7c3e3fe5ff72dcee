//! Signed requests that `object_store` has no call for.

use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};

use crate::server::{AZURE_ACCOUNT, AZURE_KEY, Kind, S3_KEY_ID, S3_REGION, S3_SECRET};

/// A server's answer: the status, and the body as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// The texts of all `<name>` elements, in order. Enough for flat listings.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let pieces = self.body.split(&open).skip(1);
        pieces.filter_map(|piece| Some(piece.split_once(&close)?.0.to_owned())).collect()
    }
}

/// Sends a request without a body to a server, signed with the constants of the tests.
///
/// # Panics
///
/// When there is no answer.
pub(crate) async fn request(kind: Kind, endpoint: &str, method: &str, path: &str) -> Answer {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = format!("{endpoint}{path}").parse().expect("a URL");
    match kind {
        Kind::Garage | Kind::Moto => {
            let credential =
                AwsCredential { key_id: S3_KEY_ID.to_owned(), secret_key: S3_SECRET.to_owned(), token: None };
            let authorizer = AwsAuthorizer::new(&credential, "s3", S3_REGION);
            authorizer.try_authorize(&mut request, None).expect("an unsigned request can be signed");
        }
        Kind::Azurite => {
            let key = AzureAccessKey::try_new(AZURE_KEY).expect("the well-known key");
            let credential = AzureCredential::AccessKey(key);
            // Shared-key signatures cover this header even when there is no body.
            let authorizer = AzureAuthorizer::new(&credential, AZURE_ACCOUNT);
            authorizer.try_authorize(&mut request).expect("an unsigned request can be signed");
        }
    }
    let options = ClientOptions::new().with_allow_http(true);
    let client = ReqwestConnector::default().connect(&options).expect("an HTTP client");
    let response = client.execute(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    let status = response.status().as_u16();
    let body = response.into_body().bytes().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
    Answer { status, body: String::from_utf8_lossy(&body).into_owned() }
}
