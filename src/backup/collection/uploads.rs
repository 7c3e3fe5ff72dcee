//! Multipart uploads that nobody finishes. No store interface lists them for us, so they are found by our own records.

use std::time::Duration;

use futures::{StreamExt, stream};

use super::super::document::MAX_SMALL_BYTES;
use super::super::intent::UploadRecord;
use super::super::names::{Names, ObjectName};
use super::super::store::{Refused, Store, is_refusal};
use crate::error::{Error, ErrorKind, Result};

/// Records that are read, and uploads that are ended, at once.
const AT_ONCE: usize = 8;

/// How certain it is that an upload is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backup) enum Ending {
    Gone,
    /// It was aborted, and a part that was on its way may bring it back.
    Doubtful,
}

/// Aborts that an upload gets whose parts may be on their way.
const ABORTS: u32 = 4;
/// Between the later ones of them.
const PAUSE: Duration = Duration::from_millis(500);

/// Ends the uploads of these records of a backup, whose last requests are long over. Answers the records that have to stay, because
/// their uploads may.
pub(in crate::backup) async fn abort(store: &Store, names: &Names, records: &[String]) -> Result<Vec<Refused>> {
    abort_each(store, names, records, false).await
}

/// The same of a process that may have sent parts a moment ago.
pub(in crate::backup) async fn abort_for_good(
    store: &Store,
    names: &Names,
    records: &[String],
) -> Result<Vec<Refused>> {
    abort_each(store, names, records, true).await
}

async fn abort_each(store: &Store, names: &Names, records: &[String], for_good: bool) -> Result<Vec<Refused>> {
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..records.len())
        .map(|number| async move { (number, abort_one(store, names, &records[number], for_good).await) })
        .buffered(AT_ONCE);
    let mut refused = Vec::new();
    while let Some((number, outcome)) = outcomes.next().await {
        match outcome {
            Ok((_, Ending::Gone)) => {}
            Ok((object, Ending::Doubtful)) => {
                refused.push(Refused { name: records[number].clone(), error: doubtful(store, &object) });
            }
            // Of a damaged record, or one of a version to come, the upload is not known.
            Err(error) if is_refusal(&error) || matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                refused.push(Refused { name: records[number].clone(), error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

/// Answers the object that it would have become.
async fn abort_one(store: &Store, names: &Names, record: &str, for_good: bool) -> Result<(String, Ending)> {
    let content = match store.read_small(record, MAX_SMALL_BYTES).await {
        Ok(content) => content,
        // Gone since the listing: whoever removed it has ended the upload before.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((String::new(), Ending::Gone)),
        Err(error) => return Err(error),
    };
    let UploadRecord { id, segment, claim, is_encrypted, upload, .. } =
        UploadRecord::decode(&content, &store.show(record))?;
    if id != names.id() {
        let message = format!("{}: it is the record of an upload of backup {id}", store.show(record));
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let object = names.of(&ObjectName::segment(segment, claim, is_encrypted));
    let ending = match for_good {
        true => store.retry(|| end_for_good(store, &object, &upload)).await?,
        false => store.retry(|| end(store, &object, &upload)).await.map(|()| Ending::Gone)?,
    };
    Ok((object, ending))
}

/// Aborts the upload of `object`.
pub(in crate::backup) async fn end(store: &Store, object: &str, upload: &str) -> Result<()> {
    abort_once(store, object, upload).await.map(drop)
}

/// Aborts the upload of `object` until the store does not know it any more. A part that arrives while an upload is aborted may be kept,
/// and then it has to be aborted once more.
pub(in crate::backup) async fn end_for_good(store: &Store, object: &str, upload: &str) -> Result<Ending> {
    for number in 0..ABORTS {
        // The first answer shows the most; what has not arrived by the second needs time.
        if number > 1 {
            store.time().sleep(PAUSE).await;
        }
        if abort_once(store, object, upload).await? == Ending::Gone || !store.tells_aborted_uploads() {
            return Ok(Ending::Gone);
        }
    }
    Ok(Ending::Doubtful)
}

/// `Gone` if there was none: it was complete, or aborted already.
async fn abort_once(store: &Store, object: &str, upload: &str) -> Result<Ending> {
    let aborted = store.multipart().abort_multipart(&store.path(object), &upload.to_owned()).await;
    match aborted.map_err(|error| store.error(&error, "abort the upload of", object)) {
        Ok(()) => Ok(Ending::Doubtful),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ending::Gone),
        Err(error) => Err(error),
    }
}

/// What is said of an upload that may come back.
pub(in crate::backup) fn doubtful(store: &Store, object: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "the upload of {} was aborted, and a part that was on its way may still arrive; its record stays",
            store.show(object)
        ),
    )
}
