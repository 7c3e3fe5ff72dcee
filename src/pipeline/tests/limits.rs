//! Limits on bytes per second, on simulated time: the store answers at once, so all time is the limit's.

use std::time::Duration;

use futures::future::try_join_all;

use super::store::{Fault, MemoryStore, Op};
use super::*;
use crate::clock::Clock as _;
use crate::error::ErrorKind;
use crate::pipeline::{LevelRange, Progress};

const RATE: u64 = 256 << 10;
const STRIPES: u16 = 3;

/// Backs the same data up over some stripes; answers what was made and how long it took.
async fn back_up(config: PipelineConfig, store: &MemoryStore) -> (Vec<StripeSummary>, Progress, Duration) {
    let clock = SystemClock::new();
    let pipeline = backup_pipeline(config, STRIPES, store);
    let stripes = (0..STRIPES).map(|stripe| pipeline.backup_stripe(stripe, pieces(&data(4 << 20, 1), 100 * KIB)));
    let summaries = try_join_all(stripes).await.unwrap();
    assert_idle(&pipeline, store).await;
    (summaries, pipeline.progress(), clock.now())
}

/// What it takes at `RATE`, to a few per cent.
fn assert_paced(bytes: u64, took: Duration) {
    let ideal = bytes as f64 / RATE as f64;
    let took = took.as_secs_f64();
    assert!((took - ideal).abs() < ideal * 0.02, "{bytes} bytes took {took} s, not {ideal} s");
}

#[tokio::test(start_paused = true)]
async fn a_backup_and_a_restore_keep_to_their_limits() {
    let store = MemoryStore::new();
    let config = PipelineConfig {
        upload_bytes_per_second: Some(RATE),
        // Far longer than any request may take: waiting for a turn is not part of one.
        attempt_timeout: Duration::from_millis(1),
        ..small()
    };
    let (summaries, progress, took) = back_up(config.clone(), &store).await;
    let stored: u64 = summaries.iter().map(|summary| summary.stored_bytes).sum();
    assert_eq!((progress.stored_bytes, progress.retries), (stored, 0));
    assert_paced(stored, took);
    assert!(progress.limited >= took / 2 && progress.limited > progress.store_busy, "{progress:?}");

    let config = PipelineConfig { upload_bytes_per_second: None, download_bytes_per_second: Some(RATE), ..config };
    let clock = SystemClock::new();
    let pipeline = restore_pipeline(config, STRIPES, &store);
    let stripes = summaries.iter().zip(0..).map(|(summary, stripe)| restore(&pipeline, stripe, summary));
    for bytes in try_join_all(stripes).await.unwrap() {
        assert_eq!(bytes, data(4 << 20, 1));
    }
    assert_paced(pipeline.progress().stored_bytes, clock.now());
    assert!(pipeline.progress().limited > Duration::ZERO);
    assert_idle(&pipeline, &store).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again_counts_again() {
    // Every part fails once.
    let store = MemoryStore::with_faults(|_, op, before| {
        (matches!(op, Op::Part(_)) && before == 0).then_some(Fault::Fail(ErrorKind::Unavailable))
    });
    let (summaries, progress, took) =
        back_up(PipelineConfig { upload_bytes_per_second: Some(RATE), ..small() }, &store).await;
    let stored: u64 = summaries.iter().map(|summary| summary.stored_bytes).sum();
    assert!(progress.retries > 10);
    assert_paced(2 * stored, took);
}

/// The time that the limit takes is not the store's silence.
#[tokio::test(start_paused = true)]
async fn a_low_limit_is_not_taken_for_a_silent_store() {
    let store = MemoryStore::with_faults(|_, op, before| {
        (matches!(op, Op::Part(_)) && before < 4).then_some(Fault::Fail(ErrorKind::Unavailable))
    });
    let pipeline = backup_pipeline(PipelineConfig { upload_bytes_per_second: Some(1 << 10), ..small() }, 1, &store);
    let inputs = pieces(&data(800 * KIB, 1), 100 * KIB);
    let summary = pipeline.backup_stripe(0, inputs).await.unwrap();
    assert_eq!(summary.raw_bytes, 800 * KIB as u64);
}

/// What is sent again does not wait for another turn, which comes after a minute here.
#[tokio::test(start_paused = true)]
async fn a_low_limit_does_not_hide_that_a_store_is_gone() {
    let store =
        MemoryStore::with_faults(|_, op, _| matches!(op, Op::Part(_)).then_some(Fault::Fail(ErrorKind::Unavailable)));
    let pipeline = backup_pipeline(PipelineConfig { upload_bytes_per_second: Some(1 << 10), ..small() }, 1, &store);
    let clock = SystemClock::new();
    let error = pipeline.backup_stripe(0, pieces(&data(800 * KIB, 1), 100 * KIB)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    // The first turn, the stated time, and the longest pause.
    let most = Duration::from_secs(64 + 90 + 15);
    assert!(clock.now() <= most, "{:?}", clock.now());
    assert_idle(&pipeline, &store).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_no_time_passes() {
    let (_, progress, took) = back_up(small(), &MemoryStore::new()).await;
    assert_eq!((progress.limited, took), (Duration::ZERO, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_waits_for_its_turn_can_be_given_up() {
    let store = MemoryStore::new();
    let pipeline = backup_pipeline(PipelineConfig { upload_bytes_per_second: Some(1 << 10), ..small() }, 1, &store);
    let clock = SystemClock::new();
    let limit = Some(Duration::from_secs(600));
    let run = pipeline.backup_stripe(0, pieces(&data(4 << 20, 1), 100 * KIB));
    crate::clock::timeout(&clock, limit, run).await.unwrap_err();
    assert_idle(&pipeline, &store).await;
    assert!(clock.now() < Duration::from_secs(601), "the clean-up waits for no turn");
}

/// Backs up 8 MiB with an adaptive level, from a source that pauses before each piece; answers the level at the end.
async fn adapt(config: PipelineConfig, pause: Duration) -> i32 {
    let store = MemoryStore::new();
    let config = PipelineConfig { adaptive: Some(LevelRange::default()), ..config };
    let pipeline = backup_pipeline(config.clone(), 1, &store);
    let (bytes, clock) = (data(8 << 20, 1), SystemClock::new());
    let source = pieces(&bytes, 64 * KIB).then(|piece| {
        let pausing = clock.sleep(pause);
        async move {
            pausing.await;
            piece
        }
    });
    let summary = pipeline.backup_stripe(0, source).await.unwrap();
    assert_idle(&pipeline, &store).await;
    let level = pipeline.progress().level.unwrap();
    assert_eq!(
        pipeline.levels(),
        Some(LevelRange { lowest: config.level.min(level), highest: config.level.max(level) })
    );
    // Frames of many levels, and any reader reads them.
    let back = restore_pipeline(small(), 1, &store);
    assert!(restore(&back, 0, &summary).await.unwrap() == bytes[..]);
    level
}

#[tokio::test(start_paused = true)]
async fn an_adaptive_level_rises_behind_a_slow_producer_or_a_slow_upload() {
    assert_eq!(adapt(small(), Duration::from_millis(300)).await, 9);
    let slow_upload = PipelineConfig { upload_bytes_per_second: Some(128 << 10), ..small() };
    assert_eq!(adapt(slow_upload, Duration::ZERO).await, 9);
    // No time passes, so there is nothing to follow.
    assert_eq!(adapt(small(), Duration::ZERO).await, 3);
}

#[test]
fn limits_and_ranges_out_of_bounds_are_refused() {
    let refused = |config: PipelineConfig| {
        let store = Arc::new(MemoryStore::new());
        Pipeline::for_backup(config, 1, store, SystemClock::shared()).unwrap_err().to_string()
    };
    for (limit, is_good) in [(0, false), (1023, false), (1024, true), (u64::MAX, true)] {
        let up = PipelineConfig { upload_bytes_per_second: Some(limit), ..small() };
        let down = PipelineConfig { download_bytes_per_second: Some(limit), ..small() };
        for config in [up, down] {
            if is_good {
                backup_pipeline(config, 1, &MemoryStore::new());
            } else {
                assert!(refused(config).contains("load_bytes_per_second is"));
            }
        }
    }
    for (lowest, highest, is_good) in [(-8, 1, false), (2, 1, false), (1, 23, false), (-7, 22, true), (5, 5, true)] {
        let config =
            PipelineConfig { memory_limit: 4 << 30, adaptive: Some(LevelRange { lowest, highest }), ..small() };
        if is_good {
            backup_pipeline(config, 1, &MemoryStore::new());
        } else {
            assert!(refused(config).starts_with("adaptive is "));
        }
    }
}
