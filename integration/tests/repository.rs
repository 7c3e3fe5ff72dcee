//! Rules of the repository that no compiler checks.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use integration::tool;

fn read(name: &str) -> String {
    fs::read_to_string(tool::repository().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Files of the repository with their path from its root. What Git ignores is left out by name: a packed source has no Git.
fn files(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let root = tool::repository();
    let mut files = Vec::new();
    for place in ["src", "examples", "integration", "benches", "fuzz/fuzz_targets", ".ci", ".config"] {
        files.extend(tool::files_below(&root.join(place)));
    }
    files.extend(fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    let wanted = |path: &Path| path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted));
    let named = files.into_iter().filter(|path| wanted(path));
    named.map(|path| (path.strip_prefix(root).unwrap().to_owned(), fs::read_to_string(&path).unwrap())).collect()
}

#[test]
fn both_licences_are_there() {
    assert!(read("LICENSE-MIT").starts_with("MIT License"));
    let apache = read("LICENSE-APACHE");
    assert!(apache.contains("Version 2.0, January 2004") && apache.contains("END OF TERMS AND CONDITIONS"));
    assert!(read("Cargo.toml").contains(r#"license = "MIT OR Apache-2.0""#));
}

#[test]
fn one_command_runs_every_test_for_people_and_for_ci() {
    let command = "integration/run-tests";
    for page in ["README.md", "CONTRIBUTING.md", "integration/README.md", ".ci/run"] {
        assert!(read(page).contains(command), "{page} does not name {command}");
    }
}

#[test]
fn no_source_file_is_over_800_lines() {
    let long: Vec<_> = files(&["rs"])
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > 800)
        .collect();
    assert!(long.is_empty(), "split these: {long:?}");
}

#[test]
fn a_folder_says_what_it_holds_and_does_nothing_itself() {
    for (path, text) in files(&["rs"]) {
        let of_tests = path.iter().any(|part| part == "tests");
        if path.starts_with("src") && path.ends_with("mod.rs") && !of_tests {
            // A contract may stand here, an implementation may not.
            let starts = ["impl", "fn ", "async fn ", "pub fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "];
            let code: Vec<_> = text.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).collect();
            assert!(code.is_empty(), "{}: logic belongs into a file with a name: {code:?}", path.display());
        }
    }
}

#[test]
fn the_minimum_rust_version_is_written_once() {
    let manifest = read("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("rust-version = \"")).expect("Cargo.toml names it");
    let version = line.split('"').nth(1).unwrap();
    for (path, text) in files(&["md", "toml", "yml", "rs", ""]) {
        if path != Path::new("Cargo.toml") {
            for spelling in
                [format!("Rust {version}"), format!("rust-version = \"{version}"), format!("MSRV {version}")]
            {
                assert!(!text.contains(&spelling), "{} repeats it: {spelling}", path.display());
            }
        }
    }
}

#[test]
fn nothing_in_the_library_sleeps_on_the_wall_clock() {
    // Longer than the lint: it also holds where the lint is switched off.
    for (path, text) in files(&["rs"]) {
        if path.starts_with("src") && !path.ends_with("clock.rs") {
            assert!(!text.contains("thread::sleep("), "{} sleeps", path.display());
        }
    }
}

#[test]
fn a_test_that_is_switched_off_says_why() {
    for (path, text) in files(&["rs"]) {
        // In two pieces, so that this file passes its own test.
        assert!(!text.contains(concat!("#[ignore", "]")), "{}: give the reason", path.display());
    }
}

#[test]
fn every_example_is_in_the_table() {
    let examples = tool::files_below(&tool::repository().join("examples"));
    let sources: Vec<_> = examples.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
    for source in sources {
        let table = read("examples/README.md");
        let name = source.file_name().unwrap().to_string_lossy();
        assert!(table.contains(&*name), "examples/README.md does not mention {name}");
    }
}

#[test]
fn the_changelog_has_a_section_for_what_comes() {
    assert!(read("CHANGELOG.md").contains("## Unreleased"));
}

#[test]
fn every_cell_about_another_tool_names_where_it_can_be_checked() {
    let readme = read("README.md");
    let table = readme.split("## Beside other tools").nth(1).expect("the table").split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        for cell in row.trim_matches('|').split(" | ").skip(1) {
            let cell = cell.trim();
            let target = cell.strip_prefix('[').and_then(|cell| cell.rsplit_once(']').map(|_| cell));
            assert!(target.is_some() || cell.ends_with(')'), "no link: {cell}");
            if let Some((_, path)) = cell.strip_suffix(')').and_then(|cell| cell.rsplit_once("](")) {
                assert!(path.starts_with('#') || tool::repository().join(path).exists(), "{path} is not there");
            } else if let Some((_, name)) = cell.strip_suffix(']').and_then(|cell| cell.rsplit_once('[')) {
                assert!(table.contains(&format!("\n[{name}]: https://")), "[{name}] has no address");
            }
        }
    }
}

/// All of them but the one that promises nothing.
#[test]
fn the_public_api_is_written_down_with_every_feature() {
    let manifest = read("Cargo.toml");
    let features = manifest.split("[features]").nth(1).unwrap().split("\n[").next().unwrap();
    let names = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let mut names: Vec<&str> = names.filter(|name| !["default", "testing"].contains(name)).collect();
    names.sort_unstable();
    let wanted = format!("readonly features={}\n", names.join(","));
    assert!(read("integration/public-api").contains(&wanted), "{wanted}");
    let items = read("integration/public-api.txt");
    assert!(items.lines().count() > 500 && !items.contains("vdstream::testing"), "{} lines", items.lines().count());
}

#[test]
fn the_restore_script_is_short_enough_to_be_read() {
    assert!(read("examples/restore.sh").lines().count() <= 60);
}
