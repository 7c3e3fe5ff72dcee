//! `list` and `show`: what a store holds.

use serde::Serialize;
use vdstream::backup::{
    self, BackupSummary, Encryption, LastVerification, Listing, Manifest, Select, Series, Standing, Store,
};
use vdstream::{Error, ErrorKind, Result};

use crate::args;
use crate::exit::Failure;
use crate::output;
use crate::page::{Facts, PageFile, Story};
use crate::store;

#[derive(Serialize)]
struct ListDocument {
    backups: Vec<BackupSummary>,
    damaged: Vec<DamagedDocument>,
    /// In progress, given up, or interrupted.
    uncommitted: Vec<UncommittedDocument>,
}

#[derive(Serialize)]
struct UncommittedDocument {
    id: String,
    series: String,
}

#[derive(Serialize)]
struct DamagedDocument {
    id: String,
    series: String,
    error: String,
}

pub(crate) async fn list(args: args::List, common: &args::Common) -> Result<(), Failure> {
    let store = store::open(&args.url)?;
    let series: Option<Series> = args.series.as_deref().map(str::parse).transpose()?;
    let listing = backup::list(&store, series.as_ref()).await?;
    let there = match &args.series {
        Some(name) => refuse_nothing(&listing, name, &store),
        None => Ok(()),
    };
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
        let uncommitted = listing.uncommitted.iter();
        let uncommitted = uncommitted
            .map(|(series, id)| UncommittedDocument { id: id.to_string(), series: series.as_str().to_owned() })
            .collect();
        output::json(&ListDocument { backups: listing.backups, damaged, uncommitted })?;
        return Ok(there?);
    }
    there?;
    let header = ["ID", "SERIES", "FINISHED", "STRIPES", "RAW", "STORED", "VERIFIED"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    rows.extend(listing.backups.iter().map(|backup| {
        vec![
            backup.id.to_string(),
            backup.series.as_str().to_owned(),
            format!("{:.0}", backup.finished),
            backup.stripes.to_string(),
            output::size(backup.raw_bytes),
            output::size(backup.stored_bytes),
            verified(backup.verified.as_ref(), backup.standing_damage.as_ref(), backup.has_unread_verification)
                .unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    output::line(&output::table(&rows))
}

/// A series that was asked for by name and has nothing at all: more likely its name is wrong.
pub(crate) fn refuse_nothing(listing: &Listing, series: &str, store: &Store) -> Result<()> {
    if !listing.backups.is_empty() || !listing.damaged.is_empty() || !listing.uncommitted.is_empty() {
        return Ok(());
    }
    let error =
        format!("there is nothing of a series `{series}` in {store}; `list` without --series shows what there is");
    Err(Error::new(ErrorKind::NotFound, error))
}

/// What the recorded verifications say, in few words: damage that stands, before what nobody can read, before the last of them.
fn verified(last: Option<&LastVerification>, damage: Option<&LastVerification>, has_unread: bool) -> Option<String> {
    if let Some(damage) = damage {
        return Some(damaged(damage));
    }
    if has_unread {
        return Some("not known (a record cannot be used)".to_owned());
    }
    let last = last?;
    let part = match last.good == last.segments {
        true => String::new(),
        false => format!(" ({} of {} segments)", last.good, last.segments),
    };
    Some(format!("{} {:.0} {}{part}", last.level, last.time, last.outcome.as_str()))
}

/// Damage that no verification has shown to be gone.
pub(crate) fn damaged(damage: &LastVerification) -> String {
    format!("damaged ({}, {:.0})", damage.level, damage.time)
}

/// Finds the backup that `id` and `series` name. Says so if the latest is one that others pass themselves off as newer than.
pub(crate) async fn find(store: &Store, series: &str, id: &str) -> Result<Manifest> {
    let (series, which): (Series, Select) = (series.parse()?, id.parse()?);
    let Select::Latest = which else { return backup::find(store, &series, which).await };
    let latest = backup::latest(store, &series).await?;
    if let Some(first) = latest.ahead.first() {
        let others = match latest.ahead.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let id = latest.manifest.id;
        output::note(&format!(
            "the clock was ahead when backup {first}{others} was dated: the latest is taken to be {id}; name another by its id"
        ));
    }
    Ok(latest.manifest)
}

/// How a backup is encrypted, in few words.
pub(crate) fn encryption(encryption: &Encryption) -> String {
    let passphrase = if encryption.identity.is_some() { ", one of them behind a passphrase" } else { "" };
    let recipients = output::plural(usize::try_from(encryption.recipients).unwrap_or(usize::MAX), "recipient");
    format!("{}, {recipients}{passphrase}", encryption.name)
}

pub(crate) async fn show(args: args::Show, common: &args::Common) -> Result<(), Failure> {
    let store = store::open(&args.url)?;
    let manifest = find(&store, &args.series, &args.id).await?;
    let Standing { verified: last, damage, has_unread, .. } = backup::standing(&store, &manifest).await?;
    if let Some(path) = &args.html {
        let verifications = backup::verifications(&store, &manifest).await?;
        let story = Story::Committed { manifest: &manifest, verifications: &verifications, has_unread };
        let file = PageFile::open(path).await?;
        let url = store::from_anywhere(&args.url, &store);
        file.write(&Facts { url: &url, series: manifest.series.as_str(), story }).await?;
    }
    if common.json {
        let text = String::from_utf8_lossy(&manifest.encode()?).into_owned();
        // The manifest as it is stored, and three members more.
        let document = text.trim_end().trim_end_matches('}');
        let word = |verification: &Option<LastVerification>| {
            serde_json::to_string(verification)
                .map_err(|error| Error::new(ErrorKind::Internal, "cannot encode the document").with_source(error))
        };
        let (last, damage) = (word(&last)?, word(&damage)?);
        return output::line(&format!(
            "{document},\"verified\":{last},\"standing_damage\":{damage},\"has_unread_verification\":{has_unread}}}"
        ));
    }
    let pair = |key: &str, value: String| vec![key.to_owned(), value];
    let mut rows = vec![
        pair("id", manifest.id.to_string()),
        pair("series", manifest.series.as_str().to_owned()),
        pair("kind", manifest.kind.to_string()),
        pair("begun", format!("{:.0}", manifest.created)),
        pair("finished", format!("{:.0}", manifest.finished)),
        pair("host", manifest.host.clone().unwrap_or_else(|| "-".to_owned())),
        pair("tool", manifest.tool.clone()),
        pair("codec", codec(&manifest)),
        pair("encryption", manifest.encryption.as_ref().map_or_else(|| "none".to_owned(), encryption)),
        pair("raw", output::size(manifest.raw_bytes())),
        pair("stored", output::size(manifest.stored_bytes())),
        pair("root hash", manifest.root().to_hex().to_string()),
        pair("verified", verified(last.as_ref(), damage.as_ref(), has_unread).unwrap_or_else(|| "never".to_owned())),
    ];
    if let Some(parent) = manifest.parent {
        rows.push(pair("continues", parent.to_string()));
    }
    if let Some(until) = manifest.keep_until {
        rows.push(pair("kept until", format!("{until:.0}")));
    }
    if let Some(producer) = &manifest.producer {
        let status = producer.exit_status.map_or_else(String::new, |status| format!(", exit status {status}"));
        rows.push(pair("producer", format!("{}{status}", producer.name)));
    }
    rows.extend(manifest.labels.iter().map(|(key, value)| pair("label", format!("{key}={value}"))));
    for (index, stripe) in manifest.stripes.iter().enumerate() {
        rows.push(pair(
            &format!("stripe {index}"),
            format!(
                "{} raw, {} stored, {}",
                output::size(stripe.raw_bytes),
                output::size(stripe.stored_bytes),
                output::plural(stripe.segments.len(), "segment")
            ),
        ));
    }
    output::line(&output::table(&rows))
}

/// How a backup is compressed, in few words.
pub(crate) fn codec(manifest: &Manifest) -> String {
    let codec = &manifest.codec;
    match codec.lowest_level {
        Some(lowest) => format!("{} levels {lowest} to {}", codec.name, codec.level),
        None => format!("{} level {}", codec.name, codec.level),
    }
}
