//! `prune` and `delete`: backups that go, by rules or by name.

use std::fmt::Write as _;

use serde::Serialize;
use vdstream::backup::retention::{
    self, DeletionReport, Descendants, PlannedBackup, RetentionPlan, RetentionPolicy, Rule, Verdict,
};
use vdstream::backup::{self, Select, Series, Store, series_of};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::catalog;
use crate::exit::Failure;
use crate::output;
use crate::signal::Signals;
use crate::store;

/// What `--json` prints: a plan for each series, and what was done if it was confirmed.
#[derive(Serialize)]
struct PruneDocument {
    confirmed: bool,
    series: Vec<SeriesDocument>,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct SeriesDocument {
    #[serde(flatten)]
    plan: RetentionPlan,
    /// Of a series that was not reached there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<DeletionReport>,
}

pub(crate) async fn prune(args: args::Prune, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = store::open(&args.url)?;
    let plans = signals.unless(plans(&args, &store)).await?;
    carry_out(&store, plans, args.confirm, common, &mut signals).await
}

async fn plans(args: &args::Prune, store: &Store) -> Result<Vec<RetentionPlan>> {
    let policy = policy(args);
    let series: Vec<Series> = match &args.series {
        Some(name) => vec![name.parse()?],
        None => series_of(store).await?,
    };
    let mut plans = Vec::new();
    for series in &series {
        plans.push(retention::plan(store, series, &policy).await?);
    }
    if let Some(name) = &args.series
        && plans.iter().all(|plan| plan.backups.is_empty())
    {
        catalog::refuse_nothing(&backup::list(store, Some(&series[0])).await?, name, store)?;
    }
    Ok(plans)
}

pub(crate) async fn delete(args: args::Delete, common: &args::Common) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let store = store::open(&args.url)?;
    let planned = async {
        let series: Series = args.series.parse()?;
        let id = match args.id.parse()? {
            Select::Id(id) => id,
            Select::Latest => catalog::find(&store, &args.series, &args.id).await?.id,
        };
        let descendants = if args.descendants { Descendants::Delete } else { Descendants::Refuse };
        retention::plan_deletion(&store, &series, id, descendants).await
    };
    let plan = signals.unless(planned).await?;
    carry_out(&store, vec![plan], args.confirm, common, &mut signals).await
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

/// Applies the plans if they are confirmed, and prints them with what was done, also if it ends early.
async fn carry_out(
    store: &Store,
    plans: Vec<RetentionPlan>,
    confirm: bool,
    common: &args::Common,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut series = Vec::new();
    let mut failed: Option<Failure> = None;
    for plan in plans {
        let mut report = None;
        if confirm && failed.is_none() {
            let applied = retention::apply(store, &plan, report.insert(DeletionReport::default()));
            failed = signals.unless(applied).await.err().map(Failure::halfway);
        }
        series.push(SeriesDocument { plan, report });
    }
    signals.until_idle(store).await;
    let document = PruneDocument { confirmed: confirm, series, error: failed.as_ref().and_then(Failure::line) };
    let printed = if common.json { output::json(&document) } else { output::line(&text(&document)) };
    if let Some(failure) = failed {
        return Err(failure);
    }
    let kept: usize =
        document.series.iter().filter_map(|series| series.report.as_ref()).map(|done| done.kept.len()).sum();
    if kept > 0 {
        let error = format!("{kept} of the backups that were to go had to stay");
        return Err(Error::new(ErrorKind::Conflict, error).into());
    }
    if !confirm {
        return printed;
    }
    let deleted: usize =
        document.series.iter().filter_map(|series| series.report.as_ref()).map(|done| done.deleted.len()).sum();
    printed.map_err(|failure| failure.after(format!("{} deleted", output::plural(deleted, "backup"))))
}

/// What becomes of a backup, or has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Ignored,
    /// It would go.
    Delete,
    Deleted,
    Stays,
    /// It failed at this one, and it is not known whether the deletion had its effect.
    InDoubt,
    /// It failed before.
    NotReached,
}

impl Fate {
    const fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Ignored => "ignored",
            Self::Delete => "delete",
            Self::Deleted => "deleted",
            Self::Stays => "stays",
            Self::InDoubt => "in doubt",
            Self::NotReached => "not reached",
        }
    }
}

/// The fate of a backup, and why. Deleted is only what the report says was deleted.
fn fate(backup: &PlannedBackup, report: Option<&DeletionReport>, is_confirmed: bool) -> (Fate, String) {
    match &backup.verdict {
        Verdict::Keep { reasons } => {
            return (Fate::Keep, reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        }
        Verdict::Ignore { why } => return (Fate::Ignored, why.clone()),
        Verdict::Remove if !is_confirmed => return (Fate::Delete, String::new()),
        _ => {}
    }
    let Some(report) = report else { return (Fate::NotReached, String::new()) };
    if let Some((_, why)) = report.kept.iter().find(|(id, _)| *id == backup.id) {
        return (Fate::Stays, why.clone());
    }
    let fate = match backup.id {
        id if report.deleted.contains(&id) => Fate::Deleted,
        id if report.in_doubt == Some(id) => Fate::InDoubt,
        _ => Fate::NotReached,
    };
    (fate, String::new())
}

fn text(document: &PruneDocument) -> String {
    let mut rows = vec![["ID", "SERIES", "BEGUN", "KIND", "STORED", "VERDICT", "WHY"].map(str::to_owned).to_vec()];
    let (mut going, mut bytes, mut unfinished) = (0, 0, 0);
    for SeriesDocument { plan, report } in &document.series {
        for backup in &plan.backups {
            let (fate, why) = fate(backup, report.as_ref(), document.confirmed);
            match fate {
                Fate::Delete | Fate::Deleted => {
                    going += 1;
                    bytes = backup.stored_bytes.saturating_add(bytes);
                }
                Fate::InDoubt | Fate::NotReached => unfinished += 1,
                Fate::Keep | Fate::Ignored | Fate::Stays => {}
            }
            rows.push(vec![
                backup.id.to_string(),
                plan.series.to_string(),
                format!("{:.0}", backup.created),
                backup.kind.map_or_else(|| "-".to_owned(), |kind| kind.to_string()),
                output::size(backup.stored_bytes),
                fate.word().to_owned(),
                why,
            ]);
        }
    }
    let mut text = output::table(&rows);
    let (count, size) = (output::plural(going, "backup"), output::size(bytes));
    let is_planned = document.series.iter().any(|series| series.plan.removed().next().is_some());
    let _ = match (document.confirmed, going) {
        _ if !is_planned => write!(text, "\n\nnothing to delete"),
        (true, 0) => write!(text, "\n\nnothing was deleted"),
        (true, _) => write!(text, "\n\n{count} deleted; `vdstream gc` frees {size} after its grace time"),
        (false, _) => write!(text, "\n\n{count} with {size} would be deleted; nothing was changed, --confirm does it"),
    };
    if unfinished > 0 {
        let unfinished = output::plural(unfinished, "backup");
        let _ = write!(text, "\n{unfinished} not reached or in doubt; the same command goes on from there");
    }
    if document.series.iter().filter_map(|series| series.report.as_ref()).any(|report| report.keeps_versions) {
        text.push_str(output::KEEPS_VERSIONS);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use tokio::io::AsyncWriteExt;
    use vdstream::backup::{Backup, BackupOptions};

    use super::*;

    /// Whoever writes to the store can write sizes that no store has.
    #[tokio::test]
    async fn sizes_that_are_too_large_together_are_the_largest() {
        let memory = Arc::new(InMemory::new());
        let store = Store::new(Arc::<InMemory>::clone(&memory), "");
        for is_forged in [true, true, false] {
            let mut backup = Backup::begin(&store, "a", BackupOptions::default()).await.unwrap();
            let mut writer = backup.take_writers().unwrap().remove(0);
            writer.write_all(b"rows").await.unwrap();
            writer.shutdown().await.unwrap();
            let mut manifest = backup.commit().await.unwrap().manifest;
            if is_forged {
                let stripe = &mut manifest.stripes[0];
                (stripe.stored_bytes, stripe.segments[0].stored_bytes) = (1 << 63, 1 << 63);
                let path = format!("a/{}/manifest.json", manifest.id).into();
                memory.put(&path, manifest.encode().unwrap().into()).await.unwrap();
            }
        }
        let series = "a".parse().unwrap();
        let plan = retention::plan(&store, &series, &RetentionPolicy::new().keep_last(1)).await.unwrap();
        let series = vec![SeriesDocument { plan, report: None }];
        let text = text(&PruneDocument { confirmed: false, series, error: None });
        assert!(text.contains("2 backups with 16777216.0 TiB would be deleted"), "{text}");
    }
}
