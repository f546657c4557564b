//! File operations below an open directory that never follow a link: the only way the store touches its trees.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directory that only we may enter.
pub(super) const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
/// Directory of a tree that is still written.
pub(super) const OPEN_DIRECTORY: Mode = Mode::from_raw_mode(0o755);
/// Directory of a published tree.
pub(super) const SEALED_DIRECTORY: Mode = Mode::from_raw_mode(0o555);
/// Deepest nesting that removal follows: a foreign tree below ours must not exhaust the stack.
const REMOVAL_DEPTH_MAX: usize = 1024;

/// Opens a file or directory below `directory`; no component of `path` may be a link.
pub(crate) fn open(directory: impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve) {
        // An old kernel or a strict sandbox has no openat2.
        Err(Errno::NOSYS | Errno::PERM) => open_by_component(directory.as_fd(), path, flags),
        opened => Ok(opened?),
    }
}

fn open_by_component(directory: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let (parents, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    let mut current: Option<OwnedFd> = None;
    for component in parents.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        let above = current.as_ref().map_or(directory, AsFd::as_fd);
        current = Some(open_directory(above, component)?);
    }
    let above = current.as_ref().map_or(directory, AsFd::as_fd);
    Ok(rustix::fs::openat(above, name, flags, Mode::empty())?)
}

/// Opens a directory that lies directly in `parent`.
pub(super) fn open_directory(parent: impl AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Makes a directory unless it is there, and opens it. Returns whether it is new.
pub(super) fn ensure_directory(parent: impl AsFd, name: &[u8], mode: Mode) -> io::Result<(OwnedFd, bool)> {
    let created = match rustix::fs::mkdirat(&parent, name, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(other) => return Err(other.into()),
    };
    let directory = open_directory(parent, name)?;
    if created {
        // The process's umask must not hide what consumers should read.
        rustix::fs::fchmod(&directory, mode)?;
    }
    Ok((directory, created))
}

/// Creates a file that must not exist yet, for writing.
pub(super) fn create_file(parent: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644))?.into())
}

/// Mode of a published file.
pub(super) fn sealed_file(executable: bool) -> Mode {
    Mode::from_raw_mode(if executable { 0o555 } else { 0o444 })
}

/// Kind of what lies at `name`, `None` when there is nothing.
pub(super) fn kind_of(parent: impl AsFd, name: &[u8]) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Target of the link at `name`, `None` when there is no link.
pub(super) fn link_target(parent: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match rustix::fs::readlinkat(parent, name, Vec::new()) {
        Ok(target) => Ok(Some(target.into_bytes())),
        Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// Removes whatever lies at `name`, a directory with all that is in it. Nothing there is fine.
pub(super) fn remove_all(parent: impl AsFd, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => remove_directory(parent.as_fd(), name, 0),
        Err(other) => Err(other.into()),
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &[u8], depth: usize) -> io::Result<()> {
    if depth > REMOVAL_DEPTH_MAX {
        return Err(io::Error::other("directories are nested too deeply to be removed"));
    }
    let directory = open_directory(parent, name)?;
    rustix::fs::fchmod(&directory, PRIVATE_DIRECTORY)?;
    let mut listing = Dir::new(directory)?;
    while let Some(item) = listing.read() {
        let item = item?;
        let child = item.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        let inside = listing.fd()?;
        match rustix::fs::unlinkat(inside, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => remove_directory(inside, child, depth + 1)?,
            Err(other) => return Err(other.into()),
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Names in a directory.
pub(super) fn names_in(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for item in Dir::read_from(directory)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn scene() -> (tempfile::TempDir, OwnedFd) {
        let scene = tempfile::tempdir().unwrap();
        fs::create_dir_all(scene.path().join("inside/deep")).unwrap();
        fs::create_dir(scene.path().join("outside")).unwrap();
        fs::write(scene.path().join("outside/secret"), "secret").unwrap();
        fs::write(scene.path().join("inside/deep/file"), "file").unwrap();
        symlink("../../outside", scene.path().join("inside/deep/out")).unwrap();
        symlink("deep", scene.path().join("inside/alias")).unwrap();
        let inside = OwnedFd::from(File::open(scene.path().join("inside")).unwrap());
        (scene, inside)
    }

    #[test]
    fn links_are_never_followed_by_either_way_of_opening() {
        let (_scene, inside) = scene();
        for path in ["deep/out/secret", "deep/out", "alias/file", "../outside/secret"] {
            assert!(open(&inside, path.as_bytes(), OFlags::RDONLY).is_err(), "{path}");
        }
        for path in ["deep/out/secret", "deep/out", "alias/file"] {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
            assert!(open_by_component(inside.as_fd(), path.as_bytes(), flags).is_err(), "{path}");
        }
        assert!(open(&inside, b"deep/file", OFlags::RDONLY).is_ok());
        assert!(open_by_component(inside.as_fd(), b"deep/file", OFlags::RDONLY).is_ok());
    }

    #[test]
    fn removal_takes_links_away_and_leaves_their_targets() {
        let (scene, inside) = scene();
        remove_all(&inside, b"deep").unwrap();
        remove_all(&inside, b"alias").unwrap();
        remove_all(&inside, b"nothing").unwrap();
        assert_eq!(fs::read_dir(scene.path().join("inside")).unwrap().count(), 0);
        assert_eq!(fs::read(scene.path().join("outside/secret")).unwrap(), b"secret");
    }
}
