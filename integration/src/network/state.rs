//! What all connections of a proxy share: the rules, what was seen, and the switches that stop the bytes.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::Instant as Due;

use super::head::Head;
use super::rule::{Fault, Point, Rule};

/// Names a rule of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fired(usize);

/// A request that came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub target: String,
    /// The length of its body.
    pub body_bytes: u64,
}

pub(super) struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Where all, or one, stand still: the number of [`State::heal`] calls so far, and whether everything is frozen.
    pub(super) frozen: watch::Sender<(u64, bool)>,
    /// Counts how often all connections were reset.
    pub(super) resets: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    upstream: String,
    rules: Vec<Live>,
    seen: Vec<Seen>,
    up_bytes: u64,
    down_bytes: u64,
    refused_until: Option<Due>,
    bytes_per_second: Option<u64>,
    next_due: Option<Due>,
    broken: Option<String>,
}

struct Live {
    rule: Rule,
    matched: u64,
    fired: u64,
}

/// What is to happen to one request, by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan(pub(super) Vec<(Fired, Point, Fault)>);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl State {
    pub(super) fn new(upstream: &str) -> Self {
        let inner = Inner { upstream: address(upstream), ..Inner::default() };
        Self {
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            frozen: watch::Sender::new((0, false)),
            resets: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding it")
    }

    pub(super) fn upstream(&self) -> String {
        self.lock().upstream.clone()
    }

    pub(super) fn set_upstream(&self, upstream: &str) {
        self.lock().upstream = address(upstream);
    }

    pub(super) fn add(&self, rule: Rule) -> Fired {
        let mut inner = self.lock();
        inner.rules.push(Live { rule, matched: 0, fired: 0 });
        Fired(inner.rules.len() - 1)
    }

    /// No rule fires any more, and what stands still goes on.
    pub(super) fn heal(&self) {
        {
            let mut inner = self.lock();
            for live in &mut inner.rules {
                live.rule.times = 0;
            }
            inner.bytes_per_second = None;
            inner.refused_until = None;
        }
        self.frozen.send_modify(|(healed, frozen)| {
            *healed += 1;
            *frozen = false;
        });
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub(super) fn bytes(&self, way: Way) -> u64 {
        let inner = self.lock();
        if way == Way::Up { inner.up_bytes } else { inner.down_bytes }
    }

    /// What kept the proxy from doing its work.
    pub(super) fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    pub(super) fn break_with(&self, reason: String) {
        self.lock().broken.get_or_insert(reason);
        self.changed.notify_all();
    }

    pub(super) fn fired(&self, rule: Fired) -> u64 {
        self.lock().rules[rule.0].fired
    }

    /// Waits until the rule has fired so often; `false` when the time is up first.
    pub(super) fn wait_fired(&self, rule: Fired, times: u64, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut inner = self.lock();
        while inner.rules[rule.0].fired < times {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || inner.broken.is_some() {
                return false;
            }
            inner = self.changed.wait_timeout(inner, left).expect("nobody panics while holding it").0;
        }
        true
    }

    /// Notes a request and says what is to happen to it.
    pub(super) fn plan(&self, head: &Head) -> Plan {
        let mut inner = self.lock();
        inner.seen.push(Seen { method: head.method.clone(), target: head.target.clone(), body_bytes: head.body_bytes });
        let mut plan = Plan::default();
        for (index, live) in inner.rules.iter_mut().enumerate() {
            let by_total = matches!(live.rule.point, Point::TotalUp(_) | Point::TotalDown(_));
            if by_total || !live.rule.wanted.holds(&head.method, &head.target) {
                continue;
            }
            live.matched += 1;
            // Whether it strikes is seen at its point: an answer may be shorter than that.
            if live.matched > live.rule.skip && live.fired < live.rule.times {
                plan.0.push((Fired(index), live.rule.point, live.rule.fault));
            }
        }
        plan
    }

    /// How many of `bytes` may go before a rule that counts all bytes strikes, and that rule. They count as gone.
    pub(super) fn pass(&self, way: Way, bytes: usize) -> (usize, Option<(Fired, Fault)>) {
        let mut inner = self.lock();
        let before = if way == Way::Up { inner.up_bytes } else { inner.down_bytes };
        let mut may = bytes as u64;
        let mut struck = None;
        for (index, live) in inner.rules.iter_mut().enumerate() {
            let ((Point::TotalUp(at), Way::Up) | (Point::TotalDown(at), Way::Down)) = (live.rule.point, way) else {
                continue;
            };
            if live.matched < live.rule.times && at < before + may {
                may = at.saturating_sub(before);
                struck = Some((index, live.rule.fault));
            }
        }
        if let Some((index, _)) = struck {
            inner.rules[index].matched += 1;
        }
        match way {
            Way::Up => inner.up_bytes += may,
            Way::Down => inner.down_bytes += may,
        }
        let may = usize::try_from(may).expect("no more than a length");
        (may, struck.map(|(index, fault)| (Fired(index), fault)))
    }

    /// The rule was to strike, and the connection on which it was has ended before: it is for the next one.
    pub(super) fn take_back(&self, rule: Fired) {
        self.lock().rules[rule.0].matched -= 1;
    }

    /// When `bytes` more may go, if there is a limit on speed.
    pub(super) fn due(&self, bytes: usize) -> Option<Due> {
        let mut inner = self.lock();
        let speed = inner.bytes_per_second?;
        let at = inner.next_due.unwrap_or_else(Due::now).max(Due::now());
        inner.next_due = Some(at + Duration::from_secs_f64(bytes as f64 / speed as f64));
        Some(at)
    }

    /// A rule strikes, unless it has struck often enough: counts it, and does what concerns all connections.
    pub(super) fn strike(&self, rule: Fired, fault: Fault) -> bool {
        {
            let mut inner = self.lock();
            let live = &mut inner.rules[rule.0];
            if live.fired >= live.rule.times {
                return false;
            }
            live.fired += 1;
            match fault {
                Fault::Refuse(time) => inner.refused_until = Some(Due::now() + time),
                Fault::Slow(speed) => inner.bytes_per_second = Some(speed),
                Fault::Reset | Fault::Close | Fault::Stall | Fault::Freeze => {}
            }
        }
        match fault {
            Fault::Refuse(_) => self.reset_all(),
            Fault::Freeze => self.frozen.send_modify(|(_, frozen)| *frozen = true),
            _ => {}
        }
        self.changed.notify_all();
        true
    }

    pub(super) fn reset_all(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }

    pub(super) fn refused_until(&self) -> Option<Due> {
        self.lock().refused_until.filter(|until| *until > Due::now())
    }
}

/// `127.0.0.1:3900` of `http://127.0.0.1:3900/path`.
fn address(endpoint: &str) -> String {
    let rest = endpoint.strip_prefix("http://").expect("the servers of the tests speak plain HTTP");
    rest.split('/').next().expect("a first piece").to_owned()
}

/// Shared by the handle, the listener and every connection.
pub(super) type Shared = Arc<State>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_whose_connection_ends_before_it_strikes_is_for_the_next_one() {
        let state = State::new("http://127.0.0.1:1");
        let rule = state.add(Rule::at_total(Point::TotalUp(10), Fault::Reset));
        let pass = |bytes| {
            let (may, struck) = state.pass(Way::Up, bytes);
            (may, struck.map(|(rule, _)| rule))
        };
        assert_eq!(pass(8), (8, None));
        assert_eq!(pass(8), (2, Some(rule)));
        assert_eq!(pass(8), (8, None), "one connection has it");
        state.take_back(rule);
        assert_eq!(pass(8), (0, Some(rule)));
        assert!(state.strike(rule, Fault::Reset) && !state.strike(rule, Fault::Reset));
        assert_eq!(pass(8), (8, None));
    }
}
