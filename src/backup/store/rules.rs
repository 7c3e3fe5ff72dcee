//! What a bucket's own rules do, for which `object_store` has no call.

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;

/// Access to the rules of one bucket.
#[async_trait]
pub(crate) trait BucketRules: fmt::Debug + Send + Sync {
    /// True if all unfinished uploads below `prefix` are ended after a time.
    async fn ends_unfinished_uploads(&self, prefix: &str) -> Result<bool>;

    /// True if what is deleted stays as an older version.
    async fn keeps_versions(&self) -> Result<bool>;
}

/// Of a lifecycle configuration in S3's XML: is there an enabled rule that aborts all incomplete uploads below `prefix`?
#[cfg(any(feature = "aws", test))]
pub(super) fn aborts_uploads(configuration: &str, prefix: &str) -> bool {
    // What the names of all objects begin with: nothing, if the store is the whole bucket.
    let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let rules = configuration.split("<Rule>").skip(1).filter_map(|rule| rule.split("</Rule>").next());
    let mut enabled = rules.filter(|rule| rule.contains("<Status>Enabled</Status>"));
    enabled.any(|rule| {
        rule.contains("<AbortIncompleteMultipartUpload>") && !is_narrowed(rule) && below.starts_with(&rule_prefix(rule))
    })
}

/// Only some of the objects with its prefix meet a rule.
#[cfg(any(feature = "aws", test))]
fn is_narrowed(rule: &str) -> bool {
    ["<Tag>", "<ObjectSizeGreaterThan>", "<ObjectSizeLessThan>"].iter().any(|filter| rule.contains(filter))
}

/// What the objects of a rule begin with, wherever it stands: in the rule, in its filter, or among several.
#[cfg(any(feature = "aws", test))]
fn rule_prefix(rule: &str) -> String {
    let text = rule.split_once("<Prefix>").and_then(|(_, rest)| rest.split_once("</Prefix>"));
    let mut prefix = text.map_or("", |(prefix, _)| prefix).to_owned();
    for (entity, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
        prefix = prefix.replace(entity, character);
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABORT: &str =
        "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";

    #[test]
    fn only_an_enabled_rule_counts() {
        let rule = |status: &str, action: &str| format!("<Rule><ID>a</ID><Status>{status}</Status>{action}</Rule>");
        let (abort, aborts_uploads) = (ABORT, |configuration: &str| aborts_uploads(configuration, "prod"));
        let of = |rules: &[String]| format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat());
        assert!(aborts_uploads(&of(&[rule("Enabled", abort)])));
        assert!(aborts_uploads(&of(&[rule("Disabled", abort), rule("Enabled", abort)])));
        assert!(!aborts_uploads(&of(&[rule("Disabled", abort)])));
        assert!(!aborts_uploads(&of(&[rule("Disabled", abort), rule("Enabled", "<Expiration/>")])));
        assert!(!aborts_uploads(&of(&[])) && !aborts_uploads("") && !aborts_uploads("<Rule>"));
    }

    /// A rule for `logs/` says nothing about backups below `prod/`.
    #[test]
    fn only_a_rule_that_meets_everything_below_the_prefix_counts() {
        let meets = |filter: &str, prefix: &str| {
            aborts_uploads(&format!("<Rule>{filter}<Status>Enabled</Status>{ABORT}</Rule>"), prefix)
        };
        for everything in ["", "<Filter/>", "<Prefix/>", "<Prefix></Prefix>", "<Filter><Prefix></Prefix></Filter>"] {
            assert!(meets(everything, "prod") && meets(everything, ""), "{everything}");
        }
        for (rule, prefix, is_met) in [
            ("logs/", "prod", false),
            ("prod/", "prod", true),
            ("prod", "prod", true),
            ("pro", "prod/db", true),
            ("prod/", "prod/db", true),
            ("prod/db/default/", "prod/db", false),
            ("production/", "prod", false),
            ("prod/", "production", false),
            ("prod/", "", false),
            ("a&amp;amp;b/", "a&amp;b", true),
        ] {
            for filter in [
                format!("<Prefix>{rule}</Prefix>"),
                format!("<Filter><Prefix>{rule}</Prefix></Filter>"),
                format!("<Filter><And><Prefix>{rule}</Prefix></And></Filter>"),
            ] {
                assert_eq!(meets(&filter, prefix), is_met, "{filter} {prefix}");
            }
        }
        for narrow in ["<Tag><Key>a</Key><Value>b</Value></Tag>", "<ObjectSizeGreaterThan>1</ObjectSizeGreaterThan>"] {
            assert!(!meets(&format!("<Filter><And><Prefix>prod/</Prefix>{narrow}</And></Filter>"), "prod"), "{narrow}");
        }
    }
}
