//! Credentials that somebody gives: a token service, a tool, the machine. What it means that none come depends on whether there ever
//! were any.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use object_store::CredentialProvider;

/// Asks for credentials, and remembers that there were some.
///
/// `object_store` asks for new ones minutes before the old ones expire, and once only: a failure is handed on although the old ones are
/// still good. They cannot be handed out in its place, because nobody here is told when they expire; so whoever has made the request
/// makes it again.
#[derive(Debug)]
pub(in crate::backup) struct Asked<C> {
    giver: Arc<dyn CredentialProvider<Credential = C>>,
    of_machine: bool,
    /// What to tell of profiles that were not read.
    unread: Option<String>,
    has_given: AtomicBool,
}

impl<C> Asked<C> {
    pub(in crate::backup) fn new(giver: Arc<dyn CredentialProvider<Credential = C>>) -> Self {
        Self { giver, of_machine: false, unread: None, has_given: AtomicBool::new(false) }
    }

    /// The same of the machine's metadata service, wherever that is.
    #[cfg(feature = "aws")]
    pub(super) fn of_machine(mut self, unread: Option<String>) -> Self {
        (self.of_machine, self.unread) = (true, unread);
        self
    }
}

#[async_trait]
impl<C: fmt::Debug + Send + Sync> CredentialProvider for Asked<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        match self.giver.get_credential().await {
            Ok(credential) => {
                self.has_given.store(true, Ordering::Relaxed);
                Ok(credential)
            }
            Err(error) => {
                let source = NotGiven {
                    ever_given: self.has_given.load(Ordering::Relaxed),
                    by_machine: self.of_machine,
                    unread: self.unread.clone(),
                    error: Box::new(error),
                };
                Err(object_store::Error::Generic { store: "credentials", source: Box::new(source) })
            }
        }
    }
}

/// No credentials came, so nothing was asked of the store.
#[derive(Debug)]
pub(super) struct NotGiven {
    /// There were some before.
    pub(super) ever_given: bool,
    /// It was the machine's metadata service that was asked. If not, it may have been too.
    pub(super) by_machine: bool,
    /// What to tell of profiles that were not read.
    pub(super) unread: Option<String>,
    error: Box<object_store::Error>,
}

impl fmt::Display for NotGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no credentials were given")
    }
}

impl StdError for NotGiven {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::backup::store::error::{convert, may_have_worked};
    use crate::error::{Error, ErrorKind};
    use crate::sync::Mutex;

    /// Gives credentials, but for the one failure that it is told.
    #[derive(Debug, Default)]
    struct Scripted(Mutex<Option<object_store::Error>>);

    #[async_trait]
    impl CredentialProvider for Scripted {
        type Credential = ();

        async fn get_credential(&self) -> object_store::Result<Arc<()>> {
            self.0.lock().take().map_or_else(|| Ok(Arc::new(())), Err)
        }
    }

    /// A request that failed, as `object_store` tells it.
    #[derive(Debug)]
    struct Request(&'static str, io::Error);

    impl fmt::Display for Request {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Error performing GET {} in 1s - HTTP error: error sending request", self.0)
        }
    }

    impl StdError for Request {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.1)
        }
    }

    const MACHINE: &str = "http://169.254.169.254/latest/api/token";
    const GOOGLE: &str = "http://metadata.google.internal/computeMetadata/v1/token";
    const CONTAINER: &str = "http://169.254.170.2/credentials";
    const SERVICE: &str = "https://sts.amazonaws.com/";

    fn broken(url: &'static str, kind: io::ErrorKind) -> object_store::Error {
        let source = Request(url, io::Error::new(kind, "the words of the system"));
        object_store::Error::Generic { store: "S3", source: Box::new(source) }
    }

    fn answered(url: &str, status: u16) -> object_store::Error {
        let text = format!("Error performing GET {url} in 1s - Server returned non-2xx status code: {status} x: ");
        object_store::Error::Generic { store: "S3", source: text.into() }
    }

    /// What a request of the store ends with when credentials fail so, `ever_given` or not.
    async fn failing(error: object_store::Error, ever_given: bool, unread: Option<&str>) -> Error {
        let giver = Arc::new(Scripted::default());
        let mut asked: Asked<()> = Asked::new(Arc::<Scripted>::clone(&giver));
        (asked.of_machine, asked.unread) = (unread.is_some(), unread.map(str::to_owned));
        if ever_given {
            asked.get_credential().await.unwrap();
        }
        *giver.0.lock() = Some(error);
        let error = asked.get_credential().await.unwrap_err();
        let error = convert(&error, "write", "s3://b/x");
        assert!(!may_have_worked(&error), "nothing was sent: {}", error.report());
        error
    }

    #[tokio::test]
    async fn a_machine_that_never_gave_any_is_told_what_to_set() {
        for url in [MACHINE, GOOGLE] {
            for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::ConnectionReset] {
                let error = failing(broken(url, kind), false, None).await;
                assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
                let advice =
                    ["this machine has no metadata service to ask; set AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_"];
                assert!(advice.iter().all(|part| error.report().contains(part)), "{}", error.report());
            }
        }
        let error = failing(broken(MACHINE, io::ErrorKind::TimedOut), false, Some("profiles are not read")).await;
        assert!(error.report().ends_with("no metadata service to ask; profiles are not read"), "{}", error.report());
        // There is one, and it has nothing to give.
        let error = failing(answered(MACHINE, 404), false, None).await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        let says = "the metadata service gave no credentials: the server answered 404; set AWS_ACCESS_KEY_ID";
        assert!(error.report().contains(says), "{}", error.report());
    }

    #[tokio::test]
    async fn once_there_were_some_a_passing_fault_is_one_wherever_it_happens() {
        for url in [MACHINE, GOOGLE, CONTAINER] {
            for status in [408, 429, 500, 503] {
                let error = failing(answered(url, status), true, Some("profiles are not read")).await;
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                let says = format!(
                    "cannot write s3://b/x: the metadata service gave no credentials: the server answered {status}"
                );
                assert_eq!(error.report(), says);
            }
            for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe] {
                let error = failing(broken(url, kind), true, None).await;
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
                assert!(error.report().ends_with("gave no credentials: the words of the system"), "{}", error.report());
            }
            // It is there, and does not give them any more.
            for status in [400, 401, 403, 404] {
                let error = failing(answered(url, status), true, None).await;
                assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
            }
        }
    }

    #[tokio::test]
    async fn others_that_give_credentials_are_not_taken_for_the_machine_or_the_store() {
        for ever_given in [false, true] {
            for (error, kind) in [
                (answered(SERVICE, 503), ErrorKind::Unavailable),
                (broken(SERVICE, io::ErrorKind::ConnectionReset), ErrorKind::Unavailable),
                (answered(SERVICE, 400), ErrorKind::Denied),
                // Of a role that is not there any more, and not of an object.
                (answered(SERVICE, 404), ErrorKind::Denied),
                (broken(CONTAINER, io::ErrorKind::ConnectionRefused), ErrorKind::Unavailable),
            ] {
                let error = failing(error, ever_given, None).await;
                assert_eq!(error.kind(), kind, "{}", error.report());
                assert!(!error.report().contains("AWS_ACCESS_KEY_ID"), "{}", error.report());
            }
        }
        let error = failing(answered(SERVICE, 503), true, None).await;
        assert_eq!(error.report(), "cannot write s3://b/x: no credentials were given: the server answered 503");
    }
}
