//! What all network stores have in common: limits on time, and no retries of their own.

use std::time::Duration;

use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use super::environment::Environment;
use crate::error::{Error, ErrorKind, Result};

/// Connecting takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Client options without limits on whole requests: the default of 30 seconds would end large parts on slow links. The limits
/// of `patience` know how large a request is.
pub(super) fn options(environment: &Environment) -> Result<ClientOptions> {
    let mut options =
        ClientOptions::new().with_timeout_disabled().with_read_timeout_disabled().with_connect_timeout(CONNECT_TIMEOUT);
    if let Some(path) = environment.value("AWS_CA_BUNDLE") {
        let pem = std::fs::read(path).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("AWS_CA_BUNDLE names `{path}`, which cannot be read"))
                .with_source(error)
        })?;
        let certificates = object_store::Certificate::from_pem_bundle(&pem).map_err(|_error| {
            Error::new(ErrorKind::Invalid, format!("AWS_CA_BUNDLE names `{path}`, which holds no certificates"))
        })?;
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

/// No retries inside `object_store`; the pipeline and `retry.rs` retry.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO }
}

pub(super) fn denied(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Denied, message)
}

/// Refused settings; the foreign text names keys, not values of secrets, but may repeat a whole URL.
pub(super) fn refused(label: &str, error: &object_store::Error) -> Error {
    let converted = super::error::convert(error, "open", label);
    Error::new(ErrorKind::Invalid, format!("the settings in the environment do not suffice to open {label}"))
        .with_source(converted)
}
