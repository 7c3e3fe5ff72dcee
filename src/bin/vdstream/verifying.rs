//! The progress of a verification, for people and as JSON: a part of the contract on the manual's page on progress.

use std::time::Duration;

use serde::Serialize;
use vdstream::backup::{VerifyLevel, VerifyProgress, VerifyStep};

use crate::metrics_file::Bytes;
use crate::output;
use crate::progress::{self, Subject, eta, longest, rate};

type Sample = progress::Sample<VerifyProgress>;

/// A verification that is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verifying {
    pub(crate) level: VerifyLevel,
}

/// One line.
#[derive(Debug, Serialize)]
struct Event {
    event: &'static str,
    level: VerifyLevel,
    step: &'static str,
    seconds: f64,
    read_bytes: u64,
    total_bytes: Option<u64>,
    read_bytes_per_second: u64,
    eta_seconds: Option<u64>,
    raw_bytes: u64,
    findings: u64,
    bottleneck: Option<&'static str>,
    stages: Stages,
}

#[derive(Debug, Serialize)]
struct Stages {
    store: Store,
    threads: Threads,
}

#[derive(Debug, Serialize)]
struct Store {
    wait_seconds: f64,
    throttled_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Threads {
    wait_seconds: f64,
}

impl Verifying {
    fn eta(self, now: &Sample) -> Option<Duration> {
        eta(self.done(&now.progress), now.progress.read_bytes, now.elapsed)
    }
}

impl Subject for Verifying {
    type Progress = VerifyProgress;

    fn text(&self, before: &Sample, now: &Sample) -> String {
        let progress = &now.progress;
        let findings = match usize::try_from(progress.findings).unwrap_or(usize::MAX) {
            0 => String::new(),
            findings => format!(", {}", output::plural(findings, "finding")),
        };
        let step = progress.step.as_str();
        let Some(total) = progress.total_bytes else {
            return format!("{step}, {}{findings}", progress::time(now.elapsed));
        };
        let (read, total) = (output::size(progress.read_bytes), output::size(total));
        let rate = rate(progress.read_bytes, now.elapsed);
        let pace = progress::pace(rate, now.elapsed, self.eta(now), bottleneck(&before.progress, progress));
        format!("{step}: {read} of {total}{findings}, {pace}")
    }

    fn event(&self, before: &Sample, now: &Sample) -> impl Serialize {
        let (old, new) = (&before.progress, &now.progress);
        let passed = now.elapsed.saturating_sub(before.elapsed);
        Event {
            event: "verify",
            level: self.level,
            step: new.step.as_str(),
            seconds: now.elapsed.as_secs_f64(),
            read_bytes: new.read_bytes,
            total_bytes: new.total_bytes,
            read_bytes_per_second: rate(new.read_bytes.saturating_sub(old.read_bytes), passed),
            eta_seconds: self.eta(now).map(|eta| eta.as_secs()),
            raw_bytes: new.raw_bytes,
            findings: new.findings,
            bottleneck: bottleneck(old, new),
            stages: Stages {
                store: Store {
                    wait_seconds: new.store_wait.as_secs_f64(),
                    throttled_seconds: new.throttled.as_secs_f64(),
                },
                threads: Threads { wait_seconds: new.cpu_wait.as_secs_f64() },
            },
        }
    }

    fn done(&self, progress: &VerifyProgress) -> (u64, Option<u64>) {
        (progress.read_bytes, progress.total_bytes)
    }

    fn bytes(&self, progress: &VerifyProgress) -> Bytes {
        Bytes { raw: progress.raw_bytes, stored: progress.read_bytes }
    }
}

/// Who was waited for longest between two snapshots; `None` if nobody was.
fn bottleneck(old: &VerifyProgress, new: &VerifyProgress) -> Option<&'static str> {
    let since = |of: fn(&VerifyProgress) -> Duration| of(new).saturating_sub(of(old));
    longest([
        (
            since(|progress| progress.cpu_wait),
            if new.step == VerifyStep::Content { "decompression" } else { "hashing" },
        ),
        (since(|progress| progress.store_wait), "download"),
        (since(|progress| progress.throttled), "throttled"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: u64, change: impl FnOnce(&mut VerifyProgress)) -> Sample {
        let mut progress = VerifyProgress::default();
        change(&mut progress);
        Sample { elapsed: Duration::from_secs(seconds), progress }
    }

    #[test]
    fn a_line_says_what_is_done_how_much_of_what_and_what_was_found() {
        let verifying = Verifying { level: VerifyLevel::Full };
        let start = Sample::default();
        assert_eq!(verifying.text(&start, &sample(3, |_| {})), "names, 0:03");
        let now = sample(64, |progress| {
            (progress.step, progress.findings) = (VerifyStep::Hashes, 2);
            (progress.read_bytes, progress.total_bytes) = (64 << 20, Some(192 << 20));
            progress.store_wait = Duration::from_secs(1);
        });
        assert_eq!(
            verifying.text(&start, &now),
            "hashes: 64.0 MiB of 192.0 MiB, 2 findings, 1.0 MiB/s, 1:04, 2:08 left, waiting: download"
        );
    }

    #[test]
    fn who_is_waited_for_has_a_word_in_every_step() {
        let second = Duration::from_secs(1);
        let old = VerifyProgress::default();
        assert_eq!(bottleneck(&old, &old), None);
        let words = |change: fn(&mut VerifyProgress, Duration)| {
            [VerifyStep::Hashes, VerifyStep::Content].map(|step| {
                let now = sample(1, |progress| {
                    progress.step = step;
                    change(progress, second);
                });
                bottleneck(&old, &now.progress).unwrap()
            })
        };
        assert_eq!(words(|new, time| new.cpu_wait = time), ["hashing", "decompression"]);
        assert_eq!(words(|new, time| new.store_wait = time), ["download"; 2]);
        assert_eq!(words(|new, time| new.throttled = time), ["throttled"; 2]);
    }
}
