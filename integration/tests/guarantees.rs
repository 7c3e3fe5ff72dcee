//! The manual's page of promises names tests; each of them exists.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::unwrap_used)]

use std::fs;

use integration::tool;

/// Pairs of a file and a test in it: `file.rs`: `name`.
fn named(page: &str) -> Vec<(&str, &str)> {
    let quoted: Vec<_> = page.split('`').skip(1).step_by(2).zip(page.split('`').skip(2).step_by(2)).collect();
    let pairs = quoted.iter().zip(quoted.iter().skip(1));
    let named = pairs.filter(|((file, between), _)| file.ends_with(".rs") && *between == ": ");
    named.map(|((file, _), (test, _))| (*file, *test)).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let page = fs::read_to_string(tool::repository().join("src/manual/guarantees.md")).unwrap();
    let named = named(&page);
    assert!(named.len() > 30, "the page is not read as it is written: {named:?}");
    for (file, test) in named {
        let source =
            fs::read_to_string(tool::repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let lines: Vec<_> = source.lines().map(str::trim).collect();
        let at = lines.iter().position(|line| line.contains(&format!("fn {test}(")));
        let at = at.unwrap_or_else(|| panic!("{file} has no `{test}`"));
        // An attribute may have parameters; comments may stand between.
        assert!(
            lines[at.saturating_sub(3)..at].iter().any(|line| line.contains("test")),
            "{file}: `{test}` is no test"
        );
    }
}

#[test]
fn every_row_of_the_page_names_a_test() {
    let page = fs::read_to_string(tool::repository().join("src/manual/guarantees.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    let rows = rows.filter(|line| !line.ends_with("| held by |"));
    for row in rows {
        assert!(!named(row).is_empty(), "no test holds this: {row}");
    }
}
