//! What `backup`, `restore` and `verify` share: what they may take, and where they tell about it.

use std::path::PathBuf;

use clap::Args;

use super::value::{is_typed, rate, size};

#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// The most memory that all buffers may take: 512MiB, 2G (K, M, G, T are binary; KB, MB, GB, TB decimal)
    #[arg(hide_short_help = true, long, value_name = "SIZE", default_value = "256MiB", value_parser = size, env = "VDSTREAM_MEMORY")]
    pub(crate) memory: u64,
    /// Compression or decompression jobs at once [default: one per core]
    #[arg(hide_short_help = true, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), env = "VDSTREAM_THREADS")]
    pub(crate) threads: Option<u16>,
    /// Requests to the store at once
    #[arg(hide_short_help = true, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), env = "VDSTREAM_CONCURRENCY")]
    pub(crate) concurrency: Option<u16>,
}

/// What is read from the store.
#[derive(Debug, Args)]
pub(crate) struct Download {
    /// The most to read per second, over all stripes
    #[arg(hide_short_help = true, long, value_name = "SIZE", value_parser = rate, env = LIMIT_DOWNLOAD)]
    pub(crate) limit_download: Option<u64>,
}

const LIMIT_DOWNLOAD: &str = "VDSTREAM_LIMIT_DOWNLOAD";

impl Download {
    pub(crate) fn is_typed(&self) -> bool {
        self.limit_download.is_some_and(|limit| is_typed(&limit, LIMIT_DOWNLOAD, |text| rate(text.to_str()?).ok()))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Keep numbers about this run in a file, for the textfile collector of Prometheus' node exporter
    #[arg(hide_short_help = true, long, value_name = "PATH", env = "VDSTREAM_METRICS_FILE")]
    pub(crate) metrics_file: Option<PathBuf>,
}
