//! What an earlier version has written restores for ever. Fixtures are never changed; a new version of the format gets a new one.

use super::*;

/// Of version 1: `seq 1 20000` and a few bytes, as two stripes, verified once.
#[tokio::test]
async fn a_backup_of_version_1_lists_verifies_and_restores() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/version-1");
    let store = Store::from_url(root).unwrap();
    let series: Series = "fixture".parse().unwrap();
    let id: BackupId = "01a2057d-bf5c-7c81-ba2b-73917e8ad153".parse().unwrap();
    let listing = list(&store, None).await.unwrap();
    assert_eq!(listing.backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), [id]);
    let verified = listing.backups[0].verified.unwrap();
    assert_eq!((verified.level, verified.outcome, verified.good), (VerifyLevel::Full, Outcome::Good, 2));
    let manifest = find(&store, &series, Select::Id(id)).await.unwrap();
    assert_eq!((manifest.labels["made"].as_str(), manifest.stripes.len()), ("once", 2));
    assert_eq!(intent(&store, &series, id).await.unwrap().id, id);
    let options = VerifyOptions::new(VerifyLevel::Full).record(false);
    let report = verify(&store, &manifest, options).await.unwrap();
    assert!(report.is_good(), "{report:?}");
    let lines: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    let expected = [Bytes::from(lines), Bytes::from_static(b"a stripe of a few bytes\n")];
    assert_eq!(restore(&store, &manifest).await.unwrap(), expected);
}
