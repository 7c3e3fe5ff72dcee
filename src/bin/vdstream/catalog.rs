//! `list` and `show`: what a store holds.

use serde::Serialize;
use vdstream::Result;
use vdstream::backup::{self, BackupSummary, Manifest, Series, Store};

use crate::args;
use crate::exit::Failure;
use crate::output;

#[derive(Serialize)]
struct ListDocument {
    backups: Vec<BackupSummary>,
    damaged: Vec<DamagedDocument>,
}

#[derive(Serialize)]
struct DamagedDocument {
    id: String,
    series: String,
    error: String,
}

pub(crate) async fn list(args: args::List, common: &args::Common) -> Result<(), Failure> {
    let store = Store::from_url(&args.url)?;
    let series: Option<Series> = args.series.as_deref().map(str::parse).transpose()?;
    let listing = backup::list(&store, series.as_ref()).await?;
    let damaged: Vec<DamagedDocument> = listing
        .damaged
        .iter()
        .map(|found| DamagedDocument {
            id: found.id.to_string(),
            series: found.series.as_str().to_owned(),
            error: found.error.report(),
        })
        .collect();
    for found in &damaged {
        output::note(&format!("{} in {} cannot be used: {}", found.id, found.series, found.error));
    }
    if common.json {
        return Ok(output::json(&ListDocument { backups: listing.backups, damaged })?);
    }
    let mut rows = vec![["ID", "SERIES", "FINISHED", "STRIPES", "RAW", "STORED"].map(str::to_owned).to_vec()];
    rows.extend(listing.backups.iter().map(|backup| {
        vec![
            backup.id.to_string(),
            backup.series.as_str().to_owned(),
            format!("{:.0}", backup.finished),
            backup.stripes.to_string(),
            output::size(backup.raw_bytes),
            output::size(backup.stored_bytes),
        ]
    }));
    Ok(output::line(&output::table(&rows))?)
}

/// Finds the backup that `id` and `series` name.
pub(crate) async fn find(store: &Store, series: &str, id: &str) -> Result<Manifest> {
    backup::find(store, &series.parse()?, id.parse()?).await
}

pub(crate) async fn show(args: args::Show, common: &args::Common) -> Result<(), Failure> {
    let store = Store::from_url(&args.url)?;
    let manifest = find(&store, &args.series, &args.id).await?;
    if common.json {
        let text = String::from_utf8_lossy(&manifest.encode()?).into_owned();
        return Ok(output::line(text.trim_end())?);
    }
    let pair = |key: &str, value: String| vec![key.to_owned(), value];
    let mut rows = vec![
        pair("id", manifest.id.to_string()),
        pair("series", manifest.series.as_str().to_owned()),
        pair("begun", format!("{:.0}", manifest.created)),
        pair("finished", format!("{:.0}", manifest.finished)),
        pair("host", manifest.host.clone().unwrap_or_else(|| "-".to_owned())),
        pair("tool", manifest.tool.clone()),
        pair("codec", format!("{} level {}", manifest.codec.name, manifest.codec.level)),
        pair("raw", output::size(manifest.raw_bytes())),
        pair("stored", output::size(manifest.stored_bytes())),
        pair("root hash", manifest.root().to_hex().to_string()),
    ];
    if let Some(producer) = &manifest.producer {
        let status = producer.exit_status.map_or_else(String::new, |status| format!(", exit status {status}"));
        rows.push(pair("producer", format!("{}{status}", producer.name)));
    }
    rows.extend(manifest.labels.iter().map(|(key, value)| pair("label", format!("{key}={value}"))));
    for (index, stripe) in manifest.stripes.iter().enumerate() {
        rows.push(pair(
            &format!("stripe {index}"),
            format!(
                "{} raw, {} stored, {} segments",
                output::size(stripe.raw_bytes),
                output::size(stripe.stored_bytes),
                stripe.segments.len()
            ),
        ));
    }
    Ok(output::line(&output::table(&rows))?)
}
