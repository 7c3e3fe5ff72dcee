//! The commit point: one small object, created last, that makes a backup visible.
//!
//! The manual page on the commit walks through every way in which this can be interrupted.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::collection::check_not_removed;
use super::manifest::{MAX_MANIFEST_BYTES, Manifest};
use super::options::DEFAULT_SILENCE;
use super::session::Session;
use super::store::{Content, may_have_worked};
use crate::error::{Error, ErrorKind, Result};

/// Writes the manifest. On an error that leaves no doubt, everything of the backup is removed.
pub(super) async fn publish(session: &Session, manifest: Manifest) -> Result<Manifest> {
    session.settle().await;
    match write(session, &manifest).await {
        Ok(()) => {
            session.end_signs().await;
            if manifest.writers.is_resumed() || session.names.writers().is_resumed() {
                session.tidy(&manifest).await;
            }
            Ok(manifest)
        }
        Err(Failure::Theirs(theirs)) => {
            session.tidy(&theirs).await;
            Err(sent(Error::new(
                ErrorKind::Conflict,
                format!("another process has resumed and committed backup {}; it is complete", manifest.id),
            )))
        }
        Err(Failure::Absent(error)) => {
            let cause = session.fail(error.context("the backup could not be committed"));
            // What could not be removed is in the log; the cause is what the caller must see.
            let _logged = session.clean_up(Vec::new()).await;
            Err(cause)
        }
        Err(Failure::Gone(error)) => Err(error),
        Err(Failure::Other(error)) => Err(sent(error)),
    }
}

/// Whether there may be a backup although its commit failed with `error`: a manifest is there, whoever wrote it, or may still
/// come. The message says which.
///
/// False of every other error, also if it is none of a commit: then this process makes nothing visible. One that has resumed the backup
/// may still commit it.
pub fn may_be_committed(error: &Error) -> bool {
    let mut layer = std::error::Error::source(error);
    while let Some(cause) = layer {
        if cause.is::<Sent>() {
            return true;
        }
        layer = cause.source();
    }
    false
}

/// In the chain of an error: a manifest is there, or may be. Says what the layer above it says, so that it is not seen.
#[derive(Debug)]
struct Sent(Error);

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Sent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The same error, of which [`may_be_committed`] is true.
pub(super) fn sent(error: Error) -> Error {
    Error::new(error.kind(), error.message().to_owned()).with_source(Sent(error))
}

enum Failure {
    /// There is no manifest and none can appear.
    Absent(Error),
    /// The backup was resumed, and another process has committed it.
    Theirs(Box<Manifest>),
    /// The manifest was there, and was taken back.
    Gone(Error),
    /// There is one that is not ours, or there may be ours: nothing may be removed.
    Other(Error),
}

async fn write(session: &Session, manifest: &Manifest) -> Result<(), Failure> {
    let content: Bytes = manifest.encode().map_err(Failure::Absent)?.into();
    let (store, name) = (&session.store, session.names.manifest());
    if session.segments.was_silent() {
        check_not_removed(store, &session.names).await.map_err(Failure::Absent)?;
    }
    // An attempt without an answer may still be on its way.
    let in_doubt = AtomicBool::new(false);
    let put = store.retry_sending(content.len() as u64, || async {
        let before = in_doubt.swap(true, Ordering::Relaxed);
        let outcome = store.create_once(&name, vec![content.clone()], Content::Document).await;
        if !matches!(&outcome, Err(error) if may_have_worked(error)) {
            in_doubt.store(before, Ordering::Relaxed);
        }
        match outcome {
            Err(conflict) if conflict.kind() == ErrorKind::Conflict => store.compare(&name, &content, conflict).await,
            outcome => outcome,
        }
    });
    let error = match put.await {
        Ok(()) => return stand(session, &name).await,
        Err(error) => error,
    };
    match store.read_small(&name, MAX_MANIFEST_BYTES).await {
        Ok(found) if found == content => {
            store.settle(&name).await.map_err(|error| Failure::Other(unsettled(session, error)))?;
            stand(session, &name).await
        }
        Ok(found) => Err(match taken_over(session, &found) {
            Some(theirs) => Failure::Theirs(Box::new(theirs)),
            None => {
                Failure::Other(error.context("another manifest stands in this backup's place; nothing was removed"))
            }
        }),
        Err(_unknown) if error.kind() == ErrorKind::Conflict => {
            Err(Failure::Other(error.context("another manifest stands in this backup's place; nothing was removed")))
        }
        Err(absent) if absent.kind() == ErrorKind::NotFound && !in_doubt.load(Ordering::Relaxed) => {
            Err(Failure::Absent(error))
        }
        Err(_unknown) => Err(Failure::Other(
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "it is not known whether backup {} was committed, because the store did not answer; \
                 `list` tells later, and nothing was removed",
                    manifest.id
                ),
            )
            .with_source(error),
        )),
    }
}

/// The manifest is there, and it may be gone after a crash.
fn unsettled(session: &Session, error: Error) -> Error {
    error.context(format!(
        "the manifest of backup {} is written, and the disk does not confirm it: it may be gone after a crash; check the disk, and \
         verify the backup",
        session.names.id()
    ))
}

/// The manifest was written. Takes it back if the backup was taken for dead before, or was resumed, committed and deleted.
async fn stand(session: &Session, manifest: &str) -> Result<(), Failure> {
    let (store, names) = (&session.store, &session.names);
    let was_silent = session.segments.was_silent();
    // Who resumed it is not silent any more when it was taken for dead while it was read back.
    if !was_silent && !may_be_resumed(session) {
        return Ok(());
    }
    let Err(error) = check_not_removed(store, names).await else { return Ok(()) };
    if error.kind() != ErrorKind::Conflict {
        // Whoever may only write makes whole backups too.
        if !was_silent {
            tracing::warn!(error = %error.report(), "it was not looked whether the backup was removed meanwhile");
            return Ok(());
        }
        let message =
            format!("backup {} was committed, and it is not known whether it is whole; verify it", session.names.id());
        return Err(Failure::Other(error.context(message)));
    }
    match session.store.delete(manifest).await {
        Ok(()) => Err(Failure::Gone(error)),
        Err(stays) => Err(Failure::Other(error.context(format!(
            "the manifest of backup {}, which is not whole, could not be taken back ({}); delete it",
            session.names.id(),
            stays.report()
        )))),
    }
}

/// Whether another process that asks for as much silence as is usual may have resumed the backup, or has.
fn may_be_resumed(session: &Session) -> bool {
    let names = &session.names;
    let age = session.store.time().wall().duration_since(names.id().time());
    // A calendar that was ahead when the backup began, and was set right since, hides some of its age; the other clock may stand
    // still while the machine sleeps.
    let age = Duration::try_from(age).map_or(Duration::MAX, |age| age.max(session.segments.running()));
    names.writers().is_resumed() || age >= DEFAULT_SILENCE
}

/// The manifest that another process of this very backup has written, if the backup was resumed.
fn taken_over(session: &Session, found: &[u8]) -> Option<Manifest> {
    let names = &session.names;
    let theirs = Manifest::decode(found, &names.manifest()).ok()?;
    let is_resumed = theirs.writers.is_resumed() || names.writers().is_resumed();
    (is_resumed && theirs.id == names.id() && &theirs.series == names.series()).then_some(theirs)
}
