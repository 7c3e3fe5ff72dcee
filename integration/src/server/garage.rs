//! Garage: one node, LMDB, one bucket.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::guard::Plan;
use crate::tool;

/// The bucket that exists on every S3 server of ours.
pub const S3_BUCKET: &str = "vdstream";
/// The region that requests are signed for. In any other, moto wants a body to make the bucket.
pub const S3_REGION: &str = "us-east-1";
/// The access key. A constant of the tests, valid for no server but theirs.
pub const S3_KEY_ID: &str = "GK0123456789abcdef01234567";
/// The secret of [`S3_KEY_ID`].
pub const S3_SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub(super) const PLAN: Plan = Plan { name: "garage", ports: 2, path: "", command };

fn command(port: u16, dir: &Path) -> Command {
    let config = dir.join("garage.toml");
    let (data, rpc) = (dir.display(), port + 1);
    let text = format!(
        r#"metadata_dir = "{data}/meta"
data_dir = "{data}/data"
db_engine = "lmdb"
replication_factor = 1
metadata_fsync = false
data_fsync = false
compression_level = "none"
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{S3_SECRET}"

[s3_api]
s3_region = "{S3_REGION}"
api_bind_addr = "127.0.0.1:{port}"
"#
    );
    std::fs::write(&config, text).expect("the configuration goes into our own directory");
    // Garage refuses a file with secrets that others may read.
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");

    let mut command = Command::new(tool::installed("GARAGE"));
    command.arg("-c").arg(config).args(["server", "--single-node", "--default-bucket"]);
    command.env("GARAGE_DEFAULT_ACCESS_KEY", S3_KEY_ID).env("GARAGE_DEFAULT_SECRET_KEY", S3_SECRET);
    command.env("GARAGE_DEFAULT_BUCKET", S3_BUCKET).env("RUST_LOG", "warn");
    command
}
