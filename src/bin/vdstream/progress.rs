//! Progress on stderr: a bar on a terminal, a line now and then elsewhere, or JSON for programs.

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use vdstream::clock::{Clock as _, SystemClock};
use vdstream::pipeline::{Pipeline, Progress};

use crate::args::{Common, ProgressStyle};
use crate::event::{self, Direction, Event, Sample, Work};
use crate::metrics_file::{Bytes, MetricsFile};
use crate::output;

/// Shows how far the work is.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    display: Display,
    metrics: &'a MetricsFile,
    work: Work,
    clock: SystemClock,
    start: Duration,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines,
    Json,
    None,
}

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);
const EVENT_EVERY: Duration = Duration::from_secs(1);

impl<'a> Watch<'a> {
    /// `total` is the number of raw bytes in all, if it is known.
    pub(crate) fn new(
        common: &Common,
        metrics: &'a MetricsFile,
        direction: Direction,
        pipeline: &Pipeline,
        total: Option<u64>,
    ) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let display = match common.progress {
            _ if common.quiet => Display::None,
            ProgressStyle::None => Display::None,
            ProgressStyle::Json => Display::Json,
            ProgressStyle::Lines => Display::Lines,
            ProgressStyle::Auto if !is_terminal => Display::Lines,
            ProgressStyle::Auto | ProgressStyle::Bar => Display::Bar(bar(total)),
        };
        let clock = SystemClock::new();
        let work = Work { direction, total, threads: pipeline.plan().threads };
        Self { display, metrics, work, start: clock.now(), clock }
    }

    /// Shows snapshots, and keeps the metrics file, until it is dropped.
    pub(crate) async fn follow(&self, snapshot: impl Fn() -> Progress) -> Infallible {
        tokio::select! {
            never = self.display(&snapshot) => never,
            never = self.metrics.follow(|| bytes(&snapshot())) => never,
        }
    }

    async fn display(&self, snapshot: impl Fn() -> Progress) -> Infallible {
        let mut before = Sample::default();
        loop {
            let pause = match &self.display {
                Display::Bar(_) => BAR_EVERY,
                Display::Lines => LINE_EVERY,
                Display::Json => EVENT_EVERY,
                Display::None => return std::future::pending().await,
            };
            self.clock.sleep(pause).await;
            let now = self.sample(snapshot());
            self.show(&before, &now);
            before = now;
        }
    }

    /// Time since the data began to move.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now().saturating_sub(self.start)
    }

    fn sample(&self, progress: Progress) -> Sample {
        Sample { elapsed: self.elapsed(), progress }
    }

    fn show(&self, before: &Sample, now: &Sample) {
        match &self.display {
            Display::Bar(bar) => {
                // More than was expected is no reason for a bar that is longer than its line.
                bar.set_position(now.progress.raw_bytes.min(self.work.total.unwrap_or(u64::MAX)));
                bar.set_message(text(self.work, before, now));
            }
            Display::Lines => output::note(&text(self.work, before, now)),
            Display::Json => output::event(&Event::new(self.work, before, now)),
            Display::None => {}
        }
    }

    /// Removes the bar, so that what follows stands alone. Programs get the last numbers, with the averages of all the time.
    pub(crate) fn end(&self, last: Progress) {
        self.metrics.note(bytes(&last));
        match &self.display {
            Display::Bar(bar) => bar.finish_and_clear(),
            Display::Json => self.show(&Sample::default(), &self.sample(last)),
            Display::Lines | Display::None => {}
        }
    }
}

fn bytes(progress: &Progress) -> Bytes {
    Bytes { raw: progress.raw_bytes, stored: progress.stored_bytes }
}

/// What does not fit into the line is cut off at its end, where the least important things stand.
fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:16} {percent:>3} %  {wide_msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {wide_msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    // The templates are constants and parse.
    if let Ok(style) = BarStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn text(work: Work, before: &Sample, now: &Sample) -> String {
    let raw = output::size(now.progress.raw_bytes);
    let amount = match (work.direction, work.total) {
        (Direction::Restore, Some(total)) => format!("{raw} of {}", output::size(total)),
        (_, Some(total)) => format!("{raw} of {} as {}", output::size(total), output::size(now.progress.stored_bytes)),
        (_, None) => format!("{raw} as {}", output::size(now.progress.stored_bytes)),
    };
    let rate = output::size(event::rate(now.progress.raw_bytes, now.elapsed));
    let left = match event::eta(work.total, now) {
        Some(eta) => format!(", {} left", time(eta)),
        None => String::new(),
    };
    let waiting = match event::bottleneck(work.direction, &before.progress, &now.progress) {
        Some(word) => format!(", waiting: {word}"),
        None => String::new(),
    };
    format!("{amount}, {rate}/s, {}{left}{waiting}", time(now.elapsed))
}

/// `0:07`, `12:34`, `1:02:03`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_how_fast_how_long_and_who_is_waited_for() {
        let sample = |seconds, raw_bytes, wait| Sample {
            elapsed: Duration::from_secs(seconds),
            progress: Progress {
                raw_bytes,
                stored_bytes: raw_bytes / 2,
                store_wait: Duration::from_secs(wait),
                ..Progress::default()
            },
        };
        let (before, now) = (sample(5, 1 << 20, 0), sample(64, 64 << 20, 3));
        let line = |direction, total| text(Work { direction, total, threads: 1 }, &before, &now);
        assert_eq!(line(Direction::Backup, None), "64.0 MiB as 32.0 MiB, 1.0 MiB/s, 1:04, waiting: upload");
        assert_eq!(
            line(Direction::Backup, Some(128 << 20)),
            "64.0 MiB of 128.0 MiB as 32.0 MiB, 1.0 MiB/s, 1:04, 1:04 left, waiting: upload"
        );
        assert_eq!(
            line(Direction::Restore, Some(64 << 20)),
            "64.0 MiB of 64.0 MiB, 1.0 MiB/s, 1:04, waiting: download"
        );
        assert_eq!(
            [0, 59, 60, 3599, 3600, 90_061].map(|s| time(Duration::from_secs(s))).join(" "),
            "0:00 0:59 1:00 59:59 1:00:00 25:01:01"
        );
    }
}
