//! From a URL to a store.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use object_store::memory::InMemory;

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use super::demand::{Demands, Knows};
use super::environment::Environment;
use super::handle::Store;
use super::location::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Mutex;

pub(super) fn open(url: &str) -> Result<Store> {
    open_with(url, &Environment::of_process())
}

fn open_with(url: &str, environment: &Environment) -> Result<Store> {
    let location = Location::parse(url)?;
    let label = location.label();
    match location {
        Location::Memory { name, prefix } => {
            let memory = Arc::clone(MEMORY.lock().entry(name).or_default());
            Ok(Store::in_memory(memory, prefix, label))
        }
        Location::Local(path) => local(path, label).map(Store::sharing_clock),
        Location::S3 { bucket, prefix } => s3(&bucket, prefix, label, environment),
        Location::Azure { container, account, prefix } => {
            azure(&container, account.as_deref(), prefix, label, environment)
        }
        Location::Gcs { bucket, prefix } => gcs(&bucket, prefix, label, environment),
    }
}

/// `memory://NAME` lasts as long as the process.
static MEMORY: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

#[cfg_attr(all(feature = "fs", feature = "aws", feature = "azure", feature = "gcp"), expect(dead_code))]
fn not_built(label: &str, feature: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("{label} needs the feature `{feature}`, which this build was made without"))
}

/// One value behind both of a store's interfaces.
#[cfg(any(feature = "fs", feature = "aws", feature = "azure", feature = "gcp"))]
fn assemble<S>(
    store: Arc<S>,
    prefix: object_store::path::Path,
    label: String,
    limits: super::handle::PartLimits,
    tasks: tokio_util::task::TaskTracker,
) -> Store
where
    S: object_store::ObjectStore + object_store::multipart::MultipartStore,
{
    let multipart: Arc<dyn object_store::multipart::MultipartStore> = Arc::<S>::clone(&store);
    Store::assemble(store, multipart, prefix, label, limits, tasks).lend_payloads()
}

#[cfg(feature = "fs")]
fn local(path: std::path::PathBuf, label: String) -> Result<Store> {
    let tasks = tokio_util::task::TaskTracker::new();
    Ok(on_disk(super::local::LocalStore::new(path, tasks.clone()), label, tasks))
}

#[cfg(feature = "fs")]
fn on_disk(store: super::local::LocalStore, label: String, tasks: tokio_util::task::TaskTracker) -> Store {
    let (store, limits) = (Arc::new(store), super::handle::PartLimits::LOCAL);
    let durable = Arc::clone(&store);
    assemble(store, object_store::path::Path::default(), label, limits, tasks)
        .with_durable(durable)
        .without_aborted_uploads()
}

/// A store in the directory `root` some of whose syncs fail.
#[cfg(all(test, feature = "fs"))]
pub(in crate::backup) fn scripted(root: &std::path::Path, script: &Arc<super::syncs::Script>) -> Store {
    let tasks = tokio_util::task::TaskTracker::new();
    let syncs = super::syncs::Syncs::scripted(script);
    let store = super::local::LocalStore::syncing(root.to_owned(), tasks.clone(), syncs);
    on_disk(store, format!("file://{}", root.display()), tasks)
}

#[cfg(not(feature = "fs"))]
fn local(_: std::path::PathBuf, label: String) -> Result<Store> {
    Err(not_built(&label, "fs"))
}

#[cfg(feature = "aws")]
fn s3(bucket: &str, prefix: object_store::path::Path, label: String, environment: &Environment) -> Result<Store> {
    let bucket = super::aws::open(bucket, &label, environment)?;
    let demands = Demands::of(environment, &label, Knows::Both)?;
    let store = assemble(bucket.store, prefix, label, super::handle::PartLimits::S3, Default::default());
    Ok(store.with_rules(bucket.rules).with_demands(demands))
}

#[cfg(not(feature = "aws"))]
fn s3(_: &str, _: object_store::path::Path, label: String, _: &Environment) -> Result<Store> {
    Err(not_built(&label, "aws"))
}

#[cfg(feature = "azure")]
fn azure(
    container: &str,
    account: Option<&str>,
    prefix: object_store::path::Path,
    label: String,
    environment: &Environment,
) -> Result<Store> {
    let store = super::azure::open(container, account, &label, environment)?;
    Demands::of(environment, &label, Knows::Nothing)?;
    let store = assemble(Arc::new(store), prefix, label, super::handle::PartLimits::AZURE, Default::default());
    // Blocks that are never committed go by themselves.
    Ok(store.without_aborted_uploads())
}

#[cfg(not(feature = "azure"))]
fn azure(_: &str, _: Option<&str>, _: object_store::path::Path, label: String, _: &Environment) -> Result<Store> {
    Err(not_built(&label, "azure"))
}

#[cfg(feature = "gcp")]
fn gcs(bucket: &str, prefix: object_store::path::Path, label: String, environment: &Environment) -> Result<Store> {
    let store = super::gcp::open(bucket, &label, environment)?;
    let demands = Demands::of(environment, &label, Knows::Class)?;
    let limits = super::handle::PartLimits::S3;
    Ok(assemble(Arc::new(store), prefix, label, limits, Default::default()).with_demands(demands))
}

#[cfg(not(feature = "gcp"))]
fn gcs(_: &str, _: object_store::path::Path, label: String, _: &Environment) -> Result<Store> {
    Err(not_built(&label, "gcp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_same_memory_url_is_the_same_store() {
        let name = "memory://the_same_memory_url/x";
        let (one, two) = (Store::from_url(name).unwrap(), Store::from_url(name).unwrap());
        one.create("a", "1".into()).await.unwrap();
        assert_eq!(two.find_size("a").await.unwrap(), Some(1));
        let other = Store::from_url("memory://the_same_memory_url/y").unwrap();
        assert_eq!(other.find_size("a").await.unwrap(), None);
    }

    #[cfg(not(feature = "aws"))]
    #[test]
    fn a_store_that_is_not_built_in_names_its_feature() {
        let error = Store::from_url("s3://b/x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("`aws`"), "{error}");
    }
}
