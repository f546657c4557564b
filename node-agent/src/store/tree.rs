//! Makes and seals the tree of a package by streaming its entries: one open directory a level, nothing else in memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use peerdist_core::manifest::{Entry, EntryKind, RelativePath};
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags};
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

/// Opens a directory of a published tree. One that keeps even its owner out, which is us, is sealed anew before.
pub(super) fn open_own_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let place = beneath::open(parent, name, OFlags::PATH | OFlags::DIRECTORY)?;
    admit_owner(&place)?;
    beneath::open_directory(&place, b".")
}

/// Gives a directory that is ours the mode of a published one, if its own keeps us from reading it. `directory` may be
/// open for its path only.
pub(super) fn admit_owner(directory: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(directory)?;
    let is_ours = stat.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours || Mode::from_raw_mode(stat.st_mode).contains(Mode::RUSR | Mode::XUSR) {
        return Ok(());
    }
    // The kernel takes no mode for what is open for its path only, except by this way, which leads to what is open
    // whatever lies under its name by now: no link can send us elsewhere.
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(rustix::fs::chmod(place, beneath::SEALED_DIRECTORY)?)
}

fn expect(holds: bool, what: &'static str) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(what)) }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::tests::fixture::{give_away, mode, set_mode};

    #[test]
    fn directory_that_keeps_its_owner_out_is_sealed_anew_and_no_other_one() {
        let scene = tempfile::tempdir().unwrap();
        let parent = OwnedFd::from(File::open(scene.path()).unwrap());
        let (ours, theirs) = (scene.path().join("ours"), scene.path().join("theirs"));
        fs::create_dir(&ours).unwrap();
        for (before, after) in [(0o000, 0o555), (0o377, 0o555), (0o444, 0o555), (0o700, 0o700), (0o755, 0o755)] {
            set_mode(&ours, before);
            open_own_directory(parent.as_fd(), b"ours").unwrap();
            assert_eq!(mode(&ours), after, "{before:o}");
        }
        fs::create_dir(&theirs).unwrap();
        set_mode(&theirs, 0o000);
        symlink("theirs", scene.path().join("link")).unwrap();
        assert!(open_own_directory(parent.as_fd(), b"link").is_err());
        assert_eq!(mode(&theirs), 0o000, "links are not followed");
        if give_away(&theirs) {
            // Whether it can be opened is up to the rights of root.
            drop(open_own_directory(parent.as_fd(), b"theirs"));
            assert_eq!(mode(&theirs), 0o000);
        }
        set_mode(&theirs, 0o755);
    }
}
