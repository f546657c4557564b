//! Lists a directory tree in manifest order: names by their raw bytes, a directory directly followed by what is in it.
//!
//! Only the sorted names of the directories on the way down are in memory, one open descriptor each, so that a million
//! entries cost no million paths. Nothing is followed: links are reported, and a directory that changes while it is
//! walked is an error. What to do with an entry is the visitor's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use peerdist_core::manifest::{LinkTarget, RelativePath};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::entry::{self, EntryRefusal};
use super::error::SourceError;

/// One entry, as the visitor sees it.
pub struct Visit<'a> {
    /// The directory that the entry lies in.
    pub parent: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a [u8],
    /// Its path from the top of the tree.
    pub path: &'a RelativePath,
    /// What it is.
    pub kind: Kind,
    /// What the file system says about it.
    pub stamp: Stamp,
}

/// The kinds that a package has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory; its entries follow when their turn in the order comes.
    Directory,
    /// A regular file.
    File {
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A symbolic link that stays inside.
    Link {
        /// Where it points.
        target: LinkTarget,
    },
}

/// What changes when somebody writes to a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// File system and file number: differs when a file is replaced.
    pub identity: (u64, u64),
    /// Size in bytes.
    pub bytes: u64,
    /// Last write in nanoseconds.
    pub modified_ns: i128,
    /// Last change of content or attributes in nanoseconds.
    pub changed_ns: i128,
}

impl From<&Stat> for Stamp {
    // The widths of these fields differ between architectures.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn from(stat: &Stat) -> Self {
        let nanoseconds = |seconds: i64, fraction: u64| i128::from(seconds) * 1_000_000_000 + i128::from(fraction);
        Self {
            identity: (stat.st_dev as u64, stat.st_ino as u64),
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
            changed_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as u64),
        }
    }
}

/// The walk over one tree.
pub struct Walk<'a> {
    /// The top, open.
    pub root: &'a OwnedFd,
    /// The top's name, for messages.
    pub root_path: &'a Path,
    /// More entries than this are refused.
    pub entries_max: u64,
    /// Stops the walk soon.
    pub cancel: &'a CancellationToken,
}

impl Walk<'_> {
    /// Visits every entry in order and returns how many there were.
    ///
    /// # Errors
    /// What the visitor says; an entry that packages do not have; a directory that cannot be read or that changes.
    pub fn run(&self, visitor: &mut dyn FnMut(Visit<'_>) -> Result<(), SourceError>) -> Result<u64, SourceError> {
        let mut path = Vec::new();
        let mut entries = 0;
        let mut levels = vec![self.level(open_again(self.root), &path, &mut entries)?];
        while let Some(level) = levels.last_mut() {
            if self.cancel.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            path.truncate(level.path_bytes);
            let Some(name) = level.listing.name(level.next) else {
                self.check_unchanged(level, &path)?;
                levels.pop();
                continue;
            };
            level.next += 1;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if self.visit(level, name, &path, visitor)? {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(&level.directory, name, flags, Mode::empty());
                let next = self.level(opened, &path, &mut entries)?;
                levels.push(next);
            }
        }
        Ok(entries)
    }

    /// Hands one entry to the visitor; true when the walk goes into it.
    fn visit(
        &self,
        level: &Level,
        name: &[u8],
        path: &[u8],
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<(), SourceError>,
    ) -> Result<bool, SourceError> {
        let checked = entry::entry_path(path).map_err(|refusal| SourceError::entry(path, refusal))?;
        let parent = level.directory.as_fd();
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed(errno, path, "an entry disappeared"))?;
        let kind = self.kind(parent, name, &checked, &stat)?;
        let is_directory = kind == Kind::Directory;
        visitor(Visit { parent, name, path: &checked, kind, stamp: Stamp::from(&stat) })?;
        Ok(is_directory)
    }

    fn kind(&self, parent: BorrowedFd<'_>, name: &[u8], path: &RelativePath, stat: &Stat) -> Result<Kind, SourceError> {
        let refusal = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Ok(Kind::Directory),
            FileType::RegularFile => return Ok(Kind::File { executable: stat.st_mode & 0o111 != 0 }),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())
                    .map_err(|errno| self.failed(errno, path.as_bytes(), "a link disappeared"))?
                    .into_bytes();
                match entry::link_target(path, target) {
                    Ok(target) => return Ok(Kind::Link { target }),
                    Err(refusal) => refusal,
                }
            }
            FileType::Fifo => EntryRefusal::NamedPipe,
            FileType::Socket => EntryRefusal::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => EntryRefusal::Device,
            FileType::Unknown => EntryRefusal::UnknownKind,
        };
        Err(SourceError::entry(path.as_bytes(), refusal))
    }

    fn level(&self, opened: Result<OwnedFd, Errno>, path: &[u8], entries: &mut u64) -> Result<Level, SourceError> {
        let failed = |errno| self.failed(errno, path, "a directory disappeared");
        let directory = opened.map_err(failed)?;
        let stamp = Stamp::from(&rustix::fs::fstat(&directory).map_err(failed)?);
        let listing = Listing::read(&directory).map_err(failed)?;
        *entries += listing.spans.len() as u64;
        if *entries > self.entries_max {
            return Err(SourceError::TooManyEntries { count: self.count_all()?, max: self.entries_max });
        }
        Ok(Level { directory, listing, next: 0, path_bytes: path.len(), stamp })
    }

    /// The true count for the message, once the limit is passed.
    fn count_all(&self) -> Result<u64, SourceError> {
        Walk { entries_max: COUNTED_MAX, ..*self }.run(&mut |_| Ok(())).or_else(|error| match error {
            SourceError::TooManyEntries { .. } => Ok(COUNTED_MAX),
            error => Err(error),
        })
    }

    fn check_unchanged(&self, level: &Level, path: &[u8]) -> Result<(), SourceError> {
        let stat =
            rustix::fs::fstat(&level.directory).map_err(|errno| self.failed(errno, path, "a directory disappeared"))?;
        if Stamp::from(&stat) == level.stamp { Ok(()) } else { Err(self.changed(path, "its entries changed")) }
    }

    fn failed(&self, errno: Errno, path: &[u8], gone: &'static str) -> SourceError {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP if !path.is_empty() => self.changed(path, gone),
            errno => SourceError::SourceUnreadable { path: self.full_path(path), source: errno.into() },
        }
    }

    fn changed(&self, path: &[u8], what: &'static str) -> SourceError {
        SourceError::SourceChanged { path: self.full_path(path), what }
    }

    fn full_path(&self, path: &[u8]) -> PathBuf {
        full_path(self.root_path, path)
    }
}

/// The path of an entry beneath the top, for messages.
pub(crate) fn full_path(root: &Path, path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if path.is_empty() { root.to_owned() } else { root.join(std::ffi::OsStr::from_bytes(path)) }
}

/// Counting beyond the limit stops here: the message then says this number.
const COUNTED_MAX: u64 = 20_000_000;

fn open_again(directory: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// One directory on the way down.
struct Level {
    directory: OwnedFd,
    listing: Listing,
    next: usize,
    path_bytes: usize,
    stamp: Stamp,
}

/// The sorted names of one directory, in one block of memory.
#[derive(Default)]
struct Listing {
    names: Vec<u8>,
    /// Where each name lies in `names`.
    spans: Vec<(usize, u16)>,
}

impl Listing {
    fn read(directory: &OwnedFd) -> Result<Self, Errno> {
        let mut listing = Self::default();
        for found in Dir::read_from(directory)? {
            let found = found?;
            let name = found.file_name().to_bytes();
            // Linux has no longer names than 255 bytes.
            let Ok(bytes) = u16::try_from(name.len()) else { continue };
            if name != b"." && name != b".." {
                listing.spans.push((listing.names.len(), bytes));
                listing.names.extend_from_slice(name);
            }
        }
        let Self { names, spans } = &mut listing;
        spans.sort_unstable_by(|&left, &right| spanned(names, left).cmp(spanned(names, right)));
        Ok(listing)
    }

    fn name(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|&span| spanned(&self.names, span))
    }
}

fn spanned(names: &[u8], (offset, bytes): (usize, u16)) -> &[u8] {
    &names[offset..offset + usize::from(bytes)]
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use peerdist_core::manifest::{DEPTH_MAX, PathFault};

    use super::*;

    fn walk(root: &Path, entries_max: u64) -> Result<Vec<(Vec<u8>, Kind)>, SourceError> {
        let mut seen = Vec::new();
        walk_with(root, entries_max, &mut |visit| {
            seen.push((visit.path.as_bytes().to_vec(), visit.kind));
            Ok(())
        })?;
        Ok(seen)
    }

    fn walk_with(
        root: &Path,
        entries_max: u64,
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        let opened = OwnedFd::from(fs::File::open(root).unwrap());
        let cancel = CancellationToken::new();
        Walk { root: &opened, root_path: root, entries_max, cancel: &cancel }.run(visitor)
    }

    fn refusal(root: &Path) -> (String, EntryRefusal) {
        match walk(root, 100).unwrap_err() {
            SourceError::EntryRefused { path, refusal, .. } => (path, refusal),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn entries_come_in_manifest_order() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a/b", "a-b", "a/b-c", "z"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["a/x", "a-b/x", "a.txt", "a/b/x", "a/b.x", "A", "a0", "z/\u{e9}"] {
            fs::write(root.path().join(file), b"x").unwrap();
        }
        fs::write(root.path().join(OsStr::from_bytes(b"z/\xff\xfe")), b"x").unwrap();
        let paths: Vec<_> = walk(root.path(), 100).unwrap().into_iter().map(|(path, _)| path).collect();
        let mut sorted = paths.clone();
        sorted.sort_by(|left, right| left.split(|&byte| byte == b'/').cmp(right.split(|&byte| byte == b'/')));
        assert_eq!(paths, sorted);
        assert_eq!(paths.len(), 14);
    }

    #[test]
    fn links_inside_and_executable_bits_are_seen() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("tool"), b"x").unwrap();
        fs::set_permissions(root.path().join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("tool", root.path().join("link")).unwrap();
        fs::hard_link(root.path().join("tool"), root.path().join("twin")).unwrap();
        let seen = walk(root.path(), 100).unwrap();
        assert!(matches!(&seen[0].1, Kind::Link { target } if target.as_bytes() == b"tool"));
        assert_eq!(seen[1].1, Kind::File { executable: true });
        assert_eq!(seen[2].1, Kind::File { executable: true });
    }

    #[test]
    fn entries_that_packages_do_not_have_are_named() {
        let check = |name: &str, expected: EntryRefusal, make: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("folder")).unwrap();
            make(&root.path().join("folder").join(name));
            assert_eq!(refusal(root.path()), (format!("folder/{name}"), expected));
        };
        check("out", EntryRefusal::Link(PathFault::TargetOutside), &|path| symlink("../../etc", path).unwrap());
        check("absolute", EntryRefusal::Link(PathFault::Absolute), &|path| symlink("/etc/passwd", path).unwrap());
        check("socket", EntryRefusal::Socket, &|path| drop(UnixListener::bind(path).unwrap()));
        check("pipe", EntryRefusal::NamedPipe, &|path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR).unwrap();
        });
    }

    #[test]
    fn too_many_entries_are_refused_with_their_count() {
        let root = tempfile::tempdir().unwrap();
        for folder in 0..5 {
            fs::create_dir(root.path().join(folder.to_string())).unwrap();
            for file in 0..10 {
                fs::write(root.path().join(format!("{folder}/{file}")), b"").unwrap();
            }
        }
        assert_eq!(walk(root.path(), 55).unwrap().len(), 55);
        match walk(root.path(), 20).unwrap_err() {
            SourceError::TooManyEntries { count, max } => assert_eq!((count, max), (55, 20)),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d/".repeat(DEPTH_MAX + 1));
        fs::create_dir_all(deep).unwrap();
        match walk(root.path(), 1000).unwrap_err() {
            SourceError::EntryRefused { refusal, .. } => assert_eq!(refusal, EntryRefusal::Name(PathFault::TooDeep)),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_directory_that_changes_during_the_walk_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), b"x").unwrap();
        let error = walk_with(root.path(), 100, &mut |_| {
            fs::write(root.path().join("b"), b"x").unwrap();
            Ok(())
        });
        assert_eq!(error.unwrap_err().reason(), "SourceChanged");
    }

    #[test]
    fn a_cancelled_walk_stops() {
        let root = tempfile::tempdir().unwrap();
        let opened = OwnedFd::from(fs::File::open(root.path()).unwrap());
        let cancel = CancellationToken::new();
        cancel.cancel();
        let walk = Walk { root: &opened, root_path: root.path(), entries_max: 1, cancel: &cancel };
        assert_eq!(walk.run(&mut |_| Ok(())).unwrap_err().reason(), "Cancelled");
    }
}
