//! Device sets that are shared with another process, and `engine`, the other side.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::value::{age, is_typed};

/// The device set that this process shares with another one.
#[derive(Debug, Args)]
pub(crate) struct Devices {
    /// The other side is a process, at this device set
    ///
    /// It comes to the set by its name, through shared memory.
    #[arg(long, value_name = "NAME")]
    pub(crate) device_set: Option<String>,
    /// The directory in which the device sets are [default: vdstream in XDG_RUNTIME_DIR]
    #[arg(hide_short_help = true, long, value_name = "DIR", env = HUB)]
    pub(crate) hub: Option<PathBuf>,
    /// A user, by number, who may be the other side, besides this one; repeat for more
    #[arg(hide_short_help = true, long, value_name = "UID", requires = "device_set")]
    pub(crate) allow_user: Vec<u32>,
    /// A group, by number, that the other side may run as; repeat for more
    #[arg(hide_short_help = true, long, value_name = "GID", requires = "device_set")]
    pub(crate) allow_group: Vec<u32>,
}

const HUB: &str = "VDSTREAM_HUB";

impl Devices {
    /// Whether a hub was typed, and no set that is to be in it.
    pub(crate) fn is_hub_alone(&self) -> bool {
        let is_typed = |hub: &PathBuf| is_typed(hub, HUB, |text| Some(text.into()));
        self.device_set.is_none() && self.hub.as_ref().is_some_and(is_typed)
    }
}

const ENGINE_EXAMPLES: &str = "\
Examples:
  vdstream engine backup --device-set nightly --input a.img --input b.img
  vdstream engine restore --device-set nightly --output a.img --output b.img

In another terminal runs the other side: `vdstream backup URL --device-set nightly --devices 2`, or `vdstream restore \
URL latest --device-set nightly`.";

#[derive(Debug, Args)]
#[command(after_help = ENGINE_EXAMPLES)]
pub(crate) struct Engine {
    #[command(subcommand)]
    pub(crate) what: EngineWork,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EngineWork {
    /// Send files to the agent
    #[command(after_help = "Example:\n  vdstream engine backup --device-set nightly --input a.img --input b.img")]
    Backup {
        /// A file or FIFO to send; one per device
        #[arg(long, value_name = "PATH", required = true)]
        input: Vec<PathBuf>,
        #[command(flatten)]
        options: EngineOptions,
    },
    /// Take what the agent restores
    #[command(after_help = "Example:\n  vdstream engine restore --device-set nightly --output a.img --output b.img")]
    Restore {
        /// A file, FIFO or device to write, one per device
        #[arg(long, short, value_name = "PATH", required = true)]
        output: Vec<PathBuf>,
        #[command(flatten)]
        options: EngineOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EngineOptions {
    #[command(flatten)]
    pub(crate) devices: Devices,
    /// How long to wait for the agent to create the set
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = age)]
    pub(crate) wait: Duration,
}
