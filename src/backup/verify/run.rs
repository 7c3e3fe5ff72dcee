//! One verification: the order of its steps.

use std::collections::HashSet;
use std::time::Duration;

use super::choice::{self, Segment};
use super::content;
use super::coverage::Coverage;
use super::documents;
use super::listing::Listing;
use super::options::{VerifyLevel, VerifyOptions};
use super::record::{RecordName, Verification};
use super::report::{Damage, Unnamed, VerifyReport};
use super::standing;
use super::stored;
use super::watch::{VerifyProgress, VerifyStep};
use crate::backup::encryption;
use crate::backup::manifest::Manifest;
use crate::backup::store::Store;
use crate::error::Result;
use crate::meter::{self, Counter, Histogram};
use crate::pipeline::SegmentId;

/// Compares a backup with its manifest and records the result beside it. Damage is in the report; it is not an error, and
/// neither is a record that cannot be written. Segments that the manifest does not name are no damage, and are told beside it.
///
/// | level | looks at |
/// |---|---|
/// | [`Quick`](VerifyLevel::Quick) | one listing: every object is there and has its size |
/// | [`Stored`](VerifyLevel::Stored) | besides, the manifest, the intent and earlier records, and the hash of every segment |
/// | [`Full`](VerifyLevel::Full) | besides, every frame, decompressed as a restore does |
///
/// The record carries on damage that stood before and that this one has not shown to be gone, see [`Standing`](super::Standing).
///
/// After a damaged segment it goes on with the next. `Full` adds to a wrong hash of a segment the range of the first frame that is
/// damaged, as a finding of its own.
///
/// # Errors
///
/// Those of the store, by kind, if it could not be looked at; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the memory
/// limit does not suffice or the options contradict each other; [`ErrorKind::Locked`](crate::ErrorKind::Locked) if the level is
/// full, the backup is encrypted, and its key is missing or another one.
///
/// # Cancel safety
///
/// Cancel-safe: it only reads, until the record is written at the end. Dropped then, the record may be there or not.
#[tracing::instrument(skip_all, fields(series = %manifest.series, id = %manifest.id, level = %options.level))]
pub async fn verify(store: &Store, manifest: &Manifest, options: VerifyOptions) -> Result<VerifyReport> {
    options.check()?;
    if options.level >= VerifyLevel::Full {
        encryption::check_key(manifest, options.identities.as_ref())?;
    }
    options.watch.update(|progress| *progress = VerifyProgress::default());
    let (start, started) = (store.time().now(), store.time().wall());
    let mut report = VerifyReport {
        id: manifest.id,
        series: manifest.series.clone(),
        level: options.level,
        objects: manifest.segments(),
        read: 0,
        skipped: 0,
        sample: None,
        chosen: None,
        stored_bytes: 0,
        raw_bytes: 0,
        elapsed: Duration::ZERO,
        damage: Vec::new(),
        unnamed: Unnamed::default(),
        record: None,
        record_error: None,
    };
    let records = quick(store, manifest, &mut report).await?;
    options.watch.set_findings(report.damage.len());
    let looked_at = match options.level {
        VerifyLevel::Quick => manifest.objects().map(|(id, ..)| id).collect(),
        _ => deep(store, manifest, &options, &records, started, &mut report).await?,
    };
    report.damage.sort_by(|a, b| (a.stripe, a.segment, &a.object).cmp(&(b.stripe, b.segment, &b.object)));
    if options.is_recorded {
        let bad = damaged(&report);
        let good = Coverage::new(looked_at.into_iter().filter(|id| !bad.contains(id)));
        let record = Verification::new(manifest, &report, good, started, store.time().wall());
        match standing::add(store, manifest, record, &records).await {
            Ok(name) => report.record = Some(name),
            Err(error) => report.record_error = Some(error.context("the result cannot be recorded")),
        }
    }
    report.elapsed = store.time().now().saturating_sub(start);
    let outcome = if report.is_good() { "good" } else { "damaged" };
    let labels = [("level", report.level.as_str()), ("outcome", outcome)];
    Counter::new(&meter::ENDED_VERIFICATIONS, &labels).add(1);
    Histogram::new(&meter::VERIFY_SECONDS, &labels).record(report.elapsed);
    Ok(report)
}

/// Names and sizes. Answers the names of earlier records, oldest first.
async fn quick(store: &Store, manifest: &Manifest, report: &mut VerifyReport) -> Result<Vec<RecordName>> {
    let mut listed = Listing::of(store, manifest).await?;
    report.unnamed = std::mem::take(&mut listed.unnamed);
    report.damage = super::quick::compare(store, manifest, &listed, report.level, usize::MAX).await?;
    Ok(listed.records())
}

/// What reads. Answers the segments that were to be read.
async fn deep(
    store: &Store,
    manifest: &Manifest,
    options: &VerifyOptions,
    records: &[RecordName],
    now: jiff::Timestamp,
    report: &mut VerifyReport,
) -> Result<Vec<SegmentId>> {
    // What is missing is reported already.
    let missing: HashSet<String> = report.damage.iter().map(|damage| damage.object.clone()).collect();
    documents::check(store, manifest, report).await?;
    let mut seen = HashSet::new();
    report.damage.retain(|damage| !missing.contains(&damage.object) || seen.insert(damage.object.clone()));
    let past = documents::records(store, manifest, records, options, now, report).await?;

    let bad = damaged(report);
    let all = manifest.objects().map(|(id, name, summary)| Segment { id, name, summary });
    // A segment whose size is wrong is reported already.
    let mut chosen: Vec<Segment<'_>> = all.filter(|segment| !bad.contains(&segment.id)).collect();
    let before = chosen.len();
    chosen.retain(|segment| !past.spares(segment.id));
    report.skipped = before - chosen.len();
    drop(past);
    if let Some(sample) = options.sample {
        report.sample = Some(choice::draw(&mut chosen, sample));
    }
    report.read = chosen.len();
    let looked_at: Vec<SegmentId> = chosen.iter().map(|segment| segment.id).collect();
    if options.since_last.is_some() || options.sample.is_some() {
        report.chosen = Some(Coverage::new(looked_at.iter().copied()));
    }

    let watch = &options.watch;
    watch.set_findings(report.damage.len());
    let readings = if options.level >= VerifyLevel::Full { 2 } else { 1 };
    watch.set_total(stored_bytes(&chosen).saturating_mul(readings));
    watch.update(|progress| progress.step = VerifyStep::Hashes);
    stored::check(store, manifest, &chosen, &options.pipeline, watch, report).await?;
    if options.level >= VerifyLevel::Full {
        // Also those whose hash is wrong: the content tells which frame it is.
        watch.update(|progress| progress.step = VerifyStep::Content);
        let (config, identities) = (options.pipeline.clone(), options.identities.clone());
        content::check(store, manifest, &chosen, config, identities, watch, report).await?;
    }
    Ok(looked_at)
}

fn stored_bytes(segments: &[Segment<'_>]) -> u64 {
    segments.iter().map(|segment| segment.summary.stored_bytes).fold(0, u64::saturating_add)
}

/// The segments that something is wrong with.
fn damaged(report: &VerifyReport) -> HashSet<SegmentId> {
    let id = |damage: &Damage| Some(SegmentId { stripe: damage.stripe?, index: damage.segment? });
    report.damage.iter().filter_map(id).collect()
}
