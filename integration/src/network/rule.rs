//! Where a fault happens, and what it is.

use std::time::Duration;

/// One fault at one place.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which requests count.
    pub wanted: Wanted,
    /// How many of them pass before the first that is hit.
    pub skip: u64,
    /// How many are hit; one that never gets to the point does not count.
    pub times: u64,
    /// Where in the request.
    pub point: Point,
    /// What happens there.
    pub fault: Fault,
}

/// A kind of request.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Its method; any if empty.
    pub method: &'static str,
    /// Texts that stand in its target, path and query; all of them.
    pub target: Vec<String>,
    /// Texts that do not.
    pub not: Vec<String>,
}

/// A place in a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before its first byte goes to the server.
    Head,
    /// After so many bytes of its body, or all of it if that is less.
    Body(u64),
    /// When the server has answered, before the first byte of the answer goes back.
    Answer,
    /// After so many bytes of the answer, its head included.
    AnswerBody(u64),
    /// Whatever the request: when so many bytes have gone to the server since the proxy was started.
    TotalUp(u64),
    /// The same for bytes that came from it.
    TotalDown(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both ends see a reset connection.
    Reset,
    /// Both ends see an orderly end of the connection.
    Close,
    /// This connection stands still until [`super::Proxy::heal`].
    Stall,
    /// Every connection stands still until [`super::Proxy::heal`].
    Freeze,
    /// Every connection is reset, and new ones are refused for this long.
    Refuse(Duration),
    /// From here on, all connections together pass on at most so many bytes per second.
    Slow(u64),
}

impl Rule {
    /// The first request of this kind, once.
    pub fn once(wanted: Wanted, point: Point, fault: Fault) -> Self {
        Self { wanted, skip: 0, times: 1, point, fault }
    }

    /// The same for any request: for the points that count all bytes.
    pub fn at_total(point: Point, fault: Fault) -> Self {
        Self::once(Wanted::default(), point, fault)
    }

    /// Lets `skip` requests of the kind pass first.
    #[must_use]
    pub fn skip(self, skip: u64) -> Self {
        Self { skip, ..self }
    }

    /// Hits so many requests of the kind, not one.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

impl Wanted {
    /// Requests with this method (any if empty) whose target holds these texts.
    pub fn new(method: &'static str, target: &[&str]) -> Self {
        Self { method, target: target.iter().map(|text| (*text).to_owned()).collect(), not: Vec::new() }
    }

    /// But not these.
    #[must_use]
    pub fn without(mut self, text: &str) -> Self {
        self.not.push(text.to_owned());
        self
    }

    pub(super) fn holds(&self, method: &str, target: &str) -> bool {
        (self.method.is_empty() || self.method == method)
            && self.target.iter().all(|text| target.contains(text.as_str()))
            && !self.not.iter().any(|text| target.contains(text.as_str()))
    }
}
