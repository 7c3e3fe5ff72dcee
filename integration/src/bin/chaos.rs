//! Plays every scenario of `integration::chaos`, many times, and prints the table. `integration/chaos` starts it beside servers.
//!
//! ```text
//! chaos [--times N] [--only TEXT]
//! ```
//!
//! `--times` multiplies the runs of each scenario, `--only` takes those whose name or place holds the text. The seed is printed;
//! `VDSTREAM_TEST_SEED` repeats it. The exit status is 1 if anything did not hold.

// A program of the tests, not of the library.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use integration::chaos::scenarios;
use integration::data;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut times, mut only) = (1, String::new());
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next()) {
            ("--times", Some(number)) if number.parse::<u64>().is_ok() => times = number.parse().unwrap_or(1),
            ("--only", Some(text)) => only = text,
            _ => {
                println!("usage: chaos [--times N] [--only TEXT]");
                return ExitCode::from(2);
            }
        }
    }
    let seed = data::seed();
    let begun = Instant::now();
    let (mut table, mut failures, mut runs) = (Vec::new(), Vec::new(), 0);
    for scenario in scenarios().iter().filter(|scenario| format!("{scenario:?}").contains(&only)) {
        let started = Instant::now();
        let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
        for run in 0..scenario.runs * times {
            runs += 1;
            // A scenario that panics has failed; the others still have their turn.
            let seed = seed.wrapping_add(run);
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario.play(seed)));
            let outcome =
                match played.unwrap_or_else(|_| Err(format!("{scenario:?}, seed {seed}: the harness panicked"))) {
                    Ok(outcome) => brief(&outcome),
                    Err(error) => {
                        println!("FAILED {error}");
                        failures.push(error);
                        "FAILED".to_owned()
                    }
                };
            *outcomes.entry(outcome).or_default() += 1;
        }
        let outcomes: Vec<_> = outcomes.iter().map(|(outcome, count)| format!("{count} × {outcome}")).collect();
        let row =
            format!("| {} | {} | {} | {} |", scenario.name, scenario.on, scenario.runs * times, outcomes.join(", "));
        println!("{row} {:.0} s", started.elapsed().as_secs_f64());
        table.push(row);
    }
    println!("\n| scenario | on | runs | outcome |\n|---|---|---|---|\n{}", table.join("\n"));
    println!(
        "\n{runs} runs in {:.0} s: {} with a damaged visible backup, a leak after gc, a hang or an unclear error",
        begun.elapsed().as_secs_f64(),
        failures.len()
    );
    for failure in &failures {
        println!("FAILED {failure}");
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

/// The outcome without what differs from run to run: times, and the words of an error after its exit code.
fn brief(outcome: &str) -> String {
    let pieces = outcome.split("; ").map(|piece| match piece.split_once(" after ") {
        Some((before, _)) => before,
        None => piece,
    });
    let mut brief: Vec<_> = pieces.collect();
    brief.dedup();
    brief.join(", then ")
}
