//! `gc`: what backups that never came to their end, or were deleted, have left.

use std::fmt::Write as _;

use serde::Serialize;
use vdstream::backup::Series;
use vdstream::backup::collection::{self, CollectionPlan, CollectionReport, SAFE_GRACE, Subject, Verdict};

use crate::args;
use crate::exit::Failure;
use crate::output;
use crate::store;

/// What `--json` prints: the plan, and what was done if it was confirmed.
#[derive(Serialize)]
struct GcDocument {
    confirmed: bool,
    #[serde(flatten)]
    plan: CollectionPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<CollectionReport>,
}

pub(crate) async fn run(args: args::Gc, common: &args::Common) -> Result<(), Failure> {
    let store = store::open(&args.url)?;
    let series: Option<Series> = args.series.as_deref().map(str::parse).transpose()?;
    if args.grace < SAFE_GRACE && args.confirm && !common.quiet {
        output::note("with a grace time below 1h this is right only while nothing else uses the store");
    }
    let plan = collection::plan(&store, series.as_ref(), args.grace).await?;
    let (report, failed) = match args.confirm {
        false => (None, None),
        true => match collection::apply(&store, &plan).await {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error)),
        },
    };
    let document = GcDocument { confirmed: args.confirm, plan, report };
    let printed = if common.json { output::json(&document) } else { output::line(&text(&document)) };
    match failed {
        Some(error) => Err(error.into()),
        None => printed,
    }
}

fn text(document: &GcDocument) -> String {
    let mut rows =
        vec![["LEFTOVER", "WHY", "LAST SIGN", "OBJECTS", "SIZE", "UPLOADS", "VERDICT"].map(str::to_owned).to_vec()];
    let (mut bytes, mut going) = (0, 0);
    for leftover in &document.plan.leftovers {
        let what = leftover.subject.to_string();
        let verdict = match (leftover.verdict, &document.report) {
            (Verdict::Wait { until }, _) => format!("waits until {until:.0}"),
            (_, Some(report)) => match outcome(report, &leftover.subject, &what) {
                Some(why) => why,
                None => {
                    bytes += leftover.bytes;
                    going += 1;
                    "removed".to_owned()
                }
            },
            _ => {
                bytes += leftover.bytes;
                going += 1;
                "remove".to_owned()
            }
        };
        rows.push(vec![
            what,
            leftover.reason.to_string(),
            format!("{:.0}", leftover.last_sign),
            leftover.objects.to_string(),
            output::size(leftover.bytes),
            leftover.uploads.to_string(),
            verdict,
        ]);
    }
    let waiting = document.plan.waiting().count();
    let mut text = if rows.len() > 1 { output::table(&rows) + "\n\n" } else { String::new() };
    let size = output::size(bytes);
    let _ = match &document.report {
        Some(report) => {
            let (objects, uploads) = (count(report.objects, "object"), count(report.uploads, "upload"));
            let freed = if report.keeps_versions { "hidden" } else { "freed" };
            write!(text, "{objects} removed, {uploads} ended, {size} {freed}")
        }
        None if going == 0 => write!(text, "nothing to remove"),
        None => write!(
            text,
            "{} with {size} would be removed; nothing was changed, --confirm does it",
            output::plural(going, "leftover")
        ),
    };
    if let Some(report) = &document.report {
        if report.keeps_versions {
            text.push_str(output::KEEPS_VERSIONS);
        }
        let later = report.later.len() as u64 + report.later_more;
        if later > 0 {
            let why = report.later.first().map(|left| format!(", such as {}: {}", left.what, left.why));
            let _ = write!(
                text,
                "\n{} cannot be removed now and will be later{}",
                count(later, "object"),
                output::printable(&why.unwrap_or_default())
            );
        }
    }
    if waiting > 0 {
        let _ = write!(text, "\n{} younger than the grace time", output::plural(waiting, "leftover"));
    }
    text
}

/// Why a leftover that was to go is still there; nothing if it is gone.
fn outcome(report: &CollectionReport, subject: &Subject, what: &str) -> Option<String> {
    if let Some(left) = report.kept.iter().find(|left| left.what == what) {
        return Some(format!("stays: {}", left.why));
    }
    let is_later = match subject {
        Subject::Backup { id, .. } => !report.backups.contains(id),
        _ => report.later.iter().any(|left| left.what == what),
    };
    is_later.then(|| "later".to_owned())
}

fn count(number: u64, what: &str) -> String {
    output::plural(usize::try_from(number).unwrap_or(usize::MAX), what)
}
