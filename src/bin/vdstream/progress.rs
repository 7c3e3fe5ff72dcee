//! Progress on stderr: a bar on a terminal, a line now and then elsewhere.

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use vdstream::clock::{Clock as _, SystemClock};
use vdstream::pipeline::Progress;

use crate::args::{Common, ProgressStyle};
use crate::output;

/// Shows how far the work is.
#[derive(Debug)]
pub(crate) struct Watch {
    display: Display,
    /// Raw bytes in all, if known.
    total: Option<u64>,
    clock: SystemClock,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines,
    None,
}

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Watch {
    pub(crate) fn new(common: &Common, total: Option<u64>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let display = match common.progress {
            _ if common.quiet => Display::None,
            ProgressStyle::None => Display::None,
            ProgressStyle::Lines => Display::Lines,
            ProgressStyle::Auto if !is_terminal => Display::Lines,
            ProgressStyle::Auto | ProgressStyle::Bar => Display::Bar(bar(total)),
        };
        Self { display, total, clock: SystemClock::new() }
    }

    /// Shows snapshots until it is dropped.
    pub(crate) async fn follow(&self, snapshot: impl Fn() -> Progress) -> Infallible {
        let start = self.clock.now();
        loop {
            let pause = match &self.display {
                Display::Bar(_) => BAR_EVERY,
                Display::Lines => LINE_EVERY,
                Display::None => return std::future::pending().await,
            };
            self.clock.sleep(pause).await;
            self.show(&snapshot(), self.clock.now().saturating_sub(start));
        }
    }

    fn show(&self, progress: &Progress, elapsed: Duration) {
        let text = text(progress, self.total, elapsed);
        match &self.display {
            Display::Bar(bar) => {
                bar.set_position(progress.raw_bytes);
                bar.set_message(text);
            }
            Display::Lines => output::note(&text),
            Display::None => {}
        }
    }

    /// Removes the bar, so that what follows stands alone.
    pub(crate) fn end(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:30} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    // The templates are constants and parse.
    if let Ok(style) = BarStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn text(progress: &Progress, total: Option<u64>, elapsed: Duration) -> String {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for people"
    )]
    let rate = (progress.raw_bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let of = total.map_or_else(String::new, |total| format!(" of {}", output::size(total)));
    format!(
        "{}{of} raw, {} stored, {}/s, {:.0} s",
        output::size(progress.raw_bytes),
        output::size(progress.stored_bytes),
        output::size(rate),
        elapsed.as_secs_f64()
    )
}
