//! `gs://`: Google Cloud Storage, set up from the `GOOGLE_*` variables.

use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};

use super::client;
use super::environment::Environment;
use super::patience::Patient;
use crate::error::Result;

/// Access tokens that Google's own tools and others read.
const TOKENS: [&str; 2] = ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"];

pub(super) fn open(bucket: &str, label: &str, environment: &Environment) -> Result<GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client::options(environment)?)
        .with_retry(client::no_retries())
        .with_http_connector(Patient);
    if let Some(path) = environment.value("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (key, value) in environment.with_prefix("GOOGLE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(token) = TOKENS.iter().find_map(|key| environment.value(key)) {
        builder = builder.with_bearer_token(token);
    }
    if environment.value("GOOGLE_BASE_URL").is_some_and(|url| url.starts_with("http://")) {
        let options = client::options(environment)?.with_allow_http(true);
        builder = builder.with_client_options(options);
    }
    builder.with_bucket_name(bucket).build().map_err(|error| client::refused(label, &error))
}
