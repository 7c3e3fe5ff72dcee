//! What a caller chooses about a backup or a restore.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::encryption::Readers;
use super::id::BackupId;
use super::kind::Kind;
use super::manifest::Producer;
use super::resume_watch::ResumeWatch;
use crate::pipeline::{Identities, PipelineConfig};
#[cfg(feature = "encryption")]
use crate::pipeline::{Passphrase, Recipients};

/// How a backup is made, and what is noted about it.
#[derive(Debug, Clone)]
#[must_use]
pub struct BackupOptions {
    pub(super) stripes: u16,
    pub(super) pipeline: PipelineConfig,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) kind: Kind,
    pub(super) parent: Option<BackupId>,
    pub(super) keep_until: Option<Timestamp>,
    pub(super) host: Option<String>,
    pub(super) producer: Option<Producer>,
    pub(super) clean_up_timeout: Duration,
    pub(super) readers: Readers,
}

impl Default for BackupOptions {
    /// One stripe, the pipeline's defaults, this machine's host name.
    fn default() -> Self {
        Self {
            stripes: 1,
            pipeline: PipelineConfig::default(),
            labels: BTreeMap::new(),
            kind: Kind::Full,
            parent: None,
            keep_until: None,
            host: host(),
            producer: None,
            clean_up_timeout: DEFAULT_CLEAN_UP_TIMEOUT,
            readers: Readers::default(),
        }
    }
}

impl BackupOptions {
    /// Number of parallel streams, 1 to 64, default 1. Each needs buffers of its own within the memory limit.
    pub fn stripes(mut self, stripes: u16) -> Self {
        self.stripes = stripes;
        self
    }

    /// The most time that removing an aborted backup may take in all; default 60 s, zero removes nothing.
    ///
    /// When it has passed, everything that still runs is ended, and the error of [`Backup::abort`](super::Backup::abort) says
    /// what may be left: objects and uploads that `vdstream gc` finds by the intent. The commit waits as long for requests
    /// whose answers come too late to matter. If not even the intent was answered, the time is 5 s at most.
    pub fn clean_up_timeout(mut self, limit: Duration) -> Self {
        self.clean_up_timeout = limit;
        self
    }

    /// Encrypts every segment to these public keys, each of which opens it. The machine that makes the backup needs no
    /// private key. By default nothing is encrypted.
    #[cfg(feature = "encryption")]
    pub fn recipients(mut self, recipients: Recipients) -> Self {
        self.readers.recipients = Some(recipients);
        self
    }

    /// Encrypts every segment so that the passphrase opens it, beside the recipients, if there are any.
    ///
    /// [`Backup::begin`](super::Backup::begin) then takes about a second longer, and for that time up to 256 MiB, but no more
    /// than the memory limit unless that is below 16 MiB.
    #[cfg(feature = "encryption")]
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        self.readers.passphrase = Some(passphrase);
        self
    }

    /// Memory limit, frame, part and segment sizes, level, concurrency: see [`PipelineConfig`].
    pub fn pipeline(mut self, config: PipelineConfig) -> Self {
        self.pipeline = config;
        self
    }

    /// Notes a key and a value in the manifest; both are readable by everyone who can read the store.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Makes it a differential or log backup that continues `parent`, a committed backup of the same series.
    ///
    /// Retention keeps a chain whole: as long as this backup is kept, its parents are.
    pub fn continues(mut self, parent: BackupId, kind: Kind) -> Self {
        self.parent = Some(parent);
        self.kind = kind;
        self
    }

    /// Protects the backup: retention and deletion leave it alone until `time`. The store itself is not asked to lock it.
    ///
    /// Later than the moment at which the backup begins, by the clock of this machine: an earlier time would protect nothing, and is
    /// refused. By default nothing is protected.
    pub fn keep_until(mut self, time: Timestamp) -> Self {
        self.keep_until = Some(time);
        self
    }

    /// The host name to note; by default that of this machine. `None` notes none.
    pub fn host(mut self, host: Option<String>) -> Self {
        self.host = host;
        self
    }

    /// Notes who produces the data. [`Backup::set_producer`](super::Backup::set_producer) can change it until the commit.
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }
}

/// How a backup that was interrupted goes on. What its beginning has decided (stripes, level, frame size, labels, kind and parent)
/// stays as it is.
#[derive(Debug, Clone)]
#[must_use]
pub struct ResumeOptions {
    pub(super) pipeline: PipelineConfig,
    pub(super) silence: Duration,
    pub(super) producer: Option<Producer>,
    pub(super) clean_up_timeout: Duration,
    pub(super) watch: ResumeWatch,
}

impl Default for ResumeOptions {
    /// The pipeline's defaults, five minutes of silence.
    fn default() -> Self {
        Self {
            pipeline: PipelineConfig::default(),
            silence: DEFAULT_SILENCE,
            producer: None,
            clean_up_timeout: DEFAULT_CLEAN_UP_TIMEOUT,
            watch: ResumeWatch::new(),
        }
    }
}

impl ResumeOptions {
    /// Memory limit, part and segment sizes, concurrency: see [`PipelineConfig`]. Level and frame size are those of the backup.
    pub fn pipeline(mut self, config: PipelineConfig) -> Self {
        self.pipeline = config;
        self
    }

    /// The least time without a sign of life, default 5 minutes, zero asks for none: a backup that has stored anything since
    /// is taken to be running, and is not resumed.
    ///
    /// It only keeps a process that is alive from being interrupted. No backup is damaged if the time is too short; the process
    /// that was taken over from fails. It is measured by the store's clock, which is asked for. A process that has
    /// resumed the backup and has ended in good order needs no silence.
    pub fn silence(mut self, time: Duration) -> Self {
        self.silence = time;
        self
    }

    /// Notes who produces the data, as [`BackupOptions::producer`] does.
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producer = Some(producer);
        self
    }

    /// As [`BackupOptions::clean_up_timeout`].
    pub fn clean_up_timeout(mut self, limit: Duration) -> Self {
        self.clean_up_timeout = limit;
        self
    }

    /// Tells `watch` how far the look at what is stored is.
    pub fn watch(mut self, watch: &ResumeWatch) -> Self {
        self.watch = watch.clone();
        self
    }
}

/// How a backup is read back.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct RestoreOptions {
    pub(super) pipeline: PipelineConfig,
    pub(super) identities: Option<Identities>,
}

impl RestoreOptions {
    /// Memory limit, concurrency, threads: see [`PipelineConfig`]. The frame size comes from the manifest.
    pub fn pipeline(mut self, config: PipelineConfig) -> Self {
        self.pipeline = config;
        self
    }

    /// What opens the segments of an encrypted backup; see also [`unlock`](super::unlock).
    #[cfg(feature = "encryption")]
    pub fn identities(mut self, identities: Identities) -> Self {
        self.identities = Some(identities);
        self
    }
}

/// A process that moves 4 MB/s begins a segment of 1 GiB about as often.
pub(super) const DEFAULT_SILENCE: Duration = Duration::from_secs(5 * 60);

const DEFAULT_CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// This machine's name.
pub(super) fn host() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The tool and version that stand in intents and manifests.
pub(super) const TOOL: &str = concat!("vdstream ", env!("CARGO_PKG_VERSION"));
