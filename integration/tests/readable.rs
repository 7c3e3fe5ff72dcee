//! A backup can be read without us: by `cat`, by the `zstd` tool, and by anything that computes BLAKE3.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use integration::data::{self, Entropy, Pattern};
use integration::place::Place;
use integration::sample::{self, FRAME, SEGMENT};
use integration::tool;
use vdstream::backup::Manifest;

/// Random and readable data, one long enough for several segments, and one that is empty.
const STRIPES: [(Entropy, usize); 3] =
    [(Entropy::Random, 3 * SEGMENT + FRAME + 1), (Entropy::Text, 40 * FRAME + 17), (Entropy::Random, 0)];

/// A backup on disk: where its stripes lie, what is in them, and its manifest.
async fn backup(place: &Place) -> (PathBuf, Vec<(Pattern, usize)>, Manifest) {
    let seed = data::seed();
    let stripes: Vec<_> = (0..).zip(STRIPES).map(|(n, (entropy, len))| (Pattern::new(seed, n, entropy), len)).collect();
    let manifest = sample::back_up(&place.backups(), "plain", &stripes).await.unwrap();
    let root = place.url().strip_prefix("file://").unwrap().to_owned();
    let directory = Path::new(&root).join("plain").join(manifest.id.to_string());
    (directory, stripes, manifest)
}

fn shell(directory: &Path, script: &str) -> Output {
    let output = Command::new("sh").current_dir(directory).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "`{script}`: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[tokio::test]
async fn cat_and_zstd_give_the_raw_stripe() {
    let place = Place::disk();
    let (directory, stripes, _) = backup(&place).await;
    for (n, (pattern, len)) in stripes.iter().enumerate() {
        if *len == 0 {
            assert!(!directory.join(format!("s{n:02}")).exists(), "an empty stripe has no objects");
            continue;
        }
        let output = shell(&directory, &format!("cat s{n:02}/*.zst | zstd -d"));
        pattern.check(&output.stdout, *len).unwrap_or_else(|difference| panic!("stripe {n}: {difference}"));
    }
}

#[tokio::test]
async fn each_segment_is_a_whole_zstd_file_of_its_own() {
    let place = Place::disk();
    let (directory, stripes, manifest) = backup(&place).await;
    for (n, (summary, (pattern, _))) in manifest.stripes.iter().zip(&stripes).enumerate() {
        for segment in &summary.segments {
            let file = format!("s{n:02}/{:06}.zst", segment.index);
            shell(&directory, &format!("zstd --test --quiet {file}"));
            let output = shell(&directory, &format!("zstd -d --stdout {file}"));
            let len = usize::try_from(segment.raw_bytes).unwrap();
            assert_eq!(output.stdout, pattern.bytes(segment.raw_offset, len), "{file}");
        }
    }
    assert!(manifest.stripes[0].segments.len() > 2, "several segments were meant: {manifest:?}");
}

#[tokio::test]
async fn the_hashes_in_the_manifest_are_plain_blake3() {
    let place = Place::disk();
    let (directory, stripes, manifest) = backup(&place).await;
    for (n, (summary, (pattern, len))) in manifest.stripes.iter().zip(&stripes).enumerate() {
        assert_eq!(summary.raw_bytes, *len as u64);
        for segment in &summary.segments {
            let object = std::fs::read(directory.join(format!("s{n:02}/{:06}.zst", segment.index))).unwrap();
            assert_eq!(object.len() as u64, segment.stored_bytes);
            assert_eq!(blake3::hash(&object), segment.stored_hash, "stored, stripe {n} segment {}", segment.index);
            let raw = pattern.bytes(segment.raw_offset, usize::try_from(segment.raw_bytes).unwrap());
            assert_eq!(blake3::hash(&raw), segment.raw_hash, "raw, stripe {n} segment {}", segment.index);
        }
    }
}

/// What the manifest promises of the layout: these files and no others.
#[tokio::test]
async fn a_committed_backup_is_its_intent_its_segments_and_its_manifest() {
    let place = Place::disk();
    let (directory, _, manifest) = backup(&place).await;
    let mut expected = vec!["intent.json".to_owned(), "manifest.json".to_owned()];
    for (n, stripe) in manifest.stripes.iter().enumerate() {
        expected.extend(stripe.segments.iter().map(|segment| format!("s{n:02}/{:06}.zst", segment.index)));
    }
    expected.sort();
    let found = tool::files_below(&directory);
    let found: Vec<_> =
        found.iter().map(|path| path.strip_prefix(&directory).unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(found, expected);
}
