//! Tells when two paths are one file, so that no stripe is read or written twice by mistake, and when a path is stdout.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use vdstream::{Error, ErrorKind, Result};

/// What a path stands for: an existing file, or a name in a directory.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    File {
        device: u64,
        inode: u64,
    },
    Name {
        device: u64,
        inode: u64,
        name: std::ffi::OsString,
    },
    /// Any number of stripes may share a character device: `/dev/null`, `/dev/zero`.
    Shared,
    /// Nothing that can be compared; opening it will say why.
    Unknown,
}

/// Fails if two of `paths` are the same file, FIFO or block device, however they are written. `what` is `input` or `output`.
pub(crate) async fn refuse_twice(what: &str, paths: &[PathBuf]) -> Result<()> {
    let mut seen: Vec<(Identity, &Path)> = Vec::new();
    for path in paths {
        let identity = identity(path).await;
        if !matches!(identity, Identity::Shared | Identity::Unknown)
            && let Some((_, first)) = seen.iter().find(|(other, _)| *other == identity)
        {
            let (first, second) = (first.display(), path.display());
            let message = match first.to_string() == second.to_string() {
                true => format!("{what} {first} is given twice: each stripe needs its own"),
                false => format!("{what} {first} and {second} are the same: each stripe needs its own"),
            };
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        seen.push((identity, path));
    }
    Ok(())
}

/// Whether `path` is where stdout goes: `-`, `/dev/stdout`, or what a shell has opened for it. Such a file is written where it stands,
/// not replaced: its beginning may be somebody else's.
pub(crate) async fn is_stdout(path: &Path) -> bool {
    if path.as_os_str() == "-" {
        return true;
    }
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| File::from(stdout).metadata());
    match (stdout, tokio::fs::metadata(path).await) {
        (Ok(stdout), Ok(found)) => (found.dev(), found.ino()) == (stdout.dev(), stdout.ino()),
        _ => false,
    }
}

async fn identity(path: &Path) -> Identity {
    if let Ok(found) = tokio::fs::metadata(path).await {
        return match found.file_type().is_char_device() {
            true => Identity::Shared,
            false => Identity::File { device: found.dev(), inode: found.ino() },
        };
    }
    let Some(name) = path.file_name() else { return Identity::Unknown };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match tokio::fs::metadata(parent).await {
        Ok(parent) => Identity::Name { device: parent.dev(), inode: parent.ino(), name: name.to_owned() },
        Err(_missing) => Identity::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_file_is_found_under_all_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a"), b"").unwrap();
        std::fs::write(at("b"), b"").unwrap();
        std::fs::hard_link(at("a"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("symlink")).unwrap();
        std::fs::create_dir(at("d")).unwrap();
        let check = async |paths: &[PathBuf]| refuse_twice("input", paths).await;
        for same in [["a", "a"], ["a", "./a"], ["a", "d/../a"], ["a", "link"], ["symlink", "a"], ["new", "./new"]] {
            let error = check(&same.map(at)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{same:?}");
        }
        for differ in [["a", "b"], ["new", "other"], ["new", "d/new"], ["none/x", "none/x"]] {
            check(&differ.map(at)).await.unwrap();
        }
        check(&["/dev/null", "/dev/null", "/dev/zero"].map(PathBuf::from)).await.unwrap();
        check(&[]).await.unwrap();
    }
}
