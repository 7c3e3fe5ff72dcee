//! What an object is put with: its storage class and its tags.

use object_store::{Attribute, Attributes, PutMode, PutMultipartOptions, PutOptions, TagSet};

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use super::environment::Environment;
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
use crate::error::{Error, ErrorKind, Result};

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const CLASS: &str = "VDSTREAM_STORAGE_CLASS";
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const TAGS: &str = "VDSTREAM_TAGS";
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const ENCRYPTION: &str = "AWS_SERVER_SIDE_ENCRYPTION";
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
const SERVICE_KEY: &str = "AWS_SSE_KMS_KEY_ID";

/// What is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Backed up data. Most of the bytes, and read by a restore only.
    Data,
    /// A manifest, an intent, a record: small, read whenever backups are listed, so always of the bucket's own class.
    Document,
}

/// What the user wants of each object of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Demands {
    /// Of data; in the words of the store.
    pub(super) class: Option<String>,
    /// Of every object.
    pub(super) tags: Vec<(String, String)>,
    /// The store encrypts every object with a key of its key service, which asks for permissions of its own.
    pub(super) service_key: bool,
}

impl Demands {
    /// What the environment says. `knows`: of class and tags, what this kind of store can do.
    #[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
    pub(super) fn of(environment: &Environment, label: &str, knows: Knows) -> Result<Self> {
        let class = environment.value(CLASS).map(str::to_owned);
        let mut tags = Vec::new();
        for pair in environment.value(TAGS).unwrap_or_default().split(',').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{TAGS} is not a list of KEY=VALUE, divided by commas"),
                ));
            };
            tags.push((key.trim().to_owned(), value.trim().to_owned()));
        }
        let is_s3 = matches!(knows, Knows::Both);
        let by_service = environment.value(ENCRYPTION).is_some_and(|way| way.starts_with("aws:kms"));
        let service_key = is_s3 && (by_service || environment.value(SERVICE_KEY).is_some());
        let refused = match (knows, &class, tags.is_empty()) {
            (Knows::Nothing, Some(_), _) => Some(CLASS),
            (Knows::Nothing | Knows::Class, _, false) => Some(TAGS),
            _ => None,
        };
        match refused {
            Some(variable) => Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "{variable} is set, which {label} cannot be given; use the defaults and rules of the account or the bucket"
                ),
            )),
            None => Ok(Self { class, tags, service_key }),
        }
    }

    pub(super) fn put(&self, mode: PutMode, content: Content) -> PutOptions {
        PutOptions { attributes: self.attributes(content), tags: self.tag_set(), ..PutOptions::from(mode) }
    }

    /// Of an upload in parts, which is data.
    pub(super) fn upload(&self) -> PutMultipartOptions {
        let (attributes, tags) = (self.attributes(Content::Data), self.tag_set());
        PutMultipartOptions { attributes, tags, ..PutMultipartOptions::default() }
    }

    fn attributes(&self, content: Content) -> Attributes {
        let mut attributes = Attributes::new();
        if let (Some(class), Content::Data) = (&self.class, content) {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    fn tag_set(&self) -> TagSet {
        let mut tags = TagSet::default();
        for (key, value) in &self.tags {
            tags.push(key, value);
        }
        tags
    }
}

/// What a kind of store can be given with each object, parts included.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
#[cfg_attr(
    not(all(feature = "aws", feature = "azure", feature = "gcp")),
    expect(dead_code, reason = "each kind of store makes one of them")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Knows {
    /// Azure.
    Nothing,
    /// Google.
    Class,
    /// S3.
    Both,
}

#[cfg(all(test, feature = "aws", feature = "azure", feature = "gcp"))]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)], knows: Knows) -> Result<Demands> {
        Demands::of(&Environment::of(pairs), "a store", knows)
    }

    #[test]
    fn data_has_a_class_and_everything_has_tags() {
        let both = [(CLASS, "STANDARD_IA"), (TAGS, "team=dba, cost=a b")];
        let demands = of(&both, Knows::Both).unwrap();
        let data = demands.put(PutMode::Create, Content::Data);
        assert_eq!(data.attributes.get(&Attribute::StorageClass).map(AsRef::as_ref), Some("STANDARD_IA"));
        assert_eq!(data.mode, PutMode::Create);
        let document = demands.put(PutMode::Create, Content::Document);
        assert!(document.attributes.is_empty(), "a manifest must be there at once");
        for tags in [data.tags, document.tags, demands.upload().tags] {
            assert_eq!(tags.encoded(), "team=dba&cost=a+b");
        }
        let nothing = Demands::default().upload();
        assert!(nothing.attributes.is_empty() && nothing.tags.is_empty());
    }

    #[test]
    fn a_key_of_the_key_service_is_one_of_amazons() {
        let has_key = |pairs: &[(&str, &str)], knows| of(pairs, knows).unwrap().service_key;
        for (pair, expected) in [
            ((ENCRYPTION, "aws:kms"), true),
            ((ENCRYPTION, "aws:kms:dsse"), true),
            ((SERVICE_KEY, "arn:aws:kms:x"), true),
            ((ENCRYPTION, "AES256"), false),
            ((ENCRYPTION, "sse-c"), false),
        ] {
            assert_eq!(has_key(&[pair], Knows::Both), expected, "{pair:?}");
            assert!(!has_key(&[pair], Knows::Class) && !has_key(&[pair], Knows::Nothing), "{pair:?}");
        }
    }

    #[test]
    fn what_a_store_cannot_do_is_refused_and_not_ignored() {
        for (pair, knows) in
            [((CLASS, "Cool"), Knows::Nothing), ((TAGS, "a=b"), Knows::Nothing), ((TAGS, "a=b"), Knows::Class)]
        {
            let error = of(&[pair], knows).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(pair.0), "{error}");
        }
        of(&[(CLASS, "NEARLINE")], Knows::Class).unwrap();
        for broken in ["a", "=b", "a=b,c"] {
            assert!(of(&[(TAGS, broken)], Knows::Both).is_err(), "{broken}");
        }
    }
}
