//! `gc`: what backups that never came to their end, or were deleted, have left.

use std::fmt::{self, Write as _};

use serde::Serialize;
use vdstream::backup::Series;
use vdstream::backup::collection::{self, CollectionPlan, CollectionReport, Leftover, SAFE_GRACE, Subject, Verdict};

use crate::args;
use crate::exit::Failure;
use crate::output;
use crate::signal::Signals;
use crate::store;

/// What `--json` prints: the plan, and what was done if it was confirmed.
#[derive(Serialize)]
struct GcDocument {
    confirmed: bool,
    #[serde(flatten)]
    plan: CollectionPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<CollectionReport>,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn run(args: args::Gc, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = store::open(&args.url)?;
    let series: Option<Series> = args.series.as_deref().map(str::parse).transpose()?;
    if args.grace < SAFE_GRACE && args.confirm && !common.quiet {
        output::note("with a grace time below 1h this is right only while nothing else uses the store");
    }
    let plan = signals.unless(collection::plan(&store, series.as_ref(), args.grace)).await?;
    let (mut report, mut failed) = (None, None);
    if args.confirm {
        let applied = collection::apply(&store, &plan, report.insert(CollectionReport::default()));
        failed = signals.unless(applied).await.err().map(Failure::halfway);
    }
    signals.until_idle(&store).await;
    let error = failed.as_ref().and_then(Failure::line);
    let document = GcDocument { confirmed: args.confirm, plan, report, error };
    let printed = if common.json { output::json(&document) } else { output::line(&text(&document)) };
    match (failed, &document.report) {
        (Some(failure), _) => Err(failure),
        (None, Some(report)) => printed.map_err(|failure| {
            let (objects, uploads) = (count(report.objects, "object"), count(report.uploads, "upload"));
            failure.after(format!("{objects} removed, {uploads} ended"))
        }),
        (None, None) => printed,
    }
}

/// What becomes of a leftover, or has become of it.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Waits(String),
    /// It would go.
    Remove,
    Removed,
    Stays(String),
    /// The store does not delete it now, or not all of it.
    Later,
    /// A single object that was not there when it was looked again, or beyond what one look holds.
    NotSeen,
    /// It failed before, or while this was removed.
    NotFinished,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waits(until) => write!(f, "waits until {until}"),
            Self::Remove => f.write_str("remove"),
            Self::Removed => f.write_str("removed"),
            Self::Stays(why) => write!(f, "stays: {why}"),
            Self::Later => f.write_str("later"),
            Self::NotSeen => f.write_str("not seen again"),
            Self::NotFinished => f.write_str("not finished"),
        }
    }
}

/// The fate of a leftover. Removed is only what the report says was removed.
fn fate(leftover: &Leftover, document: &GcDocument) -> Fate {
    if let Verdict::Wait { until } = leftover.verdict {
        return Fate::Waits(format!("{until:.0}"));
    }
    let Some(report) = &document.report else { return Fate::Remove };
    let what = leftover.subject.to_string();
    if let Some(left) = report.kept.iter().find(|left| left.what == what) {
        return Fate::Stays(left.why.clone());
    }
    let (is_removed, is_refused) = match &leftover.subject {
        Subject::Backup { id, .. } => {
            let is_of_it = |name: &str| name.strip_prefix(&what).is_some_and(|rest| rest.starts_with('/'));
            (report.backups.contains(id), report.later.iter().any(|left| is_of_it(&left.what)))
        }
        _ => (report.singles.contains(&what), report.later.iter().any(|left| left.what == what)),
    };
    match (is_removed, is_refused, &document.error, &leftover.subject) {
        (true, ..) => Fate::Removed,
        (_, true, ..) => Fate::Later,
        (.., Some(_), _) => Fate::NotFinished,
        // It came to its end without this one, so the store has refused it and the report had no room for that.
        _ if report.later_more > 0 => Fate::Later,
        (.., Subject::Backup { .. }) => Fate::Later,
        _ => Fate::NotSeen,
    }
}

fn text(document: &GcDocument) -> String {
    let mut rows =
        vec![["LEFTOVER", "WHY", "LAST SIGN", "OBJECTS", "SIZE", "UPLOADS", "VERDICT"].map(str::to_owned).to_vec()];
    let (mut bytes, mut going, mut unfinished) = (0, 0, 0);
    for leftover in &document.plan.leftovers {
        let fate = fate(leftover, document);
        match fate {
            Fate::Remove | Fate::Removed => {
                bytes = leftover.bytes.saturating_add(bytes);
                going += 1;
            }
            Fate::NotFinished => unfinished += 1,
            _ => {}
        }
        rows.push(vec![
            leftover.subject.to_string(),
            leftover.reason.to_string(),
            format!("{:.0}", leftover.last_sign),
            leftover.objects.to_string(),
            output::size(leftover.bytes),
            leftover.uploads.to_string(),
            fate.to_string(),
        ]);
    }
    let waiting = document.plan.waiting().count();
    let mut text = if rows.len() > 1 { output::table(&rows) + "\n\n" } else { String::new() };
    let size = output::size(bytes);
    let _ = match &document.report {
        Some(report) => {
            let (objects, uploads) = (count(report.objects, "object"), count(report.uploads, "upload"));
            let freed = if report.keeps_versions { "hidden" } else { "freed" };
            let least = if document.error.is_some() { "at least " } else { "" };
            write!(text, "{least}{objects} removed, {uploads} ended, {size} {freed}")
        }
        None if going == 0 => write!(text, "nothing to remove"),
        None => write!(
            text,
            "{} with {size} would be removed; nothing was changed, --confirm does it",
            output::plural(going, "leftover")
        ),
    };
    if unfinished > 0 {
        let unfinished = output::plural(unfinished, "leftover");
        let _ = write!(text, "\n{unfinished} not finished; the same command goes on from there");
    }
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

fn count(number: u64, what: &str) -> String {
    output::plural(usize::try_from(number).unwrap_or(usize::MAX), what)
}
