//! `prune` and `delete`: backups that go, by rules or by name.

use std::fmt::Write as _;

use serde::Serialize;
use vdstream::backup::retention::{self, DeletionReport, Descendants, RetentionPlan, RetentionPolicy, Rule, Verdict};
use vdstream::backup::{Select, Series, Store, series_of};
use vdstream::{Error, ErrorKind};

use crate::args;
use crate::catalog;
use crate::exit::Failure;
use crate::output;
use crate::store;

/// What `--json` prints: a plan for each series, and what was done if it was confirmed.
#[derive(Serialize)]
struct PruneDocument {
    confirmed: bool,
    series: Vec<SeriesDocument>,
}

#[derive(Serialize)]
struct SeriesDocument {
    #[serde(flatten)]
    plan: RetentionPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<DeletionReport>,
}

pub(crate) async fn prune(args: args::Prune, common: &args::Common) -> Result<(), Failure> {
    let store = store::open(&args.url)?;
    let policy = policy(&args);
    let series: Vec<Series> = match &args.series {
        Some(name) => vec![name.parse()?],
        None => series_of(&store).await?,
    };
    let mut plans = Vec::new();
    for series in &series {
        plans.push(retention::plan(&store, series, &policy).await?);
    }
    carry_out(&store, plans, args.confirm, common).await
}

pub(crate) async fn delete(args: args::Delete, common: &args::Common) -> Result<(), Failure> {
    let store = store::open(&args.url)?;
    let series: Series = args.series.parse()?;
    let id = match args.id.parse()? {
        Select::Id(id) => id,
        Select::Latest => catalog::find(&store, &args.series, &args.id).await?.id,
    };
    let descendants = if args.descendants { Descendants::Delete } else { Descendants::Refuse };
    let plan = retention::plan_deletion(&store, &series, id, descendants).await?;
    carry_out(&store, vec![plan], args.confirm, common).await
}

fn policy(args: &args::Prune) -> RetentionPolicy {
    let rules = [
        (Rule::Hourly, args.keep_hourly),
        (Rule::Daily, args.keep_daily),
        (Rule::Weekly, args.keep_weekly),
        (Rule::Monthly, args.keep_monthly),
        (Rule::Yearly, args.keep_yearly),
    ];
    let mut policy = RetentionPolicy::new().keep_last(args.keep_last.unwrap_or(0));
    for (rule, count) in rules {
        policy = policy.keep(rule, count.unwrap_or(0));
    }
    if let Some(age) = args.keep_within {
        policy = policy.keep_within(age);
    }
    for (key, value) in &args.keep_tag {
        policy = policy.keep_label(key, value.clone());
    }
    policy
}

/// Applies the plans if they are confirmed, and prints them with what was done.
async fn carry_out(
    store: &Store,
    plans: Vec<RetentionPlan>,
    confirm: bool,
    common: &args::Common,
) -> Result<(), Failure> {
    let mut series = Vec::new();
    let mut failed = None;
    for plan in plans {
        let report = match confirm && failed.is_none() {
            true => retention::apply(store, &plan).await.map_err(|error| failed = Some(error)).ok(),
            false => None,
        };
        series.push(SeriesDocument { plan, report });
    }
    let document = PruneDocument { confirmed: confirm, series };
    let printed = if common.json { output::json(&document) } else { output::line(&text(&document)) };
    if let Some(error) = failed {
        return Err(error.into());
    }
    let kept: usize =
        document.series.iter().filter_map(|series| series.report.as_ref()).map(|done| done.kept.len()).sum();
    if kept > 0 {
        let error = format!("{kept} of the backups that were to go had to stay");
        return Err(Error::new(ErrorKind::Conflict, error).into());
    }
    printed
}

fn text(document: &PruneDocument) -> String {
    let mut rows = vec![["ID", "SERIES", "BEGUN", "KIND", "STORED", "VERDICT", "WHY"].map(str::to_owned).to_vec()];
    let (mut going, mut bytes) = (0, 0);
    for SeriesDocument { plan, report } in &document.series {
        for backup in &plan.backups {
            let stays = report.iter().flat_map(|report| &report.kept).find(|(id, _)| *id == backup.id);
            let (verdict, why) = match (&backup.verdict, stays) {
                (_, Some((_, why))) => ("stays", why.clone()),
                (Verdict::Remove, None) if document.confirmed => ("deleted", String::new()),
                (Verdict::Remove, None) => ("delete", String::new()),
                (Verdict::Keep { reasons }, None) => {
                    ("keep", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
                }
                (Verdict::Ignore { why }, None) => ("ignored", why.clone()),
                (_, None) => ("keep", String::new()),
            };
            if backup.verdict == Verdict::Remove && stays.is_none() {
                going += 1;
                bytes += backup.stored_bytes;
            }
            rows.push(vec![
                backup.id.to_string(),
                plan.series.to_string(),
                format!("{:.0}", backup.created),
                backup.kind.map_or_else(|| "-".to_owned(), |kind| kind.to_string()),
                output::size(backup.stored_bytes),
                verdict.to_owned(),
                why,
            ]);
        }
    }
    let mut text = output::table(&rows);
    let (count, size) = (output::plural(going, "backup"), output::size(bytes));
    let _ = match (document.confirmed, going) {
        (_, 0) => write!(text, "\n\nnothing to delete"),
        (true, _) => write!(text, "\n\n{count} deleted; `vdstream gc` frees {size} after its grace time"),
        (false, _) => write!(text, "\n\n{count} with {size} would be deleted; nothing was changed, --confirm does it"),
    };
    if document.series.iter().filter_map(|series| series.report.as_ref()).any(|report| report.keeps_versions) {
        text.push_str(output::KEEPS_VERSIONS);
    }
    text
}
