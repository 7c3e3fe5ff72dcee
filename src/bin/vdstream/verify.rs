//! `verify`: is a backup still what was written?

use vdstream::backup::{self, Sample, VerifyLevel, VerifyOptions, VerifyReport, VerifyWatch};
use vdstream::{Error, ErrorKind};

use crate::args;
use crate::catalog;
use crate::exit::Failure;
use crate::metrics_file::MetricsFile;
use crate::output;
use crate::progress::Watch;
use crate::signal::Signals;
use crate::store;
use crate::verifying::Verifying;

pub(crate) async fn run(args: args::Verify, common: &args::Common, metrics: &MetricsFile) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = store::open(&args.url)?;
    let level = match args.level {
        args::Level::Quick => VerifyLevel::Quick,
        args::Level::Stored => VerifyLevel::Stored,
        args::Level::Full => VerifyLevel::Full,
    };
    let progress = VerifyWatch::new();
    let pipeline = args.download.limit(args.limits.pipeline());
    let mut options = VerifyOptions::new(level).pipeline(pipeline).record(!args.no_record).watch(&progress);
    if let Some(size) = &args.sample {
        // Another part each time, unless the seed of an earlier one is given.
        let seed = args.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
        options = options.sample(Sample { size: size.parse()?, seed });
    }
    if let Some(max_age) = args.since_last {
        options = options.since_last(max_age);
    }
    let found = async {
        let manifest = catalog::find(&store, &args.series, &args.id).await?;
        #[cfg(feature = "encryption")]
        if level == VerifyLevel::Full
            && let Some(identities) = args.keys.open(&store, &manifest).await?
        {
            options = options.identities(identities);
        }
        Ok::<_, Error>((manifest, options))
    };
    let (manifest, options) = tokio::select! {
        found = found => found?,
        signal = signals.next() => return Err(Failure::Signal(signal)),
    };
    let watch = Watch::new(common, metrics, Verifying { level });
    let verified = tokio::select! {
        report = backup::verify(&store, &manifest, options) => report.map_err(Failure::from),
        signal = signals.next() => Err(Failure::Signal(signal)),
        never = watch.follow(|| progress.progress()) => match never {},
    };
    watch.end(progress.progress());
    let report = verified?;
    // Damage counts for more than a report that nobody took.
    let printed = print(&report, common);
    if let Some(error) = &report.record_error {
        output::note(&error.report());
    }
    for damage in &report.damage {
        output::note(&damage.error.report());
    }
    if let Some(first) = report.unnamed.objects.first() {
        let segments = output::plural(usize::try_from(report.unnamed.count).unwrap_or(usize::MAX), "segment");
        output::note(&format!(
            "{segments} that the manifest does not name, from {first} on: restores pass them over, joining the objects of a stripe \
             by hand does not, and `vdstream gc` removes them"
        ));
    }
    match report.damage.len() {
        0 => printed,
        count => Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} is damaged: {}", report.id, output::plural(count, "finding")),
        )
        .into()),
    }
}

fn print(report: &VerifyReport, common: &args::Common) -> Result<(), Failure> {
    if common.json {
        return output::json(report);
    }
    if !report.is_good() || common.quiet {
        return Ok(());
    }
    output::line(&format!(
        "{}: good at level {} ({} objects, {} hashed, {} decompressed)",
        report.id,
        report.level,
        report.objects,
        output::size(report.stored_bytes),
        output::size(report.raw_bytes)
    ))?;
    if report.skipped > 0 {
        let skipped = output::plural(report.skipped, "segment");
        output::line(&format!("verified before and not read again: {skipped}"))?;
    }
    if let (Some(sample), Some(chosen)) = (report.sample, &report.chosen) {
        let (segments, of, seed) = (sample.segments, output::plural(sample.of, "segment"), sample.seed);
        output::line(&format!("read {segments} of {of}, drawn with --seed {seed}: {chosen}"))?;
    }
    Ok(())
}
