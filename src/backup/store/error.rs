//! What a store's failure means to the caller: the one place that reads `object_store` errors.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::error::{Error, ErrorKind};

/// Converts a failure of `action` on `object` (a name that is safe to print).
///
/// The foreign error itself is not kept: its text may hold whole server answers and request addresses. What a person
/// needs of it (status, the server's code and message, the operating system's words) is.
pub(crate) fn convert(error: &object_store::Error, action: &str, object: &str) -> Error {
    let facts = Facts::of(error);
    let (kind, text) = classify(error, &facts);
    let has_refused = kind == ErrorKind::Throttled && facts.asks_to_slow_down();
    let is_without_effect = has_refused || facts.lacks_credentials();
    Error::new(kind, format!("cannot {action} {object}")).with_source(Cause { text, is_without_effect })
}

/// True if a request that failed so may have had its effect all the same, or may have it later.
///
/// A store that asks to slow down has refused. A bare 503 is no such answer: a proxy gives it too when it has lost the store to
/// which it had handed the request on. Without credentials nothing was sent.
pub(crate) fn may_have_worked(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<Cause>());
    error.is_retryable() && !cause.is_some_and(|cause| cause.is_without_effect)
}

/// The cause beneath a store error, already cleaned.
#[derive(Debug)]
struct Cause {
    text: String,
    /// The request was refused in the store's own words, or not even sent.
    is_without_effect: bool,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {}

fn classify(error: &object_store::Error, facts: &Facts) -> (ErrorKind, String) {
    use object_store::Error as E;
    if facts.lacks_credentials() {
        return facts.without_credentials(error);
    }
    let kind = match error {
        // Azure answers 409 where others say 403: a policy or a legal hold keeps the blob as it is.
        _ if facts.is_locked() => ErrorKind::Denied,
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => ErrorKind::Conflict,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::InvalidPath { .. }
        | E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        E::JoinError { .. } => ErrorKind::Internal,
        _ => facts.kind(),
    };
    (kind, facts.describe(error))
}

/// What the chain of a foreign error tells.
#[derive(Debug, Default)]
struct Facts {
    io: Option<(io::ErrorKind, String)>,
    status: Option<u16>,
    /// The server's `<Code>` and `<Message>`, if it answered with a document.
    code: Option<String>,
    message: Option<String>,
    /// An error document in an answer of status 200.
    error_in_success: bool,
    bare_redirect: bool,
    /// Credentials were asked for, and did not come.
    not_given: bool,
    /// Nor did they ever before.
    never_given: bool,
    /// They were asked of the machine's metadata service, wherever that is.
    by_machine: bool,
    /// They were asked of it where it is on every machine.
    at_machine: bool,
    at_container: bool,
    /// What to tell of profiles that were not read.
    unread: Option<String>,
    /// `object_store`'s memory store has no error of its own for an upload that is not there.
    no_such_upload: bool,
    /// Written to a file that the disk did not take.
    is_lost: bool,
    deepest: String,
}

impl Facts {
    fn of(error: &object_store::Error) -> Self {
        let mut facts = Self::default();
        let mut layer: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(current) = layer {
            if let Some(io) = current.downcast_ref::<io::Error>() {
                facts.io = Some((io.kind(), io.to_string()));
            }
            let text = current.to_string();
            if facts.status.is_none() {
                facts.status = status_in(&text);
            }
            if facts.code.is_none() {
                facts.code = element(&text, "Code");
                facts.message = element(&text, "Message");
            }
            if facts.code.is_none()
                && let Some((code, message)) = of_batch(&text)
            {
                // Azure has the status of the single answer there, S3 a word.
                facts.status = code.parse().ok().or(facts.status);
                facts.code = Some(code).filter(|code| code.parse::<u16>().is_err());
                facts.message = Some(message);
            }
            facts.error_in_success |= text.contains("Server returned error response");
            facts.bare_redirect |= text.contains("redirect without LOCATION");
            facts.at_machine |= MACHINES.iter().any(|place| text.contains(place));
            facts.at_container |= text.contains(CONTAINERS);
            #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
            if let Some(not_given) = current.downcast_ref::<super::credentials::NotGiven>() {
                (facts.not_given, facts.never_given) = (true, !not_given.ever_given);
                (facts.by_machine, facts.unread) = (not_given.by_machine, not_given.unread.clone());
            }
            #[cfg(feature = "fs")]
            {
                facts.is_lost |= current.is::<super::local::Lost>();
            }
            facts.no_such_upload |= text.starts_with("MultipartUpload not found");
            facts.deepest = text;
            layer = current.source();
        }
        facts
    }

    fn kind(&self) -> ErrorKind {
        if let Some((kind, _)) = &self.io {
            return io_kind(*kind);
        }
        if self.bare_redirect {
            return ErrorKind::Invalid;
        }
        // The same call would find the same file.
        if self.is_lost {
            return ErrorKind::Closed;
        }
        if self.no_such_upload {
            return ErrorKind::NotFound;
        }
        match (self.status, self.code.as_deref()) {
            _ if self.asks_to_slow_down() => ErrorKind::Throttled,
            (Some(503), _) => ErrorKind::Throttled,
            (_, Some("NoSuchUpload")) => ErrorKind::NotFound,
            (_, Some("RequestTimeout")) => ErrorKind::Unavailable,
            (
                _,
                Some("AccessDenied" | "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch"),
            ) => ErrorKind::Denied,
            (Some(401 | 403), _) => ErrorKind::Denied,
            (Some(404), _) => ErrorKind::NotFound,
            (Some(409 | 412), _) => ErrorKind::Conflict,
            (Some(507), _) | (_, Some("QuotaExceeded" | "EntityTooLarge")) => ErrorKind::Exhausted,
            (Some(408), _) => ErrorKind::Unavailable,
            (Some(status), _) if (300..500).contains(&status) || status == 501 => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }

    /// A caller's store tells it by the address only.
    fn lacks_credentials(&self) -> bool {
        self.not_given || self.at_machine || self.at_container
    }

    /// Kind and text of a failure to get credentials.
    ///
    /// Who is not there and never was will not come. Whoever is there, or was, may pass as a store may: too many ask it, it is
    /// started anew. If it answers that there are none, that is final.
    fn without_credentials(&self, error: &object_store::Error) -> (ErrorKind, String) {
        let advice = self.unread.as_deref().unwrap_or(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or \
             AZURE_USE_AZURE_CLI=true, or GOOGLE_APPLICATION_CREDENTIALS",
        );
        if self.never_given && self.at_machine && self.status.is_none() {
            let nowhere = "none are set in the environment and this machine has no metadata service to ask";
            return (ErrorKind::Denied, format!("no credentials: {nowhere}; {advice}"));
        }
        let kind = match self.kind() {
            // It is not the store that asks for fewer requests.
            ErrorKind::Throttled | ErrorKind::Unavailable => ErrorKind::Unavailable,
            // Credentials, and not an object.
            _ => ErrorKind::Denied,
        };
        let is_machine = self.by_machine || self.at_machine || self.at_container;
        let none = if is_machine { "the metadata service gave no credentials" } else { "no credentials were given" };
        let mut text = format!("{none}: {}", self.describe(error));
        if self.never_given && (self.at_machine || self.unread.is_some()) {
            text.push_str("; ");
            text.push_str(advice);
        }
        (kind, text)
    }

    fn asks_to_slow_down(&self) -> bool {
        self.status == Some(429) || matches!(self.code.as_deref(), Some("SlowDown" | "ServerBusy" | "TooManyRequests"))
    }

    fn is_locked(&self) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| code.starts_with("BlobImmutable") || code.starts_with("ContainerImmutable"))
    }

    /// A bucket that locks objects by default takes none without a checksum.
    fn wants_checksum(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        self.status == Some(400) && message.contains("Content-MD5") && message.contains("required")
    }

    fn describe(&self, error: &object_store::Error) -> String {
        if let Some((_, text)) = &self.io {
            return text.clone();
        }
        if self.bare_redirect {
            return "the server redirects elsewhere: the region or the endpoint is wrong".to_owned();
        }
        let server = match (self.status, &self.code) {
            (Some(status), Some(code)) => Some(format!("the server answered {status} {code}")),
            (Some(status), None) => Some(format!("the server answered {status}")),
            (None, Some(code)) => Some(format!("the server answered {code}")),
            (None, None) => None,
        };
        if let Some(mut line) = server {
            if let Some(message) = &self.message {
                line.push_str(": ");
                line.push_str(message);
            }
            if self.wants_checksum() {
                line.push_str(" (the bucket locks what it gets: set AWS_CHECKSUM_ALGORITHM=SHA256)");
            }
            return line;
        }
        match error {
            object_store::Error::NotFound { .. } => "not found".to_owned(),
            object_store::Error::AlreadyExists { .. } => "it exists already".to_owned(),
            _ => one_line(&self.deepest),
        }
    }
}

/// Where cloud machines ask for their own credentials. A request that fails there means that no others were named.
const MACHINES: [&str; 2] = ["http://169.254.169.254/", "http://metadata.google.internal/"];
/// Where containers ask, if the environment says so. Others that it names begin alike.
const CONTAINERS: &str = "http://169.254.170.2";

fn io_kind(kind: io::ErrorKind) -> ErrorKind {
    use io::ErrorKind as Io;
    match kind {
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename => ErrorKind::Invalid,
        // Foreign code only: our own data is judged by its hashes.
        Io::InvalidData | Io::UnexpectedEof => ErrorKind::Unavailable,
        // A server that closed the connection while a request was sent to it, as good as one that reset it.
        Io::BrokenPipe => ErrorKind::Unavailable,
        kind => Error::from(io::Error::from(kind)).kind(),
    }
}

/// The three digits after `status code: `.
fn status_in(text: &str) -> Option<u16> {
    let rest = text.split_once("status code: ")?.1;
    rest.get(..3)?.parse().ok()
}

/// What a request for several deletions says of one that was refused: code and message.
fn of_batch(text: &str) -> Option<(String, String)> {
    let rest = text.split_once("request failed for key ")?.1;
    // The key may hold anything, so the parts are looked for from the end.
    let (rest, code) = rest.rsplit_once(" (code: ")?;
    let message = rest.rsplit_once(": ").map_or("", |(_, message)| message);
    Some((one_line(code.split_once(')')?.0), one_line(message)))
}

/// The text of the first `<name>…</name>`, on one line and of bounded length.
fn element(text: &str, name: &str) -> Option<String> {
    let rest = text.split_once(&format!("<{name}>"))?.1;
    let inner = rest.split_once(&format!("</{name}>"))?.0;
    Some(one_line(inner))
}

fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 240;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn statuses_and_codes_map_to_what_the_caller_can_do() {
        let cases = [
            ("Server returned non-2xx status code: 429 Too Many Requests: ", ErrorKind::Throttled),
            ("Server returned non-2xx status code: 503 x: <Code>SlowDown</Code>", ErrorKind::Throttled),
            ("Server returned error response: <Code>SlowDown</Code>", ErrorKind::Throttled),
            ("Server returned error response: <Code>InternalError</Code>", ErrorKind::Unavailable),
            ("Server returned non-2xx status code: 500 x", ErrorKind::Unavailable),
            ("Server returned non-2xx status code: 400 x: <Code>RequestTimeout</Code>", ErrorKind::Unavailable),
            ("Server returned non-2xx status code: 400 x: <Code>ExpiredToken</Code>", ErrorKind::Denied),
            ("Server returned non-2xx status code: 400 Bad Request", ErrorKind::Invalid),
            ("Server returned non-2xx status code: 507 x", ErrorKind::Exhausted),
            ("DeleteObjects request failed for key a: b/c: Access Denied (code: AccessDenied)", ErrorKind::Denied),
            ("DeleteObjects request failed for key a: We slow down (code: SlowDown)", ErrorKind::Throttled),
            ("DeleteObjects request failed for key a: Oops (code: InternalError)", ErrorKind::Unavailable),
            ("Bulk delete request failed for key a: The blob is immutable (code: 409)", ErrorKind::Conflict),
            ("Bulk delete request failed for key a: Busy (code: 503)", ErrorKind::Throttled),
            ("Received redirect without LOCATION, this", ErrorKind::Invalid),
            ("HTTP error: connection reset", ErrorKind::Unavailable),
            // A caller's store does not tell whether it had credentials before.
            ("Error performing PUT http://169.254.169.254/latest/api/token in 1s", ErrorKind::Unavailable),
            ("Error performing GET https://s3/x/169.254.169.254/: status code: 404 x", ErrorKind::NotFound),
        ];
        for (text, kind) in cases {
            assert_eq!(convert(&generic(text), "put", "x").kind(), kind, "{text}");
        }
    }

    #[test]
    fn only_the_stores_own_word_tells_that_nothing_has_happened() {
        let cases = [
            ("Server returned non-2xx status code: 503 x: <Code>SlowDown</Code>", false),
            ("Server returned non-2xx status code: 503 x: <Code>ServerBusy</Code>", false),
            ("Server returned non-2xx status code: 429 Too Many Requests: ", false),
            ("Server returned non-2xx status code: 503 Service Unavailable: ", true),
            ("Server returned non-2xx status code: 503 x: <Code>ServiceUnavailable</Code>", true),
            ("Server returned non-2xx status code: 500 x", true),
            ("HTTP error: connection reset", true),
            ("Server returned non-2xx status code: 403 x", false),
        ];
        for (text, is_open) in cases {
            assert_eq!(may_have_worked(&convert(&generic(text), "put", "x")), is_open, "{text}");
        }
    }

    #[test]
    fn an_immutable_blob_is_a_refusal_and_not_a_conflict() {
        let body = "Server returned non-2xx status code: 409 Conflict: <Error><Code>BlobImmutableDueToPolicy</Code>\
                    <Message>immutable due to a policy</Message></Error>";
        let error = object_store::Error::AlreadyExists { path: "x".into(), source: body.into() };
        let ours = convert(&error, "delete", "az://c/x");
        assert_eq!(ours.kind(), ErrorKind::Denied);
        assert!(ours.report().contains("BlobImmutableDueToPolicy"), "{}", ours.report());
    }

    #[test]
    fn a_bucket_that_wants_checksums_is_told_from_a_checksum_that_is_wrong() {
        let report = |message: &str| {
            let text = format!(
                "Server returned non-2xx status code: 400 Bad Request: <Code>X</Code><Message>{message}</Message>"
            );
            convert(&generic(&text), "write", "s3://b/x").report()
        };
        let wanted = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        assert!(report(wanted).ends_with("(the bucket locks what it gets: set AWS_CHECKSUM_ALGORITHM=SHA256)"));
        assert!(!report("The Content-MD5 you specified is not valid").contains("AWS_CHECKSUM_ALGORITHM"));
    }

    #[test]
    fn a_full_disk_is_found_at_the_bottom_of_the_chain() {
        let full = io::Error::from_raw_os_error(28);
        let error = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) };
        let ours = convert(&error, "write", "file:///x/y");
        assert_eq!(ours.kind(), ErrorKind::Exhausted);
        assert!(ours.report().starts_with("cannot write file:///x/y: No space left"), "{}", ours.report());
    }

    #[test]
    fn a_connection_that_breaks_passes_however_it_breaks() {
        use io::ErrorKind as Io;
        for kind in [Io::BrokenPipe, Io::ConnectionReset, Io::ConnectionAborted, Io::NotConnected, Io::UnexpectedEof] {
            let error = object_store::Error::Generic { store: "S3", source: io::Error::from(kind).into() };
            assert!(convert(&error, "write", "s3://b/x").is_retryable(), "{kind:?}");
        }
    }

    #[test]
    fn the_servers_words_are_kept_and_its_document_is_not() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>AccessDenied</Code>\
                    <Message>Not\n yours</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let error = object_store::Error::PermissionDenied { path: "x".into(), source: body.into() };
        let report = convert(&error, "read", "s3://b/x").report();
        assert_eq!(report, "cannot read s3://b/x: the server answered 403 AccessDenied: Not yours");
    }
}
