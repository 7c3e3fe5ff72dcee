//! The directory of a hub: one socket per device set, found by its name.
//!
//! The directory itself is locked (`flock`) while a socket is made, replaced or removed, so that two processes that start at
//! once do not take each other's name. The kernel releases the lock with the process that held it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat, chmodat, flock, fstat, mkdirat, openat,
    readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with};

/// An open directory of sockets.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: OwnedFd,
}

/// What stands under a name.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A socket on which nobody listens: its process died.
    Stale,
    Listening(UnixStream, Entry),
}

/// Which file stands under a name: one that is made later under the same name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    inode: u64,
    /// Numbers of files are used again, so the time counts too.
    made: (i64, i64),
}

impl Entry {
    fn of(stat: &Stat) -> Self {
        // Types of these fields differ between architectures.
        #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)]
        let made = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
        Self { inode: stat.st_ino, made }
    }
}

impl Directory {
    /// Opens the directory, and makes it with mode 0700 if there is none.
    ///
    /// Unless `is_open_to_others`, it must belong to this user and be closed to all others.
    pub(crate) fn open(path: &Path, is_open_to_others: bool) -> io::Result<Self> {
        match mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&file)?;
        let user = rustix::process::geteuid().as_raw();
        let foreign = Mode::RWXG | Mode::RWXO;
        if !is_open_to_others && (stat.st_uid != user || Mode::from_raw_mode(stat.st_mode).intersects(foreign)) {
            let message = format!(
                "{} must belong to user {user} and be closed to others (mode 0700); it belongs to user {} and has mode {:o}",
                path.display(),
                stat.st_uid,
                stat.st_mode & 0o7777
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a listening socket. `None` if the name is in use; a stale socket is replaced.
    pub(crate) fn bind(&self, name: &str, is_open_to_others: bool) -> io::Result<Option<UnixListener>> {
        let stem = stem(name);
        let _lock = self.lock()?;
        match self.find_stem(&stem)? {
            Found::Listening(..) => return Ok(None),
            Found::Stale => self.unlink(&stem)?,
            Found::Nothing => {}
        }
        let listener = new_socket()?;
        bind(&listener, &self.address(&socket_file(&stem))?)?;
        let made = self.finish_bind(name, &stem, &listener, is_open_to_others);
        made.inspect_err(|_first| {
            // The first failure is the one to tell.
            let _second = self.unlink(&stem);
        })?;
        Ok(Some(listener.into()))
    }

    fn finish_bind(&self, name: &str, stem: &str, listener: &OwnedFd, is_open_to_others: bool) -> io::Result<()> {
        // Who may connect is checked at each connection; the mode must only not depend on the umask.
        let mode = if is_open_to_others { 0o666 } else { 0o600 };
        self.set_mode(&socket_file(stem), Mode::from_raw_mode(mode))?;
        if is_hashed(stem) {
            symlinkat(name, &self.file, name_file(stem))?;
        }
        Ok(listen(listener, BACKLOG)?)
    }

    /// Sets the mode of the socket itself: whoever else may write here could have put a link in its place.
    fn set_mode(&self, file: &OsStr, mode: Mode) -> io::Result<()> {
        let socket = openat(&self.file, file, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the socket was replaced while it was made"));
        }
        Ok(chmodat(CWD, own_path(&socket), mode, AtFlags::empty())?)
    }

    /// Connects to a name.
    pub(crate) fn find(&self, name: &str) -> io::Result<Found> {
        self.find_stem(&stem(name))
    }

    fn find_stem(&self, stem: &str) -> io::Result<Found> {
        let entry = match statat(&self.file, socket_file(stem), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => Entry::of(&stat),
            Ok(_other) => {
                let path = self.path.join(socket_file(stem));
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} is not a socket", path.display()),
                ));
            }
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let socket = new_socket()?;
        match connect(&socket, &self.address(&socket_file(stem))?) {
            Ok(()) => Ok(Found::Listening(socket.into(), entry)),
            Err(Errno::CONNREFUSED) => Ok(Found::Stale),
            Err(Errno::NOENT) => Ok(Found::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Removes a name whose listening socket the caller still holds: as long as it does, nobody else has taken the name.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let _lock = self.lock()?;
        self.unlink(&stem(name))
    }

    /// Removes what a process that died has left of a name. False as long as `found` is there and somebody listens.
    pub(crate) fn remove_stale(&self, name: &str, found: Entry) -> io::Result<bool> {
        let stem = stem(name);
        let _lock = self.lock()?;
        match statat(&self.file, socket_file(&stem), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if Entry::of(&stat) == found => {}
            Ok(_others) => return Ok(true),
            Err(Errno::NOENT) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
        match self.find_stem(&stem)? {
            Found::Stale => self.unlink(&stem).map(|()| true),
            Found::Nothing => Ok(true),
            Found::Listening(..) => Ok(false),
        }
    }

    /// The names on which somebody listens, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.file)? {
            let entry = entry?;
            let file = OsStr::from_bytes(entry.file_name().to_bytes());
            let Some(stem) = file.to_str().and_then(|file| file.strip_suffix(SUFFIX)) else { continue };
            // A set that ends while this looks is not there any more.
            if let Ok(Found::Listening(..)) = self.find_stem(stem)
                && let Some(name) = self.name(stem)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn name(&self, stem: &str) -> Option<String> {
        if is_hashed(stem) {
            return readlinkat(&self.file, name_file(stem), Vec::new()).ok()?.into_string().ok();
        }
        unescape(stem)
    }

    fn unlink(&self, stem: &str) -> io::Result<()> {
        let ignore_missing = |result: Result<(), Errno>| match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        };
        if is_hashed(stem) {
            ignore_missing(unlinkat(&self.file, name_file(stem), AtFlags::empty()))?;
        }
        ignore_missing(unlinkat(&self.file, socket_file(stem), AtFlags::empty()))
    }

    /// A socket's address is at most 107 bytes long, so it goes by the directory's descriptor whatever the path is.
    fn address(&self, file: &OsStr) -> io::Result<SocketAddrUnix> {
        Ok(SocketAddrUnix::new(own_path(&self.file).join(file))?)
    }

    /// Sections under the lock are a few system calls, so a lock that stays taken is held by a process that was stopped.
    fn lock(&self) -> io::Result<OwnedFd> {
        // An open file of its own: the lock ends when it is closed.
        let file = openat(&self.file, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..LOCK_TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::WOULDBLOCK) => pause(),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} is locked by another process", self.path.display())))
    }
}

/// A moment without the lock: the calls here are not async, and wait for a few system calls of another process.
fn pause() {
    let _interrupted = rustix::thread::nanosleep(&rustix::fs::Timespec { tv_sec: 0, tv_nsec: 1_000_000 });
}

/// A path to an open file, whatever its name is.
fn own_path(file: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The file name of a set, without its suffix: the name itself where it can be one, else with a hash.
fn stem(name: &str) -> String {
    let mut stem = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            stem.push(byte.into());
        } else {
            stem.push_str(&format!("%{byte:02x}"));
        }
    }
    if stem.len() <= MAX_STEM {
        return stem;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}~{}", &stem[..READABLE], &hash[..32])
}

fn unescape(stem: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = stem.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn is_hashed(stem: &str) -> bool {
    stem.contains('~')
}

fn socket_file(stem: &str) -> OsString {
    format!("{stem}{SUFFIX}").into()
}

/// A link that leads nowhere and whose target is the name.
fn name_file(stem: &str) -> OsString {
    format!("{stem}.name").into()
}

const SUFFIX: &str = ".set";
/// With the descriptor's path before and the suffix behind it, an address stays below 107 bytes.
const MAX_STEM: usize = 72;
const READABLE: usize = 39;
const BACKLOG: i32 = 16;
/// One second.
const LOCK_TRIES: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Directory) {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(&root.path().join("hub"), false).unwrap();
        (root, directory)
    }

    fn entry(directory: &Directory, name: &str) -> Entry {
        let Found::Listening(_, entry) = directory.find(name).unwrap() else { unreachable!("somebody listens") };
        entry
    }

    fn files(directory: &Directory) -> usize {
        std::fs::read_dir(directory.path()).unwrap().count()
    }

    #[test]
    fn every_name_is_found_and_listed_and_leaves_nothing() {
        let (_root, directory) = directory();
        let long = "x".repeat(200);
        let names =
            ["nightly", "a/b", "..", "größe", "100%", "a b\n", ".hidden", "%41", &"/".repeat(200), &long, &long[1..]];
        let made: Vec<_> = names.iter().map(|name| directory.bind(name, false).unwrap().unwrap()).collect();
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        assert_eq!(directory.names().unwrap(), sorted);
        for name in names {
            assert!(matches!(directory.find(name).unwrap(), Found::Listening(..)));
            directory.remove(name).unwrap();
        }
        drop(made);
        assert_eq!(files(&directory), 0);
    }

    #[test]
    fn a_name_is_taken_once_and_a_stale_socket_is_replaced() {
        let (_root, directory) = directory();
        for name in ["set", &"x".repeat(150)] {
            let listener = directory.bind(name, false).unwrap().unwrap();
            let first = entry(&directory, name);
            assert!(!directory.remove_stale(name, first).unwrap());
            assert!(directory.bind(name, false).unwrap().is_none());
            // As the kernel closes it for a process that is killed: the file stays.
            drop(listener);
            assert!(matches!(directory.find(name).unwrap(), Found::Stale));
            assert_eq!(directory.names().unwrap(), Vec::<String>::new());
            let listener = directory.bind(name, false).unwrap().unwrap();
            let second = entry(&directory, name);
            drop(listener);
            let before = files(&directory);
            assert!(directory.remove_stale(name, first).unwrap());
            assert_eq!(files(&directory), before, "what another process has made is its own");
            assert!(directory.remove_stale(name, second).unwrap());
            assert_eq!(files(&directory), 0);
        }
    }

    #[test]
    fn of_many_that_start_at_once_one_gets_the_name() {
        let (_root, directory) = directory();
        for _ in 0..20 {
            drop(directory.bind("set", false).unwrap().unwrap());
            let winners: Vec<_> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..4).map(|_| scope.spawn(|| directory.bind("set", false).unwrap())).collect();
                starters.into_iter().filter_map(|starter| starter.join().unwrap()).collect()
            });
            assert_eq!(winners.len(), 1);
            assert!(matches!(directory.find("set").unwrap(), Found::Listening(..)));
            directory.remove("set").unwrap();
        }
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("hub");
        Directory::open(&path, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
        for mode in [0o750, 0o701, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let refused = Directory::open(&path, false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            assert!(Directory::open(&path, true).is_ok(), "with a list of who may connect it is allowed");
        }
    }

    #[test]
    fn a_link_is_judged_by_the_directory_that_it_leads_to() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(Directory::open(&link, false).is_err(), "nothing is made at its end");
        std::fs::create_dir(&real).unwrap();
        for (mode, is_closed) in [(0o755, false), (0o700, true)] {
            std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Directory::open(&link, false).is_ok(), is_closed);
        }
    }

    /// In a directory that others can write to, a link could be put in the place of a socket that was just made.
    #[test]
    fn a_link_in_the_place_of_a_socket_leads_nowhere() {
        use std::os::unix::fs::PermissionsExt as _;
        let (root, directory) = directory();
        let document = root.path().join("document");
        std::fs::write(&document, "private").unwrap();
        std::fs::set_permissions(&document, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&document, directory.path().join("set.set")).unwrap();
        assert!(directory.set_mode(&socket_file("set"), Mode::from_raw_mode(0o666)).is_err());
        assert_eq!(std::fs::metadata(&document).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(directory.find("set").is_err());
        assert!(directory.bind("set", false).is_err());
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let (_root, directory) = directory();
        std::fs::write(directory.path().join("set.set"), "a document").unwrap();
        assert!(directory.bind("set", false).is_err());
        assert_eq!(files(&directory), 1);
    }
}
