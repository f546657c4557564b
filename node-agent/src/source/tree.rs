//! Writes entries beneath one folder and nowhere else, whatever their names say: each component is opened without
//! following links, and nothing that exists is ever opened for writing. It leaves publishing and final modes of
//! directories to the library.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::entry::EntryRefusal;
use super::error::SourceError;

/// The folder that a tree is written into.
pub struct TreeWriter {
    root_path: PathBuf,
    root: OwnedFd,
    /// The directory of the last entry: most neighbours share it.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl TreeWriter {
    /// Opens the folder, which exists.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn open(root_path: &Path) -> Result<Self, SourceError> {
        let root = rustix::fs::open(root_path, DIRECTORY, Mode::empty())
            .map_err(|errno| SourceError::library(root_path)(errno.into()))?;
        Ok(Self { root_path: root_path.to_owned(), root, parent: None })
    }

    /// The folder.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Makes a directory, and those above it. One that is there already is fine: archives name them late or twice.
    ///
    /// # Errors
    /// [`SourceError::EntryRefused`] when something else is in the way, [`SourceError::LibraryFailed`].
    pub fn directory(&mut self, path: &[u8]) -> Result<(), SourceError> {
        if path.is_empty() {
            return Ok(());
        }
        self.enter(path, path).map(drop)
    }

    /// Makes a new, empty file. Its mode is the final one for anybody who opens it later.
    ///
    /// # Errors
    /// [`SourceError::EntryRefused`] when something is there already, [`SourceError::LibraryFailed`].
    pub fn file(&mut self, path: &[u8], executable: bool) -> Result<File, SourceError> {
        let (parent, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o555 } else { 0o444 });
        let opened = rustix::fs::openat(parent, name, flags, mode);
        let file = opened.map_err(|errno| self.refused(path, errno))?;
        // The process's umask must not decide who may read the package.
        rustix::fs::fchmod(&file, mode).map_err(|errno| self.refused(path, errno))?;
        Ok(File::from(file))
    }

    /// Makes a symbolic link. The caller has checked where it leads.
    ///
    /// # Errors
    /// [`SourceError::EntryRefused`] when something is there already, [`SourceError::LibraryFailed`].
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), SourceError> {
        let (parent, name) = self.parent_of(path)?;
        let made = rustix::fs::symlinkat(target, parent, name);
        made.map_err(|errno| self.refused(path, errno))
    }

    fn parent_of<'p>(&mut self, path: &'p [u8]) -> Result<(&OwnedFd, &'p [u8]), SourceError> {
        match path.iter().rposition(|&byte| byte == b'/') {
            None => Ok((&self.root, path)),
            Some(slash) => Ok((self.enter(&path[..slash], path)?, &path[slash + 1..])),
        }
    }

    /// Opens the directory at `directory`, component by component, making what is missing.
    fn enter(&mut self, directory: &[u8], entry: &[u8]) -> Result<&OwnedFd, SourceError> {
        if self.parent.as_ref().is_none_or(|(path, _)| path != directory) {
            let mut current: Option<OwnedFd> = None;
            for component in directory.split(|&byte| byte == b'/') {
                let above = current.as_ref().unwrap_or(&self.root);
                current = Some(open_or_make(above, component).map_err(|failure| self.failed(entry, failure))?);
            }
            self.parent = current.map(|opened| (directory.to_vec(), opened));
        }
        Ok(self.parent.as_ref().map_or(&self.root, |(_, opened)| opened))
    }

    fn refused(&self, path: &[u8], errno: Errno) -> SourceError {
        let failure = if errno == Errno::EXIST { Failure::Refused(EntryRefusal::Duplicate) } else { errno.into() };
        self.failed(path, failure)
    }

    fn failed(&self, path: &[u8], failure: Failure) -> SourceError {
        match failure {
            Failure::Refused(refusal) => SourceError::entry(path, refusal),
            Failure::Io(source) => {
                SourceError::LibraryFailed { path: super::walk::full_path(&self.root_path, path), source }
            }
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

enum Failure {
    Refused(EntryRefusal),
    Io(io::Error),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

fn open_or_make(above: &OwnedFd, component: &[u8]) -> Result<OwnedFd, Failure> {
    match rustix::fs::openat(above, component, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(above, component, Mode::RWXU)?;
            Ok(rustix::fs::openat(above, component, DIRECTORY, Mode::empty())?)
        }
        Err(Errno::NOTDIR | Errno::LOOP) => {
            let stat = rustix::fs::statat(above, component, AtFlags::SYMLINK_NOFOLLOW)?;
            Err(Failure::Refused(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => EntryRefusal::ThroughLink,
                _ => EntryRefusal::ThroughFile,
            }))
        }
        opened => Ok(opened?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal<T>(result: Result<T, SourceError>) -> EntryRefusal {
        match result {
            Err(SourceError::EntryRefused { refusal, .. }) => refusal,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("was not refused"),
        }
    }

    #[test]
    fn entries_land_where_they_belong_with_their_modes() {
        let root = tempfile::tempdir().unwrap();
        let mut tree = TreeWriter::open(root.path()).unwrap();
        tree.file(b"a/b/tool", true).unwrap().write_all(b"tool").unwrap();
        tree.directory(b"a/b").unwrap();
        tree.file(b"a/text", false).unwrap().write_all(b"text").unwrap();
        tree.link(b"a/link", b"text").unwrap();
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a/b/tool"), mode("a/text")), (0o555, 0o444));
        assert_eq!(fs::read(root.path().join("a/link")).unwrap(), b"text");
    }

    #[test]
    fn nothing_is_written_through_links_or_over_entries() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut tree = TreeWriter::open(root.path()).unwrap();
        tree.link(b"out", outside.path().to_str().unwrap().as_bytes()).unwrap();
        tree.file(b"file", false).unwrap();
        assert_eq!(refusal(tree.file(b"out/x", false)), EntryRefusal::ThroughLink);
        assert_eq!(refusal(tree.directory(b"out/x")), EntryRefusal::ThroughLink);
        assert_eq!(refusal(tree.directory(b"out")), EntryRefusal::ThroughLink);
        assert_eq!(refusal(tree.file(b"out", false)), EntryRefusal::Duplicate);
        assert_eq!(refusal(tree.link(b"file", b"x")), EntryRefusal::Duplicate);
        assert_eq!(refusal(tree.file(b"file", false)), EntryRefusal::Duplicate);
        assert_eq!(refusal(tree.link(b"file/x", b"x")), EntryRefusal::ThroughFile);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
