//! Files and directories as sources: looks at them first (size, entries, a fingerprint of everything but the bytes),
//! and reads files so that a change in the middle is noticed. It does not write.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use peerdist_core::digest::Digest;
use peerdist_core::manifest::ENTRIES_MAX;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::entry::EntryRefusal;
use super::error::SourceError;
use super::walk::{Kind, Stamp, Visit, Walk, full_path};

/// What a `file://` address leads to, open.
pub enum Origin {
    /// A directory: its entries are the package.
    Directory(Directory),
    /// A file: the package's one file, or an archive.
    File(CheckedFile),
}

/// A directory as a source.
pub struct Directory {
    root: OwnedFd,
    path: PathBuf,
}

/// What is known of a source before its bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// Sum of the sizes of all files.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
    /// Digest over names, kinds, sizes and times: equal means that nobody wrote to it.
    pub fingerprint: Digest,
}

impl Origin {
    /// Opens what is at `path`. A link there is followed: it is the user's own address.
    ///
    /// # Errors
    /// [`SourceError::SourceMissing`], [`SourceError::SourceUnreadable`], or [`SourceError::EntryRefused`] for what is
    /// neither file nor directory.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |errno| failed_at_top(path, errno);
        let stat = rustix::fs::stat(path).map_err(failed)?;
        Self::of_kind(path, &stat, |flags| rustix::fs::open(path, flags, Mode::empty()).map_err(failed))
    }

    /// Opens what was looked at. `open` opens it with flags, in the same way as it was looked at.
    pub(super) fn of_kind(
        path: &Path,
        stat: &Stat,
        open: impl FnOnce(OFlags) -> Result<OwnedFd, SourceError>,
    ) -> Result<Self, SourceError> {
        let refusal = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let root = open(OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
                return Ok(Self::Directory(Directory { root, path: path.to_owned() }));
            }
            FileType::RegularFile => {
                let opened = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)?;
                return CheckedFile::new(opened, path.to_owned(), &Stamp::from(stat), stat.st_mode & 0o111 != 0)
                    .map(Self::File);
            }
            FileType::Fifo => EntryRefusal::NamedPipe,
            FileType::Socket => EntryRefusal::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => EntryRefusal::Device,
            _ => EntryRefusal::UnknownKind,
        };
        Err(SourceError::entry(path.as_os_str().as_encoded_bytes(), refusal))
    }
}

impl Directory {
    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts and fingerprints the whole tree without reading a file.
    ///
    /// # Errors
    /// The first entry that packages do not have, or a directory that cannot be read.
    pub fn inspect(&self, cancel: &CancellationToken) -> Result<Inspection, SourceError> {
        let mut fingerprint = Fingerprint::default();
        let entries = self.walk(cancel, &mut |visit| {
            fingerprint.add(&visit);
            Ok(())
        })?;
        Ok(fingerprint.finish(entries))
    }

    /// Visits every entry in manifest order.
    ///
    /// # Errors
    /// As [`Walk::run`].
    pub fn walk(
        &self,
        cancel: &CancellationToken,
        visitor: &mut dyn FnMut(Visit<'_>) -> Result<(), SourceError>,
    ) -> Result<u64, SourceError> {
        Walk { root: &self.root, root_path: &self.path, entries_max: ENTRIES_MAX.into(), cancel }.run(visitor)
    }

    /// Opens the file that a visit is about.
    ///
    /// # Errors
    /// [`SourceError::SourceUnreadable`], [`SourceError::SourceChanged`].
    pub fn open(&self, visit: &Visit<'_>) -> Result<CheckedFile, SourceError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = full_path(&self.path, visit.path.as_bytes());
        match rustix::fs::openat(visit.parent, visit.name, flags, Mode::empty()) {
            Ok(opened) => CheckedFile::new(opened, path, &visit.stamp, visit.kind == Kind::File { executable: true }),
            Err(Errno::NOENT | Errno::LOOP) => Err(SourceError::SourceChanged { path, what: "a file disappeared" }),
            Err(errno) => Err(SourceError::SourceUnreadable { path, source: errno.into() }),
        }
    }
}

pub(super) fn failed_at_top(path: &Path, errno: Errno) -> SourceError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => {
            SourceError::SourceMissing { uri: format!("file://{}", path.display()), detail: String::new() }
        }
        errno => SourceError::SourceUnreadable { path: path.to_owned(), source: errno.into() },
    }
}

/// Collects the fingerprint of a tree, entry by entry.
#[derive(Default)]
pub struct Fingerprint {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Fingerprint {
    /// Takes the next entry. Times and numbers of directories stay out: they change without any entry changing.
    pub fn add(&mut self, visit: &Visit<'_>) {
        let (kind, target): (u8, &[u8]) = match &visit.kind {
            Kind::Directory => (0, b""),
            Kind::File { executable: false } => (1, b""),
            Kind::File { executable: true } => (2, b""),
            Kind::Link { target } => (3, target.as_bytes()),
        };
        self.hasher.update(&[kind]);
        for text in [visit.path.as_bytes(), target] {
            self.hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        if matches!(visit.kind, Kind::File { .. }) {
            self.add_stamp(&visit.stamp);
        }
    }

    fn add_stamp(&mut self, stamp: &Stamp) {
        self.bytes = self.bytes.saturating_add(stamp.bytes);
        self.hasher.update(&stamp.bytes.to_le_bytes());
        self.hasher.update(&stamp.modified_ns.to_le_bytes()).update(&stamp.changed_ns.to_le_bytes());
    }

    /// All entries were taken.
    pub fn finish(self, entries: u64) -> Inspection {
        Inspection { bytes: self.bytes, entries, fingerprint: Digest::from(*self.hasher.finalize().as_bytes()) }
    }
}

/// A regular file that is read once, from begin to end, and must not change meanwhile.
pub struct CheckedFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    executable: bool,
    read_bytes: u64,
}

impl CheckedFile {
    fn new(opened: OwnedFd, path: PathBuf, expected: &Stamp, executable: bool) -> Result<Self, SourceError> {
        let file = Self { file: File::from(opened), path, stamp: *expected, executable, read_bytes: 0 };
        file.check_stamp("it was replaced or written")?;
        Ok(file)
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    /// Whether anybody may execute it.
    pub fn is_executable(&self) -> bool {
        self.executable
    }

    /// The open file, for readers that seek. [`CheckedFile::check_unchanged`] is theirs to call at the end.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is known of it before its bytes are read.
    pub fn inspect(&self) -> Inspection {
        let mut fingerprint = Fingerprint::default();
        fingerprint.hasher.update(&[u8::from(self.executable)]);
        fingerprint.add_stamp(&self.stamp);
        fingerprint.finish(1)
    }

    /// Reads the next bytes; 0 after the last one, when the file was checked to be the same as at the begin.
    ///
    /// # Errors
    /// [`SourceError::SourceUnreadable`], [`SourceError::SourceChanged`].
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let count = loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(SourceError::unreadable(&self.path))?,
            }
        };
        self.read_bytes += count as u64;
        if self.read_bytes > self.stamp.bytes {
            return Err(self.changed("it grew"));
        }
        if count == 0 && !buffer.is_empty() {
            if self.read_bytes < self.stamp.bytes {
                return Err(self.changed("it shrank"));
            }
            self.check_unchanged()?;
        }
        Ok(count)
    }

    /// Whether the file is still what it was when it was opened.
    ///
    /// # Errors
    /// [`SourceError::SourceChanged`]
    pub fn check_unchanged(&self) -> Result<(), SourceError> {
        self.check_stamp("it was written")
    }

    fn check_stamp(&self, what: &'static str) -> Result<(), SourceError> {
        let stat =
            rustix::fs::fstat(self.file.as_fd()).map_err(|errno| SourceError::unreadable(&self.path)(errno.into()))?;
        if Stamp::from(&stat) == self.stamp { Ok(()) } else { Err(self.changed(what)) }
    }

    fn changed(&self, what: &'static str) -> SourceError {
        SourceError::SourceChanged { path: self.path.clone(), what }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory(path: &Path) -> Directory {
        match Origin::open(path).unwrap() {
            Origin::Directory(directory) => directory,
            Origin::File(_) => panic!("a file"),
        }
    }

    fn file(path: &Path) -> CheckedFile {
        match Origin::open(path).unwrap() {
            Origin::File(file) => file,
            Origin::Directory(_) => panic!("a directory"),
        }
    }

    fn reason(path: &Path) -> &'static str {
        Origin::open(path).err().unwrap().reason()
    }

    #[test]
    fn what_is_no_file_or_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(reason(&root.path().join("missing")), "SourceMissing");
        fs::write(root.path().join("file"), b"x").unwrap();
        assert_eq!(reason(&root.path().join("file/below")), "SourceMissing");
        assert_eq!(reason(Path::new("/dev/null")), "EntryRefused");
        std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
        assert_eq!(file(&root.path().join("link")).bytes(), 1);
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let root = tempfile::tempdir().unwrap();
        let forbidden = root.path().join("forbidden");
        fs::write(&forbidden, b"x").unwrap();
        fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o0)).unwrap();
        // To root everything opens: there a file stands in whose first byte nobody can read.
        let is_root = rustix::process::geteuid().is_root();
        let path = if is_root { Path::new("/proc/self/mem") } else { &forbidden };
        let read = |path: &Path| match Origin::open(path)? {
            Origin::File(mut file) => file.read(&mut [0; 10]).map(drop),
            Origin::Directory(_) => Ok(()),
        };
        let error = read(path).unwrap_err();
        assert_eq!(error.reason(), "SourceUnreadable");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let check = |change: &dyn Fn()| {
            fs::write(&path, [1; 100]).unwrap();
            let mut file = file(&path);
            let mut buffer = [0; 60];
            file.read(&mut buffer).unwrap();
            change();
            let rest = (|| loop {
                if file.read(&mut buffer)? == 0 {
                    return Ok::<_, SourceError>(());
                }
            })();
            assert_eq!(rest.unwrap_err().reason(), "SourceChanged");
        };
        check(&|| fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap());
        check(&|| fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(70).unwrap());
        check(&|| fs::write(&path, [2; 100]).unwrap());
    }

    #[test]
    fn the_fingerprint_tells_when_anything_was_written() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::write(path.join("a"), b"one").unwrap();
        fs::create_dir(path.join("d")).unwrap();
        let cancel = CancellationToken::new();
        let inspect = || directory(path).inspect(&cancel).unwrap();
        let first = inspect();
        assert_eq!((first.bytes, first.entries), (3, 2));
        fs::write(path.join("d/temporary"), b"").unwrap();
        assert_ne!(inspect().fingerprint, first.fingerprint);
        fs::remove_file(path.join("d/temporary")).unwrap();
        assert_eq!(inspect(), first);
        fs::set_permissions(path.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(inspect(), first);
        fs::rename(path.join("a"), path.join("b")).unwrap();
        assert_ne!(inspect().fingerprint, first.fingerprint);
    }

    #[test]
    fn a_file_that_disappears_between_listing_and_reading_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), b"one").unwrap();
        let directory = directory(root.path());
        let result = directory.walk(&CancellationToken::new(), &mut |visit| {
            fs::remove_file(root.path().join("a")).unwrap();
            directory.open(&visit).map(drop)
        });
        assert_eq!(result.unwrap_err().reason(), "SourceChanged");
    }
}
