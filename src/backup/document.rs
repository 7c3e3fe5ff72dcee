//! The frame around every JSON document of a backup: kind, version, and a hash of all its bytes.
//!
//! A document is one line of JSON that starts with `format`, `version` and `minor` and ends with `document_hash`, the
//! BLAKE3 of every byte before that member. So a changed byte is found wherever it stands, also in members that this
//! version does not know, and any JSON tool can still read it.

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The major version that is written and read. Minor versions only add members, which older readers ignore.
pub(crate) const MAJOR: u32 = 1;
const MINOR: u32 = 0;

const HASH_MEMBER: &[u8] = br#","document_hash":""#;
const HASH_CHARS: usize = blake3::OUT_LEN * 2;
const END: &[u8] = b"\"}\n";
const TAIL_BYTES: usize = HASH_MEMBER.len() + HASH_CHARS + END.len();

/// Largest size of an intent or a record, in bytes.
pub(crate) const MAX_SMALL_BYTES: u64 = 1 << 20;
/// The most labels of one backup.
pub const MAX_LABELS: usize = 1024;
/// Of text that comes from a store, no more characters than this get into a message.
const MAX_SHOWN_CHARS: usize = 160;

/// The document of `body`, if it is no larger than a small document may be.
///
/// # Errors
///
/// `Invalid` if it is larger.
pub(crate) fn encode_small(format: &str, body: &impl Serialize) -> Result<Vec<u8>> {
    let bytes = encode(format, body)?;
    if bytes.len() as u64 <= MAX_SMALL_BYTES {
        return Ok(bytes);
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "the document {format} would have {} bytes, the limit is {MAX_SMALL_BYTES}: use fewer or shorter labels, or a shorter host name",
            bytes.len()
        ),
    ))
}

/// Reads a small document, as [`decode`] does.
pub(crate) fn decode_small<T: DeserializeOwned>(format: &str, bytes: &[u8], object: &str) -> Result<T> {
    if bytes.len() as u64 > MAX_SMALL_BYTES {
        return Err(corrupt_at(object, 0, "size", format!("at most {MAX_SMALL_BYTES} bytes"), bytes.len()));
    }
    decode(format, bytes, object)
}

/// The JSON document of `body` as kind `format`.
pub(crate) fn encode(format: &str, body: &impl Serialize) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Framed<'a, T> {
        format: &'a str,
        version: u32,
        minor: u32,
        #[serde(flatten)]
        body: &'a T,
    }
    let framed = Framed { format, version: MAJOR, minor: MINOR, body };
    let mut bytes = serde_json::to_vec(&framed).map_err(|error| {
        Error::new(ErrorKind::Internal, format!("the document {format} cannot be written")).with_source(error)
    })?;
    // The closing brace, written again after the hash.
    bytes.pop();
    close(&mut bytes);
    Ok(bytes)
}

fn close(bytes: &mut Vec<u8>) {
    let hash = blake3::hash(bytes);
    bytes.extend_from_slice(HASH_MEMBER);
    bytes.extend_from_slice(hash.to_hex().as_bytes());
    bytes.extend_from_slice(END);
}

/// For tests: a document with the hash that it should have, so that what is checked behind the hash is reached.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn seal(document: &[u8]) -> Vec<u8> {
    let body = match document.split_last_chunk::<TAIL_BYTES>() {
        Some((body, tail)) if tail.starts_with(HASH_MEMBER) => body,
        _ => document.strip_suffix(b"}").unwrap_or(document),
    };
    let mut bytes = body.to_vec();
    close(&mut bytes);
    bytes
}

/// Reads a document of kind `format` that `object` (a name to show) contains.
///
/// # Errors
///
/// `Corrupt` if it is not what was written, `Invalid` if it is and its major version is unknown.
pub(crate) fn decode<T: DeserializeOwned>(format: &str, bytes: &[u8], object: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    check_seal(bytes, object)?;
    let head: Head = parse(bytes, object)?;
    if head.format != format {
        return Err(corrupt_at(object, 0, "format", format, shown(&head.format, MAX_SHOWN_CHARS)));
    }
    if head.version != MAJOR {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "{object}, offset 0: format version: expected {MAJOR}, found version {}: a newer vdstream reads it",
                head.version
            ),
        ));
    }
    parse(bytes, object)
}

/// Checks that every byte is what was written. That is the same in every version, so that a damaged document is never taken
/// for one of a version to come.
fn check_seal(bytes: &[u8], object: &str) -> Result<()> {
    let Some((sealed, tail)) = bytes.split_last_chunk::<TAIL_BYTES>() else {
        return Err(corrupt_at(object, bytes.len(), "length", format!("at least {TAIL_BYTES} bytes"), bytes.len()));
    };
    let hash = tail.strip_prefix(HASH_MEMBER).and_then(|rest| rest.strip_suffix(END));
    let Some(found) = hash.and_then(|hash| std::str::from_utf8(hash).ok()) else {
        let range = format!("{} to {}", sealed.len(), bytes.len());
        let found = shown(&String::from_utf8_lossy(tail), TAIL_BYTES);
        return Err(corrupt_at(object, range, "end", "the document hash", found));
    };
    let expected = blake3::hash(sealed).to_hex();
    if found == expected.as_str() {
        return Ok(());
    }
    // It covers all that stands before it, so that is where the damage may be, or in itself.
    Err(corrupt_at(object, format!("0 to {}", bytes.len()), "document hash", expected, shown(found, HASH_CHARS)))
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], object: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        // Documents are one line, so its column is the offset.
        let offset = error.column().saturating_sub(1);
        corrupt_at(
            object,
            offset,
            "JSON",
            "a document that vdstream writes",
            shown(&error.to_string(), MAX_SHOWN_CHARS),
        )
    })
}

/// `text` as it may stand in a message: without control characters, and of `chars` characters at most.
pub(crate) fn shown(text: &str, chars: usize) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == chars {
            out.push('…');
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// An error about a document's byte at `offset`, or from one to another: object, what of it, expected and found.
pub(crate) fn corrupt_at(
    object: &str,
    offset: impl std::fmt::Display,
    what: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{object}, offset {offset}: {what}: expected {expected}, found {found}"))
}

/// An error about a member of a document whose every byte is what its writer meant: object, what of it, expected and found.
pub(crate) fn corrupt(
    object: &str,
    what: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    found: impl std::fmt::Display,
) -> Error {
    // Where the member stands is not known any more; the document is one line that begins here.
    corrupt_at(object, 0, what, expected, found)
}

/// A sequence whose elements weigh `most` together at most; of a longer one no more is read. What a few bytes of JSON stand for may
/// be larger in memory, so to count when everything has been decoded would be too late.
pub(crate) fn bounded<'de, D, T>(
    deserializer: D,
    what: &'static str,
    most: usize,
    weigh: fn(&T) -> usize,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T> {
        what: &'static str,
        most: usize,
        weigh: fn(&T) -> usize,
    }
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {} {}", self.most, self.what)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
            let (mut found, mut weight) = (Vec::new(), 0usize);
            while let Some(element) = access.next_element()? {
                weight = weight.saturating_add((self.weigh)(&element));
                if weight > self.most {
                    return Err(serde::de::Error::custom(format_args!("more than {} {}", self.most, self.what)));
                }
                found.push(element);
            }
            Ok(found)
        }
    }
    deserializer.deserialize_seq(Bounded { what, most, weigh })
}

/// A map of [`MAX_LABELS`] strings at most that has each key once; plain maps keep the last of several.
pub(crate) fn unique_map<'de, D>(deserializer: D) -> Result<std::collections::BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = std::collections::BTreeMap<String, String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of strings with each key once")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = Self::Value::new();
            while let Some(key) = access.next_key::<String>()? {
                if map.len() == MAX_LABELS {
                    return Err(serde::de::Error::custom(format_args!("more than {MAX_LABELS} labels")));
                }
                if map.contains_key(&key) {
                    access.next_value::<IgnoredAny>()?;
                    return Err(serde::de::Error::custom("a key stands twice"));
                }
                let value = access.next_value()?;
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Body {
        name: String,
        count: u64,
    }

    fn body() -> Body {
        Body { name: "a\"}\n".to_owned(), count: u64::MAX }
    }

    #[test]
    fn a_document_is_json_with_its_own_hash() {
        let bytes = encode("test", &body()).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["format"], "test");
        assert_eq!(value["version"], 1);
        assert_eq!(decode::<Body>("test", &bytes, "x").unwrap(), body());
        assert_eq!(decode::<Body>("other", &bytes, "x").unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn every_changed_missing_or_added_byte_is_found() {
        let bytes = encode("test", &body()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                // Never `Invalid`, which is what a document of a newer version is: readers may pass over those.
                let error = decode::<Body>("test", &changed, "x").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at} bit {bit}: {error}");
            }
            assert!(decode::<Body>("test", &bytes[..at], "x").is_err(), "cut at {at}");
        }
        for added in [&b" "[..], b"\n", b"{}", b"\0"] {
            assert!(decode::<Body>("test", &[&bytes[..], added].concat(), "x").is_err());
        }
    }

    #[test]
    fn members_of_a_newer_minor_version_are_ignored_and_a_newer_major_is_refused() {
        #[derive(Serialize)]
        struct Newer {
            name: &'static str,
            count: u64,
            added: Vec<u8>,
        }
        let bytes = encode("test", &Newer { name: "n", count: 1, added: vec![1] }).unwrap();
        assert_eq!(decode::<Body>("test", &bytes, "x").unwrap(), Body { name: "n".to_owned(), count: 1 });
        let text = String::from_utf8(bytes).unwrap().replace("\"version\":1", "\"version\":2");
        assert_eq!(decode::<Body>("test", text.as_bytes(), "x").unwrap_err().kind(), ErrorKind::Corrupt, "not sealed");
        let error = decode::<Body>("test", &seal(text.as_bytes()), "x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("version 2"), "{error}");
    }
}
