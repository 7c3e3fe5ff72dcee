//! What is below a directory of a local store, a piece at a time.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::tree::{Tree, linked, open_whole};

/// An entry of a directory. Its name is below the root of the store.
#[derive(Debug)]
pub(super) enum Entry {
    Directory(String),
    File { name: String, bytes: u64, modified: SystemTime },
}

/// Goes through directories. A symbolic link is an error: what it leads to is not looked at, and not passed over in silence.
#[derive(Debug)]
pub(super) struct Walk {
    tree: Tree,
    /// It also goes through the directories that it finds.
    goes_down: bool,
    waiting: VecDeque<String>,
    open: Option<(String, Dir)>,
}

impl Walk {
    /// Through the directory `name`; if there is none, nothing is found.
    pub(super) fn of(tree: Tree, name: &str) -> Self {
        Self { tree, goes_down: false, waiting: VecDeque::from([name.to_owned()]), open: None }
    }

    /// And through all that are below it.
    pub(super) fn down(self) -> Self {
        Self { goes_down: true, ..self }
    }

    /// The next entries, at most `most`; none at the end.
    pub(super) fn some(&mut self, most: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while entries.len() < most {
            let Some((name, directory)) = &mut self.open else {
                let Some(next) = self.waiting.pop_back() else { break };
                self.open = self.directory(&next)?.map(|directory| (next, directory));
                continue;
            };
            match directory.read() {
                None => self.open = None,
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(found)) => {
                    let Some(entry) = look(&self.tree, name, directory, &found)? else { continue };
                    if let (Entry::Directory(below), true) = (&entry, self.goes_down) {
                        self.waiting.push_back(below.clone());
                    }
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    /// Opens a directory for reading. One that has gone since it was seen is nothing.
    fn directory(&self, name: &str) -> io::Result<Option<Dir>> {
        let opened = self.tree.directory(name).and_then(|directory| Ok(Dir::new(open_whole(&directory)?)?));
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// What `found` in `directory` is; nothing if it is gone, or neither a file nor a directory.
fn look(tree: &Tree, directory_name: &str, directory: &Dir, found: &rustix::fs::DirEntry) -> io::Result<Option<Entry>> {
    let last = found.file_name();
    if matches!(last.to_bytes(), b"." | b"..") {
        return Ok(None);
    }
    let Ok(text) = last.to_str() else {
        let path = tree.path(directory_name).join(PathBuf::from(last.to_string_lossy().into_owned()));
        let message = format!("{} has a name that is not UTF-8, and no object has such a name", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, message));
    };
    let name = if directory_name.is_empty() { text.to_owned() } else { format!("{directory_name}/{text}") };
    if found.file_type() == FileType::Directory {
        return Ok(Some(Entry::Directory(name)));
    }
    let stat = match rustix::fs::statat(directory.fd()?, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Err(linked(&tree.path(&name))),
        FileType::Directory => Ok(Some(Entry::Directory(name))),
        FileType::RegularFile => {
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            Ok(Some(Entry::File { name, bytes, modified: modified(&stat) }))
        }
        _ => Ok(None),
    }
}

fn modified(stat: &Stat) -> SystemTime {
    // A file may claim any time. Those of more than a hundred thousand years are not representable everywhere.
    let seconds = Duration::from_secs(stat.st_mtime.unsigned_abs().min(1 << 41));
    if stat.st_mtime < 0 {
        return UNIX_EPOCH - seconds;
    }
    UNIX_EPOCH + seconds + Duration::from_nanos(stat.st_mtime_nsec)
}
