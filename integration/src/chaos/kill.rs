//! SIGKILL for the tool, at every named point and at random ones; then a second process goes on, or what is left is collected.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use super::resume::Left;
use super::run::Tool;
use super::scenario::{On, Outcome, Scenario};
use super::step::Step;
use super::syscall::{self, Call};
use super::trial::{PART, SEGMENT, Trial};
use crate::data::below;
use crate::network::{Fault, Point, Rule};
use crate::server::Kind;

/// More than a segment.
pub(super) const LEN: usize = SEGMENT + (6 << 20);
/// What a backup sends beside its data, roughly: heads and small documents.
const OVERHEAD: u64 = 40_000;
/// The point is reached by then, or the backup is over.
const LIMIT: Duration = Duration::from_secs(100);

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let on = On::Server(kind);
        for step in Step::of(kind) {
            for (place, point) in [
                ("before", Point::Head),
                ("within", Point::Body(if matches!(step, Step::Part | Step::Segment) { PART as u64 / 4 } else { 20 })),
                ("after", Point::Answer),
            ] {
                let has_body = step != Step::Begin;
                if place == "within" && !has_body {
                    continue;
                }
                let name = format!("killed {place} {step:?}");
                // One of two is resumed.
                let scenario = Scenario::new(name, on, move |on, seed| at_step(on, seed, step, point)).runs(2);
                let is_short = match place {
                    "after" => {
                        kind == Kind::Garage
                            && matches!(step, Step::Intent | Step::Record | Step::Complete | Step::Manifest)
                            || kind == Kind::Moto && matches!(step, Step::Complete | Step::Manifest)
                    }
                    "within" => matches!(step, Step::Part | Step::Segment),
                    _ => false,
                };
                all.push(if is_short { scenario.short() } else { scenario });
            }
        }
        let runs = if kind == Kind::Azurite { 50 } else { 100 };
        all.push(Scenario::new("killed at a random byte", on, at_random_byte).runs(runs));
    }
    for call in Call::ALL {
        let scenario =
            Scenario::new(format!("killed {call}"), On::Disk, move |_, seed| syscall::killed_at(seed, call)).runs(2);
        all.push(if call.is_short() { scenario.short() } else { scenario });
    }
    all.push(Scenario::new("killed at a random byte of its input", On::Disk, at_random_input).runs(100));
    all
}

/// The proxy holds the request at its point; nothing moves when the signal comes.
fn at_step(on: On, seed: u64, step: Step, point: Point) -> Outcome {
    let On::Server(kind) = on else { unreachable!("requests go to servers") };
    // Where a long stream is cut depends on what is under way, so a segment that is short for sure is all there is.
    let mut trial = Trial::server(kind, seed, if step == Step::Segment { PART / 2 } else { LEN });
    let rule = trial.proxy().add(Rule::once(step.wanted(kind), point, Fault::Freeze));
    let tool = trial.start_backup();
    if !trial.proxy().wait_fired(rule, LIMIT) {
        return Err(format!("never got to {step:?}: {:?}", tool.wait(Duration::ZERO)));
    }
    let ended = tool.kill();
    if ended.code().is_some() {
        return Err(format!("it had ended before the signal: {ended:?}"));
    }
    let left = trial.after_kill(seed)?;
    let expected = usize::from(step == Step::Manifest && point == Point::Answer);
    if left.committed == expected { Ok(left.describe()) } else { Err(format!("{left:?}, expected {expected}")) }
}

fn at_random_byte(on: On, seed: u64) -> Outcome {
    let On::Server(kind) = on else { unreachable!("requests go to servers") };
    let mut trial = Trial::server(kind, seed, LEN);
    let before = trial.proxy().up_bytes();
    let at = before + below(seed, LEN as u64 + OVERHEAD);
    let rule = trial.proxy().add(Rule::at_total(Point::TotalUp(at), Fault::Freeze));
    let mut tool = trial.start_backup();
    // A backup that needs fewer bytes is over before.
    while !tool.has_ended() && !trial.proxy().wait_fired(rule, Duration::from_millis(20)) {
        if tool.elapsed() > LIMIT {
            return Err("hang: neither the byte nor the end came".to_owned());
        }
    }
    tool.kill();
    trial.after_kill(seed).map(Left::describe)
}

/// One of two gets a part of its input and is killed then; the other one gets all, and is killed when so many files are there.
fn at_random_input(_: On, seed: u64) -> Outcome {
    let mut trial = Trial::disk(seed, LEN);
    let input = std::fs::read(trial.input()).map_err(|error| error.to_string())?;
    let mut command = trial.backup_command_from("-");
    command.stdin(Stdio::piped());
    let mut tool = Tool::start(command);
    let mut stdin = tool.stdin();
    // The last bit says whether it is resumed.
    if (seed >> 1).is_multiple_of(2) {
        let at = usize::try_from(below(seed, LEN as u64 + 1)).expect("a position in the input");
        stdin.write_all(&input[..at]).map_err(|error| format!("the tool stopped reading: {error}"))?;
    } else {
        stdin.write_all(&input).map_err(|error| format!("the tool stopped reading: {error}"))?;
        drop(stdin);
        // The intent, two segments, a record that comes and goes, the manifest.
        let files = 1 + usize::try_from(below(seed, 4)).expect("a small number");
        while !tool.has_ended() && trial.files() < files {
            if tool.elapsed() > LIMIT {
                return Err("hang: neither the files nor the end came".to_owned());
            }
        }
    }
    tool.kill();
    trial.after_kill(seed).map(Left::describe)
}
