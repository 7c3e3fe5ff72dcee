//! The zstd level: fixed, or following the slower of producer and upload.
//!
//! While something else than the threads is waited for, a higher level costs no time and saves bytes; when the threads
//! are what is waited for, a lower one is faster. The decision is a pure function of what one window of time showed.

use std::time::Duration;

use super::config::{LevelRange, PipelineConfig};
use super::progress::Counters;
use crate::clock::Clock;
use crate::sync::Mutex;

/// What one window of time showed: how much longer each was waited for, summed over all stripes.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// The producers.
    source: Duration,
    /// A thread.
    cpu: Duration,
    /// The store.
    store: Duration,
    /// The threads' share of the time in which they worked, from 0 to 1.
    busy: f64,
}

/// Chooses the level for the next window. Pure: no clock, no lock.
///
/// It goes down at once, and up only after [`CALM`] windows in a row that leave room. A level that proved too high is
/// not tried again for a while, and for twice as long each time, so a load between two levels does not swing.
#[derive(Debug)]
struct Controller {
    range: LevelRange,
    level: i32,
    /// Windows in a row that left room for a higher level.
    calm: u32,
    /// A level that was too high, and the windows for which that is remembered.
    refused: Option<(i32, u32)>,
    /// How long the next such level is remembered.
    memory: u32,
}

impl Controller {
    fn new(range: LevelRange, start: i32) -> Self {
        let level = start.clamp(range.lowest, range.highest);
        Self { range, level, calm: 0, refused: None, memory: FIRST_MEMORY }
    }

    fn on_window(&mut self, window: Window) -> i32 {
        self.refused = self.refused.and_then(|(level, left)| (left > 1).then_some((level, left - 1)));
        let others = window.source.max(window.store);
        if window.cpu > others {
            self.calm = 0;
            if self.level > self.range.lowest {
                self.refused = Some((self.level, self.memory));
                self.memory = (self.memory * 2).min(LONGEST_MEMORY);
                self.level -= 1;
            }
        } else if window.cpu * SPARE_WAIT <= others && !others.is_zero() && window.busy < SPARE_BUSY {
            self.calm += 1;
            let is_refused = self.refused.is_some_and(|(level, _)| self.level + 1 >= level);
            if self.calm >= CALM && self.level < self.range.highest && !is_refused {
                self.calm = 0;
                self.level += 1;
            }
        } else {
            self.calm = 0;
        }
        self.level
    }
}

/// Windows in a row before the level goes up.
const CALM: u32 = 2;
/// There is room if others were waited for so many times longer than the threads,
const SPARE_WAIT: u32 = 2;
/// and the threads worked for less than this share of the time. The next level may need half as much again.
const SPARE_BUSY: f64 = 0.65;
/// Windows for which a level that was too high is not tried again, at first and at most.
const FIRST_MEMORY: u32 = 10;
const LONGEST_MEMORY: u32 = 160;

/// The level of a pipeline, asked for each frame.
#[derive(Debug)]
pub(super) struct Level {
    threads: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    level: i32,
    /// The lowest and the highest that a frame was given.
    used: Option<(i32, i32)>,
    adaptive: Option<Adaptive>,
}

#[derive(Debug)]
struct Adaptive {
    controller: Controller,
    /// When the window began, and what the sums were then.
    begun: Duration,
    sums: Sums,
    frames: u32,
}

/// The counters that a window is the difference of.
#[derive(Debug, Clone, Copy)]
struct Sums {
    source: Duration,
    cpu: Duration,
    store: Duration,
    busy: Duration,
}

impl Level {
    pub(super) fn new(config: &PipelineConfig, threads: usize, clock: &dyn Clock) -> Self {
        let adaptive = config.adaptive.map(|range| Adaptive {
            controller: Controller::new(range, config.level),
            begun: clock.now(),
            sums: Sums { source: Duration::ZERO, cpu: Duration::ZERO, store: Duration::ZERO, busy: Duration::ZERO },
            frames: 0,
        });
        let level = adaptive.as_ref().map_or(config.level, |adaptive| adaptive.controller.level);
        Self { threads, state: Mutex::new(State { level, used: None, adaptive }) }
    }

    /// The level for one more frame.
    pub(super) fn next(&self, clock: &dyn Clock, counters: &Counters) -> i32 {
        let mut state = self.state.lock();
        if let Some(adaptive) = &mut state.adaptive {
            adaptive.frames += 1;
            let (now, frames) = (clock.now(), adaptive.frames);
            let passed = now.saturating_sub(adaptive.begun);
            if passed >= WINDOW && frames >= WINDOW_FRAMES {
                let sums = Sums::of(counters, now);
                let window = sums.since(&adaptive.sums, passed, self.threads);
                (adaptive.begun, adaptive.sums, adaptive.frames) = (now, sums, 0);
                state.level = adaptive.controller.on_window(window);
            }
        }
        let level = state.level;
        let (lowest, highest) = state.used.unwrap_or((level, level));
        state.used = Some((lowest.min(level), highest.max(level)));
        level
    }

    /// The level that the next frame would get.
    pub(super) fn current(&self) -> i32 {
        self.state.lock().level
    }

    /// The lowest and the highest level that a frame was given; the current one if there was none.
    pub(super) fn used(&self) -> LevelRange {
        let state = self.state.lock();
        let (lowest, highest) = state.used.unwrap_or((state.level, state.level));
        LevelRange { lowest, highest }
    }
}

impl Sums {
    fn of(counters: &Counters, now: Duration) -> Self {
        Self {
            source: counters.source_wait.get(now),
            cpu: counters.cpu_wait.get(now),
            store: counters.store_wait.get(now),
            busy: counters.cpu_busy.get(now),
        }
    }

    fn since(&self, before: &Self, passed: Duration, threads: usize) -> Window {
        let since = |now: Duration, before: Duration| now.saturating_sub(before);
        Window {
            source: since(self.source, before.source),
            cpu: since(self.cpu, before.cpu),
            store: since(self.store, before.store),
            busy: since(self.busy, before.busy).as_secs_f64() / (passed.as_secs_f64() * threads.max(1) as f64),
        }
    }
}

/// A window lasts at least so long,
const WINDOW: Duration = Duration::from_secs(1);
/// and has at least so many frames, or chance decides.
const WINDOW_FRAMES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::plan::Direction;
    use crate::testing::SimClock;

    const RANGE: LevelRange = LevelRange { lowest: 1, highest: 9 };

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn waiting_for_source(busy: f64) -> Window {
        Window { source: seconds(1), busy, ..Window::default() }
    }

    fn waiting_for_cpu() -> Window {
        Window { cpu: seconds(2), busy: 1.0, ..Window::default() }
    }

    fn levels(controller: &mut Controller, windows: impl IntoIterator<Item = Window>) -> Vec<i32> {
        windows.into_iter().map(|window| controller.on_window(window)).collect()
    }

    #[test]
    fn it_goes_up_after_two_calm_windows_and_down_at_once() {
        let mut controller = Controller::new(RANGE, 3);
        let up = levels(&mut controller, [waiting_for_source(0.1); 14]);
        assert_eq!(up, [3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 9]);
        let down = levels(&mut controller, [waiting_for_cpu(); 10]);
        assert_eq!(down, [8, 7, 6, 5, 4, 3, 2, 1, 1, 1], "and stays at the lowest");
    }

    #[test]
    fn a_slow_store_is_a_reason_as_good_as_a_slow_producer() {
        let window = Window { store: seconds(1), ..Window::default() };
        assert_eq!(levels(&mut Controller::new(RANGE, 3), [window; 2]), [3, 4]);
    }

    #[test]
    fn without_a_clear_reason_it_stays() {
        for window in [
            Window::default(),
            // Busy threads have no room for more, though nothing waits for them.
            waiting_for_source(SPARE_BUSY),
            // Waits that are alike.
            Window { source: seconds(3), cpu: seconds(2), busy: 0.1, ..Window::default() },
            Window { source: seconds(1), cpu: seconds(1), busy: 1.0, ..Window::default() },
        ] {
            assert_eq!(levels(&mut Controller::new(RANGE, 5), [window; 20]), [5; 20], "{window:?}");
        }
        // A window that is not calm begins the count anew.
        let mut controller = Controller::new(RANGE, 5);
        let swinging = [waiting_for_source(0.1), waiting_for_source(0.9)];
        assert_eq!(levels(&mut controller, swinging.into_iter().cycle().take(20)), [5; 20]);
    }

    #[test]
    fn a_level_that_was_too_high_is_tried_again_later_each_time() {
        let mut controller = Controller::new(RANGE, 5);
        // At 6 the threads do not keep up; at 5 there is room.
        let mut tries = Vec::new();
        for window in 0..400 {
            let before = controller.level;
            let seen = if before >= 6 { waiting_for_cpu() } else { waiting_for_source(0.5) };
            if controller.on_window(seen) > before {
                tries.push(window);
            }
        }
        let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.windows(2).all(|pair| pair[1] >= pair[0]) && pauses[0] >= 10, "{pauses:?}");
        assert!(tries.len() <= 6, "{tries:?}");
    }

    #[test]
    fn the_bounds_hold_wherever_it_starts() {
        for (start, first) in [(-7, 1), (0, 1), (1, 1), (9, 9), (10, 9), (22, 9)] {
            assert_eq!(Controller::new(RANGE, start).level, first);
        }
        let mut fixed = Controller::new(LevelRange { lowest: 4, highest: 4 }, 4);
        assert_eq!(levels(&mut fixed, [waiting_for_cpu(), waiting_for_source(0.0), waiting_for_source(0.0)]), [4; 3]);
    }

    /// A pipeline in numbers: MB/s of the producer and of the link, and what two threads do at each level.
    fn run(producer: f64, link: f64, start: i32) -> Vec<i32> {
        const SPEED: [f64; 10] = [0.0, 1000.0, 800.0, 500.0, 400.0, 250.0, 180.0, 130.0, 100.0, 70.0];
        const RATIO: [f64; 10] = [1.0, 2.5, 2.6, 2.8, 2.85, 2.95, 3.0, 3.05, 3.1, 3.15];
        let mut controller = Controller::new(RANGE, start);
        let mut levels = Vec::new();
        for _ in 0..600 {
            let level = usize::try_from(controller.level).unwrap();
            let (cpu, upload) = (SPEED[level], link * RATIO[level]);
            let flow = producer.min(cpu).min(upload);
            // What limits the flow is waited for all the time, the others hardly.
            let wait = |limit: f64| if limit <= flow { seconds(1) } else { Duration::from_millis(5) };
            let busy = flow / cpu;
            let window = Window { source: wait(producer), cpu: wait(cpu) * 2, store: wait(upload), busy };
            levels.push(controller.on_window(window));
        }
        levels
    }

    #[test]
    fn it_finds_the_level_that_costs_no_time() {
        for (producer, link, expected) in [
            // Everything else is slower than the strongest level: use it.
            (30.0, 1000.0, 9),
            (1000.0, 10.0, 9),
            // Everything else is faster than the weakest: get out of the way.
            (5000.0, 5000.0, 1),
            // In between: the level whose threads keep up.
            (120.0, 1000.0, 6),
            (1000.0, 50.0, 6),
            (300.0, 1000.0, 3),
        ] {
            for start in [1, 3, 9] {
                let levels = run(producer, link, start);
                let late = &levels[100..];
                let at = late.iter().filter(|level| (**level - expected).abs() <= 1).count();
                assert!(at * 100 >= late.len() * 95, "{producer} and {link} from {start}: {late:?}");
                let changes = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
                assert!(changes <= 30, "{producer} and {link} from {start}: {changes} changes");
            }
        }
    }

    #[test]
    fn windows_are_cut_by_the_clock_and_by_frames() {
        let (clock, counters) = (SimClock::new(), Counters::new(Direction::Backup, 1, Duration::ZERO));
        let config = PipelineConfig { adaptive: Some(RANGE), level: 5, ..PipelineConfig::default() };
        let level = Level::new(&config, 1, &clock);
        let wait_for_cpu = || {
            let waiting = counters.cpu_wait.begin(&clock);
            clock.advance(Duration::from_millis(9));
            drop(waiting);
        };
        for _ in 0..100 {
            wait_for_cpu();
            assert_eq!(level.next(&clock, &counters), 5, "the window is not over");
        }
        clock.advance(WINDOW);
        assert_eq!(level.next(&clock, &counters), 4);
        clock.advance(60 * WINDOW);
        wait_for_cpu();
        let after: Vec<i32> = (0..4).map(|_| level.next(&clock, &counters)).collect();
        assert_eq!(after, [4, 4, 4, 3]);
        assert_eq!((level.current(), level.used()), (3, LevelRange { lowest: 3, highest: 5 }));

        let fixed = Level::new(&PipelineConfig::default(), 1, &clock);
        assert_eq!(fixed.used(), LevelRange { lowest: 3, highest: 3 });
        assert_eq!(fixed.next(&clock, &counters), 3);
    }
}
