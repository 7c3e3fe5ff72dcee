//! Listings of any length in little memory, and deletions of which some may be refused.

use std::collections::BTreeSet;

use futures::future::join_all;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use object_store::ObjectMeta;
use object_store::path::Path;
use uuid::Uuid;

use super::handle::Store;
use crate::backup::names;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

/// An object as a listing shows it, with its time.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its name below the store's prefix.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) modified: Timestamp,
}

/// An object that the store does not delete: locked, protected, or not ours to delete.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) name: String,
    pub(crate) error: Error,
}

/// Names of a listing that are held at once where all that it shows are to be gone through.
pub(crate) const NAMES_AT_ONCE: usize = 10_000;
/// Objects that are deleted in one request, where the store has one for that: as many as the largest takes.
const BATCH: usize = 1000;
/// Requests at once when objects are deleted one by one.
const AT_ONCE: usize = 8;

/// What a store gives of a listing, one by one.
type Listed = BoxStream<'static, object_store::Result<ObjectMeta>>;

impl Store {
    /// Shows every object below `directory` to `see`, in no order, and keeps none. It may take as long as it goes on; a listing that
    /// fails half-way begins anew.
    pub(crate) async fn fold<T: Default>(&self, directory: &str, see: impl Fn(&mut T, Seen)) -> Result<T> {
        let (path, steps, see) = (self.path(directory), self.steps(), &see);
        steps
            .run(|| async {
                let mut folded = T::default();
                let mut listing = self.objects().list(Some(&path));
                while let Some(meta) = steps.next(self.next_listed(&mut listing, directory)).await? {
                    see(&mut folded, self.seen(&meta)?);
                }
                Ok(folded)
            })
            .await
    }

    /// The next object of a listing of `directory`.
    async fn next_listed(&self, listing: &mut Listed, directory: &str) -> Result<Option<ObjectMeta>> {
        listing.try_next().await.map_err(|error| self.error(&error, "list", directory))
    }

    /// The names of at most `most` objects below `directory` that are `wanted`.
    pub(crate) async fn some_of(
        &self,
        directory: &str,
        most: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>> {
        let (path, steps, wanted) = (self.path(directory), self.steps(), &wanted);
        steps
            .run(|| async {
                let mut names = Vec::new();
                let mut listing = self.objects().list(Some(&path));
                while names.len() < most
                    && let Some(meta) = steps.next(self.next_listed(&mut listing, directory)).await?
                {
                    let name = self.relative(&meta.location);
                    if wanted(&name) {
                        names.push(name);
                    }
                }
                Ok(names)
            })
            .await
    }

    /// True if there is any object below `directory`.
    pub(crate) async fn has_below(&self, directory: &str) -> Result<bool> {
        Ok(!self.some_of(directory, 1, |_| true).await?.is_empty())
    }

    /// Deletes every object below `directory` that is `wanted`, some thousands at a time; those that are not there count as deleted.
    pub(crate) async fn delete_below(&self, directory: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let mut before: Option<String> = None;
        loop {
            let found = self.some_of(directory, NAMES_AT_ONCE, &wanted).await?;
            if before.is_some() && before.as_ref() == found.first() {
                return Err(self.still_listed(&found[0]));
            }
            self.delete_all(&found).await?;
            if found.len() < NAMES_AT_ONCE {
                return Ok(());
            }
            before = found.into_iter().next();
        }
    }

    /// What is said of an object that does not go.
    pub(crate) fn still_listed(&self, name: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{} is listed although it was deleted", self.show(name)))
    }

    /// Every object below `directory`, sorted by name.
    #[cfg(test)]
    pub(crate) async fn list(&self, directory: &str) -> Result<Vec<Seen>> {
        let mut all: Vec<Seen> = self.fold(directory, |all: &mut Vec<Seen>, seen| all.push(seen)).await?;
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn seen(&self, meta: &ObjectMeta) -> Result<Seen> {
        Ok(Seen { name: self.relative(&meta.location), bytes: meta.size, modified: self.time_of(meta)? })
    }

    /// Deletes objects, and tells which of them the store refuses to delete. Those that are not there count as deleted. Adds to
    /// `deleted` how many went, also if it fails half-way.
    pub(crate) async fn delete_each(&self, names: &[String], deleted: &mut u64) -> Result<Vec<Refused>> {
        let mut refused = Vec::new();
        for batch in names.chunks(BATCH) {
            let mut rest = self.delete_batch(batch, deleted).await?;
            while !rest.is_empty() {
                let some = rest.split_off(rest.len().saturating_sub(AT_ONCE));
                let mut failed = None;
                for outcome in join_all(some.into_iter().map(|name| self.delete_one(name))).await {
                    match outcome {
                        Ok(None) => *deleted += 1,
                        Ok(Some(one)) => refused.push(one),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                if let Some(error) = failed {
                    return Err(error);
                }
            }
        }
        Ok(refused)
    }

    async fn delete_one(&self, name: String) -> Result<Option<Refused>> {
        match self.delete(&name).await {
            Err(error) if is_refusal(&error) => Ok(Some(Refused { name, error })),
            outcome => outcome.map(|()| None),
        }
    }

    /// Deletes objects with as few requests as the store allows. Answers those of which it is not known why they are still
    /// there, or whether they are: an answer to a batch does not always name the object.
    async fn delete_batch(&self, batch: &[String], deleted: &mut u64) -> Result<Vec<String>> {
        let paths: Vec<Path> = batch.iter().map(|name| self.path(name)).collect();
        // Of all attempts: what went in one of them is not there in the next.
        let gone = Mutex::new(BTreeSet::new());
        let outcome = self
            .retry(|| async {
                let mut outcomes = self.objects().delete_stream(stream::iter(paths.clone()).map(Ok).boxed());
                let mut failed = None;
                while let Some(outcome) = outcomes.next().await {
                    match outcome {
                        Ok(path) => drop(gone.lock().insert(self.relative(&path))),
                        Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => {
                            let error = self.error(&error, "delete objects like", &batch[0]);
                            // What may pass is tried again; what is refused will not pass.
                            if !is_refusal(&error) {
                                failed = failed.or(Some(error));
                            }
                        }
                    }
                }
                failed.map_or(Ok(()), Err)
            })
            .await;
        let gone = gone.lock();
        *deleted += gone.len() as u64;
        outcome?;
        Ok(batch.iter().filter(|name| !gone.contains(*name)).cloned().collect())
    }

    /// By how much the store's clock is ahead of this machine's, at least. Writes a small object and removes it again.
    ///
    /// A directory may be of another machine, with a clock of its own. If it has no room for the object, it counts as this one's.
    pub(crate) async fn skew(&self) -> Result<SignedDuration> {
        let name = names::probe(Uuid::new_v4());
        match self.create(&name, bytes::Bytes::from_static(b"what time is it?")).await {
            Err(error) if error.kind() == ErrorKind::Exhausted && self.shares_clock() => {
                tracing::info!(error = %error.report(), "this machine's clock is taken for the store's");
                return Ok(SignedDuration::ZERO);
            }
            outcome => outcome?,
        }
        // It was written before now, so the store's clock is rather further than nearer.
        let ours = self.time().wall();
        let theirs = self.modified(&name).await;
        if let Err(error) = self.delete(&name).await {
            tracing::warn!(error = %error.report(), "the probe object stays");
        }
        Ok(theirs?.duration_since(ours))
    }
}

/// True if the store is able to delete and does not: a lock or a policy is on the object, or the permission is missing.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::Conflict)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    /// As many pages do.
    #[tokio::test(start_paused = true)]
    async fn a_listing_may_take_as_long_as_it_goes_on() {
        const COUNT: usize = 200;
        let wait_list_per_entry = Duration::from_secs(1);
        let config = ThrottleConfig { wait_list_per_entry, ..ThrottleConfig::default() };
        let store = Store::new(Arc::new(ThrottledStore::new(InMemory::new(), config)), "");
        for number in 0..COUNT {
            store.create(&format!("d/{number}"), "x".into()).await.unwrap();
        }
        let start = store.time().now();
        assert_eq!(store.fold("d", |count: &mut usize, _| *count += 1).await.unwrap(), COUNT);
        assert_eq!(store.some_of("d", COUNT, |name| name != "d/0").await.unwrap().len(), COUNT - 1);
        let took = store.time().now() - start;
        assert!(took >= Duration::from_secs(2 * 200) && took < Duration::from_secs(2 * 200 + 5), "{took:?}");
    }
}
