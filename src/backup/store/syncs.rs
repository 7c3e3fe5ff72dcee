//! The syncs of a local store, and those that failed and are still to be made up for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sync::Mutex;

/// Syncs files and directories. Clones share what is owed.
///
/// A directory whose sync failed shows names that a crash may take away, and whoever comes next finds them there and has no
/// reason to sync it. So it is owed a sync, which whoever stores something below it, or removes it, makes up for first.
#[derive(Debug, Clone, Default)]
pub(super) struct Syncs {
    /// As many as had a sync that failed and are there still.
    owed: Arc<Mutex<BTreeSet<PathBuf>>>,
    #[cfg(test)]
    script: Arc<Script>,
}

impl Syncs {
    /// Makes the content of a file durable. After a failure nobody knows what the disk has of it, and another try on it may
    /// succeed all the same: the system tells of lost data once.
    pub(super) fn file(&self, file: &File, path: &Path) -> io::Result<()> {
        self.sync(file, path, File::sync_all)
    }

    /// Makes the bytes of a file durable, but not when it was changed. The same holds for a failure.
    pub(super) fn data(&self, file: &File, path: &Path) -> io::Result<()> {
        self.sync(file, path, File::sync_data)
    }

    /// Makes the entries of the directory `path` durable.
    pub(super) fn directory(&self, path: &Path, open: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        // A failure that comes while this one is on its way is not made up for by it.
        let was_owed = self.owed.lock().contains(path);
        let outcome = open().and_then(|directory| self.sync(&directory, path, File::sync_all));
        let is_gone = matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::NotFound);
        if outcome.is_ok() && was_owed || is_gone {
            self.owed.lock().remove(path);
        } else if outcome.is_err() {
            self.owed.lock().insert(path.to_owned());
        }
        outcome
    }

    /// The directories above `path` that are owed a sync.
    pub(super) fn owed_above(&self, path: &Path) -> Vec<PathBuf> {
        self.owed.lock().iter().filter(|owed| path.starts_with(owed)).cloned().collect()
    }

    fn sync(&self, file: &File, path: &Path, call: fn(&File) -> io::Result<()>) -> io::Result<()> {
        #[cfg(test)]
        self.script.ask(path)?;
        #[cfg(not(test))]
        let _path = path;
        call(file)
    }
}

#[cfg(test)]
pub(in crate::backup) use script::{Fails, Script};

/// Syncs that fail on purpose.
#[cfg(test)]
mod script {
    use super::*;

    /// Which syncs fail, by their number from 0 among those that the script is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::backup) enum Fails {
        Never,
        Once(usize),
        /// And all that come later, of anything.
        From(usize),
        /// And all later ones of the same file or directory.
        Always(usize),
    }

    pub(in crate::backup) struct Script {
        fails: Fails,
        is_about: Box<dyn Fn(&Path) -> bool + Send + Sync>,
        asked: Mutex<Vec<(PathBuf, bool)>>,
    }

    impl std::fmt::Debug for Script {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Script").field("fails", &self.fails).field("asked", &self.asked).finish_non_exhaustive()
        }
    }

    impl Default for Script {
        fn default() -> Self {
            Self::new(Fails::Never)
        }
    }

    impl Script {
        pub(in crate::backup) fn new(fails: Fails) -> Self {
            Self::about(fails, |_| true)
        }

        /// One that counts the syncs of some files and directories only.
        pub(in crate::backup) fn about(fails: Fails, is_about: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Self {
            Self { fails, is_about: Box::new(is_about), asked: Mutex::default() }
        }

        /// What was synced so far, in order, and whether that worked.
        pub(in crate::backup) fn asked(&self) -> Vec<(PathBuf, bool)> {
            self.asked.lock().clone()
        }

        pub(super) fn ask(&self, path: &Path) -> io::Result<()> {
            let mut asked = self.asked.lock();
            let is_it = |wanted| {
                (self.is_about)(path) && asked.iter().filter(|(before, _)| (self.is_about)(before)).count() == wanted
            };
            let mut failed = asked.iter().filter_map(|(before, is_good)| (!is_good).then_some(before));
            let fails = match self.fails {
                Fails::Never => false,
                Fails::Once(number) => is_it(number),
                Fails::From(number) => failed.next().is_some() || is_it(number),
                Fails::Always(number) => failed.any(|before| before == path) || is_it(number),
            };
            asked.push((path.to_owned(), !fails));
            const EIO: i32 = 5;
            if fails { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
        }
    }

    impl Syncs {
        pub(in crate::backup::store) fn scripted(script: &Arc<Script>) -> Self {
            Self { owed: Arc::default(), script: Arc::clone(script) }
        }
    }
}
