//! The client of one bucket.

use std::sync::Arc;

use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};

use super::profile;
use super::rules::{Rules, Style};
use super::source::{self, Source};
use crate::backup::store::client;
use crate::backup::store::credentials::Asked;
use crate::backup::store::environment::Environment;
use crate::backup::store::patience::Patient;
use crate::error::Result;

/// A bucket, and access to its rules.
#[derive(Debug)]
pub(in crate::backup::store) struct Bucket {
    pub(in crate::backup::store) store: Arc<AmazonS3>,
    pub(in crate::backup::store) rules: Arc<Rules>,
}

pub(in crate::backup::store) fn open(bucket: &str, label: &str, environment: &Environment) -> Result<Bucket> {
    let options = options(environment)?;
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|key| environment.value(key));
    let endpoint =
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|key| environment.value(key));
    let source = source::check(label, environment, endpoint)?;

    let mut builder = AmazonS3Builder::new()
        .with_client_options(options.clone())
        .with_retry(client::no_retries())
        .with_http_connector(Patient);
    for (key, value) in environment.with_prefix("AWS_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
        if endpoint.starts_with("http://") {
            builder = builder.with_allow_http(true);
        }
    }
    // What the AWS SDK calls it.
    if let Some(service) = environment.value("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
        builder = builder.with_metadata_endpoint(service.trim_end_matches('/'));
    }
    let builder = builder.with_bucket_name(bucket);
    let style = if environment.is_true("AWS_VIRTUAL_HOSTED_STYLE_REQUEST") { Style::VirtualHost } else { Style::Path };
    let refused = |error: object_store::Error| client::refused(label, &error);
    let mut store = builder.clone().build().map_err(refused)?;
    if source != Source::Environment {
        let mut asked = Asked::new(Arc::clone(store.credentials()));
        if source == Source::Machine {
            asked = asked.of_machine(profile::file(environment).map(|file| profile::unread(&file)));
        }
        store = builder.with_credentials(Arc::new(asked)).build().map_err(refused)?;
    }
    let store = Arc::new(store);
    let rules = Rules::new(Arc::clone(&store), bucket, label, region, endpoint, style, options);
    Ok(Bucket { store, rules: Arc::new(rules) })
}

/// Options of every client that is needed: of the bucket and of its rules.
fn options(environment: &Environment) -> Result<ClientOptions> {
    let mut options = client::options(environment)?;
    if let Some(proxy) = environment.value("AWS_PROXY_URL") {
        options = options.with_proxy_url(proxy);
    }
    if let Some(certificate) = environment.value("AWS_PROXY_CA_CERTIFICATE") {
        options = options.with_proxy_ca_certificate(certificate);
    }
    if let Some(hosts) = environment.value("AWS_PROXY_EXCLUDES") {
        options = options.with_proxy_excludes(hosts);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];

    fn outcome(pairs: &[(&str, &str)]) -> Result<Bucket> {
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
        let cases: [(&[(&str, &str)], &str); 5] = [
            (&[KEYS[0]], "AWS_SECRET_ACCESS_KEY is not set"),
            (&[KEYS[1]], "AWS_ACCESS_KEY_ID is not set"),
            (&[("AWS_PROFILE", "prod")], "AWS_PROFILE"),
            (&[("AWS_ENDPOINT", "http://127.0.0.1:1")], "set AWS_ACCESS_KEY_ID"),
            (&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")], "AWS_ROLE_ARN is not"),
        ];
        for (pairs, expected) in cases {
            let error = outcome(pairs).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.report().contains("hunter2"));
        }
    }
}
