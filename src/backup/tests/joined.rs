//! Uploads that are completed over HTTP, by a server that takes its time to join their parts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpRequestBody, HttpResponse, HttpService};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutPayload, PutResult};

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::testing::FaultStore;
use crate::testing::fault_store::Operation;

/// The server: each answer takes so long.
#[derive(Debug)]
struct Slow(Arc<dyn Clock>, Duration);

#[async_trait]
impl HttpService for Slow {
    async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.0.sleep(self.1).await;
        Ok(HttpResponse::new(Bytes::new().into()))
    }
}

/// A store whose completions go through a client of the network stores.
#[derive(Debug)]
struct Joins {
    memory: Arc<InMemory>,
    client: HttpClient,
}

#[async_trait]
impl MultipartStore for Joins {
    async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
        self.memory.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        self.memory.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        let answer = self.client.execute(HttpRequest::new(HttpRequestBody::empty())).await;
        answer.map_err(|error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) })?;
        self.memory.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.memory.abort_multipart(path, id).await
    }
}

/// The client has a limit of its own, and must not end what the pipeline still waits for.
#[tokio::test(start_paused = true)]
async fn a_completion_over_the_network_has_the_time_that_its_parts_need() {
    let content = [noise(1, 1_500_000)];
    let slow = PipelineConfig { segment_bytes: 1 << 30, attempt_timeout: Duration::from_secs(300), ..config() };
    // More than an answer may take, and less than one that joins 20 parts.
    let clock = SystemClock::shared();
    let server = HttpClient::new(Slow(Arc::clone(&clock), Duration::from_millis(60_900)));
    let memory = Arc::new(InMemory::new());
    let joins = Joins { memory: Arc::clone(&memory), client: store::limited(server, clock) };
    let faults = FaultStore::new(memory, Arc::new(joins), 0);
    let store = faults.store();
    let mut backup = Backup::begin(&store, "orders", options(1).pipeline(slow)).await.unwrap();
    backup.stripe_input(0, complete(&content[0])).unwrap();
    let manifest = backup.commit().await.unwrap().manifest;
    let completions = faults.log().iter().filter(|request| request.operation == Operation::Complete).count();
    assert_eq!(completions, 1, "the second one ran beside the first");
    assert_eq!(restore(&store, &manifest).await.unwrap(), content);
}
