//! The progress of the look at what is stored of a backup that is resumed, for people and as JSON: a part of the contract on the
//! manual's page on progress.

use std::time::Duration;

use serde::Serialize;
use vdstream::backup::{ResumeProgress, ResumeWatch};

use crate::args::Common;
use crate::metrics_file::{Bytes, MetricsFile};
use crate::output;
use crate::progress::{self, Subject, Watch, eta, rate};

type Sample = progress::Sample<ResumeProgress>;

/// A look that is shown.
#[derive(Debug, Clone, Copy)]
struct Resuming;

/// One line.
#[derive(Debug, Serialize)]
struct Event {
    event: &'static str,
    seconds: f64,
    read_bytes: u64,
    total_bytes: Option<u64>,
    read_bytes_per_second: u64,
    eta_seconds: Option<u64>,
}

/// Shows how far `looked` is while `work` runs.
pub(crate) async fn shown<T>(
    common: &Common,
    metrics: &MetricsFile,
    looked: &ResumeWatch,
    work: impl Future<Output = T>,
) -> T {
    let shown = Shown { watch: Watch::new(common, metrics, Resuming), looked };
    tokio::select! {
        done = work => done,
        never = shown.watch.follow(|| looked.progress()) => match never {},
    }
}

/// Says the last numbers when it is dropped, so that a signal does not keep them from being said.
struct Shown<'a> {
    watch: Watch<'a, Resuming>,
    looked: &'a ResumeWatch,
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.watch.end(self.looked.progress());
    }
}

impl Resuming {
    fn eta(self, now: &Sample) -> Option<Duration> {
        eta(self.done(&now.progress), now.progress.read_bytes, now.elapsed)
    }
}

impl Subject for Resuming {
    type Progress = ResumeProgress;

    fn text(&self, _: &Sample, now: &Sample) -> String {
        let Some(total) = now.progress.total_bytes else {
            return format!("looking for what is stored, {}", progress::time(now.elapsed));
        };
        let (read, total) = (output::size(now.progress.read_bytes), output::size(total));
        let pace = progress::pace(rate(now.progress.read_bytes, now.elapsed), now.elapsed, self.eta(now), None);
        format!("reading back what is stored: {read} of {total}, {pace}")
    }

    fn event(&self, before: &Sample, now: &Sample) -> impl Serialize {
        let passed = now.elapsed.saturating_sub(before.elapsed);
        Event {
            event: "resume",
            seconds: now.elapsed.as_secs_f64(),
            read_bytes: now.progress.read_bytes,
            total_bytes: now.progress.total_bytes,
            read_bytes_per_second: rate(now.progress.read_bytes.saturating_sub(before.progress.read_bytes), passed),
            eta_seconds: self.eta(now).map(|eta| eta.as_secs()),
        }
    }

    fn done(&self, progress: &ResumeProgress) -> (u64, Option<u64>) {
        (progress.read_bytes, progress.total_bytes)
    }

    fn bytes(&self, _: &ResumeProgress) -> Bytes {
        // Nothing is backed up by this process yet.
        Bytes::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_was_read_of_what_how_fast_and_how_long_still() {
        let at = |seconds, total_bytes, read_bytes| {
            let mut progress = ResumeProgress::default();
            (progress.total_bytes, progress.read_bytes) = (total_bytes, read_bytes);
            Sample { elapsed: Duration::from_secs(seconds), progress }
        };
        let text = |now: &Sample| Resuming.text(&Sample::default(), now);
        assert_eq!(text(&at(3, None, 0)), "looking for what is stored, 0:03");
        let now = at(64, Some(192 << 20), 64 << 20);
        assert_eq!(text(&now), "reading back what is stored: 64.0 MiB of 192.0 MiB, 1.0 MiB/s, 1:04, 2:08 left");
        let event = serde_json::to_value(Resuming.event(&at(62, Some(192 << 20), 60 << 20), &now)).unwrap();
        assert_eq!((&event["read_bytes_per_second"], &event["eta_seconds"]), (&(2 << 20).into(), &128.into()));
    }
}
