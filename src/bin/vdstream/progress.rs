//! Progress on stderr: a bar on a terminal, a line now and then elsewhere, or JSON for programs.

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde::Serialize;
use vdstream::clock::{Clock as _, SystemClock};

use crate::args::{Common, ProgressStyle};
use crate::metrics_file::{Bytes, MetricsFile};
use crate::output;

/// Work whose progress is shown.
pub(crate) trait Subject {
    /// A snapshot of its counters.
    type Progress: Default;

    /// What people read.
    fn text(&self, before: &Sample<Self::Progress>, now: &Sample<Self::Progress>) -> String;
    /// What programs read. Rates and shares are those since `before`.
    fn event(&self, before: &Sample<Self::Progress>, now: &Sample<Self::Progress>) -> impl Serialize;
    /// How many bytes are done, and of how many, if that is known.
    fn done(&self, progress: &Self::Progress) -> (u64, Option<u64>);
    /// What the metrics file says.
    fn bytes(&self, progress: &Self::Progress) -> Bytes;
}

/// What was known at some time after the data began to move.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample<P> {
    pub(crate) elapsed: Duration,
    pub(crate) progress: P,
}

/// Shows how far the work is.
#[derive(Debug)]
pub(crate) struct Watch<'a, S> {
    display: Display,
    metrics: &'a MetricsFile,
    subject: S,
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

impl<'a, S: Subject> Watch<'a, S> {
    pub(crate) fn new(common: &Common, metrics: &'a MetricsFile, subject: S) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let display = match common.progress {
            _ if common.quiet => Display::None,
            ProgressStyle::None => Display::None,
            ProgressStyle::Json => Display::Json,
            ProgressStyle::Lines => Display::Lines,
            ProgressStyle::Auto if !is_terminal => Display::Lines,
            ProgressStyle::Auto | ProgressStyle::Bar => Display::Bar(bar()),
        };
        let clock = SystemClock::new();
        Self { display, metrics, subject, start: clock.now(), clock }
    }

    /// Shows snapshots, and keeps the metrics file, until it is dropped.
    pub(crate) async fn follow(&self, snapshot: impl Fn() -> S::Progress) -> Infallible {
        tokio::select! {
            never = self.display(&snapshot) => never,
            never = self.metrics.follow(|| self.subject.bytes(&snapshot())) => never,
        }
    }

    async fn display(&self, snapshot: impl Fn() -> S::Progress) -> Infallible {
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

    fn sample(&self, progress: S::Progress) -> Sample<S::Progress> {
        Sample { elapsed: self.elapsed(), progress }
    }

    fn show(&self, before: &Sample<S::Progress>, now: &Sample<S::Progress>) {
        match &self.display {
            Display::Bar(bar) => {
                let (done, total) = self.subject.done(&now.progress);
                if total != bar.length() {
                    lengthen(bar, total);
                }
                // More than was expected is no reason for a bar that is longer than its line.
                bar.set_position(done.min(total.unwrap_or(u64::MAX)));
                bar.set_message(self.subject.text(before, now));
            }
            Display::Lines => output::note(&self.subject.text(before, now)),
            Display::Json => output::event(&self.subject.event(before, now)),
            Display::None => {}
        }
    }

    /// Removes the bar, so that what follows stands alone. Programs get the last numbers, with the averages of all the time.
    pub(crate) fn end(&self, last: S::Progress) {
        self.metrics.note(self.subject.bytes(&last));
        match &self.display {
            Display::Bar(bar) => bar.finish_and_clear(),
            Display::Json => self.show(&Sample::default(), &self.sample(last)),
            Display::Lines | Display::None => {}
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    lengthen(&bar, None);
    bar
}

/// Makes room for `total` bytes. What does not fit into the line is cut off at its end, where the least important things stand.
fn lengthen(bar: &ProgressBar, total: Option<u64>) {
    let template = match total {
        Some(total) => {
            bar.set_length(total);
            "{bar:16} {percent:>3} %  {wide_msg}"
        }
        None => "{spinner} {wide_msg}",
    };
    // The templates are constants and parse.
    if let Ok(style) = BarStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// Bytes per second.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is rough"
)]
pub(crate) fn rate(bytes: u64, time: Duration) -> u64 {
    (bytes as f64 / time.as_secs_f64().max(0.001)) as u64
}

/// The time to the end at the average rate so far, that of `moved` bytes. `None` if the size is unknown, reached, or nothing has
/// moved yet.
pub(crate) fn eta((done, total): (u64, Option<u64>), moved: u64, elapsed: Duration) -> Option<Duration> {
    let left = total?.checked_sub(done).filter(|left| *left > 0 && moved > 0)?;
    Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / moved as f64).ok()
}

/// Who was waited for longest, if anybody was.
pub(crate) fn longest<const N: usize>(waits: [(Duration, &'static str); N]) -> Option<&'static str> {
    let (longest, word) = waits.into_iter().max_by_key(|(wait, _)| *wait)?;
    (longest > Duration::ZERO).then_some(word)
}

/// How fast, for how long, how long still, and who is waited for: the end of a line for people.
pub(crate) fn pace(rate: u64, elapsed: Duration, eta: Option<Duration>, bottleneck: Option<&str>) -> String {
    let left = eta.map_or_else(String::new, |eta| format!(", {} left", time(eta)));
    let waiting = bottleneck.map_or_else(String::new, |word| format!(", waiting: {word}"));
    format!("{}/s, {}{left}{waiting}", output::size(rate), time(elapsed))
}

/// `0:07`, `12:34`, `1:02:03`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_people_write_them() {
        assert_eq!(
            [0, 59, 60, 3599, 3600, 90_061].map(|s| time(Duration::from_secs(s))).join(" "),
            "0:00 0:59 1:00 59:59 1:00:00 25:01:01"
        );
    }

    #[test]
    fn the_end_is_told_when_it_is_known() {
        let second = Duration::from_secs(1);
        assert_eq!(eta((500, Some(1000)), 500, 3 * second), Some(3 * second));
        assert_eq!(eta((900, Some(1000)), 50, 3 * second), Some(6 * second), "what was there has not moved");
        for (done, total) in [(500, None), (500, Some(500)), (500, Some(499)), (0, Some(1000))] {
            assert_eq!(eta((done, total), done, second), None, "{done} of {total:?}");
        }
    }

    #[test]
    fn a_bar_grows_once_its_length_is_known() {
        let bar = bar();
        assert_eq!(bar.length(), None);
        lengthen(&bar, Some(10));
        assert_eq!(bar.length(), Some(10));
    }
}
