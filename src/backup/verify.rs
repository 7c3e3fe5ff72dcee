//! Is a backup still what was written? Three depths, from a listing to reading everything.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Serialize, Serializer};

use super::id::BackupId;
use super::manifest::Manifest;
use super::names::Series;
use super::reader;
use super::store::Store;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::{PipelineConfig, SegmentId, SegmentSummary};

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyLevel {
    /// Every object is there and has its size: one listing.
    Quick,
    /// Every object has its hash: everything is read, nothing is decompressed.
    Stored,
    /// `Stored`, and the content is decompressed and has its hash: everything is read twice.
    Full,
}

impl VerifyLevel {
    /// The level's name, as [`FromStr`] reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Stored => "stored",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for VerifyLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for VerifyLevel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Quick, Self::Stored, Self::Full];
        all.into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "not a level of verification: use quick, stored or full"))
    }
}

/// How to verify.
#[derive(Debug, Clone)]
#[must_use]
pub struct VerifyOptions {
    level: VerifyLevel,
    pipeline: PipelineConfig,
}

impl VerifyOptions {
    /// At `level`, with the pipeline's defaults.
    pub fn new(level: VerifyLevel) -> Self {
        Self { level, pipeline: PipelineConfig::default() }
    }

    /// Memory limit, concurrency, threads: see [`PipelineConfig`]. Hashing stored bytes holds `concurrency` times
    /// `part_bytes`, but no more than the memory limit.
    pub fn pipeline(mut self, config: PipelineConfig) -> Self {
        self.pipeline = config;
        self
    }
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Which backup.
    pub id: BackupId,
    /// Its series.
    pub series: Series,
    /// How deep it was looked.
    pub level: VerifyLevel,
    /// Objects that were looked at.
    pub objects: usize,
    /// Stored bytes that were read and hashed.
    pub stored_bytes: u64,
    /// Raw bytes that were decompressed and hashed.
    pub raw_bytes: u64,
    /// How long it took, in seconds.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub elapsed: Duration,
    /// What is wrong; nothing if the backup is good.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// True if nothing is wrong, as far as it was looked.
    pub fn is_good(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Something wrong with a backup.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The stripe that is damaged.
    pub stripe: u16,
    /// The segment, if the damage is of one.
    pub segment: Option<u32>,
    /// What is wrong: object, offset, expected, found.
    #[serde(serialize_with = "report")]
    pub error: Error,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn report<S: Serializer>(error: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&error.report())
}

/// Compares a backup with its manifest. Damage is in the report; it is not an error.
///
/// # Errors
///
/// Those of the store, by kind, if it could not be looked at; [`ErrorKind::Invalid`] if the memory limit does not suffice.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads.
pub async fn verify(store: &Store, manifest: &Manifest, options: VerifyOptions) -> Result<VerifyReport> {
    let start = store.time().now();
    let mut report = VerifyReport {
        id: manifest.id,
        series: manifest.series.clone(),
        level: options.level,
        objects: manifest.segments(),
        stored_bytes: 0,
        raw_bytes: 0,
        elapsed: Duration::ZERO,
        damage: Vec::new(),
    };
    quick(store, manifest, &mut report).await?;
    if options.level >= VerifyLevel::Stored {
        stored(store, manifest, &options.pipeline, &mut report).await?;
    }
    if options.level >= VerifyLevel::Full {
        full(store, manifest, options.pipeline, &mut report).await?;
    }
    report.elapsed = store.time().now().saturating_sub(start);
    Ok(report)
}

/// Names and sizes.
async fn quick(store: &Store, manifest: &Manifest, report: &mut VerifyReport) -> Result<()> {
    let listed = store.list(&manifest.names().directory()).await?;
    let sizes: HashMap<&str, u64> = listed.iter().map(|object| (object.name.as_str(), object.bytes)).collect();
    for (id, name, segment) in manifest.objects() {
        // Some listings lag behind; what they lack is asked for by name.
        let size = match sizes.get(name.as_str()) {
            Some(size) => Some(*size),
            None => store.find_size(&name).await?,
        };
        let object = store.show(&name);
        let error = match size {
            Some(size) if size == segment.stored_bytes => continue,
            None => super::segments::missing(&object),
            Some(size) => {
                let offset = size.min(segment.stored_bytes);
                let expected = segment.stored_bytes;
                Error::new(
                    ErrorKind::Corrupt,
                    format!("{object}, offset {offset}: expected {expected} bytes in all, found {size}"),
                )
            }
        };
        report.damage.push(Damage { stripe: id.stripe, segment: Some(id.index), error });
    }
    Ok(())
}

/// Hashes of the objects.
async fn stored(store: &Store, manifest: &Manifest, config: &PipelineConfig, report: &mut VerifyReport) -> Result<()> {
    let piece_bytes = config.part_bytes.max(1) as u64;
    let at_once = (config.memory_limit / piece_bytes).clamp(1, config.concurrency.max(1) as u64);
    let bad: Vec<(u16, Option<u32>)> = report.damage.iter().map(|damage| (damage.stripe, damage.segment)).collect();
    // A segment whose size is wrong is reported already.
    let to_read = manifest.objects().filter(|(id, ..)| !bad.contains(&(id.stripe, Some(id.index))));
    let mut outcomes = stream::iter(to_read)
        .map(|(id, name, segment)| async move {
            (id, segment.stored_bytes, hash(store, id, &name, segment, piece_bytes).await)
        })
        .buffer_unordered(usize::try_from(at_once).unwrap_or(1));
    while let Some((id, bytes, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => report.stored_bytes += bytes,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                report.damage.push(Damage { stripe: id.stripe, segment: Some(id.index), error });
            }
            Err(error) => return Err(error),
        }
    }
    report.damage.sort_by_key(|damage| (damage.stripe, damage.segment));
    Ok(())
}

async fn hash(store: &Store, _: SegmentId, name: &str, segment: &SegmentSummary, piece_bytes: u64) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0;
    while offset < segment.stored_bytes {
        let end = segment.stored_bytes.min(offset + piece_bytes);
        let bytes = store.read_range_again(name, offset..end).await?;
        if bytes.len() as u64 != end - offset {
            let found = offset + bytes.len() as u64;
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "{}, offset {found}: expected {} bytes in all, found {found}",
                    store.show(name),
                    segment.stored_bytes
                ),
            ));
        }
        offset = end;
        // Milliseconds of work for each piece: not on a thread that others wait for.
        let job = store.tasks().spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        });
        hasher = job.await.map_err(|error| Error::new(ErrorKind::Internal, "hashing panicked").with_source(error))?;
    }
    let found = hasher.finalize();
    if found == segment.stored_hash {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("{}, offset 0: expected stored hash {}, found {found}", store.show(name), segment.stored_hash),
    ))
}

/// The content, as a restore would read it.
async fn full(store: &Store, manifest: &Manifest, config: PipelineConfig, report: &mut VerifyReport) -> Result<()> {
    let pipeline = reader::pipeline(store, manifest, config)?;
    let stripes: Vec<_> = (0u16..).zip(&manifest.stripes).collect();
    let mut outcomes = stream::iter(stripes)
        .map(|(stripe, summary)| {
            let pipeline = pipeline.clone();
            async move {
                let mut frames = std::pin::pin!(pipeline.restore_stripe(stripe, summary));
                let mut raw_bytes = 0;
                while let Some(frame) = frames.next().await {
                    match frame {
                        Ok(bytes) => raw_bytes += bytes.len() as u64,
                        Err(error) => return (stripe, raw_bytes, Some(error)),
                    }
                }
                (stripe, raw_bytes, None)
            }
        })
        // All stripes are planned for; they share the memory.
        .buffer_unordered(manifest.stripes.len().max(1));
    while let Some((stripe, raw_bytes, error)) = outcomes.next().await {
        report.raw_bytes += raw_bytes;
        // Segments of this stripe that fail by themselves are listed already, and are why it fails.
        let is_known = report.damage.iter().any(|damage| damage.stripe == stripe);
        match error {
            Some(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            Some(error) if !is_known => report.damage.push(Damage { stripe, segment: None, error }),
            _ => {}
        }
    }
    report.damage.sort_by_key(|damage| (damage.stripe, damage.segment));
    Ok(())
}
