//! `az://`: Azure Blob Storage, set up from the `AZURE_*` variables.

use std::sync::Arc;

use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

use super::client;
use super::credentials::Asked;
use super::environment::Environment;
use super::patience::Patient;
use crate::error::Result;

const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT_NAME";
const CONNECTION: &str = "AZURE_STORAGE_CONNECTION_STRING";

pub(super) fn open(
    container: &str,
    account: Option<&str>,
    label: &str,
    environment: &Environment,
) -> Result<MicrosoftAzure> {
    let connection = Connection::of(environment.value(CONNECTION).unwrap_or_default())?;
    let emulator = environment.is_true("AZURE_STORAGE_USE_EMULATOR") || connection.development;
    // The short name is what Microsoft's own tools read.
    let account = account
        .or_else(|| environment.value(ACCOUNT))
        .or_else(|| environment.value("AZURE_STORAGE_ACCOUNT"))
        .or(connection.account);
    if account.is_none() && !emulator {
        return Err(client::denied(format!(
            "no account for {label}: set {ACCOUNT}, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or {CONNECTION}"
        )));
    }
    check_principal(label, environment)?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client::options(environment)?)
        .with_retry(client::no_retries())
        .with_http_connector(Patient);
    if let Some(key) = connection.key {
        builder = builder.with_access_key(key);
    }
    if let Some(signature) = connection.signature {
        builder = builder.with_config(AzureConfigKey::SasKey, signature);
    }
    for (key, value) in environment.with_prefix("AZURE_") {
        if let Ok(key) = key.parse() {
            // Kubernetes writes the host with a slash at its end, which would stand in the address twice.
            let is_host = matches!(key, AzureConfigKey::AuthorityHost);
            builder = builder.with_config(key, if is_host { value.trim_end_matches('/') } else { value });
        }
    }
    if let Some(key) = environment.value("AZURE_STORAGE_KEY") {
        builder = builder.with_access_key(key);
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    // Where App Service, Functions and Container Apps give a managed identity its tokens.
    if let Some(endpoint) = environment.value("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    let endpoint = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"].iter().find_map(|key| environment.value(key));
    let endpoint = endpoint.or(connection.endpoint);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    if emulator {
        builder = builder.with_use_emulator(true);
    }
    if emulator || endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    let builder = builder.with_container_name(container);
    let refused = |error: object_store::Error| client::refused(label, &error);
    let store = builder.clone().build().map_err(refused)?;
    let asked = Asked::new(Arc::clone(store.credentials()));
    builder.with_credentials(Arc::new(asked)).build().map_err(refused)
}

/// Finds a service principal that is only half there, or of a kind that is not read, before another identity is taken for it.
fn check_principal(label: &str, environment: &Environment) -> Result<()> {
    let others = ["AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"];
    let tenant = ["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID"].iter().any(|key| environment.value(key).is_some());
    if !tenant || others.iter().any(|key| environment.value(key).is_some()) {
        return Ok(());
    }
    let unread = ["AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME"];
    match unread.into_iter().find(|key| environment.value(key).is_some()) {
        Some(variable) => Err(client::denied(format!(
            "no credentials for {label}: {variable} is set, but service principals are read with a secret or a federated \
             token only: set AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE"
        ))),
        None => Ok(()),
    }
}

/// What a connection string says.
#[derive(Default)]
struct Connection<'a> {
    account: Option<&'a str>,
    key: Option<&'a str>,
    signature: Option<&'a str>,
    endpoint: Option<&'a str>,
    development: bool,
}

impl<'a> Connection<'a> {
    fn of(text: &'a str) -> Result<Self> {
        let mut found = Self::default();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                // The piece may be a part of a secret.
                return Err(client::denied(format!("{CONNECTION} is not a list of KEY=VALUE, divided by `;`")));
            };
            match key {
                "AccountName" => found.account = Some(value),
                "AccountKey" => found.key = Some(value),
                "SharedAccessSignature" => found.signature = Some(value),
                "BlobEndpoint" => found.endpoint = Some(value),
                "UseDevelopmentStorage" => found.development = value.eq_ignore_ascii_case("true"),
                // Protocol and suffix are those of the public cloud, the other services are not used.
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_account_comes_from_the_url_or_the_environment() {
        let key = ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==");
        let open = |account, pairs: &[(&str, &str)]| open("c", account, "az://c", &Environment::of(pairs));
        open(Some("acc"), &[key]).unwrap();
        open(None, &[key, ("AZURE_STORAGE_ACCOUNT", "acc")]).unwrap();
        open(None, &[("AZURE_STORAGE_USE_EMULATOR", "true")]).unwrap();
        let error = open(None, &[key]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("AZURE_STORAGE_ACCOUNT_NAME"), "{error}");
        let error = open(Some("acc"), &[("AZURE_STORAGE_ACCOUNT_KEY", "not base64 hunter2")]).unwrap_err();
        assert!(!error.report().contains("hunter2"), "{}", error.report());
    }
    #[test]
    fn a_connection_string_is_read_and_never_shown() {
        let key =
            "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=aHVudGVyMg==;EndpointSuffix=core.windows.net";
        let signed =
            "BlobEndpoint=https://acc.blob.core.windows.net/;AccountName=acc;SharedAccessSignature=sv=2024&sig=hunter2";
        for text in [key, signed, "UseDevelopmentStorage=true"] {
            open("c", None, "az://c", &Environment::of(&[(CONNECTION, text)])).unwrap();
        }
        let found = Connection::of(key).unwrap();
        assert_eq!((found.account, found.key), (Some("acc"), Some("aHVudGVyMg==")));
        let found = Connection::of(signed).unwrap();
        assert_eq!((found.signature, found.key), (Some("sv=2024&sig=hunter2"), None));
        let error = open("c", None, "az://c", &Environment::of(&[(CONNECTION, "hunter2")])).unwrap_err();
        assert!(error.to_string().contains(CONNECTION) && !error.report().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_principal_that_is_not_read_is_named() {
        let principal = [("AZURE_CLIENT_ID", "id"), ("AZURE_TENANT_ID", "tenant")];
        let certificate = ("AZURE_CLIENT_CERTIFICATE_PATH", "/pem");
        let open = |pairs: &[(&str, &str)]| open("c", Some("acc"), "az://c", &Environment::of(pairs));
        let error = open(&[principal[0], principal[1], certificate]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("AZURE_CLIENT_CERTIFICATE_PATH"), "{error}");
        open(&[principal[0], principal[1], certificate, ("AZURE_CLIENT_SECRET", "hunter2")]).unwrap();
        open(&principal).unwrap();
    }
}
