//! Parts that arrive after their upload was aborted.

use jiff::Timestamp;

use super::log::{Crash, Event, Log, Operation, Outcome};
use crate::testing::bucket::Effect;

impl Log {
    /// What else the bucket of `crash`, after the first `events` events, can become: with parts that were in flight when their uploads
    /// were aborted, each alone and all together.
    ///
    /// Some stores say of themselves that they may keep such a part: the upload is there again, with that part, until it is aborted
    /// once more. Of an upload that a store has said not to know nothing comes any more.
    pub fn late_parts(&self, crash: &Crash, events: usize, at: Timestamp) -> Vec<Crash> {
        let is_gone = |upload: &str| !crash.contents.uploads.contains_key(upload);
        let parts = self.in_flight(events).into_iter().filter_map(|effect| match &effect {
            Effect::Part { upload, .. } if is_gone(upload) => {
                self.aborted(upload, events).map(|object| (object, effect))
            }
            _ => None,
        });
        let parts: Vec<(String, Effect)> = parts.collect();
        let mut subsets: Vec<&[(String, Effect)]> = parts.chunks(1).collect();
        if parts.len() > 1 {
            subsets.push(&parts);
        }
        let late = |subset: &[(String, Effect)]| {
            let mut contents = crash.contents.clone();
            for (object, effect) in subset {
                if let Effect::Part { upload, .. } = effect
                    && !contents.uploads.contains_key(upload)
                {
                    contents.apply(&Effect::Begin { object: object.clone(), upload: upload.clone() }, at);
                }
                contents.apply(effect, at);
            }
            Crash { contents, note: format!("{}, and {} parts of aborted uploads arrive", crash.note, subset.len()) }
        };
        subsets.into_iter().map(late).collect()
    }

    /// The object of an upload that was begun and is being aborted after so many events, if a part may still bring it back.
    fn aborted(&self, upload: &str, events: usize) -> Option<String> {
        let mut object = None;
        let mut is_aborted = false;
        for event in self.events().iter().take(events) {
            match event {
                Event::Began { operation: Operation::Change(Effect::Abort { upload: of }) } if of == upload => {
                    is_aborted = true;
                }
                Event::Began { operation: Operation::Change(Effect::Complete { upload: of }) } if of == upload => {
                    return None;
                }
                Event::Ended { began, outcome } => match (self.events().get(*began), outcome) {
                    (
                        Some(Event::Began { operation: Operation::Begin { object: of } }),
                        Outcome::Done { upload: Some(id) },
                    ) if id == upload => object = Some(of.clone()),
                    (
                        Some(Event::Began { operation: Operation::Change(Effect::Abort { upload: of }) }),
                        Outcome::Refused,
                    ) if of == upload => return None,
                    _ => {}
                },
                Event::Began { .. } => {}
            }
        }
        object.filter(|_| is_aborted)
    }
}
