//! Azurite: the blob service alone, on disk.

use std::path::Path;
use std::process::Command;

use super::guard::Plan;
use crate::tool;

/// The account that Azurite has by itself.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// The key of [`AZURE_ACCOUNT`], printed in Azurite's manual.
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The container that exists on every Azurite of ours.
pub const AZURE_CONTAINER: &str = "vdstream";

pub(super) const PLAN: Plan = Plan { name: "azurite", ports: 1, path: "/devstoreaccount1", command };

fn command(port: u16, dir: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(tool::installed("AZURITE")).args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]).arg(dir);
    command
}
