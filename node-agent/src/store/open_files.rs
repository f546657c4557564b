//! Open files of the trees: few, reused, opened without following links; and their repair when they were changed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use peerdist_core::digest::Digest;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::beneath;
use super::lru::Lru;
use super::package::lock;
use super::segments::SegmentFile;
use super::tree;

/// Files a store keeps open. Many stores may share a process, and a process has 1024 by default.
const OPEN_FILES_MAX: usize = 32;

/// An open file of a tree.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    writable: bool,
    /// It had to be put right when it was opened: what it contained before is lost.
    pub(super) restored: bool,
}

/// The open files of all packages, by package and entry.
#[derive(Debug)]
pub(super) struct OpenFiles {
    files: Mutex<Lru<(Digest, u32), Arc<OpenFile>>>,
}

impl OpenFiles {
    pub(super) fn new() -> Self {
        Self { files: Mutex::new(Lru::new(OPEN_FILES_MAX)) }
    }

    /// Opens a file for reading. It must be a regular file of the right size.
    pub(super) fn for_reading(
        &self,
        package: Digest,
        entry: u32,
        tree: &OwnedFd,
        wanted: &SegmentFile,
    ) -> io::Result<Arc<OpenFile>> {
        self.find_or_open((package, entry), false, || {
            let file = File::from(beneath::open(tree, wanted.path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK)?);
            if is_as_wanted(&file, wanted)? { Ok((file, false)) } else { Err(Errno::NOENT.into()) }
        })
    }

    /// Opens a file for writing; one that was removed, replaced or resized is put right.
    pub(super) fn for_writing(
        &self,
        package: Digest,
        entry: u32,
        tree: &OwnedFd,
        wanted: &SegmentFile,
        sealed: bool,
    ) -> io::Result<Arc<OpenFile>> {
        self.find_or_open((package, entry), true, || open_for_writing(tree, wanted, sealed))
    }

    /// Forgets the files of a package.
    pub(super) fn forget(&self, package: Digest) {
        lock(&self.files).retain(|(owner, _)| *owner != package);
    }

    /// Forgets one file.
    pub(super) fn forget_file(&self, package: Digest, entry: u32) {
        lock(&self.files).remove(&(package, entry));
    }

    fn find_or_open(
        &self,
        key: (Digest, u32),
        writable: bool,
        open: impl FnOnce() -> io::Result<(File, bool)>,
    ) -> io::Result<Arc<OpenFile>> {
        if let Some(found) = lock(&self.files).find(&key).filter(|found| found.writable || !writable) {
            return Ok(found);
        }
        let (file, restored) = open()?;
        let opened = Arc::new(OpenFile { file, writable, restored });
        if !restored {
            lock(&self.files).insert(key, Arc::clone(&opened), 1);
        }
        Ok(opened)
    }
}

fn is_as_wanted(file: &File, wanted: &SegmentFile) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size as u64 == wanted.bytes)
}

/// Returns the file, and whether it had to be put right.
fn open_for_writing(tree: &OwnedFd, wanted: &SegmentFile, sealed: bool) -> io::Result<(File, bool)> {
    let opened = match beneath::open(tree, wanted.path.as_bytes(), OFlags::RDWR | OFlags::NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open_sealed(tree, wanted, sealed),
        opened => opened,
    };
    match opened {
        Ok(file) => resize(tree, file.into(), wanted, sealed),
        Err(error) if lies_wrong(&error) => Ok((replace(tree, wanted, sealed)?, true)),
        Err(error) => Err(error),
    }
}

fn resize(tree: &OwnedFd, file: File, wanted: &SegmentFile, sealed: bool) -> io::Result<(File, bool)> {
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok((replace(tree, wanted, sealed)?, true));
    }
    let resized = stat.st_size as u64 != wanted.bytes;
    if resized {
        file.set_len(wanted.bytes)?;
    }
    Ok((file, resized))
}

/// Whether nothing, or something that is no regular file, lies where the file belongs.
fn lies_wrong(error: &io::Error) -> bool {
    let wrong = [Errno::NOENT, Errno::LOOP, Errno::ISDIR, Errno::NXIO, Errno::XDEV];
    error.raw_os_error().is_some_and(|code| wrong.iter().any(|errno| errno.raw_os_error() == code))
}

/// Opens a file that has its final mode already: writable only for the moment of opening.
fn open_sealed(tree: &OwnedFd, wanted: &SegmentFile, sealed: bool) -> io::Result<OwnedFd> {
    let path = wanted.path.as_bytes();
    let readable = beneath::open(tree, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    rustix::fs::fchmod(&readable, rustix::fs::Mode::from_raw_mode(0o644))?;
    let opened = beneath::open(tree, path, OFlags::RDWR | OFlags::NONBLOCK);
    if sealed {
        rustix::fs::fchmod(&readable, beneath::sealed_file(wanted.executable))?;
    }
    opened
}

/// Puts an empty file of the right size where something else or nothing lies.
fn replace(tree: &OwnedFd, wanted: &SegmentFile, sealed: bool) -> io::Result<File> {
    let parent = match wanted.path.parent() {
        Some(parent) => beneath::open(tree, parent, OFlags::RDONLY | OFlags::DIRECTORY)?,
        None => tree.try_clone()?,
    };
    let mode = rustix::fs::fstat(&parent)?.st_mode;
    rustix::fs::fchmod(&parent, beneath::OPEN_DIRECTORY)?;
    let created = beneath::remove_all(&parent, wanted.path.name())
        .and_then(|()| beneath::create_file(&parent, wanted.path.name()))
        .and_then(|file| tree::reserve(file.as_fd(), wanted.bytes).map(|_| file));
    rustix::fs::fchmod(&parent, rustix::fs::Mode::from_raw_mode(mode))?;
    let created = created?;
    if sealed {
        rustix::fs::fchmod(&created, beneath::sealed_file(wanted.executable))?;
    }
    Ok(created)
}
