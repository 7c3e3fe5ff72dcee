//! The progress of backups and restores, for people and as JSON, one object per line: a contract, written down in the manual's
//! page on progress.

use std::time::Duration;

use serde::Serialize;
use vdstream::pipeline::{Pipeline, Progress, StripeProgress};

use crate::metrics_file::Bytes;
use crate::output;
use crate::progress::{self, Subject, eta, longest, rate};

type Sample = progress::Sample<Progress>;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Backup,
    Restore,
}

/// One line.
#[derive(Debug, Serialize)]
struct Event {
    event: &'static str,
    direction: Direction,
    seconds: f64,
    raw_bytes: u64,
    stored_bytes: u64,
    raw_bytes_per_second: u64,
    ratio: Option<f64>,
    total_bytes: Option<u64>,
    eta_seconds: Option<u64>,
    bottleneck: Option<&'static str>,
    stages: Stages,
    memory_peak_bytes: u64,
    stripes: Vec<Stripe>,
}

#[derive(Debug, Serialize)]
struct Stages {
    source: Source,
    compression: Compression,
    store: Store,
}

#[derive(Debug, Serialize)]
struct Source {
    wait_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Compression {
    utilisation: f64,
    busy_seconds: f64,
    wait_seconds: f64,
    level: Option<i32>,
}

#[derive(Debug, Serialize)]
struct Store {
    utilisation: f64,
    busy_seconds: f64,
    wait_seconds: f64,
    throttled_seconds: f64,
    limited_seconds: f64,
    requests: u64,
    retries: u64,
    throttles: u64,
    concurrency: u64,
}

#[derive(Debug, Serialize)]
struct Stripe {
    position: u64,
    durable: u64,
}

/// What stays the same from line to line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) direction: Direction,
    /// Raw bytes in all, if known.
    pub(crate) total: Option<u64>,
    /// Threads that compress or decompress.
    pub(crate) threads: usize,
    /// Something was stored before.
    pub(crate) is_resumed: bool,
}

impl Work {
    /// `total` is the number of raw bytes in all, if it is known.
    pub(crate) fn new(direction: Direction, pipeline: &Pipeline, total: Option<u64>) -> Self {
        let plan = pipeline.plan();
        Self { direction, total, threads: plan.threads, is_resumed: plan.replay_bytes > 0 }
    }

    fn eta(&self, now: &Sample) -> Option<Duration> {
        eta(self.done(&now.progress), now.progress.raw_bytes, now.elapsed)
    }
}

impl Subject for Work {
    type Progress = Progress;

    fn text(&self, before: &Sample, now: &Sample) -> String {
        let (raw, stored) = (now.progress.raw_bytes, now.progress.stored_bytes);
        let (rate, raw, stored) = (rate(raw, now.elapsed), output::size(raw), output::size(stored));
        let done = output::size(self.done(&now.progress).0);
        let amount = match (self.direction, self.total.map(output::size)) {
            (Direction::Restore, Some(total)) => format!("{done} of {total}"),
            (_, Some(total)) if self.is_resumed => format!("{done} of {total}, {stored} sent"),
            (_, Some(total)) => format!("{done} of {total} as {stored}"),
            (_, None) => format!("{raw} as {stored}"),
        };
        let bottleneck = bottleneck(self.direction, &before.progress, &now.progress);
        format!("{amount}, {}", progress::pace(rate, now.elapsed, self.eta(now), bottleneck))
    }

    fn event(&self, before: &Sample, now: &Sample) -> impl Serialize {
        Event::new(*self, before, now)
    }

    fn done(&self, progress: &Progress) -> (u64, Option<u64>) {
        (progress.stripes.iter().map(|stripe| stripe.position).sum(), self.total)
    }

    fn bytes(&self, progress: &Progress) -> Bytes {
        Bytes { raw: progress.raw_bytes, stored: progress.stored_bytes }
    }
}

impl Event {
    fn new(work: Work, before: &Sample, now: &Sample) -> Self {
        let (old, new) = (&before.progress, &now.progress);
        let passed = now.elapsed.saturating_sub(before.elapsed);
        let share = |busy: Duration, of: u64| {
            let most = passed.as_secs_f64() * of.max(1) as f64;
            if most > 0.0 { (busy.as_secs_f64() / most).min(1.0) } else { 0.0 }
        };
        Self {
            event: "progress",
            direction: work.direction,
            seconds: now.elapsed.as_secs_f64(),
            raw_bytes: new.raw_bytes,
            stored_bytes: new.stored_bytes,
            raw_bytes_per_second: rate(new.raw_bytes.saturating_sub(old.raw_bytes), passed),
            ratio: (new.stored_bytes > 0 && work.direction == Direction::Backup)
                .then(|| new.raw_bytes as f64 / new.stored_bytes as f64),
            total_bytes: work.total,
            eta_seconds: work.eta(now).map(|eta| eta.as_secs()),
            bottleneck: bottleneck(work.direction, old, new),
            stages: Stages {
                source: Source { wait_seconds: new.source_wait.as_secs_f64() },
                compression: Compression {
                    utilisation: share(new.cpu_busy.saturating_sub(old.cpu_busy), work.threads as u64),
                    busy_seconds: new.cpu_busy.as_secs_f64(),
                    wait_seconds: new.cpu_wait.as_secs_f64(),
                    level: new.level,
                },
                store: Store {
                    utilisation: share(new.store_busy.saturating_sub(old.store_busy), new.concurrency),
                    busy_seconds: new.store_busy.as_secs_f64(),
                    wait_seconds: new.store_wait.as_secs_f64(),
                    throttled_seconds: new.throttled.as_secs_f64(),
                    limited_seconds: new.limited.as_secs_f64(),
                    requests: new.requests,
                    retries: new.retries,
                    throttles: new.throttles,
                    concurrency: new.concurrency,
                },
            },
            memory_peak_bytes: new.memory_peak,
            stripes: new.stripes.iter().map(Stripe::from).collect(),
        }
    }
}

impl From<&StripeProgress> for Stripe {
    fn from(stripe: &StripeProgress) -> Self {
        Self { position: stripe.position, durable: stripe.durable }
    }
}

/// Who was waited for longest between two snapshots; `None` if nobody was.
fn bottleneck(direction: Direction, old: &Progress, new: &Progress) -> Option<&'static str> {
    let (source, cpu, store) = match direction {
        Direction::Backup => ("producer", "compression", "upload"),
        Direction::Restore => ("consumer", "decompression", "download"),
    };
    let since = |of: fn(&Progress) -> Duration| of(new).saturating_sub(of(old));
    let waits = [
        (since(|progress| progress.source_wait), source),
        (since(|progress| progress.cpu_wait), cpu),
        (since(|progress| progress.store_wait), store),
        (since(|progress| progress.throttled), "throttled"),
        (since(|progress| progress.limited), "throttled"),
    ];
    let word = longest(waits)?;
    // The store is waited for because its requests are: by pauses and our own limit, if those hold them longer than the store does.
    let held = since(|progress| progress.limited) + since(|progress| progress.throttled);
    let is_held = held > since(|progress| progress.store_busy);
    Some(if word == store && is_held { "throttled" } else { word })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, raw_bytes: u64) -> Sample {
        let stripes = vec![StripeProgress { position: raw_bytes, durable: 0 }];
        let progress = Progress { raw_bytes, stored_bytes: raw_bytes / 2, stripes, ..Progress::default() };
        Sample { elapsed: Duration::from_secs(seconds), progress }
    }

    #[test]
    fn the_bottleneck_is_who_was_waited_for_longest_since_the_last_line() {
        let second = Duration::from_secs(1);
        let old = Progress { source_wait: second * 9, ..Progress::default() };
        let with = |change: fn(&mut Progress, Duration)| {
            let mut new = old.clone();
            change(&mut new, second);
            new
        };
        let words = |new: &Progress| [Direction::Backup, Direction::Restore].map(|way| bottleneck(way, &old, new));
        assert_eq!(words(&old), [None, None], "what was before does not count");
        for (new, backup, restore) in [
            (with(|new, time| new.source_wait += time), "producer", "consumer"),
            (with(|new, time| new.cpu_wait += time), "compression", "decompression"),
            (with(|new, time| new.store_wait += time), "upload", "download"),
            (with(|new, time| new.throttled += time), "throttled", "throttled"),
            (with(|new, time| new.limited += time), "throttled", "throttled"),
            // 64 stripes wait for parts, and the parts for their turn: it is the limit, and not the store.
            (with(|new, time| (new.store_wait, new.limited) = (64 * time, time)), "throttled", "throttled"),
            // The same of pauses, with some requests in between, and of both together.
            (
                with(|new, time| (new.store_wait, new.throttled, new.store_busy) = (64 * time, 2 * time, time)),
                "throttled",
                "throttled",
            ),
            (
                with(|new, time| {
                    (new.store_wait, new.store_busy) = (64 * time, 3 * time);
                    (new.limited, new.throttled) = (2 * time, 2 * time);
                }),
                "throttled",
                "throttled",
            ),
            (
                with(|new, time| (new.store_wait, new.throttled, new.store_busy) = (64 * time, time, time)),
                "upload",
                "download",
            ),
            (
                with(|new, time| (new.store_wait, new.limited, new.store_busy) = (3 * time, time, 2 * time)),
                "upload",
                "download",
            ),
        ] {
            assert_eq!(words(&new), [Some(backup), Some(restore)]);
        }
    }

    #[test]
    fn a_line_says_how_much_how_fast_how_long_and_who_is_waited_for() {
        let before = sample(5, 1 << 20);
        let mut now = sample(64, 64 << 20);
        now.progress.store_wait = Duration::from_secs(3);
        let work = |direction, total| Work { direction, total, threads: 1, is_resumed: false };
        let line = |direction, total| work(direction, total).text(&before, &now);
        assert_eq!(line(Direction::Backup, None), "64.0 MiB as 32.0 MiB, 1.0 MiB/s, 1:04, waiting: upload");
        assert_eq!(
            line(Direction::Backup, Some(128 << 20)),
            "64.0 MiB of 128.0 MiB as 32.0 MiB, 1.0 MiB/s, 1:04, 1:04 left, waiting: upload"
        );
        assert_eq!(
            line(Direction::Restore, Some(64 << 20)),
            "64.0 MiB of 64.0 MiB, 1.0 MiB/s, 1:04, waiting: download"
        );
    }

    #[test]
    fn what_was_stored_before_is_done_and_has_not_moved() {
        let work = Work { direction: Direction::Backup, total: Some(192 << 20), threads: 1, is_resumed: true };
        let mut now = sample(32, 32 << 20);
        now.progress.stripes[0].position += 128 << 20;
        assert_eq!(
            work.text(&Sample::default(), &now),
            "160.0 MiB of 192.0 MiB, 16.0 MiB sent, 1.0 MiB/s, 0:32, 0:32 left"
        );
        let event = Event::new(work, &Sample::default(), &now);
        assert_eq!((event.raw_bytes_per_second, event.eta_seconds, event.ratio), (1 << 20, Some(32), Some(2.0)));
    }

    #[test]
    fn rates_and_the_end_are_told_when_they_are_known() {
        let work = Work { direction: Direction::Backup, total: Some(1000), threads: 2, is_resumed: false };
        let event = Event::new(work, &sample(1, 100), &sample(3, 500));
        assert_eq!((event.raw_bytes_per_second, event.eta_seconds, event.ratio), (200, Some(3), Some(2.0)));
        for (total, bytes) in [(None, 500), (Some(500), 500), (Some(499), 500), (Some(1000), 0)] {
            let event = Event::new(Work { total, ..work }, &sample(1, 0), &sample(1, bytes));
            assert_eq!(event.eta_seconds, None, "{total:?} {bytes}");
            assert!(event.stages.compression.utilisation == 0.0, "no time has passed");
        }
    }
}
