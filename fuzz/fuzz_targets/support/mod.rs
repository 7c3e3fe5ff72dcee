//! Valid documents, changed where it hurts: what the fuzzers of documents have in common.

use vdstream::testing::decoder::{Document, sealed};

/// What a value is replaced by.
const VALUES: &[&str] = &[
    "0", "1", "-1", "255", "4096", "4097", "65535", "65536", "150001", "1000000", "4294967295", "4294967296",
    "18446744073709551615", "18446744073709551616", "1e400", "1.5", "null", "true", "[]", "{}", "\"\"", "\"a\"",
    "\"../../etc/passwd\"", "\"s00/000000.zst\"", "\"s63/000001.zst\"", "\"s00/../s00/000000.zst\"", "\"latest\"",
    "\"\\u0000\\u001b[2J\"", "\"zstd\"", "\"full\"", "\"good\"", "\"0-4294967295\"", "\"0-149999\"", "\"0,1,2\"",
    "\"018bcfe5-687b-7000-8000-000000000001\"", "\"1970-01-01T00:00:00Z\"", "\"-009999-01-01T00:00:00Z\"",
    "\"0000000000000000000000000000000000000000000000000000000000000000\"", "[[[[[[[[]]]]]]]]", "{\"a\":\"b\",\"a\":\"c\"}",
];

/// Decodes `input` as it is and with the seal it should have; or, if its first byte is odd, takes the rest as changes to a valid
/// document.
pub fn run(kind: Document, input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let document = if first % 2 == 0 { rest.to_vec() } else { changed(kind, usize::from(first / 2), rest) };
    let _ = kind.decode(&document);
    let _ = kind.decode(&sealed(&document));
}

fn changed(kind: Document, which: usize, mut changes: &[u8]) -> Vec<u8> {
    let valid = kind.valid().expect("they are valid");
    let mut text = valid[which % valid.len()].clone();
    while let [change, at, rest @ ..] = changes {
        changes = rest;
        let ends = values(&text);
        if ends.is_empty() {
            break;
        }
        let (start, end) = ends[usize::from(*at) % ends.len()];
        match change % 6 {
            0 | 1 => {
                let value = VALUES[usize::from(change / 6) % VALUES.len()];
                text.splice(start..end, value.bytes());
            }
            // A number one larger or smaller.
            2 => text[end - 1] = text[end - 1].wrapping_add(if change / 6 % 2 == 0 { 1 } else { 255 }),
            // The value again as a further element.
            3 => {
                let mut again = vec![b','];
                again.extend_from_slice(&text[start..end]);
                let again = again.repeat(usize::from(change / 6) + 1);
                text.splice(end..end, again);
            }
            4 => drop(text.drain(start..end)),
            _ => {
                let (open, close) = (b"[".repeat(usize::from(*change)), b"]".repeat(usize::from(*change)));
                text.splice(end..end, close);
                text.splice(start..start, open);
            }
        }
    }
    text
}

/// Where the values of a document stand: what follows a colon, a bracket or a comma.
fn values(text: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    let mut is_text = false;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'"' => is_text = !is_text,
            b':' | b'[' if !is_text => start = Some(at + 1),
            b',' | b']' | b'}' if !is_text => {
                found.extend(start.take().filter(|start| *start < at).map(|start| (start, at)));
                start = (*byte == b',').then_some(at + 1);
            }
            _ => {}
        }
    }
    found
}
