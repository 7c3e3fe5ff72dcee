//! What the bucket itself does: with uploads that nobody finishes, and with what is deleted.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpConnector, HttpError, HttpRequest, HttpRequestBody};

use crate::backup::store::error::convert;
use crate::backup::store::patience::Patient;
use crate::backup::store::rules::{BucketRules, aborts_uploads};
use crate::error::{Error, ErrorKind, Result};

/// Where the bucket stands in an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Path,
    VirtualHost,
}

/// The rules of a bucket, asked with the credentials of its client.
pub(in crate::backup::store) struct Rules {
    store: Arc<AmazonS3>,
    options: ClientOptions,
    region: String,
    url: String,
    label: String,
}

impl Rules {
    pub(super) fn new(
        store: Arc<AmazonS3>,
        bucket: &str,
        label: &str,
        region: Option<&str>,
        endpoint: Option<&str>,
        style: Style,
        options: ClientOptions,
    ) -> Self {
        let region = region.unwrap_or("us-east-1").to_owned();
        let url = url(bucket, &region, endpoint, style);
        let options = options.with_allow_http(url.starts_with("http://"));
        Self { store, options, region, url, label: label.to_owned() }
    }
}

/// The address of a bucket, where `object_store` has it too.
fn url(bucket: &str, region: &str, endpoint: Option<&str>, style: Style) -> String {
    let endpoint = endpoint.map(|endpoint| endpoint.trim_end_matches('/'));
    match (endpoint, style) {
        (Some(endpoint), Style::Path) => format!("{endpoint}/{bucket}"),
        // It names the bucket.
        (Some(endpoint), Style::VirtualHost) => format!("{endpoint}/"),
        (None, Style::Path) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        (None, Style::VirtualHost) => format!("https://{bucket}.s3.{region}.amazonaws.com/"),
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({})", self.label)
    }
}

impl Rules {
    /// The answer to `?query`: its status and its document.
    async fn ask(&self, query: &str) -> Result<(u16, String)> {
        let refused = |what: String| Error::new(ErrorKind::Unavailable, format!("{}: {what}", self.label));
        let read = |error: object_store::Error| convert(&error, "read the rules of", &self.label);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            format!("{}?{query}", self.url).parse().map_err(|_| refused("its endpoint is no URL".to_owned()))?;
        let credential = self.store.credentials().get_credential().await.map_err(read)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None).map_err(read)?;
        let client = Patient.connect(&self.options).map_err(read)?;
        // The error of the client may hold the whole URL; its kind says enough.
        let unsent = |error: HttpError| refused(format!("no answer: {:?}", error.kind()));
        let response = client.execute(request).await.map_err(unsent)?;
        let status = response.status().as_u16();
        let body = response.into_body().bytes().await.map_err(unsent)?;
        match status {
            401 | 403 => Err(Error::new(ErrorKind::Denied, format!("{}: the credentials do not suffice", self.label))),
            status => Ok((status, String::from_utf8_lossy(&body).into_owned())),
        }
    }

    fn unexpected(&self, status: u16) -> Error {
        // What a store does not know it will not learn.
        let kind = if status < 500 || status == 501 { ErrorKind::Invalid } else { ErrorKind::Unavailable };
        Error::new(kind, format!("{}: the store answers with status {status}", self.label))
    }
}

#[async_trait]
impl BucketRules for Rules {
    async fn ends_unfinished_uploads(&self, prefix: &str) -> Result<bool> {
        match self.ask("lifecycle").await? {
            (200, body) => Ok(aborts_uploads(&body, prefix)),
            (404, body) if body.contains("NoSuchLifecycleConfiguration") => Ok(false),
            (status, _) => Err(self.unexpected(status)),
        }
    }

    async fn keeps_versions(&self) -> Result<bool> {
        match self.ask("versioning").await? {
            // One whose versioning was suspended keeps those that it has.
            (200, body) => Ok(body.contains("<Status>")),
            (status, _) => Err(self.unexpected(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_stands_in_the_path_or_in_the_host() {
        let other = Some("http://127.0.0.1:1/");
        assert_eq!(url("b", "eu-west-1", None, Style::Path), "https://s3.eu-west-1.amazonaws.com/b");
        assert_eq!(url("b", "eu-west-1", None, Style::VirtualHost), "https://b.s3.eu-west-1.amazonaws.com/");
        assert_eq!(url("b", "eu-west-1", other, Style::Path), "http://127.0.0.1:1/b");
        assert_eq!(url("b", "eu-west-1", Some("http://b.example"), Style::VirtualHost), "http://b.example/");
    }
}
