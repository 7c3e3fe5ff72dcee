//! The servers: started once per process, or found running by the environment.

mod azurite;
mod garage;
mod guard;
mod lasting;
mod moto;
mod postgres;

use std::sync::OnceLock;

pub use azurite::{AZURE_ACCOUNT, AZURE_CONTAINER, AZURE_KEY};
pub use garage::{S3_BUCKET, S3_KEY_ID, S3_REGION, S3_SECRET};
pub use guard::Running;
pub use lasting::Lasting;
pub use postgres::Cluster;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// S3: checks signatures and checksums, lists multipart uploads, ignores conditional puts.
    Garage,
    /// S3: honours conditional puts, checks no signature. Keeps everything in memory: small objects only.
    Moto,
    /// Azure Blob.
    Azurite,
}

impl Kind {
    /// Every server.
    pub const ALL: [Self; 3] = [Self::Garage, Self::Moto, Self::Azurite];

    /// The variable that names the endpoint of a server which already runs.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Garage => "VDSTREAM_TEST_GARAGE",
            Self::Moto => "VDSTREAM_TEST_MOTO",
            Self::Azurite => "VDSTREAM_TEST_AZURITE",
        }
    }

    /// Starts a server of its own, which ends when the returned value is dropped or the process dies in whatever way.
    ///
    /// # Panics
    ///
    /// When the server is not installed or does not come up.
    pub fn start(self) -> Running {
        Running::start(self.plan())
    }

    fn plan(self) -> &'static guard::Plan {
        match self {
            Self::Garage => &garage::PLAN,
            Self::Moto => &moto::PLAN,
            Self::Azurite => &azurite::PLAN,
        }
    }

    /// The endpoint of the shared server: the one named by [`Self::variable`], else one started for this process.
    ///
    /// For Azurite the endpoint ends in the account's name, as clients want it.
    ///
    /// # Panics
    ///
    /// When there is none and it cannot be started.
    pub fn endpoint(self) -> &'static str {
        static ENDPOINTS: [OnceLock<(String, Option<Running>)>; 3] = [const { OnceLock::new() }; 3];
        let (endpoint, _) = ENDPOINTS[self as usize].get_or_init(|| match std::env::var(self.variable()) {
            Ok(endpoint) => (endpoint, None),
            Err(_) => {
                let running = self.start();
                (running.endpoint().to_owned(), Some(running))
            }
        });
        endpoint
    }
}

/// What a user of the command line tool or of `Store::from_url` sets to reach the server at `endpoint`.
pub fn client_environment(kind: Kind, endpoint: &str) -> Vec<(&'static str, String)> {
    match kind {
        Kind::Garage | Kind::Moto => vec![
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
            ("AWS_ACCESS_KEY_ID", S3_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", S3_SECRET.to_owned()),
            ("AWS_REGION", S3_REGION.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ],
        Kind::Azurite => vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
            ("AZURE_STORAGE_ENDPOINT", endpoint.to_owned()),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
        ],
    }
}
