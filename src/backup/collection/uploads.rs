//! Multipart uploads that nobody finishes. No store interface lists them for us, so they are found by our own records.

use futures::{StreamExt, stream};

use super::super::document::MAX_SMALL_BYTES;
use super::super::intent::UploadRecord;
use super::super::names::{Names, ObjectName};
use super::super::store::{Refused, Store, is_refusal};
use crate::error::{Error, ErrorKind, Result};

/// Records that are read, and uploads that are ended, at once.
const AT_ONCE: usize = 8;

/// Ends the uploads of these records of a backup. Answers the records that have to stay, because their uploads may.
pub(in crate::backup) async fn abort(store: &Store, names: &Names, records: &[String]) -> Result<Vec<Refused>> {
    // By number: a closure over references would make a future that cannot be spawned.
    let mut outcomes = stream::iter(0..records.len())
        .map(|number| async move { (number, abort_one(store, names, &records[number]).await) })
        .buffered(AT_ONCE);
    let mut refused = Vec::new();
    while let Some((number, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => {}
            // Of a damaged record, or one of a version to come, the upload is not known.
            Err(error) if is_refusal(&error) || matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid) => {
                refused.push(Refused { name: records[number].clone(), error });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

async fn abort_one(store: &Store, names: &Names, record: &str) -> Result<()> {
    let content = match store.read_small(record, MAX_SMALL_BYTES).await {
        Ok(content) => content,
        // Gone since the listing: whoever removed it has ended the upload before.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let UploadRecord { id, segment, claim, is_encrypted, upload, .. } =
        UploadRecord::decode(&content, &store.show(record))?;
    if id != names.id() {
        let message = format!("{}: it is the record of an upload of backup {id}", store.show(record));
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let object = names.of(&ObjectName::segment(segment, claim, is_encrypted));
    let path = store.path(&object);
    let aborted = store.retry(|| async {
        let aborted = store.multipart().abort_multipart(&path, &upload).await;
        aborted.map_err(|error| store.error(&error, "abort the upload of", &object))
    });
    match aborted.await {
        // It was complete, or is aborted already.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
