//! `s3://`: Amazon S3 and compatible stores, set up from the `AWS_*` variables.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody};

use super::client;
use super::environment::Environment;
use super::error::convert;
use super::patience::Patient;
use super::rules::{BucketRules, aborts_uploads};
use crate::error::{Error, ErrorKind, Result};

const STATIC_KEYS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
/// Other places that credentials may come from, in the order in which they are asked.
const OTHER_SOURCES: [&str; 3] =
    ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];

pub(super) fn open(bucket: &str, label: &str, environment: &Environment) -> Result<AmazonS3> {
    check_credentials(label, environment)?;
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client::options(environment)?)
        .with_retry(client::no_retries())
        .with_http_connector(Patient);
    for (key, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if endpoint(environment).is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder.with_bucket_name(bucket).build().map_err(|error| client::refused(label, &error))
}

/// The rules of `bucket`, asked with the credentials of `store`.
pub(super) fn rules(
    store: Arc<AmazonS3>,
    bucket: &str,
    label: &str,
    environment: &Environment,
) -> Result<Arc<dyn BucketRules>> {
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|key| environment.value(key));
    let region = region.unwrap_or("us-east-1").to_owned();
    let endpoint = match endpoint(environment) {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    let options = client::options(environment)?.with_allow_http(endpoint.starts_with("http://"));
    Ok(Arc::new(Rules { store, options, region, url: format!("{endpoint}/{bucket}"), label: label.to_owned() }))
}

struct Rules {
    store: Arc<AmazonS3>,
    options: object_store::ClientOptions,
    region: String,
    url: String,
    label: String,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules({})", self.label)
    }
}

#[async_trait]
impl BucketRules for Rules {
    async fn ends_unfinished_uploads(&self) -> Result<bool> {
        let refused = |what: String| Error::new(ErrorKind::Unavailable, format!("{}: {what}", self.label));
        let read = |error: object_store::Error| convert(&error, "read the lifecycle rules of", &self.label);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            format!("{}?lifecycle", self.url).parse().map_err(|_| refused("its endpoint is no URL".to_owned()))?;
        let credential = self.store.credentials().get_credential().await.map_err(read)?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(&mut request, None).map_err(read)?;
        let client = Patient.connect(&self.options).map_err(read)?;
        // The error of the client may hold the whole URL; its kind says enough.
        let unsent = |error: object_store::client::HttpError| refused(format!("no answer: {:?}", error.kind()));
        let response = client.execute(request).await.map_err(unsent)?;
        let status = response.status().as_u16();
        let body = response.into_body().bytes().await.map_err(unsent)?;
        let body = String::from_utf8_lossy(&body);
        match status {
            200 => Ok(aborts_uploads(&body)),
            404 if body.contains("NoSuchLifecycleConfiguration") => Ok(false),
            401 | 403 => Err(Error::new(ErrorKind::Denied, format!("{}: the credentials do not suffice", self.label))),
            status => Err(refused(format!("the store answers with status {status}"))),
        }
    }
}

fn endpoint(environment: &Environment) -> Option<&str> {
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|key| environment.value(key))
}

/// Finds missing credentials here, where the message can say what to set, and not after a minute of waiting for a
/// metadata service that is not there.
fn check_credentials(label: &str, environment: &Environment) -> Result<()> {
    let skip = environment.value("AWS_SKIP_SIGNATURE").is_some_and(is_true);
    let keys = STATIC_KEYS.map(|key| environment.value(key).is_some());
    if skip || keys == [true, true] || (keys == [false, false] && environment.has_any(&OTHER_SOURCES)) {
        return Ok(());
    }
    if keys != [false, false] {
        let missing = if keys[0] { STATIC_KEYS[1] } else { STATIC_KEYS[0] };
        return Err(client::denied(format!("no credentials for {label}: {missing} is not set")));
    }
    if environment.value("AWS_PROFILE").is_some() {
        return Err(client::denied(format!(
            "no credentials for {label}: AWS_PROFILE is set, but profiles are not read; \
             set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (`aws configure export-credentials --format env` prints them)"
        )));
    }
    // A machine in the cloud asks its metadata service, unless that is off or the store is not Amazon's.
    let no_metadata = environment.value("AWS_EC2_METADATA_DISABLED").is_some_and(is_true);
    if no_metadata || endpoint(environment).is_some_and(|endpoint| !endpoint.contains("amazonaws.com")) {
        return Err(client::denied(format!(
            "no credentials for {label}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )));
    }
    Ok(())
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

    fn outcome(pairs: &[(&str, &str)]) -> Result<AmazonS3> {
        open("b", "s3://b", &Environment::of(pairs))
    }

    #[test]
    fn keys_and_an_endpoint_suffice() {
        outcome(&KEYS).unwrap();
        outcome(&[KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_REGION", "garage")]).unwrap();
        outcome(&[("AWS_SKIP_SIGNATURE", "true")]).unwrap();
    }

    #[test]
    fn missing_credentials_are_told_at_once() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[KEYS[0]], "AWS_SECRET_ACCESS_KEY is not set"),
            (&[KEYS[1]], "AWS_ACCESS_KEY_ID is not set"),
            (&[("AWS_PROFILE", "prod")], "profiles are not read"),
            (&[("AWS_ENDPOINT", "http://127.0.0.1:1")], "set AWS_ACCESS_KEY_ID"),
        ];
        for (pairs, expected) in cases {
            let error = outcome(pairs).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.report().contains("hunter2"));
        }
    }
}
