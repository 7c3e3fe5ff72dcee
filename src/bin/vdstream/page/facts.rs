//! What a page tells.

use vdstream::backup::{Backup, BackupId, Course, Manifest, Verification};
use vdstream::pipeline::{Progress, StripeProgress};

use crate::output;

/// What a page tells.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The store, as any command line can name it. A URL that was refused may hold a secret and is none for a page.
    pub(crate) url: &'a str,
    pub(crate) series: &'a str,
    pub(crate) story: Story<'a>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Story<'a> {
    Committed {
        manifest: &'a Manifest,
        verifications: &'a [Verification],
        /// There are records of verifications that cannot be used.
        has_unread: bool,
    },
    Failed {
        attempt: &'a Attempt,
        why: &'a str,
    },
}

/// What is known of a backup that does not come to its end.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// The same, once it was accepted.
    pub(crate) url: Option<String>,
    pub(crate) id: Option<BackupId>,
    pub(crate) course: Option<Course>,
    pub(crate) stripes: Vec<StripeProgress>,
    /// It failed when there was, or may have been, a manifest.
    pub(crate) may_be_committed: bool,
}

impl Attempt {
    pub(crate) fn begun(&mut self, backup: &Backup) {
        self.id = Some(backup.id());
    }

    pub(crate) fn moved(&mut self, progress: &Progress, elapsed: std::time::Duration, threads: usize) {
        self.course = Some(Course::new(progress, elapsed, threads));
        self.stripes.clone_from(&progress.stripes);
    }
}

/// The command that brings a backup back.
pub(crate) fn restore_command(url: &str, manifest: &Manifest) -> String {
    let (url, id) = (output::shell_word(url), manifest.id);
    let series = match manifest.series.as_str() {
        "default" => String::new(),
        other => format!(" --series {}", output::shell_word(other)),
    };
    let outputs: String = match manifest.stripes.len() {
        1 => " --output FILE".to_owned(),
        stripes => (0..stripes).map(|stripe| format!(" --output FILE{stripe}")).collect(),
    };
    let key = match &manifest.encryption {
        // A passphrase is asked for.
        Some(encryption) if encryption.identity.is_none() => " --identity KEYFILE",
        _ => "",
    };
    format!("vdstream restore {url} {id}{series}{key}{outputs}")
}
