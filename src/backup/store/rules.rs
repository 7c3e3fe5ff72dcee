//! What a bucket's own rules do, for which `object_store` has no call.

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;

/// Access to the rules of one bucket.
#[async_trait]
pub(crate) trait BucketRules: fmt::Debug + Send + Sync {
    /// True if unfinished uploads are ended after a time.
    async fn ends_unfinished_uploads(&self) -> Result<bool>;

    /// True if what is deleted stays as an older version.
    async fn keeps_versions(&self) -> Result<bool>;
}

/// Of a lifecycle configuration in S3's XML: is there an enabled rule that aborts incomplete uploads?
#[cfg(any(feature = "aws", test))]
pub(super) fn aborts_uploads(configuration: &str) -> bool {
    let rules = configuration.split("<Rule>").skip(1).filter_map(|rule| rule.split("</Rule>").next());
    let mut enabled = rules.filter(|rule| rule.contains("<Status>Enabled</Status>"));
    enabled.any(|rule| rule.contains("<AbortIncompleteMultipartUpload>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_enabled_rule_counts() {
        let rule = |status: &str, action: &str| format!("<Rule><ID>a</ID><Status>{status}</Status>{action}</Rule>");
        let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
        let of = |rules: &[String]| format!("<LifecycleConfiguration>{}</LifecycleConfiguration>", rules.concat());
        assert!(aborts_uploads(&of(&[rule("Enabled", abort)])));
        assert!(aborts_uploads(&of(&[rule("Disabled", abort), rule("Enabled", abort)])));
        assert!(!aborts_uploads(&of(&[rule("Disabled", abort)])));
        assert!(!aborts_uploads(&of(&[rule("Disabled", abort), rule("Enabled", "<Expiration/>")])));
        assert!(!aborts_uploads(&of(&[])) && !aborts_uploads("") && !aborts_uploads("<Rule>"));
    }
}
