//! The log of a recorded store, and what a crash after any part of it leaves.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;

use crate::testing::bucket::{Contents, Effect};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request was sent. Its number is its place in the log.
    Began {
        /// What was asked.
        operation: Operation,
    },
    /// A request was answered.
    Ended {
        /// The place in the log of its beginning.
        began: usize,
        /// What is known of its effect.
        outcome: Outcome,
    },
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// To change something.
    Change(Effect),
    /// To begin an upload; its id is in the answer.
    Begin {
        /// The path of the object that it would become.
        object: String,
    },
    /// To read an object, or to look it up.
    Get {
        /// Its path.
        object: String,
    },
    /// To list what is below a path.
    List {
        /// The path.
        prefix: String,
    },
}

/// What an answer tells about the effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Done {
        /// The id of the upload that was begun.
        upload: Option<String>,
    },
    /// It did not happen.
    Refused,
    /// It may have happened, or may happen later.
    Unknown,
}

/// The requests to a store in the order in which they began and ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    events: Vec<Event>,
}

/// What a crash can leave.
#[derive(Debug, Clone)]
pub struct Crash {
    /// The bucket after it.
    pub contents: Contents,
    /// Which requests were in flight, and which of them had their effect.
    pub note: String,
}

impl Log {
    pub(super) fn new(events: Vec<Event>) -> Self {
        Self { events }
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// True if the request that began at `began` is answered with success within the first `events` events.
    pub fn is_done(&self, began: usize, events: usize) -> bool {
        self.events[..events.min(self.events.len())]
            .iter()
            .any(|event| matches!(event, Event::Ended { began: of, outcome: Outcome::Done { .. } } if *of == began))
    }

    /// The bucket after the first `events` events, with the effect of every request that was answered and of no other,
    /// starting from `before`. Every object has the time `at`.
    pub fn rebuild(&self, before: &Contents, events: usize, at: Timestamp) -> Contents {
        let mut contents = before.clone();
        for event in self.events.iter().take(events) {
            if let Event::Ended { began, outcome: Outcome::Done { .. } } = event
                && let Some(effect) = self.effect(*began)
            {
                contents.apply(&effect, at);
            }
        }
        contents
    }

    /// Every bucket that a crash after the first `events` events can leave, starting from `before`.
    ///
    /// Requests that were answered with success have had their effect, and those that were refused have not. Of those in flight, and of
    /// those whose answer says nothing about the effect, any may have had it, in any order, as far as the bucket lets it. Beyond [`Log::ALL_SUBSETS`] such requests the subsets are those with at most
    /// two members, with all but at most one, and all that are the first or the last of them.
    pub fn crashes(&self, before: &Contents, events: usize, at: Timestamp) -> Vec<Crash> {
        let base = self.rebuild(before, events, at);
        let open = self.in_flight(events);
        let mut crashes = Vec::new();
        for subset in subsets(open.len()) {
            let effects: Vec<&Effect> = subset.iter().map(|index| &open[*index]).collect();
            for order in orders(&effects) {
                let mut contents = base.clone();
                for effect in &order {
                    contents.apply(effect, at);
                }
                let note = Note { events, of: self.events.len(), open: open.len(), order: &order }.to_string();
                if crashes.iter().all(|crash: &Crash| crash.contents != contents) {
                    crashes.push(Crash { contents, note });
                }
            }
        }
        crashes
    }

    /// As [`Log::crashes`] on local disk: an object that was being put, or uploaded in parts, is a file without its name.
    pub fn crashes_on_disk(&self, before: &Contents, events: usize, at: Timestamp) -> Vec<Crash> {
        let mut crashes = Vec::new();
        for crash in self.crashes(before, events, at) {
            let whole = Crash { contents: crash.contents.clone().on_disk(at), note: crash.note };
            for (number, effect) in self.in_flight(events).iter().enumerate() {
                let Effect::Put { object, bytes, .. } = effect else { continue };
                if crash.contents.objects.contains_key(object) {
                    continue;
                }
                let mut contents = whole.contents.clone();
                contents.stage(object, &format!("{number:032x}"), bytes.slice(..bytes.len() / 2), at);
                crashes.push(Crash { contents, note: format!("{}, {object} half written", whole.note) });
            }
            crashes.push(whole);
        }
        crashes
    }

    /// Up to this many requests in flight, every subset of them is tried.
    pub const ALL_SUBSETS: usize = 6;

    /// The effects that may or may not have happened after `events` events.
    pub fn in_flight(&self, events: usize) -> Vec<Effect> {
        let mut ends: HashMap<usize, (usize, &Outcome)> = HashMap::new();
        for (place, event) in self.events.iter().enumerate() {
            if let Event::Ended { began, outcome } = event {
                ends.insert(*began, (place, outcome));
            }
        }
        let is_open = |began: &usize| match ends.get(began) {
            Some((_, Outcome::Unknown)) | None => true,
            // What is refused in the end lost against another request: until it is answered it may as well have been the one that came
            // first. Where it could not, to apply it changes nothing.
            Some((place, Outcome::Done { .. } | Outcome::Refused)) => *place >= events,
        };
        (0..events.min(self.events.len())).filter(is_open).filter_map(|began| self.effect(began)).collect()
    }

    /// What the request that began at `began` changes, if anything.
    fn effect(&self, began: usize) -> Option<Effect> {
        let Event::Began { operation } = self.events.get(began)? else { return None };
        match operation {
            Operation::Change(effect) => Some(effect.clone()),
            Operation::Begin { object } => {
                let answered = self.events.iter().find_map(|event| match event {
                    Event::Ended { began: of, outcome: Outcome::Done { upload } } if *of == began => upload.clone(),
                    _ => None,
                });
                let upload = answered.unwrap_or_else(|| format!("{began:032x}"));
                Some(Effect::Begin { object: object.clone(), upload })
            }
            Operation::Get { .. } | Operation::List { .. } => None,
        }
    }
}

/// Which of `count` requests had their effect.
fn subsets(count: usize) -> Vec<Vec<usize>> {
    if count <= Log::ALL_SUBSETS {
        return (0..1_usize << count).map(|bits| (0..count).filter(|index| bits >> index & 1 == 1).collect()).collect();
    }
    let mut subsets: Vec<Vec<usize>> = vec![Vec::new()];
    for one in 0..count {
        subsets.push(vec![one]);
        subsets.extend((one + 1..count).map(|two| vec![one, two]));
        subsets.push((0..count).filter(|index| *index != one).collect());
        subsets.push((0..=one).collect());
        subsets.push((one..count).collect());
    }
    subsets
}

/// The orders in which effects can happen, as far as they differ.
fn orders<'a>(effects: &[&'a Effect]) -> Vec<Vec<&'a Effect>> {
    let collide =
        effects.iter().enumerate().any(|(index, one)| effects[..index].iter().any(|other| one.touches_the_same(other)));
    if !collide {
        return vec![effects.to_vec()];
    }
    const ALL_ORDERS: usize = 4;
    if effects.len() > ALL_ORDERS {
        return vec![effects.to_vec(), effects.iter().rev().copied().collect()];
    }
    let mut orders = vec![Vec::new()];
    for effect in effects {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<&Effect>| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, effect);
                    longer
                })
            })
            .collect();
    }
    orders
}

/// What a crash is called.
struct Note<'a> {
    events: usize,
    of: usize,
    open: usize,
    order: &'a [&'a Effect],
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} of {} events, {} open", self.events, self.of, self.open)?;
        for effect in self.order {
            match effect {
                Effect::Put { object, .. } => write!(f, ", {object} put")?,
                Effect::Delete { object } => write!(f, ", {object} deleted")?,
                Effect::Begin { object, .. } => write!(f, ", upload of {object} begun")?,
                Effect::Part { index, .. } => write!(f, ", part {index} put")?,
                Effect::Complete { .. } => f.write_str(", upload completed")?,
                Effect::Abort { .. } => f.write_str(", upload aborted")?,
            }
        }
        Ok(())
    }
}
