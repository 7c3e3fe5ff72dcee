//! moto: an S3 double in Python that honours conditional puts.

use std::path::Path;
use std::process::Command;

use super::guard::Plan;
use crate::tool;

pub(super) const PLAN: Plan = Plan { name: "moto", ports: 1, path: "", command };

fn command(port: u16, _: &Path) -> Command {
    let mut command = Command::new(tool::installed("MOTO"));
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    command
}
