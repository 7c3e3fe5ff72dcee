//! `gs://`: Google Cloud Storage, set up from the `GOOGLE_*` variables.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};

use super::client;
use super::credentials::Asked;
use super::environment::Environment;
use super::patience::Patient;
use crate::error::{Error, ErrorKind, Result};

/// Access tokens that Google's own tools and others read.
const TOKENS: [&str; 2] = ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"];

pub(super) fn open(bucket: &str, label: &str, environment: &Environment) -> Result<GoogleCloudStorage> {
    let token = TOKENS.iter().find_map(|key| environment.value(key));
    let file = default_credentials(environment);
    let explicit =
        ["SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"];
    let explicit = token.is_some() || explicit.iter().any(|key| environment.value(key).is_some());
    if let Some(file) = file.as_deref().filter(|_| !explicit) {
        check_file(label, file)?;
    }
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
    if let Some(file) = file.as_deref().and_then(Path::to_str).filter(|_| !explicit) {
        builder = builder.with_application_credentials(file);
    }
    if let Some(token) = token {
        builder = builder.with_bearer_token(token);
    }
    if environment.value("GOOGLE_BASE_URL").is_some_and(|url| url.starts_with("http://")) {
        let options = client::options(environment)?.with_allow_http(true);
        builder = builder.with_client_options(options);
    }
    let builder = builder.with_bucket_name(bucket);
    let refused = |error: object_store::Error| client::refused(label, &error);
    let store = builder.clone().build().map_err(refused)?;
    if token.is_some() {
        return Ok(store);
    }
    let asked = Asked::new(Arc::clone(store.credentials()));
    builder.with_credentials(Arc::new(asked)).build().map_err(refused)
}

/// The file with the application default credentials: named, or where `gcloud auth application-default login` writes it.
fn default_credentials(environment: &Environment) -> Option<PathBuf> {
    if let Some(named) = environment.value("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(named.into());
    }
    let folder = match (environment.value("CLOUDSDK_CONFIG"), environment.value("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(home).join(".config/gcloud"),
        (None, None) => return None,
    };
    let file = folder.join("application_default_credentials.json");
    file.exists().then_some(file)
}

/// Names what is not read: the error of a parser would not say what to do, and could quote what it parsed.
fn check_file(label: &str, file: &Path) -> Result<()> {
    let shown = file.display();
    let content = std::fs::read(file).map_err(|error| {
        client::denied(format!("no credentials for {label}: {shown} cannot be read")).with_source(Error::from(error))
    })?;
    let kind = serde_json::from_slice::<serde_json::Value>(&content).ok();
    match kind.as_ref().and_then(|document| document.get("type")?.as_str()) {
        Some("authorized_user" | "service_account") => Ok(()),
        Some(kind) => {
            let kind: String = kind.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
            Err(client::denied(format!(
                "no credentials for {label}: {shown} holds credentials of the kind `{kind}`, which are not read; use a service \
                 account or a user, or set GOOGLE_OAUTH_ACCESS_TOKEN (`gcloud auth print-access-token` prints one for an hour)"
            )))
        }
        None => {
            let message = format!("{shown} holds no credentials of Google Cloud");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(content: &str, others: &[(&str, &str)]) -> Result<GoogleCloudStorage> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("application_default_credentials.json"), content).unwrap();
        let found = [("CLOUDSDK_CONFIG", folder.path().to_str().unwrap())];
        open("b", "gs://b", &Environment::of(&[&found[..], others].concat()))
    }

    const USER: &str =
        r#"{"type": "authorized_user", "client_id": "a", "client_secret": "hunter2", "refresh_token": "b"}"#;

    #[test]
    fn application_default_credentials_of_a_user_are_read_where_gcloud_writes_them() {
        with_file(USER, &[]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("user.json");
        std::fs::write(&named, USER).unwrap();
        let named = [("GOOGLE_APPLICATION_CREDENTIALS", named.to_str().unwrap())];
        open("b", "gs://b", &Environment::of(&named)).unwrap();
    }

    #[test]
    fn credentials_that_are_not_read_are_named_and_not_shown() {
        let federated = r#"{"type": "external_account", "audience": "hunter2"}"#;
        let error = with_file(federated, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("`external_account`"), "{error}");
        assert!(!error.report().contains("hunter2"), "{}", error.report());
        with_file(federated, &[("GOOGLE_OAUTH_ACCESS_TOKEN", "token")]).unwrap();
        for broken in ["hunter2", "{}", r#"{"type": "authorized_user", "client_secret": "hunter2", "client_id": 1}"#] {
            let error = with_file(broken, &[]).unwrap_err();
            assert!(!error.report().contains("hunter2"), "{}", error.report());
        }
        let missing = [("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")];
        let error = open("b", "gs://b", &Environment::of(&missing)).unwrap_err();
        assert!(error.to_string().contains("/nowhere/key.json"), "{error}");
    }
}
