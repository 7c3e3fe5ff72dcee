//! The only place that prints: documents on stdout, words for people on stderr.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints; the library never does")]

use std::borrow::Cow;
use std::io::{self, Write as _};

use serde::Serialize;
use vdstream::{Error, ErrorKind};

use crate::exit::Failure;

/// What a person has to know who deletes in a bucket that forgets nothing: a line below the report.
pub(crate) const KEEPS_VERSIONS: &str =
    "\nthe bucket keeps versions: what is deleted is hidden, and goes when the bucket's own rules remove old versions";

/// Prints one JSON document on stdout.
pub(crate) fn json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Error::new(ErrorKind::Internal, "cannot encode the document").with_source(error))?;
    line(&text)
}

/// Prints a line on stdout. A reader that went away is [`Failure::Pipe`], not a panic.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Pipe,
        _ => Error::from(error).context("cannot write to stdout").into(),
    })
}

/// Prints one JSON line on stderr, for programs that follow the progress.
pub(crate) fn event(event: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(event) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}

/// Says something on stderr; a closed stderr is not worth failing for.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "vdstream: {}", printable(text));
}

/// `text` as it may reach a terminal. What a store holds was written by others: control characters could move the cursor,
/// change the title or hide text, and so could marks that turn the direction of writing. They are shown as escapes.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A size as people read it, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "for people; three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1 stripe`, `2 stripes`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {what}{ending}")
}

/// `text` as one word of a POSIX shell.
pub(crate) fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.,_+-=@%".contains(c);
    // A leading `-` would be an option, quoted or not, so it is left for the command to refuse.
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Rows under a header, columns padded to their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_commands_a_terminal_is_printed() {
        let hostile = "a\u{1b}]0;x\u{7}\n\r\u{9b}2J\u{202e}\u{7f}é";
        assert_eq!(printable(hostile), "a\\u{1b}]0;x\\u{7}\\n\\r\\u{9b}2J\\u{202e}\\u{7f}é");
        assert_eq!(table(&[vec![hostile.to_owned(), "b".to_owned()]]).lines().count(), 1);
        assert!(matches!(printable("plain, ünd weiter"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_word_reaches_a_shell_as_it_was() {
        for text in
            ["", "a", "/tmp/x y", "it's", "$(rm)", "s3://b/p-1_2.3", "a\nb", "*", "~", "ü", "#", "a;b", "\\", "'"]
        {
            let script = format!("printf %s {}", shell_word(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
        assert_eq!(shell_word("s3://b/p"), "s3://b/p");
    }

    #[test]
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|count| plural(count, "stripe")), ["0 stripes", "1 stripe", "2 stripes"]);
    }

    #[test]
    fn sizes_are_printed_in_binary_units() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (u64::MAX, "16777216.0 TiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
