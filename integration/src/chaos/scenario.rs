//! Scenarios, and where they play.

use std::fmt;

use super::{disk, kill, network};
use crate::data;
use crate::server::Kind;

/// Where a scenario plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// Local disk.
    Disk,
    /// A server.
    Server(Kind),
}

/// One thing that goes wrong, in one place.
pub struct Scenario {
    /// What happens, in words.
    pub name: String,
    /// Where.
    pub on: On,
    /// How often the long run plays it.
    pub runs: u64,
    /// The ordinary test run plays it too.
    pub is_short: bool,
    play: Box<dyn Fn(u64) -> Outcome + Send + Sync>,
}

/// How a scenario ended, in words; or what did not hold.
pub type Outcome = Result<String, String>;

impl Scenario {
    pub(super) fn new(
        name: impl Into<String>,
        on: On,
        play: impl Fn(On, u64) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), on, runs: 1, is_short: false, play: Box::new(move |seed| play(on, seed)) }
    }

    pub(super) fn runs(self, runs: u64) -> Self {
        Self { runs, ..self }
    }

    pub(super) fn short(self) -> Self {
        Self { is_short: true, ..self }
    }

    /// Plays it once.
    ///
    /// # Errors
    ///
    /// Says what does not hold: a hang, a visible backup that is damaged, a leak, an error that explains nothing.
    pub fn play(&self, seed: u64) -> Outcome {
        (self.play)(seed).map_err(|error| format!("{}, on {}, seed {seed}: {error}", self.name, self.on))
    }
}

/// Plays the short scenarios in one place whose names begin like this, for an ordinary test.
///
/// # Panics
///
/// When something does not hold, or no scenario has such a name.
pub fn play_short(on: On, beginning: &str) {
    let seed = data::seed();
    let all = scenarios().into_iter().filter(|scenario| scenario.is_short && scenario.on == on);
    let named: Vec<_> = all.filter(|scenario| scenario.name.starts_with(beginning)).collect();
    assert!(!named.is_empty(), "no short scenario on {on} begins with `{beginning}`");
    // Odd and even seeds in turn: after a kill they go two ways.
    for (nth, scenario) in (0..).zip(named) {
        let outcome = scenario.play(seed.wrapping_add(nth)).unwrap_or_else(|error| panic!("{error}"));
        println!("{scenario:?}: {outcome}");
    }
}

/// Every scenario there is.
pub fn scenarios() -> Vec<Scenario> {
    [network::scenarios(), kill::scenarios(), disk::scenarios()].into_iter().flatten().collect()
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, on {}", self.name, self.on)
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk => f.write_str("disk"),
            Self::Server(kind) => write!(f, "{kind:?}"),
        }
    }
}
