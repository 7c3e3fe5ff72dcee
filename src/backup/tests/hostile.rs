//! A repository made to harm: clear errors, bounded messages, and nothing asked for outside its directory.

use super::*;
use crate::ErrorKind;
use crate::testing::FaultStore;
use crate::testing::decoder::{Document, sealed};

/// Documents that were changed and sealed again, with what they are to be refused for.
fn forged() -> Vec<(String, Vec<u8>)> {
    let valid = String::from_utf8(Document::Manifest.valid().unwrap().remove(1)).unwrap();
    let many = |count: usize, piece: &dyn Fn(usize) -> String| (0..count).map(piece).collect::<Vec<_>>().join(",");
    let segment = valid.split("\"segments\":[").nth(1).unwrap().split('}').next().unwrap().to_owned() + "}";
    let huge = "x".repeat(4 << 20);
    let changes: Vec<(&str, &str, String)> = vec![
        (
            "more labels than there may be",
            "\"labels\":{",
            format!("\"labels\":{{{},", many(1024, &|n| format!("\"k{n}\":\"\""))),
        ),
        ("a label twice", "\"labels\":{", "\"labels\":{\"a\":\"\",".to_owned()),
        ("a member twice", "\"frame_bytes\":65536", "\"frame_bytes\":65536,\"frame_bytes\":65536".to_owned()),
        ("a huge host", "\"host\":\"", format!("\"host\":\"{huge}")),
        ("a huge label", "\"labels\":{", format!("\"labels\":{{\"\":\"{huge}\",")),
        ("a huge codec", "\"name\":\"zstd\"", format!("\"name\":\"{huge}\"")),
        ("a huge object name", "s00/000000.zst", huge.clone()),
        ("an object elsewhere", "s00/000000.zst", "../../other/s00/000000.zst".to_owned()),
        ("an object at the root", "s00/000000.zst", "/etc/passwd".to_owned()),
        ("a huge hash", "\"root\":\"", format!("\"root\":\"{huge}")),
        ("a huge number of frames", "\"frames\":1", "\"frames\":4294967295".to_owned()),
        ("a huge offset", "\"raw_offset\":1", "\"raw_offset\":18446744073709551615".to_owned()),
        ("overlapping segments", "\"raw_offset\":1", "\"raw_offset\":0".to_owned()),
        (
            "a hundred thousand segments",
            "\"segments\":[",
            format!("\"segments\":[{},", many(100_000, &|_| segment.clone())),
        ),
        (
            "a hundred stripes",
            "\"stripes\":[",
            format!(
                "\"stripes\":[{},",
                many(100, &|_| "{\"raw_bytes\":0,\"stored_bytes\":0,\"segments\":[]}".to_owned())
            ),
        ),
        ("deep nesting", "\"labels\":", format!("\"labels\":{}", "[".repeat(1 << 20))),
        ("another series", "\"series\":\"default\"", "\"series\":\"..\"".to_owned()),
        ("a version to come", "\"version\":1", "\"version\":4294967295".to_owned()),
        ("another format", "vdstream-manifest", format!("{}\\u001b[2J{huge}", "vdstream")),
        ("a number that is none", "\"frame_bytes\":65536", "\"frame_bytes\":1e400".to_owned()),
        ("no frame size", "\"frame_bytes\":65536", "\"frame_bytes\":0".to_owned()),
    ];
    let forge = |(what, from, to): (&str, &str, String)| {
        assert!(valid.contains(from), "{what}");
        (what.to_owned(), sealed(valid.replacen(from, &to, 1).as_bytes()))
    };
    changes.into_iter().map(forge).collect()
}

#[tokio::test]
async fn a_manifest_made_to_harm_is_refused_in_a_few_words() {
    let id: BackupId = "018bcfe5-687b-7000-8000-000000000001".parse().unwrap();
    let series = Series::default();
    let forged = forged();
    let count = forged.len();
    for (what, bytes) in forged {
        let faults = FaultStore::memory(0);
        let store = faults.store();
        store.create(&format!("{series}/{id}/manifest.json"), bytes.into()).await.unwrap();
        faults.forget();
        let error = find(&store, &series, Select::Id(id)).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Invalid), "{what}: {error:?}");
        let report = error.report();
        assert!(report.len() < 1000, "{what}: {} characters", report.len());
        assert!(!report.contains(char::is_control), "{what}: {report:?}");
        let listing = list(&store, None).await.unwrap();
        assert_eq!((listing.backups.len(), listing.damaged.len()), (0, 1), "{what}");
        for request in faults.log() {
            let inside = ["", "default", "default/#0/manifest.json", "default/#0/verified"];
            assert!(inside.contains(&request.path.as_str()), "{what}: asked for {}", request.path);
        }
    }
    println!("{count} forged manifests refused");
}

#[tokio::test]
async fn documents_that_are_too_large_are_not_read() {
    let store = Store::memory();
    let id: BackupId = "018bcfe5-687b-7000-8000-000000000001".parse().unwrap();
    let series = Series::default();
    let names = [("manifest.json", MAX_MANIFEST_BYTES), ("intent.json", 1 << 20)];
    for (name, limit) in names {
        let bytes = vec![b' '; usize::try_from(limit).unwrap() + 1];
        store.create(&format!("{series}/{id}/{name}"), bytes.into()).await.unwrap();
    }
    for error in
        [find(&store, &series, Select::Id(id)).await.unwrap_err(), intent(&store, &series, id).await.unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.report().contains("expected at most"), "{}", error.report());
    }
}
