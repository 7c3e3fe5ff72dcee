//! The trials, in order: each on objects below the store's hidden directory, which are removed at the end.

use bytes::Bytes;
use jiff::SignedDuration;
use object_store::PutPayload;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::super::names;
use super::super::store::Store;
use super::check::{Check, Diagnosis, Finding, Given, Verdict};
use crate::error::{Error, ErrorKind, Result};

/// Clocks that differ by more than this are told: grace times and retention count on them.
const MOST_SKEW: SignedDuration = SignedDuration::from_secs(60);

const CONTENT: &[u8] = b"written by vdstream to try this store; it may be deleted\n";

/// Tries each operation that backups, restores and deletions need. It never fails: what does not work is in the diagnosis.
///
/// It writes three small objects below `.vdstream/` and removes them. Retries and limits on time are those of backups, so a
/// store that does not answer takes as long as it would there.
///
/// Must be called within a Tokio runtime.
///
/// # Cancel safety
///
/// Cancel-safe: the check under way comes to its end in a tracked task, which removes what was written and begins no other;
/// [`Store::wait_idle`] sees the end, and [`Store::take_leftovers`] tells what could not be removed.
#[tracing::instrument(name = "doctor", skip_all, fields(store = store.label()))]
pub async fn examine(store: &Store) -> Diagnosis {
    let given_up = CancellationToken::new();
    let _on_drop = given_up.clone().drop_guard();
    // An upload of which nobody knows would stay if the request that begins it were dropped.
    let trials = {
        let store = store.clone();
        async move { run(&store, &given_up).await }.in_current_span()
    };
    match store.tasks().spawn(trials).await {
        Ok(diagnosis) => diagnosis,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime goes away, and whoever waits here with it.
            Err(_) => std::future::pending().await,
        },
    }
}

async fn run(store: &Store, given_up: &CancellationToken) -> Diagnosis {
    let mut trial = Trial { store, findings: Vec::new() };
    trial.list().await;
    let name = names::probe(Uuid::new_v4());
    if !given_up.is_cancelled() && trial.create(&name).await {
        trial.written(&name, given_up).await;
        trial.delete(&name).await;
    } else {
        let needed = [Check::LookUp, Check::Read, Check::ReadRange, Check::Clock, Check::CreateOnly];
        for check in needed.into_iter().chain([Check::Multipart, Check::AbortMultipart, Check::Delete]) {
            trial.note(check, Verdict::Skipped, "nothing could be created to try it on");
        }
    }
    if !given_up.is_cancelled() {
        trial.upload_rule().await;
        trial.versions().await;
    }
    let diagnosis = Diagnosis { store: store.label().to_owned(), findings: trial.findings };
    if given_up.is_cancelled() {
        // Nobody reads the diagnosis, so this is told elsewhere.
        let is_kept =
            |finding: &&Finding| matches!(finding.check, Check::Delete | Check::Multipart | Check::AbortMultipart);
        let kept = diagnosis.findings.iter().filter(is_kept).find(|finding| finding.verdict == Verdict::Failed);
        if let Some(error) = kept.and_then(|finding| finding.error.clone()) {
            store.note_leftovers(error.context("what was written to try the store may be left"));
        }
    }
    diagnosis
}

struct Trial<'a> {
    store: &'a Store,
    findings: Vec<Finding>,
}

impl Trial<'_> {
    fn note(&mut self, check: Check, verdict: Verdict, detail: impl Into<String>) {
        self.push(check, verdict, detail.into(), None);
    }

    fn push(&mut self, check: Check, verdict: Verdict, detail: String, error: Option<Error>) {
        let scheme = self.store.label().split_once("://").map_or("file", |(scheme, _)| scheme);
        let given = Given { tags: self.store.has_tags(), service_key: self.store.has_service_key() };
        let permission = check.permissions(scheme, given);
        self.findings.push(Finding { check, verdict, permission, detail, error });
    }

    /// Notes an outcome that is good or an error. True if it is good.
    fn judge<T>(&mut self, check: Check, outcome: Result<T>) -> bool {
        match outcome {
            Ok(_) => self.note(check, Verdict::Good, ""),
            Err(error) => self.push(check, Verdict::Failed, error.report(), Some(error)),
        }
        self.findings.last().is_some_and(|finding| finding.verdict == Verdict::Good)
    }

    /// What is tried once there is an object, until it is given up. Each removes what it writes beside that.
    async fn written(&mut self, name: &str, given_up: &CancellationToken) {
        self.read(name).await;
        self.clock(name).await;
        if !given_up.is_cancelled() {
            self.create_only().await;
        }
        if !given_up.is_cancelled() {
            self.multipart().await;
        }
        if !given_up.is_cancelled() {
            self.abort_multipart().await;
        }
    }

    async fn list(&mut self) {
        let outcome = self.store.directories("").await;
        match outcome {
            // A directory that the first backup makes.
            Err(error) if error.kind() == ErrorKind::NotFound && self.store.label().starts_with("file:") => {
                self.note(Check::List, Verdict::Good, "the directory is not there yet; it will be created");
            }
            outcome => drop(self.judge(Check::List, outcome)),
        }
    }

    async fn create(&mut self, name: &str) -> bool {
        let outcome = self.store.create(name, Bytes::from_static(CONTENT)).await;
        self.judge(Check::Create, outcome)
    }

    async fn read(&mut self, name: &str) {
        let looked_up = self.store.find_size(name).await.and_then(|size| match size {
            Some(size) if size == CONTENT.len() as u64 => Ok(()),
            Some(size) => Err(wrong(format!("an object of {} bytes is said to have {size}", CONTENT.len()))),
            None => Err(wrong("an object that was just created is not there".to_owned())),
        });
        self.judge(Check::LookUp, looked_up);
        let whole = self.store.read_small(name, CONTENT.len() as u64).await;
        self.judge(Check::Read, whole.and_then(|found| same(&found, CONTENT)));
        let part = self.store.read_range(name, 3..10).await;
        self.judge(Check::ReadRange, part.and_then(|found| same(&found, &CONTENT[3..10])));
    }

    async fn clock(&mut self, name: &str) {
        let ours = self.store.time().wall();
        match self.store.modified(name).await {
            Ok(theirs) => {
                let skew = theirs.duration_since(ours);
                if skew.abs() > MOST_SKEW {
                    let side = if skew.is_negative() { "behind" } else { "ahead of" };
                    let skew = skew.abs().as_secs();
                    let detail =
                        format!("the store's clock is {skew} s {side} this machine's: set the one that is wrong");
                    self.note(Check::Clock, Verdict::Warning, detail);
                } else {
                    self.note(Check::Clock, Verdict::Good, "");
                }
            }
            Err(error) => self.push(Check::Clock, Verdict::Failed, error.report(), Some(error)),
        }
    }

    async fn create_only(&mut self) {
        match self.store.create_only().await {
            Ok(true) => self.note(Check::CreateOnly, Verdict::Good, ""),
            Ok(false) => self.note(
                Check::CreateOnly,
                Verdict::Warning,
                "the store does not keep to create-only writes; backups are safe, since no name is used twice, but \
                 resuming one is refused here",
            ),
            Err(error) => self.push(Check::CreateOnly, Verdict::Failed, error.report(), Some(error)),
        }
    }

    async fn multipart(&mut self) {
        let name = names::probe(Uuid::new_v4());
        let (path, uploads) = (self.store.path(&name), self.store.multipart());
        let outcome = async {
            let upload = self.store.begin_upload(&path).await?;
            let part = uploads.put_part(&path, &upload, 0, PutPayload::from_static(CONTENT)).await;
            let completed = match part {
                Ok(part) => uploads.complete_multipart(&path, &upload, vec![part]).await.map(drop),
                Err(error) => Err(error),
            };
            if completed.is_err() {
                let _first_error_counts = uploads.abort_multipart(&path, &upload).await;
            }
            completed
        };
        let outcome = outcome.await.map_err(|error| self.store.error(&error, "upload in parts", &name));
        if self.judge(Check::Multipart, outcome)
            && let Err(error) = self.store.delete(&name).await
        {
            tracing::warn!(error = %error.report(), "the probe object stays");
        }
    }

    async fn abort_multipart(&mut self) {
        let name = names::probe(Uuid::new_v4());
        let path = self.store.path(&name);
        let upload = match self.store.begin_upload(&path).await {
            Ok(upload) => upload,
            // Another permission, which the check before has tried.
            Err(error) => {
                let error = self.store.error(&error, "begin an upload of", &name);
                let detail = format!("there is no upload to give up: {}", error.report());
                return self.push(Check::AbortMultipart, Verdict::Skipped, detail, Some(error));
            }
        };
        let outcome = self.store.multipart().abort_multipart(&path, &upload).await;
        let outcome = outcome.map_err(|error| self.store.error(&error, "abort an upload of", &name));
        self.judge(Check::AbortMultipart, outcome);
    }

    async fn delete(&mut self, name: &str) {
        let outcome = self.store.delete(name).await;
        match outcome {
            Err(error) if error.kind() == ErrorKind::Denied => {
                let detail = format!(
                    "{}; backups work, but nothing can be cleaned up: `prune`, `delete` and `gc` will not",
                    error.report()
                );
                self.push(Check::Delete, Verdict::Failed, detail, Some(error));
            }
            outcome => drop(self.judge(Check::Delete, outcome)),
        }
    }

    async fn upload_rule(&mut self) {
        match self.store.ends_unfinished_uploads().await {
            Some(Ok(true)) => self.note(Check::UploadRule, Verdict::Good, ""),
            Some(Ok(false)) => self.note(
                Check::UploadRule,
                Verdict::Warning,
                "no lifecycle rule ends all unfinished uploads of this store; add one for its prefix \
                 (AbortIncompleteMultipartUpload after 7 days) for what a crash leaves and nobody collects",
            ),
            Some(Err(error)) => {
                let detail =
                    format!("cannot tell whether a lifecycle rule ends unfinished uploads: {}", error.report());
                self.push(Check::UploadRule, Verdict::Skipped, detail, Some(error));
            }
            None => self.note(Check::UploadRule, Verdict::Skipped, "this kind of store has none that can be read"),
        }
    }

    async fn versions(&mut self) {
        match self.store.ask_versions().await {
            Some(Ok(false)) => self.note(Check::Versions, Verdict::Good, ""),
            Some(Ok(true)) => self.note(
                Check::Versions,
                Verdict::Good,
                "the bucket keeps versions: what is deleted is hidden, and goes when the bucket's own rules remove old versions",
            ),
            Some(Err(error)) => {
                let detail = format!(
                    "cannot tell whether the bucket keeps versions, so no report of a deletion will: {}",
                    error.report()
                );
                self.push(Check::Versions, Verdict::Skipped, detail, Some(error));
            }
            None => self.note(Check::Versions, Verdict::Skipped, "this kind of store cannot be asked"),
        }
    }
}

fn same(found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(wrong(format!("{} bytes came back that are not those that were written", found.len())))
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
