//! What a network and a server can do to a backup and to a restore.

use std::time::Duration;

use super::scenario::{On, Outcome, Scenario};
use super::step::Step;
use super::trial::{Expect, PART, SEGMENT, Trial};
use crate::network::{Fault, Fired, Point, Rule, Wanted};
use crate::server::Kind;

/// Two segments in parts, and one that is shorter than a part.
const LEN: usize = 2 * SEGMENT + (4 << 20);
/// For slow links: one segment in parts.
const SLOW_LEN: usize = 17 << 20;
/// As many segments as are read at once, each larger than what is read of it at once.
const WIDE_LEN: usize = 8 * SEGMENT;
/// Bytes after which a backup or a restore is in its middle.
const MIDDLE: u64 = 8 << 20;
/// Half of a part.
const HALF: u64 = PART as u64 / 2;

/// With these the tool gives up a silent connection after three seconds, so that a test need not wait for a minute.
const IMPATIENT: [(&str, &str); 2] = [("AWS_READ_TIMEOUT", "3s"), ("AZURE_READ_TIMEOUT", "3s")];

/// A fault that passes is over by then, with the work done. The refusal of 20 seconds is the longest.
const GOES_ON: Duration = Duration::from_secs(100);
/// A fault that stays ends the work by then: the time for retries, the longest pause, the time for an orderly abort.
const GIVES_UP: Duration = Duration::from_secs(90 + 15 + 60 + 30);

/// What stands still for good ends the work by then with the times that are set if nobody sets any: ten attempts of a part of 5 MiB,
/// with 70 s each, the pauses between them, and the clean-up.
const GIVES_UP_ON_SILENCE: Duration = Duration::from_secs(10 * 70 + 41 + 60 + 30);

pub(super) fn scenarios() -> Vec<Scenario> {
    [Kind::Garage, Kind::Azurite].into_iter().flat_map(of).collect()
}

fn of(kind: Kind) -> Vec<Scenario> {
    let on = On::Server(kind);
    let part = move || Step::Part.wanted(kind);
    let read = || Wanted::new("GET", &[".zst"]);
    let refuse = Fault::Refuse(Duration::from_secs(20));
    let garage = |scenario: Scenario| if kind == Kind::Garage { scenario.short() } else { scenario };
    vec![
        Scenario::new("backup: parts are reset in their middle", on, move |on, seed| {
            backup(on, seed, &[Rule::once(part(), Point::Body(HALF), Fault::Reset).times(3)])
        })
        .runs(10)
        .short(),
        Scenario::new("backup: connections end in the middle of parts", on, move |on, seed| {
            backup(on, seed, &[Rule::once(part(), Point::Body(HALF), Fault::Close).times(3)])
        })
        .runs(10),
        Scenario::new("backup: the answer to each request is lost once", on, move |on, seed| {
            let lost = |step: Step| Rule::once(step.wanted(kind), Point::Answer, Fault::Reset);
            backup(on, seed, &Step::of(kind).map(lost).collect::<Vec<_>>())
        })
        .runs(10)
        .short(),
        Scenario::new("backup: each request is reset once before it arrives", on, move |on, seed| {
            let lost = |step: Step| Rule::once(step.wanted(kind), Point::Head, Fault::Reset);
            backup(on, seed, &Step::of(kind).map(lost).collect::<Vec<_>>())
        })
        .runs(10),
        garage(Scenario::new("backup: a part and an answer stand still", on, move |on, seed| {
            let body = Rule::once(part(), Point::Body(HALF), Fault::Stall);
            let answer = Rule::once(part(), Point::Answer, Fault::Stall).skip(2);
            backup_with(on, seed, LEN, &IMPATIENT, &[body, answer], Expect::Success, GOES_ON)
        }))
        .runs(5),
        garage(Scenario::new("backup: the link has 1 MB/s", on, move |on, seed| {
            let slow = Rule::at_total(Point::TotalUp(100_000), Fault::Slow(1_000_000));
            backup_with(on, seed, SLOW_LEN, &[], &[slow], Expect::Success, GOES_ON)
        }))
        .runs(2),
        garage(Scenario::new("backup: connections are refused for 20 s", on, move |on, seed| {
            backup(on, seed, &[Rule::at_total(Point::TotalUp(MIDDLE), refuse)])
        }))
        .runs(3),
        Scenario::new("backup: refused for 20 s at the commit", on, move |on, seed| {
            backup(on, seed, &[Rule::once(Step::Manifest.wanted(kind), Point::Head, refuse)])
        })
        .runs(2),
        Scenario::new("backup: everything stands still for good", on, move |on, seed| {
            let freeze = Rule::at_total(Point::TotalUp(MIDDLE), Fault::Freeze);
            backup_with(on, seed, LEN, &IMPATIENT, &[freeze], Expect::Failure, GIVES_UP)
        }),
        Scenario::new("backup: everything stands still for good, with the times of everyone", on, move |on, seed| {
            let freeze = Rule::at_total(Point::TotalUp(MIDDLE), Fault::Freeze);
            backup_with(on, seed, LEN, &[], &[freeze], Expect::Failure, GIVES_UP_ON_SILENCE)
        }),
        Scenario::new("backup: refused for good", on, move |on, seed| {
            let refuse = Fault::Refuse(Duration::from_secs(3600));
            let rule = Rule::at_total(Point::TotalUp(MIDDLE), refuse);
            backup_with(on, seed, LEN, &[], &[rule], Expect::Failure, GIVES_UP)
        }),
        garage(Scenario::new("backup: the server is killed and comes back", on, |on, seed| {
            server_goes(on, seed, Work::Backup, Comes::Back)
        }))
        .runs(5),
        Scenario::new("backup: the server is killed and stays away", on, |on, seed| {
            server_goes(on, seed, Work::Backup, Comes::Never)
        }),
        Scenario::new("restore: answers are reset in their middle", on, move |on, seed| {
            restore(on, seed, &[Rule::once(read(), Point::AnswerBody(HALF), Fault::Reset).times(3)])
        })
        .runs(10)
        .short(),
        Scenario::new("restore: answers end in their middle", on, move |on, seed| {
            restore(on, seed, &[Rule::once(read(), Point::AnswerBody(HALF), Fault::Close).times(3)])
        })
        .runs(10),
        garage(Scenario::new("restore: an answer stands still", on, move |on, seed| {
            let rule = Rule::once(read(), Point::AnswerBody(HALF), Fault::Stall);
            restore_with(on, seed, LEN, &IMPATIENT, &[rule], Expect::Success, GOES_ON)
        }))
        .runs(5),
        Scenario::new("restore: the link has 1 MB/s", on, move |on, seed| {
            let slow = Rule::at_total(Point::TotalDown(0), Fault::Slow(1_000_000));
            restore_with(on, seed, SLOW_LEN, &[], &[slow], Expect::Success, GOES_ON)
        })
        .runs(2),
        Scenario::new("verify: the link has 1 MB/s", on, verify_slowly),
        Scenario::new("restore: connections are refused for 20 s", on, move |on, seed| {
            restore(on, seed, &[Rule::once(read(), Point::AnswerBody(HALF), refuse)])
        })
        .runs(3),
        garage(Scenario::new("restore: the server is killed and comes back", on, |on, seed| {
            server_goes(on, seed, Work::Restore, Comes::Back)
        }))
        .runs(5),
        Scenario::new("restore: the server is killed and stays away", on, |on, seed| {
            server_goes(on, seed, Work::Restore, Comes::Never)
        }),
    ]
}

fn kind(on: On) -> Kind {
    match on {
        On::Server(kind) => kind,
        On::Disk => unreachable!("a network fault needs a network"),
    }
}

/// A backup that these faults do not end.
fn backup(on: On, seed: u64, rules: &[Rule]) -> Outcome {
    backup_with(on, seed, LEN, &[], rules, Expect::Success, GOES_ON)
}

fn backup_with(
    on: On,
    seed: u64,
    len: usize,
    variables: &[(&'static str, &str)],
    rules: &[Rule],
    expect: Expect,
    limit: Duration,
) -> Outcome {
    let mut trial = Trial::server(kind(on), seed, len);
    trial.set(variables);
    let fired: Vec<_> = rules.iter().map(|rule| trial.proxy().add(rule.clone())).collect();
    let ended = trial.start_backup().wait(limit);
    let success = trial.judge_unavailable(&ended, expect)?;
    all_struck(&trial, rules, &fired)?;
    let count = trial.check()?;
    if success == (count == 1) { Ok(trial.summary()) } else { Err(format!("success: {success}, {count} backups")) }
}

/// A restore that these faults do not end.
fn restore(on: On, seed: u64, rules: &[Rule]) -> Outcome {
    restore_with(on, seed, LEN, &[], rules, Expect::Success, GOES_ON)
}

fn restore_with(
    on: On,
    seed: u64,
    len: usize,
    variables: &[(&'static str, &str)],
    rules: &[Rule],
    expect: Expect,
    limit: Duration,
) -> Outcome {
    let mut trial = Trial::server(kind(on), seed, len);
    trial.healthy_backup()?;
    trial.set(variables);
    let moved = trial.proxy().down_bytes();
    let shifted = |rule: &Rule| match rule.point {
        Point::TotalDown(at) => Rule { point: Point::TotalDown(at + moved), ..rule.clone() },
        _ => rule.clone(),
    };
    let fired: Vec<_> = rules.iter().map(|rule| trial.proxy().add(shifted(rule))).collect();
    let ended = trial.start_restore().wait(limit);
    let success = trial.judge_unavailable(&ended, expect)?;
    all_struck(&trial, rules, &fired)?;
    if success {
        trial.compare_output()?
    } else {
        trial.no_output()?
    }
    trial.check()?;
    Ok(trial.summary())
}

/// Eight reads share a link of 1 MB/s, and each has the time that it needs.
fn verify_slowly(on: On, seed: u64) -> Outcome {
    let mut trial = Trial::server(kind(on), seed, WIDE_LEN);
    trial.healthy_backup()?;
    let rule = Rule::at_total(Point::TotalDown(trial.proxy().down_bytes()), Fault::Slow(1_000_000));
    let fired = trial.proxy().add(rule.clone());
    let ended = trial.start_verify("stored").wait(2 * GOES_ON);
    trial.judge(&ended, Expect::Success)?;
    all_struck(&trial, &[rule], &[fired])?;
    match trial.check()? {
        1 => Ok(trial.summary()),
        count => Err(format!("{count} backups")),
    }
}

/// A fault that did not happen proves nothing.
fn all_struck(trial: &Trial, rules: &[Rule], fired: &[Fired]) -> Result<(), String> {
    for (rule, fired) in rules.iter().zip(fired) {
        let times = trial.proxy().fired(*fired);
        if times != rule.times {
            let seen: Vec<_> = trial.proxy().seen().into_iter().map(|seen| seen.method + " " + &seen.target).collect();
            return Err(format!("{rule:?} struck {times} times among {}", seen.join(", ")));
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Backup,
    Restore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    Back,
    Never,
}

/// The server is killed when the work is in its middle.
fn server_goes(on: On, seed: u64, work: Work, comes: Comes) -> Outcome {
    let mut trial = Trial::lasting(kind(on), seed, LEN);
    if work == Work::Restore {
        trial.healthy_backup()?;
    }
    // Everything stands still at that byte, until the server is gone.
    let point = match work {
        Work::Backup => Point::TotalUp(MIDDLE),
        Work::Restore => Point::TotalDown(trial.proxy().down_bytes() + MIDDLE),
    };
    let middle = trial.proxy().add(Rule::at_total(point, Fault::Freeze));
    let tool = match work {
        Work::Backup => trial.start_backup(),
        Work::Restore => trial.start_restore(),
    };
    if !trial.proxy().wait_fired(middle, GOES_ON) {
        return Err(format!("never got to its middle: {:?}", tool.wait(Duration::ZERO)));
    }
    trial.kill_server();
    if comes == Comes::Back {
        trial.restart_server();
    }
    trial.proxy().heal();
    let (expect, limit) = match comes {
        Comes::Back => (Expect::Success, GOES_ON),
        Comes::Never => (Expect::Failure, GIVES_UP),
    };
    let ended = tool.wait(limit);
    let success = trial.judge_unavailable(&ended, expect)?;
    if comes == Comes::Never {
        trial.restart_server();
    }
    match (work, success) {
        (Work::Restore, true) => trial.compare_output()?,
        (Work::Restore, false) => trial.no_output()?,
        (Work::Backup, _) => {}
    }
    let count = trial.check()?;
    let expected = usize::from(success || work == Work::Restore);
    if count == expected { Ok(trial.summary()) } else { Err(format!("success: {success}, {count} backups")) }
}
