//! Credentials that cannot be renewed in the middle of a backup.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{CredentialProvider, MultipartId, PutPayload, PutResult};

use super::store::Asked;
use super::*;
use crate::ErrorKind;
use crate::clock::SystemClock;
use crate::testing::FaultStore;

/// A metadata service that is asked for each request, and fails for a while.
#[derive(Debug)]
struct Service {
    asked: AtomicU64,
    fails: Range<u64>,
    answer: &'static str,
}

#[async_trait]
impl CredentialProvider for Service {
    type Credential = ();

    async fn get_credential(&self) -> object_store::Result<Arc<()>> {
        if !self.fails.contains(&self.asked.fetch_add(1, Ordering::Relaxed)) {
            return Ok(Arc::new(()));
        }
        let text = format!("Error performing PUT http://169.254.169.254/latest/api/token in 1s - {}", self.answer);
        Err(object_store::Error::Generic { store: "S3", source: text.into() })
    }
}

/// A store whose uploads are signed with what the service gives.
#[derive(Debug)]
struct Signed {
    memory: Arc<InMemory>,
    credentials: Asked<()>,
}

#[async_trait]
impl MultipartStore for Signed {
    async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
        self.credentials.get_credential().await?;
        self.memory.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        self.credentials.get_credential().await?;
        self.memory.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        self.credentials.get_credential().await?;
        self.memory.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.memory.abort_multipart(path, id).await
    }
}

const BUSY: &str = "Server returned non-2xx status code: 503 Service Unavailable: ";
const SILENT: &str = "HTTP error: error sending request";

/// A backup during which the service fails; the store, and how long the backup took.
async fn during(fails: Range<u64>, answer: &'static str) -> (Store, Result<BackupReport>, Duration) {
    let memory = Arc::new(InMemory::new());
    let service = Arc::new(Service { asked: AtomicU64::new(0), fails, answer });
    let signed = Signed { memory: Arc::clone(&memory), credentials: Asked::new(service) };
    let store = FaultStore::new(memory, Arc::new(signed), 0).store();
    let clock = SystemClock::shared();
    let outcome = back_up(&store, &contents()).await;
    (store, outcome, clock.now())
}

fn contents() -> [Bytes; 1] {
    [noise(1, 1_000_000)]
}

#[tokio::test(start_paused = true)]
async fn a_backup_goes_on_when_the_metadata_service_is_back() {
    for answer in [BUSY, SILENT] {
        let (store, outcome, _) = during(5..25, answer).await;
        let report = outcome.unwrap();
        assert!(report.progress.retries >= 20, "{:?}", report.progress);
        assert_eq!(restore(&store, &report.manifest).await.unwrap(), contents());
    }
}

#[tokio::test(start_paused = true)]
async fn a_metadata_service_that_stays_away_ends_a_backup_after_the_stated_time_and_is_named() {
    for (answer, says) in [(BUSY, "the server answered 503"), (SILENT, "Error performing PUT http://169.254.169.254/")]
    {
        let (store, outcome, took) = during(5..u64::MAX, answer).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        let says = format!("the metadata service gave no credentials: {says}");
        assert!(error.report().contains(&says) && error.report().contains("attempt "), "{}", error.report());
        assert!((90..300).contains(&took.as_secs()), "{took:?}");
        assert_eq!(names(&store).await, [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nobody_ever_gave_credentials_nothing_is_waited_for() {
    let (_, outcome, took) = during(0..u64::MAX, SILENT).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(error.report().contains("set AWS_ACCESS_KEY_ID"), "{}", error.report());
}
