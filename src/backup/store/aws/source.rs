//! Where the credentials come from: checked before anything is sent.

use super::profile;
use crate::backup::store::client;
use crate::backup::store::environment::Environment;
use crate::error::Result;

const STATIC_KEYS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
const PROFILE: [&str; 2] = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"];
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";
const RELATIVE_URI: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL_URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const CONTAINER_TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// Who has the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The environment has them, or none are needed.
    Environment,
    /// The environment names who gives them.
    Service,
    /// The machine, if it has any: nothing else is there.
    Machine,
}

/// Finds missing credentials here, where the message can say what to set, and not after a minute of waiting for a
/// metadata service that is not there.
///
/// The first of these that is there counts: keys in the environment, the profile that it names, a web identity, a container's
/// address, the machine.
pub(super) fn check(label: &str, environment: &Environment, endpoint: Option<&str>) -> Result<Source> {
    let denied = |what: String| Err(client::denied(format!("no credentials for {label}: {what}")));
    let keys = STATIC_KEYS.map(|key| environment.value(key).is_some());
    if environment.is_true("AWS_SKIP_SIGNATURE") || keys == [true, true] {
        return Ok(Source::Environment);
    }
    if keys != [false, false] {
        let missing = if keys[0] { STATIC_KEYS[1] } else { STATIC_KEYS[0] };
        return denied(format!("{missing} is not set"));
    }
    if let Some(variable) = PROFILE.into_iter().find(|key| environment.value(key).is_some()) {
        return denied(format!(
            "{variable} is set, but profiles are not read; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
             (`aws configure export-credentials --format env` prints them)"
        ));
    }
    if environment.value(TOKEN_FILE).is_some() {
        return match environment.value("AWS_ROLE_ARN") {
            Some(_) => Ok(Source::Service),
            None => denied(format!("{TOKEN_FILE} is set, but AWS_ROLE_ARN is not")),
        };
    }
    if environment.value(RELATIVE_URI).is_some() {
        return Ok(Source::Service);
    }
    if environment.value(FULL_URI).is_some() {
        return match environment.value(CONTAINER_TOKEN_FILE) {
            Some(_) => Ok(Source::Service),
            None => denied(format!("{FULL_URI} is set, but it is only asked with {CONTAINER_TOKEN_FILE}")),
        };
    }
    // A machine in the cloud asks its metadata service, unless that is off or the store is not Amazon's.
    let foreign = endpoint.is_some_and(|endpoint| !endpoint.contains("amazonaws.com"));
    let machine = environment.value("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some();
    if environment.is_true("AWS_EC2_METADATA_DISABLED") || (foreign && !machine) {
        let unread = profile::file(environment).map(|file| format!("; {}", profile::unread(&file)));
        return denied(format!("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY{}", unread.unwrap_or_default()));
    }
    Ok(Source::Machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_suffices_and_what_is_missing() {
        let check = |pairs: &[(&str, &str)]| check("s3://b", &Environment::of(pairs), None);
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn")];
        let full = [(FULL_URI, "http://127.0.0.1/hunter2"), (CONTAINER_TOKEN_FILE, "/token")];
        for suffices in [&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")][..], &web, &full] {
            assert_eq!(check(suffices).unwrap(), Source::Service);
        }
        let keys = STATIC_KEYS.map(|key| (key, "a"));
        for suffices in [&keys[..], &[("AWS_SKIP_SIGNATURE", "true")]] {
            assert_eq!(check(suffices).unwrap(), Source::Environment);
        }
        assert_eq!(check(&[]).unwrap(), Source::Machine);
        for (missing, names) in [
            (&web[..1], "AWS_ROLE_ARN"),
            (&full[..1], CONTAINER_TOKEN_FILE),
            (&[("AWS_DEFAULT_PROFILE", "prod")], "AWS_DEFAULT_PROFILE"),
            (&[("AWS_EC2_METADATA_DISABLED", "true")], "AWS_ACCESS_KEY_ID"),
        ] {
            let error = check(missing).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains(names) && !error.report().contains("hunter2"), "{error}");
        }
    }
}
