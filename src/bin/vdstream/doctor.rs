//! `doctor`: does a store let us do all that backups need?

use vdstream::backup::doctor::{self, Diagnosis};

use crate::args;
use crate::exit::Failure;
use crate::output;
use crate::signal::Signals;
use crate::store;

pub(crate) async fn run(args: args::Doctor, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = store::open(&args.url)?;
    let examined = tokio::select! {
        diagnosis = doctor::examine(&store) => Ok(diagnosis),
        signal = signals.next() => Err(signal),
    };
    signals.until_idle(&store).await;
    let diagnosis = match examined {
        Ok(diagnosis) => diagnosis,
        Err(signal) => {
            return Err(match store.take_leftovers() {
                None => Failure::Signal(signal),
                Some(error) => error.context(format!("ended by {}", signal.name())).into(),
            });
        }
    };
    // What is missing counts for more than a report that nobody took.
    let printed = if common.json { output::json(&diagnosis) } else { output::line(&text(&diagnosis)) };
    match diagnosis.first_error() {
        Some(error) => {
            Err(error.context(format!("{} does not let backups do all that they need", store.label())).into())
        }
        None => printed,
    }
}

fn text(diagnosis: &Diagnosis) -> String {
    let mut rows = vec![["CHECK", "RESULT", "PERMISSION", "DETAIL"].map(str::to_owned).to_vec()];
    rows.extend(diagnosis.findings.iter().map(|finding| {
        vec![
            finding.check.to_string(),
            finding.verdict.name().to_owned(),
            finding.permission.clone(),
            finding.detail.clone(),
        ]
    }));
    output::table(&rows)
}
