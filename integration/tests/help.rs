//! What the tool says about itself: help that fits one screen and has an example, completions, manual pages.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::Command;

use integration::tool;

/// Rows of a screen that nobody has to scroll, and its columns.
const SCREEN: (usize, usize) = (40, 100);

fn run(arguments: &[&str]) -> String {
    let output = tool::vdstream_command().args(arguments).env("COLUMNS", SCREEN.1.to_string()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn verbs() -> Vec<String> {
    let help = run(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(names.contains(&"backup".to_owned()) && names.contains(&"doctor".to_owned()), "{names:?}");
    names.into_iter().filter(|name| name != "help").collect()
}

#[test]
fn the_help_of_each_verb_fits_one_screen_and_has_an_example() {
    for verb in verbs() {
        let help = run(&[&verb, "--help"]);
        assert!(help.lines().count() <= SCREEN.0, "{verb}: {} lines\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= SCREEN.1), "{verb}:\n{help}");
        assert!(help.contains("Example") && help.contains(&format!("vdstream {verb}")), "{verb}:\n{help}");
    }
}

#[test]
fn completions_know_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} does not know {verb}");
        }
    }
    let script = run(&["completions", "bash"]);
    let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn there_is_a_manual_page_for_the_tool_and_for_each_verb() {
    let directory = tempfile::tempdir().unwrap();
    run(&["man", directory.path().to_str().unwrap()]);
    for name in verbs().into_iter().map(|verb| format!("vdstream-{verb}")).chain(["vdstream".to_owned()]) {
        let page = std::fs::read_to_string(directory.path().join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}:\n{page}");
    }
}
