//! What the tool says about itself: help that fits one screen and has an example, completions, manual pages.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::process::Command;

use integration::tool;

/// Rows of a screen that nobody has to scroll, and its columns.
const SCREEN: (usize, usize) = (40, 80);

fn run(arguments: &[&str]) -> String {
    let output = tool::vdstream_command().args(arguments).env("COLUMNS", SCREEN.1.to_string()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn help(command: &[String]) -> String {
    let command: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    run(&command)
}

/// The verbs of the tool, or of a verb.
fn verbs_of(command: &[String]) -> Vec<String> {
    let help = help(command);
    let Some((_, commands)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn verbs() -> Vec<String> {
    let names = verbs_of(&[]);
    assert!(names.contains(&"backup".to_owned()) && names.contains(&"doctor".to_owned()), "{names:?}");
    names
}

/// The tool itself, each verb, and each verb of a verb.
fn commands() -> Vec<Vec<String>> {
    let mut found = vec![Vec::new()];
    let mut next = 0;
    while let Some(command) = found.get(next).cloned() {
        found.extend(verbs_of(&command).into_iter().map(|verb| [&command[..], &[verb]].concat()));
        next += 1;
    }
    assert!(found.contains(&vec!["engine".to_owned(), "restore".to_owned()]), "{found:?}");
    found
}

#[test]
fn each_help_fits_one_screen_and_has_an_example() {
    for command in commands() {
        let (help, name) = (help(&command), [&["vdstream".to_owned()][..], &command].concat().join(" "));
        assert!(help.lines().count() <= SCREEN.0, "{name}: {} lines\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= SCREEN.1), "{name}:\n{help}");
        let (_, end) = help.split_once("\nExample").unwrap_or_else(|| panic!("{name} has no example:\n{help}"));
        let (examples, rest) = end.split_once("\n\n").unwrap_or((end, ""));
        // The first line is the heading, which may have the only example beside it.
        let examples =
            examples.lines().enumerate().map(|(nth, line)| if nth == 0 { line.trim_matches(['s', ':']) } else { line });
        let examples: Vec<&str> = examples.filter(|line| !line.is_empty()).collect();
        assert!(!examples.is_empty() && examples.iter().all(|line| line.contains(&name)), "{name}: broken\n{help}");
        // What follows is broken where a line is full, and nowhere else.
        for (line, next) in rest.lines().zip(rest.lines().skip(1)) {
            let word = next.split_whitespace().next().unwrap_or_default();
            let is_text =
                ![line, next].iter().any(|line| line.is_empty() || line.starts_with(' ') || line.ends_with(':'));
            let length = line.chars().count() + 1 + word.chars().count();
            assert!(!is_text || length > SCREEN.1, "{name}: {word} falls off\n{help}");
        }
    }
}

#[test]
fn every_row_of_the_exit_codes_has_its_code() {
    let help = help(&[]);
    let (_, table) = help.split_once("\nExit codes: ").unwrap();
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert!(
        rows.len() >= 10 && rows.iter().all(|row| row.trim_start().starts_with(|c: char| c.is_ascii_digit())),
        "{help}"
    );
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
fn there_is_a_manual_page_for_each_command_and_for_each_that_a_page_mentions() {
    let directory = tempfile::tempdir().unwrap();
    run(&["man", directory.path().to_str().unwrap()]);
    let page = |name: &str| {
        let text = std::fs::read_to_string(directory.path().join(format!("{name}.1")));
        text.unwrap_or_else(|error| panic!("{name}: {error}")).replace("\\-", "-")
    };
    let mut mentioned = 0;
    for command in commands() {
        let name = [&["vdstream".to_owned()][..], &command].concat().join("-");
        let text = page(&name);
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}:\n{text}");
        assert!(text.lines().any(|line| line.starts_with(&format!(".TH {name} 1"))), "{name}:\n{text}");
        for before in text.split("(1)").collect::<Vec<_>>().split_last().unwrap().1 {
            page(before.split_whitespace().last().unwrap());
            mentioned += 1;
        }
    }
    assert!(mentioned >= verbs().len(), "the page of the tool mentions each verb");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), commands().len(), "and there is no other page");
}

/// The variables that options have are the rows of the manual's table, and every other row is one that no option has.
#[test]
fn the_manual_lists_every_variable() {
    let mut found = std::collections::BTreeSet::new();
    for command in commands() {
        let command: Vec<&str> = command.iter().map(String::as_str).chain(["--help-all"]).collect();
        let help = run(&command);
        let variables = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
        found.extend(variables.map(str::to_owned));
    }
    found.extend(["VDSTREAM_LOG", "VDSTREAM_STORAGE_CLASS", "VDSTREAM_TAGS"].map(str::to_owned));
    let page = std::fs::read_to_string(tool::repository().join("src/manual/operating.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `VDSTREAM_")?.split_once('`'));
    let listed: std::collections::BTreeSet<_> = rows.map(|(name, _)| format!("VDSTREAM_{name}")).collect();
    assert_eq!(listed, found);
}
