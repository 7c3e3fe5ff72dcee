//! A store for one test, with checks that nothing was left in it.

use std::fmt;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore};
use tempfile::TempDir;
use vdstream::backup::Store;
use vdstream::backup::store::PartLimits;

use crate::data;
use crate::http::{self, Answer};
use crate::server::{
    AZURE_ACCOUNT, AZURE_CONTAINER, AZURE_KEY, Kind, S3_BUCKET, S3_KEY_ID, S3_REGION, S3_SECRET, client_environment,
};
use crate::tool;

/// A corner of some store that belongs to one test.
pub struct Place {
    on: On,
    store: Arc<dyn ObjectStore>,
    /// The same store's multipart interface, where `object_store` has one.
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: String,
}

#[derive(Debug)]
enum On {
    Disk(TempDir),
    /// Which server, and where.
    Server(Kind, String),
}

impl Place {
    /// A temporary directory, removed with this value.
    ///
    /// # Panics
    ///
    /// When the directory cannot be made.
    pub fn disk() -> Self {
        let dir = TempDir::with_prefix("vdstream-place-").expect("a temporary directory");
        let store = LocalFileSystem::new_with_prefix(dir.path()).expect("the directory exists");
        Self { on: On::Disk(dir), store: Arc::new(store), multipart: None, prefix: data::unique("disk") }
    }

    /// A prefix of its own in the bucket or container that all tests share.
    ///
    /// # Panics
    ///
    /// When the server is not to be had.
    pub async fn server(kind: Kind) -> Self {
        Self::at(kind, kind.endpoint()).await
    }

    /// The same on a server of this kind that listens elsewhere, or that is reached through a proxy.
    ///
    /// # Panics
    ///
    /// When the server is not to be had.
    pub async fn at(kind: Kind, endpoint: &str) -> Self {
        make_bucket(kind, endpoint).await;
        let on = On::Server(kind, endpoint.to_owned());
        match kind {
            Kind::Garage | Kind::Moto => Self::with(on, Arc::new(s3_at(endpoint, S3_SECRET)), "test"),
            Kind::Azurite => Self::with(on, Arc::new(azure_at(endpoint, AZURE_KEY)), "test"),
        }
    }

    fn with<S: ObjectStore + MultipartStore>(on: On, store: Arc<S>, name: &str) -> Self {
        let multipart: Arc<dyn MultipartStore> = Arc::<S>::clone(&store);
        Self { on, store, multipart: Some(multipart), prefix: data::unique(name) }
    }

    /// The server that it is on; none for a directory.
    pub fn kind(&self) -> Option<Kind> {
        match &self.on {
            On::Disk(_) => None,
            On::Server(kind, _) => Some(*kind),
        }
    }

    /// The place as the library sees it.
    ///
    /// Parts may be of any size, which no S3 store but Garage allows, so that a few kilobytes make a long backup. On moto they
    /// keep to the rule.
    ///
    /// # Panics
    ///
    /// When the library does not open a directory.
    pub fn backups(&self) -> Store {
        let Some(multipart) = &self.multipart else {
            return Store::from_url(&self.url()).expect("a directory can be opened");
        };
        let limits = match self.on {
            On::Server(Kind::Moto, _) => PartLimits::S3,
            On::Disk(_) | On::Server(..) => PartLimits::LOCAL,
        };
        Store::with_multipart(self.store(), Arc::clone(multipart), self.prefix.as_str()).part_limits(limits)
    }

    /// The whole store: bucket, container or directory. The test uses what lies below [`Self::prefix`].
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// Where the test's objects belong. No slash at either end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The same place as a URL for the command line tool and for `Store::from_url`.
    pub fn url(&self) -> String {
        let prefix = &self.prefix;
        match &self.on {
            On::Disk(dir) => format!("file://{}/{prefix}", dir.path().display()),
            On::Server(Kind::Garage | Kind::Moto, _) => format!("s3://{S3_BUCKET}/{prefix}"),
            On::Server(Kind::Azurite, _) => format!("az://{AZURE_CONTAINER}/{prefix}"),
        }
    }

    /// The variables that make [`Self::url`] work.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.on {
            On::Disk(_) => Vec::new(),
            On::Server(kind, endpoint) => client_environment(*kind, endpoint),
        }
    }

    /// The same through another endpoint of the server.
    pub fn environment_at(&self, endpoint: &str) -> Vec<(&'static str, String)> {
        match &self.on {
            On::Disk(_) => Vec::new(),
            On::Server(kind, _) => client_environment(*kind, endpoint),
        }
    }

    /// All objects below the prefix, in order, without the prefix. On disk these are all files, so an upload that was left half
    /// done counts as well.
    ///
    /// # Panics
    ///
    /// When the store does not answer.
    pub async fn objects(&self) -> Vec<String> {
        let mut names: Vec<_> = match &self.on {
            On::Disk(dir) => {
                let root = dir.path().join(&self.prefix);
                let name = |path: std::path::PathBuf| {
                    path.strip_prefix(&root).expect("found below the root").to_string_lossy().into_owned()
                };
                tool::files_below(&root).into_iter().map(name).collect()
            }
            On::Server(..) => {
                let prefix = Path::from(self.prefix.as_str());
                // Azurite closes a connection now and then that a client still takes for open.
                let mut listed: Result<Vec<_>, _> = self.store.list(Some(&prefix)).try_collect().await;
                for _ in 0..3 {
                    if listed.is_err() {
                        listed = self.store.list(Some(&prefix)).try_collect().await;
                    }
                }
                listed
                    .expect("the store lists")
                    .into_iter()
                    .map(|meta| meta.location.to_string()[self.prefix.len() + 1..].to_owned())
                    .collect()
            }
        };
        names.sort();
        names
    }

    /// The keys of multipart uploads that are neither completed nor aborted.
    ///
    /// On Azure there is no such thing: blocks that are never committed disappear after a week, and until then their blob is
    /// listed here.
    ///
    /// # Panics
    ///
    /// When the store does not answer.
    pub async fn uploads(&self) -> Vec<String> {
        match &self.on {
            On::Disk(_) => Vec::new(),
            On::Server(kind @ (Kind::Garage | Kind::Moto), endpoint) => {
                let path = format!("/{S3_BUCKET}?prefix={}%2F&uploads=", self.prefix);
                expect(http::request(*kind, endpoint, "GET", &path).await, 200).elements("Key")
            }
            On::Server(kind @ Kind::Azurite, endpoint) => {
                let list = format!("/{AZURE_CONTAINER}?restype=container&comp=list&prefix={}%2F", self.prefix);
                let committed = expect(http::request(*kind, endpoint, "GET", &list).await, 200).elements("Name");
                let all = format!("{list}&include=uncommittedblobs");
                let mut names = expect(http::request(*kind, endpoint, "GET", &all).await, 200).elements("Name");
                names.retain(|name| !committed.contains(name));
                names
            }
        }
    }

    /// The keys of open uploads that hold data. One without parts costs nothing, and a crash between its beginning and its record
    /// leaves one. Blocks on Azure that were never committed do not count: nobody but Azure removes them, after a week.
    ///
    /// # Panics
    ///
    /// When the store does not answer.
    pub async fn uploads_with_parts(&self) -> Vec<String> {
        let On::Server(kind @ (Kind::Garage | Kind::Moto), endpoint) = &self.on else { return Vec::new() };
        let path = format!("/{S3_BUCKET}?prefix={}%2F&uploads=", self.prefix);
        let open = expect(http::request(*kind, endpoint, "GET", &path).await, 200);
        let mut keys = Vec::new();
        for (key, id) in open.elements("Key").into_iter().zip(open.elements("UploadId")) {
            let path = format!("/{S3_BUCKET}/{key}?uploadId={id}");
            let parts = http::request(*kind, endpoint, "GET", &path).await;
            // One that ended in between has no parts either.
            if parts.status != 404 && !expect(parts, 200).elements("PartNumber").is_empty() {
                keys.push(key);
            }
        }
        keys
    }

    /// Checks that no object and no multipart upload is left.
    ///
    /// # Panics
    ///
    /// When something is. Uncommitted blocks on Azure pass: nobody but Azure can remove them.
    pub async fn assert_empty(&self) {
        assert_eq!(self.objects().await, [""; 0], "objects left in {self:?}");
        if !matches!(self.on, On::Server(Kind::Azurite, _)) {
            assert_eq!(self.uploads().await, [""; 0], "multipart uploads left in {self:?}");
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("on", &self.on).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A client of the bucket that signs with any secret.
///
/// # Panics
///
/// When the server is not to be had.
pub fn s3(kind: Kind, secret: &str) -> impl ObjectStore + MultipartStore {
    s3_at(kind.endpoint(), secret)
}

fn s3_at(endpoint: &str, secret: &str) -> object_store::aws::AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region(S3_REGION)
        .with_bucket_name(S3_BUCKET)
        .with_access_key_id(S3_KEY_ID)
        .with_secret_access_key(secret)
        .with_retry(no_retries())
        .build()
        .expect("a complete configuration")
}

/// A client of the container that signs with any key.
///
/// # Panics
///
/// When the server is not to be had.
pub fn azure(key: &str) -> impl ObjectStore + MultipartStore {
    azure_at(Kind::Azurite.endpoint(), key)
}

fn azure_at(endpoint: &str, key: &str) -> object_store::azure::MicrosoftAzure {
    MicrosoftAzureBuilder::new()
        .with_endpoint(endpoint.to_owned())
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_account(AZURE_ACCOUNT)
        .with_access_key(key)
        .with_container_name(AZURE_CONTAINER)
        .with_retry(no_retries())
        .build()
        .expect("a complete configuration")
}

/// A server on loopback that fails has failed: trying again would only hide it.
fn no_retries() -> object_store::RetryConfig {
    object_store::RetryConfig { max_retries: 0, ..Default::default() }
}

/// Makes the bucket or container that all tests share, if it is not there yet.
///
/// # Panics
///
/// When the server refuses.
pub async fn make_bucket(kind: Kind, endpoint: &str) {
    let answer = match kind {
        Kind::Garage => return,
        Kind::Moto => http::request(kind, endpoint, "PUT", &format!("/{S3_BUCKET}")).await,
        Kind::Azurite => http::request(kind, endpoint, "PUT", &format!("/{AZURE_CONTAINER}?restype=container")).await,
    };
    assert!(matches!(answer.status, 200 | 201 | 409), "cannot make the bucket: {answer:?}");
}

fn expect(answer: Answer, status: u16) -> Answer {
    assert_eq!(answer.status, status, "{}", answer.body);
    answer
}
