//! Device sets as stripes: our own and an engine's.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ErrorKind;
use crate::stream::{DeviceReader, DeviceWriter};
use crate::vdi::{Config, Features, LocalHub, ServerConfig, client, server};

fn options(stripes: u16) -> BackupOptions {
    BackupOptions::default().stripes(stripes).pipeline(config())
}

async fn assert_nothing_left(store: &Store) {
    store.wait_idle().await;
    assert!(store.list("").await.unwrap().is_empty(), "something was left behind");
}

#[tokio::test]
async fn writers_and_readers_carry_every_stripe() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "s", options(3)).await.unwrap();
    let sizes = [0, 1, 700_001];
    for (writer, size) in backup.take_writers().unwrap().iter_mut().zip(sizes) {
        writer.write_all(&vec![7; size]).await.unwrap();
        writer.shutdown().await.unwrap();
    }
    assert!(backup.take_writers().is_err(), "the writers are taken once");
    let manifest = backup.commit().await.unwrap().manifest;
    let mut restore = Restore::begin(&store, &manifest, RestoreOptions::default().pipeline(config())).unwrap();
    for (reader, size) in restore.take_readers().unwrap().iter_mut().zip(sizes) {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes == vec![7; size]);
    }
    restore.finish().await.unwrap();
}

#[tokio::test]
async fn a_commit_does_not_wait_for_a_writer_that_nobody_shuts_down() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "s", options(2)).await.unwrap();
    let mut writers = backup.take_writers().unwrap();
    writers[0].shutdown().await.unwrap();
    writers[1].write_all(b"half").await.unwrap();
    let error = backup.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.report().contains("writer of stripe 1 was not shut down"), "{}", error.report());
    let late = Error::from(writers[1].shutdown().await.unwrap_err());
    assert!(late.report().contains("was not shut down"), "{}", late.report());
    assert_nothing_left(&store).await;
}

#[tokio::test]
async fn a_dropped_writer_fails_the_backup() {
    let store = Store::memory();
    let mut backup = Backup::begin(&store, "s", options(2)).await.unwrap();
    let mut writers = backup.take_writers().unwrap();
    writers[1].shutdown().await.unwrap();
    drop(writers.remove(0));
    let error = backup.wait_stripes().await.unwrap_err();
    assert!(error.report().contains("was dropped before its end"), "{}", error.report());
    let again = backup.commit().await.unwrap_err();
    assert_eq!(again.report(), error.report(), "the first cause stays");
    assert_nothing_left(&store).await;
}

/// An engine with one device; `write` does what it does with it.
async fn engine(hub: &LocalHub, size: usize, shut_down: bool) -> std::io::Result<()> {
    let set = server::DeviceSet::open(hub, "nightly").await.map_err(Error::from)?;
    let config =
        ServerConfig { features: Features::WRITE_MEDIA | Features::COMPLETE_ENABLED, ..ServerConfig::default() };
    set.begin_configuration(config).and_then(|set| set.request_buffers(65_536, 0, 4)).map_err(Error::from)?;
    set.end_configuration().await.map_err(Error::from)?;
    let agent = set.completion_agent();
    let work = async {
        let device = set.open_device().map_err(Error::from)?;
        let mut writer = DeviceWriter::new(&set, device, 4)?;
        writer.write_all(&vec![9; size]).await?;
        if shut_down {
            writer.shutdown().await?;
        }
        Ok(())
    };
    let (worked, _agent) = tokio::join!(work, agent);
    worked
}

#[tokio::test]
async fn an_engine_is_served_and_restored_whether_or_not_it_knows_complete() {
    for features in [Features::PIPE | Features::REQUEST_COMPLETE, Features::PIPE] {
        let (store, hub) = (Store::memory(), LocalHub::new());
        let set = client::DeviceSet::create(&hub, "nightly", Config { features, ..Config::pipe(1) }).unwrap();
        let backup = Backup::begin(&store, "s", options(1)).await.unwrap();
        let (report, worked) = tokio::join!(backup.serve(set), engine(&hub, 300_000, true));
        worked.unwrap();
        let manifest = report.unwrap().manifest;
        assert_eq!(manifest.raw_bytes(), 300_000);

        let set = client::DeviceSet::create(&hub, "nightly", Config::pipe(1)).unwrap();
        let restore = Restore::begin(&store, &manifest, RestoreOptions::default().pipeline(config())).unwrap();
        let mut bytes = Vec::new();
        let read = async {
            let set = server::DeviceSet::open(&hub, "nightly").await.unwrap();
            let config = ServerConfig { features: Features::READ_MEDIA, ..ServerConfig::default() };
            set.begin_configuration(config).unwrap().request_buffers(65_536, 0, 2).unwrap();
            set.end_configuration().await.unwrap();
            let agent = set.completion_agent();
            let mut reader = DeviceReader::new(&set, set.open_device().unwrap(), 2).unwrap();
            let (read, _agent) = tokio::join!(reader.read_to_end(&mut bytes), agent);
            read.unwrap();
        };
        let (served, ()) = tokio::join!(restore.serve(set), read);
        served.unwrap();
        assert!(bytes == vec![9; 300_000]);
    }
}

#[tokio::test]
async fn an_engine_that_dies_leaves_no_backup_and_a_wrong_number_of_devices_is_refused() {
    let (store, hub) = (Store::memory(), LocalHub::new());
    let set = client::DeviceSet::create(&hub, "nightly", Config::pipe(1)).unwrap();
    let backup = Backup::begin(&store, "s", options(1)).await.unwrap();
    let (report, _worked) = tokio::join!(backup.serve(set), engine(&hub, 300_000, false));
    assert!(report.unwrap_err().report().contains("was dropped before its end"));
    assert_nothing_left(&store).await;

    let set = client::DeviceSet::create(&hub, "nightly", Config::pipe(1)).unwrap();
    let backup = Backup::begin(&store, "s", options(2)).await.unwrap();
    let (report, worked) = tokio::join!(backup.serve(set), engine(&hub, 10, true));
    let error = report.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let told = Error::from(worked.unwrap_err());
    assert!(told.report().contains("1 devices, the backup 2 stripes"), "{}", told.report());
    assert_nothing_left(&store).await;
}
