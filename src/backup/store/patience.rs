//! How long the answer to one request may take.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use super::work;
use crate::clock::{self, Clock, SystemClock};

/// An answer to a request without a body comes within this time. One with a body has the time of that besides, which is only the last
/// resort: whoever sends much has a closer limit, which knows how many share the link.
const ANSWER: Duration = Duration::from_secs(60);

/// Clients that wait for an answer as long as the request is large.
///
/// The client's own limit knows one time for all requests, and counts it while the body is still on its way: eight parts at
/// once on a link of a megabyte per second would never arrive.
#[derive(Debug, Default)]
pub(super) struct Patient;

impl HttpConnector for Patient {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Limited { inner, clock: SystemClock::shared() }))
    }
}

#[derive(Debug)]
struct Limited {
    inner: HttpClient,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl HttpService for Limited {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let body_bytes = request.body().content_length() as u64;
        let limit = ANSWER.saturating_add(work::sending(body_bytes)).saturating_add(work::granted());
        let answer = clock::timeout(&*self.clock, Some(limit), self.inner.execute(request)).await;
        answer.unwrap_or_else(|_elapsed| {
            let text = format!("no answer within {} s", limit.as_secs());
            Err(HttpError::new(HttpErrorKind::Timeout, std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
        })
    }
}

/// A client that waits as long as these do for the answers of `inner`.
#[cfg(test)]
pub(in crate::backup) fn limited(inner: HttpClient, clock: Arc<dyn Clock>) -> HttpClient {
    HttpClient::new(Limited { inner, clock })
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpRequestBody;

    use super::*;

    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl HttpService for Silent {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_given_up_later_the_more_was_sent() {
        for (bytes, work, seconds) in [(0, 0, 60), (1, 0, 60), (8 << 20, 0, 60 + 512), (1, 70, 60 + 70)] {
            let clock = SystemClock::shared();
            let service = limited(HttpClient::new(Silent), Arc::clone(&clock));
            let begun = clock.now();
            let request = service.execute(HttpRequest::new(HttpRequestBody::from(vec![0; bytes])));
            let error = work::with(Duration::from_secs(work), request).await.unwrap_err();
            assert_eq!(error.kind(), HttpErrorKind::Timeout);
            assert_eq!((clock.now() - begun).as_secs(), seconds);
        }
    }
}
