//! Where a store is: URLs and paths as users write them, parsed once and printable without secrets.

use std::path::PathBuf;

use object_store::path::Path;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// A place that backups are kept in, as written by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Local(PathBuf),
    Memory { name: String, prefix: Path },
    S3 { bucket: String, prefix: Path },
    Azure { container: String, account: Option<String>, prefix: Path },
    Gcs { bucket: String, prefix: Path },
}

/// Where a backup lasts: not `memory://`, which is for programs that know it, and for tests.
const FORMS: &str = "use s3://BUCKET/PREFIX, az://CONTAINER/PREFIX, gs://BUCKET/PREFIX, file:///PATH, or a plain path";

impl Location {
    pub(super) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(invalid(format!("the store's URL is empty; {FORMS}")));
        }
        let Some((scheme, rest)) = split_scheme(text) else { return local_path(text) };
        let shown = redact(text);
        if !rest.starts_with("//") && scheme != "file" && scheme != "memory" {
            return Err(invalid(format!("`{shown}` lacks the two slashes after `{scheme}:`; {FORMS}")));
        }
        let url =
            Url::parse(text).map_err(|error| invalid(format!("`{shown}` is not a valid URL ({error}); {FORMS}")))?;
        if url.password().is_some() || (!url.username().is_empty() && !matches!(scheme, "abfs" | "abfss" | "az")) {
            return Err(invalid(format!(
                "`{shown}` was given with a user name or password; credentials come from the environment"
            )));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(format!(
                "`{shown}` was given with `?` or `#`; settings and credentials come from the environment"
            )));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let prefix = || {
            Path::from_url_path(url.path()).map_err(|error| invalid(format!("`{shown}` has no usable path ({error})")))
        };
        let bucket = |what: &str| {
            if host.is_empty() { Err(invalid(format!("`{shown}` names no {what}; {FORMS}"))) } else { Ok(host.clone()) }
        };
        match scheme {
            "file" if host.is_empty() => {
                let path = url.to_file_path().map_err(|()| invalid(format!("`{shown}` is not a local path")))?;
                Ok(Self::Local(path))
            }
            "file" => Err(invalid(format!("`{shown}` names a host; a file URL has three slashes: file:///PATH"))),
            "memory" => Ok(Self::Memory { name: host.clone(), prefix: prefix()? }),
            "s3" | "s3a" => Ok(Self::S3 { bucket: bucket("bucket")?, prefix: prefix()? }),
            "gs" | "gcs" => Ok(Self::Gcs { bucket: bucket("bucket")?, prefix: prefix()? }),
            "az" | "azure" | "abfs" | "abfss" => azure(&url, bucket("container")?, prefix()?),
            "https" => azure_https(&url, &shown),
            _ => Err(invalid(format!("`{scheme}://` is not a kind of store; {FORMS}"))),
        }
    }

    /// The place as a URL that is safe to print.
    pub(super) fn label(&self) -> String {
        let join = |base: String, prefix: &Path| if prefix.is_root() { base } else { format!("{base}/{prefix}") };
        match self {
            Self::Local(path) => format!("file://{}", path.display()),
            Self::Memory { name, prefix } => join(format!("memory://{name}"), prefix),
            Self::S3 { bucket, prefix } => join(format!("s3://{bucket}"), prefix),
            Self::Azure { container, prefix, .. } => join(format!("az://{container}"), prefix),
            Self::Gcs { bucket, prefix } => join(format!("gs://{bucket}"), prefix),
        }
    }
}

/// A URL as it may be shown: without user name, password, query and fragment.
pub(super) fn redact(text: &str) -> String {
    // One that lacks its slashes is refused, with all that is in it.
    let Some((_, rest)) = text.split_once("://").or_else(|| split_scheme(text)) else { return text.to_owned() };
    let rest = rest.trim_start_matches('/');
    let before = &text[..text.len() - rest.len()];
    // A secret may have any of the characters that end it in a URL.
    let (secret, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let shown = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{before}{secret}{shown}")
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

/// `scheme:` of at least two letters; one letter would be a drive.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let known = matches!(scheme, "file" | "memory" | "s3" | "s3a" | "gs" | "gcs" | "az" | "azure" | "abfs" | "abfss");
    let looks_so = scheme.len() > 1
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (looks_so && (known || rest.starts_with("//"))).then_some((scheme, rest))
}

fn local_path(text: &str) -> Result<Location> {
    let path = std::path::absolute(text).map_err(|error| {
        invalid(format!("`{text}` cannot be made an absolute path")).with_source(Error::from(error))
    })?;
    Ok(Location::Local(path))
}

fn azure(url: &Url, host: String, prefix: Path) -> Result<Location> {
    if url.username().is_empty() {
        return Ok(Location::Azure { container: host, account: None, prefix });
    }
    // abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX
    let account = host.split('.').next().unwrap_or_default().to_owned();
    Ok(Location::Azure { container: url.username().to_owned(), account: Some(account), prefix })
}

fn azure_https(url: &Url, shown: &str) -> Result<Location> {
    let host = url.host_str().unwrap_or_default();
    let account = host.strip_suffix(".blob.core.windows.net").or_else(|| host.strip_suffix(".dfs.core.windows.net"));
    let Some(account) = account else {
        return Err(invalid(format!("`{shown}` is not an Azure Blob address, the only https:// form; {FORMS}")));
    };
    let path = url.path().trim_start_matches('/');
    let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
    if container.is_empty() {
        return Err(invalid(format!("`{shown}` names no container")));
    }
    let prefix =
        Path::from_url_path(prefix).map_err(|error| invalid(format!("`{shown}` has no usable path ({error})")))?;
    Ok(Location::Azure { container: container.to_owned(), account: Some(account.to_owned()), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> String {
        Location::parse(text).unwrap().label()
    }

    #[test]
    fn every_documented_form_is_understood() {
        assert_eq!(label("s3://b/a/c/"), "s3://b/a/c");
        assert_eq!(label("s3://b"), "s3://b");
        assert_eq!(label("gs://b/x"), "gs://b/x");
        assert_eq!(label("az://c/x"), "az://c/x");
        assert_eq!(label("azure://c/x"), "az://c/x");
        assert_eq!(label("memory://"), "memory://");
        assert_eq!(label("memory:///x"), "memory:///x");
        assert_eq!(label("file:///a/b%20c"), "file:///a/b c");
        assert_eq!(label("/a/b"), "file:///a/b");
        assert_eq!(label("/a:b/c"), "file:///a:b/c");
        assert!(label("relative/dir").ends_with("/relative/dir"));
        for text in ["abfss://c@acc.dfs.core.windows.net/p", "https://acc.blob.core.windows.net/c/p"] {
            let expected =
                Location::Azure { container: "c".into(), account: Some("acc".into()), prefix: Path::from("p") };
            assert_eq!(Location::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_forms_that_can() {
        for text in
            ["", "s3:/b/x", "s3://", "s3:///x", "ftp://h/x", "file://host/x", "https://example.com/x", "http://h"]
        {
            let error = Location::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            let told = error.to_string();
            assert!(!told.is_empty() && !told.contains("memory://"), "{told}");
        }
    }

    #[test]
    fn secrets_in_a_url_are_refused_and_never_shown() {
        for text in [
            "s3://user:hunter2@b/x",
            "s3://hunter2@b/x",
            "az://c/x?sig=hunter2",
            "https://a.blob.core.windows.net/c?sig=hunter2",
            "s3://hunter2:hunter2@[bad/x",
            "nope://u:hunter2@h/x",
            "s3:hunter2:hunter2@b/x",
            "s3:/hunter2:hunter2@b/x",
            "s3://u:hun/hunter2@b/x",
            "s3://hunter2:hun#hunter2@b/x",
            "s3://hunter2:hun?hunter2@b/x",
            "s3://b/x?a=hunter2#hunter2@b",
        ] {
            let error = Location::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            assert!(!error.report().contains("hunter2"), "{}", error.report());
        }
    }
}
