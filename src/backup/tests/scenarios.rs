//! Every kind of fault at every operation, against backup, restore, list, show and verify: each ends right, or with a clear
//! error of the right kind. What removes and what resumes is in `removals`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::backup::collection::{self, CollectionReport};
use crate::backup::retention::{self, DeletionReport, Descendants};
use crate::testing::fault_store::Operation;
use crate::testing::{Fault, FaultStore, Rule};

const LONG: Duration = Duration::from_secs(100);

/// Each fault with the kind of error and the words that it shows as, if it does not pass.
pub(super) const FAULTS: &[(Fault, ErrorKind, &str)] = &[
    (Fault::Denied, ErrorKind::Denied, "403"),
    (Fault::DeniedAfter, ErrorKind::Denied, "403"),
    (Fault::Conflict, ErrorKind::Conflict, "409"),
    (Fault::RequestTimeout, ErrorKind::Unavailable, "408"),
    (Fault::TooManyRequests, ErrorKind::Throttled, "429"),
    (Fault::SlowDown, ErrorKind::Throttled, "503 SlowDown"),
    (Fault::ServiceUnavailable, ErrorKind::Throttled, "503"),
    (Fault::Internal, ErrorKind::Unavailable, "500 InternalError"),
    (Fault::Reset, ErrorKind::Unavailable, "connection reset"),
    (Fault::BrokenPipe, ErrorKind::Unavailable, "broken pipe"),
    (Fault::LostAnswer, ErrorKind::Unavailable, "connection reset"),
    (Fault::TimeoutBefore(Duration::from_secs(5)), ErrorKind::Unavailable, "timed out"),
    (Fault::TimeoutAfter(Duration::from_secs(5)), ErrorKind::Unavailable, "timed out"),
    (Fault::TimeoutBefore(LONG), ErrorKind::Unavailable, "no answer within"),
    (Fault::TimeoutAfter(LONG), ErrorKind::Unavailable, "no answer within"),
    (Fault::Hang, ErrorKind::Unavailable, "no answer within"),
    (Fault::Truncated, ErrorKind::Unavailable, "bytes"),
    (Fault::CutBody, ErrorKind::Unavailable, "connection reset"),
    (Fault::WrongBytes, ErrorKind::Corrupt, "expected"),
    (Fault::StaleList(100), ErrorKind::NotFound, "no backup"),
    (Fault::Latency(Duration::from_secs(1)), ErrorKind::Internal, ""),
    (Fault::Bandwidth(1_000_000), ErrorKind::Internal, ""),
];

fn contents() -> [Bytes; 2] {
    [noise(1, 150_000), noise(2, 100)]
}

/// Which requests of an operation meet the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// The first of each object.
    Once,
    Always,
}

pub(super) fn rule(fault: Fault, operation: Operation, how: How) -> Rule {
    let rule = Rule::new(fault).on(operation);
    match how {
        How::Once => rule.each(1),
        How::Always => rule,
    }
}

pub(super) fn is_clear(error: &Error, (fault, kind, words): (Fault, ErrorKind, &str), at: &str) {
    let report = error.report();
    // A put that is refused although nobody else has the name is made again, and given up as what may pass.
    let is_of_puts = fault == Fault::Conflict && error.kind() == ErrorKind::Unavailable;
    assert!(error.kind() == kind || is_of_puts, "{at}: {report}");
    assert!(report.contains(words), "{at}: the first cause is lost: {report}");
    assert!(!fault.is_harmless(), "{at}: {report}");
}

impl Fault {
    fn is_harmless(self) -> bool {
        matches!(self, Self::Latency(_) | Self::Bandwidth(_))
    }
}

#[tokio::test(start_paused = true)]
async fn backups_meet_every_fault_at_every_operation() {
    let mut outcomes: BTreeMap<(How, &str), usize> = BTreeMap::new();
    for operation in Operation::ALL {
        for fault in FAULTS.iter().copied() {
            for how in [How::Once, How::Always] {
                let at = format!("{operation:?} {} {how:?}", fault.0);
                let faults = FaultStore::memory(3).rule(rule(fault.0, operation, how));
                let store = faults.store();
                let outcome = back_up(&store, &contents()).await;
                store.wait_idle().await;
                let lost_uploads = faults
                    .log()
                    .iter()
                    .filter(|request| request.operation == Operation::Begin && !request.faults.is_empty())
                    .count();
                faults.heal();
                let listing = list(&store, None).await.unwrap();
                let word = match &outcome {
                    Ok(report) => {
                        assert_eq!(listing.backups.len(), 1, "{at}");
                        assert_eq!(restore(&store, &report.manifest).await.unwrap(), contents(), "{at}");
                        "done"
                    }
                    Err(error) => {
                        is_clear(error, fault, &at);
                        assert!(listing.backups.is_empty() && listing.damaged.is_empty(), "{at}: half visible");
                        "error"
                    }
                };
                // A store that has not answered yet is given up early, and the intent is what it is asked first.
                let is_first_contact = operation == Operation::Put && fault.2 == "no answer within";
                // A completion must not run twice at once, so one that hangs for ever cannot be tried again.
                let is_stuck = operation == Operation::Complete && fault.0 == Fault::Hang;
                // What is refused is not asked for again, but for a put that nobody else has won.
                let is_refused =
                    fault.1 == ErrorKind::Denied || fault.0 == Fault::Conflict && operation != Operation::Put;
                if how == How::Once && !is_refused && !is_first_contact && !is_stuck {
                    assert!(outcome.is_ok(), "{at}: {outcome:?}");
                }
                // What cleaning up needs is what failed, or hung for longer than is waited for it: then a collection finds the
                // rest.
                let can_clean = !matches!(operation, Operation::Delete | Operation::List | Operation::Abort)
                    || how == How::Once && !is_refused && fault.2 != "no answer within";
                let left = names(&store).await;
                let is_said = store.take_leftovers().is_some();
                if can_clean && outcome.is_err() && !left.is_empty() {
                    // A request that hangs is not waited for without end; what that leaves is told.
                    assert!(fault.2 == "no answer within" && is_said, "{at}: {left:?}");
                }
                if can_clean && !is_said {
                    assert!(!left.iter().any(|name| name.contains("/uploads/")), "{at}: {left:?}");
                    // The id of an upload whose answer was lost is known to nobody.
                    assert!(faults.open_uploads() <= lost_uploads, "{at}: uploads are left open");
                }
                *outcomes.entry((how, word)).or_default() += 1;
            }
        }
    }
    println!("backup: {outcomes:?} of {} scenarios", outcomes.values().sum::<usize>());
}

/// What was delivered of each stripe before the end or the error.
async fn restored(store: &Store, manifest: &Manifest) -> (Vec<Vec<u8>>, Option<Error>) {
    let restore = Restore::begin(store, manifest, RestoreOptions::default().pipeline(config())).unwrap();
    let (mut contents, mut first) = (Vec::new(), None);
    for stripe in 0..restore.stripes() {
        let mut content = Vec::new();
        let mut frames = std::pin::pin!(restore.stripe(stripe));
        while let Some(frame) = frames.next().await {
            match frame {
                Ok(bytes) => content.extend_from_slice(&bytes),
                Err(error) => first = first.or(Some(error)),
            }
        }
        contents.push(content);
    }
    (contents, first)
}

#[tokio::test(start_paused = true)]
async fn restore_list_and_verify_meet_every_fault_at_every_operation() {
    let faults = FaultStore::memory(5);
    let store = faults.store();
    let manifest = back_up(&store, &contents()).await.unwrap().manifest;
    let (series, which) = latest();
    let levels = [VerifyLevel::Quick, VerifyLevel::Stored, VerifyLevel::Full];
    let mut outcomes: BTreeMap<(String, How, &str), usize> = BTreeMap::new();
    for operation in [Operation::Get, Operation::Head, Operation::List] {
        for fault in FAULTS.iter().copied() {
            for how in [How::Once, How::Always] {
                let at = format!("{operation:?} {} {how:?}", fault.0);
                let begin = || {
                    faults.heal();
                    faults.forget();
                    faults.add(rule(fault.0, operation, how));
                };
                let mut note = |command: &str, word| *outcomes.entry((command.to_owned(), how, word)).or_default() += 1;

                begin();
                match restored(&store, &manifest).await {
                    (delivered, None) => {
                        assert!(delivered.iter().eq(contents().iter()), "{at}: restored something else");
                        note("restore", "done");
                    }
                    (delivered, Some(error)) => {
                        let right = delivered.iter().zip(contents()).all(|(part, whole)| whole.starts_with(part));
                        assert!(right, "{at}: a wrong byte was delivered");
                        is_clear(&error, fault, &format!("restore {at}"));
                        assert!(how == How::Always || !error.is_retryable(), "{at}: it was not tried again");
                        note("restore", "error");
                    }
                }

                begin();
                match list(&store, None).await {
                    Ok(listing) => match (listing.backups.len(), listing.damaged.as_slice()) {
                        (1, []) => note("list", "done"),
                        (0, [damaged]) => {
                            assert_eq!(damaged.error.kind(), ErrorKind::Corrupt, "{at}");
                            note("list", "damage");
                        }
                        (0, []) => {
                            assert!(matches!(fault.0, Fault::StaleList(_)), "{at}: the backup is not there");
                            note("list", "stale");
                        }
                        found => panic!("{at}: {found:?}"),
                    },
                    Err(error) => {
                        is_clear(&error, fault, &format!("list {at}"));
                        note("list", "error");
                    }
                }

                begin();
                match find(&store, &series, which).await {
                    Ok(found) => {
                        assert_eq!(found, manifest, "{at}");
                        note("show", "done");
                    }
                    Err(error) if fault.0 == Fault::WrongBytes => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}");
                        note("show", "damage");
                    }
                    Err(error) => {
                        is_clear(&error, fault, &format!("show {at}"));
                        note("show", "error");
                    }
                }

                for level in levels {
                    begin();
                    let command = format!("verify {level}");
                    let options = VerifyOptions::new(level).pipeline(config()).record(false);
                    match verify(&store, &manifest, options).await {
                        Ok(report) if report.is_good() => note(&command, "done"),
                        Ok(report) => {
                            assert_eq!(fault.0, Fault::WrongBytes, "{at}: {report:?}");
                            note(&command, "damage");
                        }
                        Err(error) => {
                            is_clear(&error, fault, &format!("{command} {at}"));
                            note(&command, "error");
                        }
                    }
                }
            }
        }
    }
    for ((command, how, outcome), count) in &outcomes {
        println!("{command} {how:?}: {count} {outcome}");
    }
    println!("{} scenarios of reading", outcomes.values().sum::<usize>());
}

/// Weather: a bit of everything, everywhere.
fn weather(seed: u64) -> FaultStore {
    let often = |fault, probability| Rule::new(fault).probability(probability);
    FaultStore::memory(seed)
        .rule(often(Fault::Latency(Duration::from_millis(700)), 0.2))
        .rule(Rule::new(Fault::Bandwidth(1 << 20)).on(Operation::Part))
        .rule(often(Fault::SlowDown, 0.06))
        .rule(often(Fault::Internal, 0.06))
        .rule(often(Fault::Reset, 0.04))
        .rule(often(Fault::LostAnswer, 0.05))
        .rule(often(Fault::TimeoutAfter(Duration::from_secs(2)), 0.02))
        .rule(often(Fault::Truncated, 0.05))
        .rule(often(Fault::CutBody, 0.05))
}

#[tokio::test(start_paused = true)]
async fn backups_come_through_any_weather() {
    let (mut requests, mut met, mut runs) = (0, 0, 0);
    for seed in 0..60 {
        let faults = weather(seed);
        let store = faults.store();
        let manifest =
            back_up(&store, &contents()).await.unwrap_or_else(|e| panic!("seed {seed}: {}", e.report())).manifest;
        assert_eq!(restore(&store, &manifest).await.unwrap(), contents(), "seed {seed}");
        let options = VerifyOptions::new(VerifyLevel::Stored).pipeline(config()).record(false);
        let report = verify(&store, &manifest, options).await.unwrap();
        assert!(report.is_good(), "seed {seed}: {report:?}");
        store.wait_idle().await;
        let log = faults.log();
        requests += log.len();
        met += log.iter().filter(|request| !request.faults.is_empty()).count();
        runs += 1;
    }
    println!("{runs} seeds, {requests} requests, {met} of them met a fault");
    assert!(met * 5 > requests, "fine weather");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_has_the_same_log() {
    async fn log(seed: u64) -> Vec<String> {
        let faults = weather(seed);
        let store = faults.store();
        let manifest = back_up(&store, &contents()).await.unwrap().manifest;
        restore(&store, &manifest).await.unwrap();
        store.wait_idle().await;
        let mut log: Vec<String> = faults.log().iter().map(ToString::to_string).collect();
        // Objects that are written at once come in any order.
        log.sort();
        log
    }
    for seed in 0..10 {
        assert_eq!(log(seed).await, log(seed).await, "seed {seed}");
    }
    assert_ne!(log(1).await, log(2).await);
}

/// The records of deletions and the marks of collections have names that no seed decides.
#[tokio::test(start_paused = true)]
async fn the_same_seed_has_the_same_log_of_deletions_and_collections() {
    async fn log(seed: u64) -> Vec<String> {
        let faults = weather(seed);
        let store = faults.store();
        let older = back_up(&store, &contents()).await.unwrap().manifest.id;
        back_up(&store, &contents()).await.unwrap();
        let plan = retention::plan_deletion(&store, &latest().0, older, Descendants::Refuse).await.unwrap();
        retention::apply(&store, &plan, &mut DeletionReport::default()).await.unwrap();
        let plan = collection::plan(&store, None, Duration::ZERO).await.unwrap();
        let mut report = CollectionReport::default();
        collection::apply(&store, &plan, &mut report).await.unwrap();
        assert_eq!(report.backups, [older], "seed {seed}");
        store.wait_idle().await;
        let mut log: Vec<String> = faults.log().iter().map(ToString::to_string).collect();
        for part in ["/deleted/", "/collected/"] {
            assert!(log.iter().any(|request| request.contains(part)), "seed {seed}: nothing below {part}");
        }
        log.sort();
        log
    }
    for seed in 0..10 {
        assert_eq!(log(seed).await, log(seed).await, "seed {seed}");
    }
    assert_ne!(log(1).await, log(2).await);
}

/// Where one request goes after the other, the order is the same too.
#[tokio::test(start_paused = true)]
async fn the_same_seed_has_the_same_log_in_the_same_order() {
    async fn log(seed: u64) -> Vec<String> {
        let faults = weather(seed);
        let store = faults.store();
        let one = PipelineConfig { concurrency: 1, ..config() };
        let mut ids = Vec::new();
        for number in 0..3 {
            let content = noise(number, 100_000);
            let options = BackupOptions::default().pipeline(one.clone());
            let mut backup = Backup::begin(&store, "orders", options).await.unwrap();
            backup.stripe_input(0, complete(&content)).unwrap();
            let manifest = backup.commit().await.unwrap().manifest;
            let options = VerifyOptions::new(VerifyLevel::Full).pipeline(one.clone()).record(false);
            assert!(verify(&store, &manifest, options).await.unwrap().is_good());
            ids.push(manifest.id);
        }
        let (series, which) = latest();
        assert_eq!(find(&store, &series, which).await.unwrap().id, ids[2]);
        store.wait_idle().await;
        faults.log().iter().map(ToString::to_string).collect()
    }
    for seed in 0..10 {
        assert_eq!(log(seed).await, log(seed).await, "seed {seed}");
    }
    assert_ne!(log(1).await, log(2).await);
}
