//! How long a store with many backups takes to tell which it holds, beside reading the files alone.

// A program for people who measure, not a library.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::stream;
use tokio::runtime::{Builder, Runtime};
use vdstream::backup::{self, Backup, BackupOptions, Manifest, Select, Store};
use vdstream::pipeline::{Ack, Input};

const BACKUPS: usize = 10_000;

/// A store on disk with one backup and copies of its manifest under other ids.
fn fill(runtime: &Runtime, directory: &Path) -> Store {
    let store = Store::from_url(&format!("file://{}", directory.display())).unwrap();
    let mut manifest: Manifest = runtime.block_on(async {
        let mut backup = Backup::begin(&store, "bench", BackupOptions::default()).await.unwrap();
        let items = [Ok(Input::Data(vec![1; 1024].into())), Ok(Input::Complete(Ack::new(|_durable| {})))];
        backup.stripe_input(0, stream::iter(items)).unwrap();
        backup.commit().await.unwrap().manifest
    });
    let first = manifest.id.to_string();
    for nth in 1..BACKUPS {
        let id = format!("{}{nth:012x}", &first[..first.len() - 12]);
        manifest.id = id.parse().unwrap();
        let place = directory.join("bench").join(id);
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("manifest.json"), manifest.encode().unwrap()).unwrap();
    }
    store
}

fn catalog(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = fill(&runtime, directory.path());
    let series = "bench".parse().unwrap();
    let mut group = criterion.benchmark_group("10,000 backups on disk");
    group.sample_size(10);
    group.bench_function("list", |bencher| {
        bencher.iter(|| {
            let listing = runtime.block_on(backup::list(&store, Some(&series))).unwrap();
            assert_eq!(listing.backups.len(), BACKUPS);
        });
    });
    group.bench_function("find the latest", |bencher| {
        bencher.iter(|| runtime.block_on(backup::find(&store, &series, Select::Latest)).unwrap());
    });
    group.bench_function("read every manifest, one after the other", |bencher| {
        bencher.iter(|| {
            for entry in std::fs::read_dir(directory.path().join("bench")).unwrap() {
                std::fs::read(entry.unwrap().path().join("manifest.json")).unwrap();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, catalog);
criterion_main!(benches);
