//! Makes and seals the tree of a package by streaming its entries: one open directory a level, nothing else in memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use peerdist_core::manifest::{Entry, EntryKind, RelativePath};
use rustix::fs::{FallocateFlags, FileType, OFlags};
use rustix::io::Errno;

use super::beneath;

/// The directories between the top and where the walk is.
pub(super) struct Directories<Leave> {
    top: OwnedFd,
    below: Vec<(Vec<u8>, OwnedFd)>,
    leave: Leave,
}

impl<Leave: FnMut(&OwnedFd) -> io::Result<()>> Directories<Leave> {
    /// `leave` is called for each directory below the top after all that is in it was visited.
    pub(super) fn new(top: OwnedFd, leave: Leave) -> Self {
        Self { top, below: Vec::new(), leave }
    }

    /// The directory a path lies in. Paths must come in the order of the manifest.
    pub(super) fn parent_of(&mut self, path: &RelativePath) -> io::Result<BorrowedFd<'_>> {
        let parent = path.parent();
        while self.below.last().is_some_and(|(open, _)| Some(&open[..]) != parent) {
            self.pop()?;
        }
        match self.below.last() {
            Some((_, directory)) => Ok(directory.as_fd()),
            None if parent.is_none() => Ok(self.top.as_fd()),
            None => Err(io::Error::other("an entry does not lie in a directory of the package")),
        }
    }

    pub(super) fn enter(&mut self, path: &RelativePath, directory: OwnedFd) {
        self.below.push((path.as_bytes().to_vec(), directory));
    }

    /// Leaves all directories and gives the top back.
    pub(super) fn finish(mut self) -> io::Result<OwnedFd> {
        while !self.below.is_empty() {
            self.pop()?;
        }
        Ok(self.top)
    }

    fn pop(&mut self) -> io::Result<()> {
        self.below.pop().map_or(Ok(()), |(_, directory)| (self.leave)(&directory))
    }
}

/// Creates an entry with its size reserved on disk. Returns false where the file system cannot reserve.
pub(super) fn create_entry<Leave: FnMut(&OwnedFd) -> io::Result<()>>(
    directories: &mut Directories<Leave>,
    entry: &Entry,
) -> io::Result<bool> {
    let (parent, name) = (directories.parent_of(&entry.path)?, entry.path.name());
    match &entry.kind {
        EntryKind::File { bytes, .. } => return reserve(beneath::create_file(parent, name)?.as_fd(), *bytes),
        EntryKind::Symlink { target } => rustix::fs::symlinkat(target.as_bytes(), parent, name)?,
        EntryKind::Directory => {
            rustix::fs::mkdirat(parent, name, beneath::OPEN_DIRECTORY)?;
            let directory = beneath::open_directory(parent, name)?;
            directories.enter(&entry.path, directory);
        }
    }
    Ok(true)
}

/// Gives a file its size and, where possible, its space.
pub(super) fn reserve(file: BorrowedFd<'_>, bytes: u64) -> io::Result<bool> {
    if bytes == 0 {
        return Ok(true);
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            rustix::fs::ftruncate(file, bytes)?;
            Ok(false)
        }
        Err(other) => Err(other.into()),
    }
}

/// Gives an entry its final mode and checks that it is what the manifest says.
pub(super) fn seal_entry<Leave: FnMut(&OwnedFd) -> io::Result<()>>(
    directories: &mut Directories<Leave>,
    entry: &Entry,
    sync: bool,
) -> io::Result<()> {
    let (parent, name) = (directories.parent_of(&entry.path)?, entry.path.name());
    match &entry.kind {
        EntryKind::File { bytes, executable } => {
            let file = beneath::open(parent, name, OFlags::RDONLY)?;
            let stat = rustix::fs::fstat(&file)?;
            expect(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile, "is no regular file any more")?;
            expect(stat.st_size as u64 == *bytes, "has not the size that the manifest says")?;
            rustix::fs::fchmod(&file, beneath::sealed_file(*executable))?;
            if sync {
                rustix::fs::fsync(&file)?;
            }
            Ok(())
        }
        EntryKind::Symlink { target } => {
            let found = beneath::link_target(parent, name)?;
            expect(found.as_deref() == Some(target.as_bytes()), "is not the link that the manifest says")
        }
        EntryKind::Directory => {
            let directory = beneath::open_directory(parent, name)?;
            directories.enter(&entry.path, directory);
            Ok(())
        }
    }
}

fn expect(holds: bool, what: &'static str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what)) }
}
