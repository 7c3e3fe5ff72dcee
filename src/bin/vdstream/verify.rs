//! `verify`: is a backup still what was written?

use vdstream::backup::{self, Store, VerifyLevel, VerifyOptions};
use vdstream::{Error, ErrorKind};

use crate::args;
use crate::catalog;
use crate::exit::Failure;
use crate::output;
use crate::signal::Signals;

pub(crate) async fn run(args: args::Verify, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = Store::from_url(&args.url)?;
    let level = match args.level {
        args::Level::Quick => VerifyLevel::Quick,
        args::Level::Stored => VerifyLevel::Stored,
        args::Level::Full => VerifyLevel::Full,
    };
    let options = VerifyOptions::new(level).pipeline(args.limits.pipeline());
    let work = async {
        let manifest = catalog::find(&store, &args.series, &args.id).await?;
        backup::verify(&store, &manifest, options).await
    };
    let report = tokio::select! {
        report = work => report?,
        signal = signals.next() => return Err(Failure::Signal(signal)),
    };
    if common.json {
        output::json(&report)?;
    } else if report.is_good() && !common.quiet {
        output::line(&format!(
            "{}: good at level {} ({} objects, {} hashed, {} decompressed)",
            report.id,
            report.level,
            report.objects,
            output::size(report.stored_bytes),
            output::size(report.raw_bytes)
        ))?;
    }
    for damage in &report.damage {
        output::note(&damage.error.report());
    }
    match report.damage.len() {
        0 => Ok(()),
        count => Err(Error::new(ErrorKind::Corrupt, format!("{} is damaged: {count} findings", report.id)).into()),
    }
}
