//! `az://`: Azure Blob Storage, set up from the `AZURE_*` variables.

use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};

use super::client;
use super::environment::Environment;
use super::patience::Patient;
use crate::error::Result;

const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT_NAME";

pub(super) fn open(
    container: &str,
    account: Option<&str>,
    label: &str,
    environment: &Environment,
) -> Result<MicrosoftAzure> {
    let emulator = environment
        .value("AZURE_STORAGE_USE_EMULATOR")
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
    // The short name is what Microsoft's own tools read.
    let account = account.or_else(|| environment.value(ACCOUNT)).or_else(|| environment.value("AZURE_STORAGE_ACCOUNT"));
    if account.is_none() && !emulator {
        return Err(client::denied(format!(
            "no account for {label}: set {ACCOUNT}, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN"
        )));
    }
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client::options(environment)?)
        .with_retry(client::no_retries())
        .with_http_connector(Patient);
    for (key, value) in environment.with_prefix("AZURE_") {
        if let Ok(key) = key.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(key) = environment.value("AZURE_STORAGE_KEY") {
        builder = builder.with_access_key(key);
    }
    if let Some(account) = account {
        builder = builder.with_account(account);
    }
    let endpoint = ["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"].iter().find_map(|key| environment.value(key));
    if emulator || endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    builder.with_container_name(container).build().map_err(|error| client::refused(label, &error))
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
}
