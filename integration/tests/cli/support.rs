//! Running the tool, and what all tests check of an answer.

use std::process::{Command, Output, Stdio};

use integration::data::{Entropy, Pattern};
use integration::place::Place;
use integration::server::Kind;
use integration::tool::vdstream_command;
use serde_json::Value;

/// The tool with its answer.
pub(crate) fn run(place: &Place, arguments: &[&str]) -> Output {
    run_with(place, arguments, |_| {})
}

pub(crate) fn run_with(place: &Place, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Output {
    let mut command = vdstream_command();
    command.envs(place.environment()).args(arguments).stdin(Stdio::null());
    prepare(&mut command);
    command.output().expect("the tool runs")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("the tool was not killed")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The failure said one thing on one line, beside progress.
pub(crate) fn assert_fails(output: &Output, expected: i32, part: &str) {
    let text = stderr(output);
    assert_eq!(code(output), expected, "{text}");
    assert!(output.stdout.is_empty(), "a failure prints nothing on stdout");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains(part), "expected `{part}` in the last line of:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

pub(crate) fn backups(place: &Place) -> Vec<Value> {
    let output = run(place, &["list", &place.url(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    document["backups"].as_array().expect("a list").clone()
}

pub(crate) fn pattern() -> Pattern {
    Pattern::new(integration::data::seed(), 0, Entropy::Random)
}

pub(crate) async fn places() -> Vec<Place> {
    vec![Place::disk(), Place::server(Kind::Garage).await, Place::server(Kind::Azurite).await]
}
