//! A download on disk: the bytes so far, and beside them what they are bytes of, so that another try, also after a
//! crash, asks for the rest only. Bytes count once they are flushed.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use peerdist_core::distribution::{PackageSource, SourceDigest, SourceUri};
use peerdist_core::names::PackageKey;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::source::digest::DigestCheck;
use crate::source::disk::DiskAdmission;
use crate::source::error::SourceError;
use crate::source::progress::Progress;
use crate::source::uri;

/// Bytes between two flushes: what a crash costs at most.
const FLUSH_BYTES: u64 = 64 << 20;
/// Bytes read at a time when a resumed download is hashed again.
const READ_BYTES: usize = 1 << 20;

/// How long a download that nobody continues is kept.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// The place of one download.
#[derive(Debug, Clone)]
pub struct Partial {
    data: PathBuf,
    state: PathBuf,
}

/// What the bytes on disk are bytes of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Pinned {
    /// The address, for people.
    pub uri: String,
    /// ETag or date that must still hold for the rest to fit.
    pub validator: Option<String>,
    /// Size of the whole, if the server said it.
    pub total_bytes: Option<u64>,
    /// Bytes on stable storage.
    pub flushed_bytes: u64,
    /// Whether this is all, and the digest was right.
    pub complete: bool,
}

impl Partial {
    /// The place for what is at `url` and must have `digest`, in a folder that exists. Each package has its own: two that
    /// name the same address are brought in at the same time.
    pub fn new(folder: &Path, package: &PackageKey, url: &Url, digest: Option<SourceDigest>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(package.to_string().as_bytes()).update(b"\0");
        hasher.update(url.as_str().as_bytes()).update(b"\0");
        if let Some(digest) = digest {
            hasher.update(digest.to_string().as_bytes());
        }
        let name = &hasher.finalize().to_hex()[..32];
        Self { data: folder.join(format!("{name}.partial")), state: folder.join(format!("{name}.json")) }
    }

    /// The place for what is downloaded from a source; `None` when nothing is.
    pub fn of_source(folder: &Path, package: &PackageKey, source: &PackageSource) -> Option<Self> {
        let SourceUri::Http(text) = &source.uri else { return None };
        let url = uri::parse_url(text).ok()?;
        Some(Self::new(folder, package, &url, source.digest))
    }

    /// The file with the bytes.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Forgets the download.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn discard(&self) -> Result<(), SourceError> {
        for path in [&self.state, &self.data] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(SourceError::library(path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the file is the finished download still: nobody cut it, nobody wrote to it.
    pub fn is_whole(&self) -> bool {
        let pinned = self.load();
        pinned.complete && fs::metadata(&self.data).is_ok_and(|data| data.len() == pinned.flushed_bytes)
    }

    /// Gives the finished content a second name, so that it can be published and is still here if that fails.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn link_to(&self, target: &Path) -> Result<(), SourceError> {
        fs::set_permissions(&self.data, fs::Permissions::from_mode(0o444))
            .and_then(|()| fs::hard_link(&self.data, target))
            .map_err(SourceError::library(target))
    }

    /// Removes downloads that nobody continued for a week.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn remove_old(folder: &Path, now: SystemTime) -> Result<(), SourceError> {
        let is_old = |entry: &DirEntry| {
            let age = now.duration_since(entry.metadata()?.modified()?).unwrap_or_default();
            Ok(age > KEPT_FOR)
        };
        remove_where(folder, is_old).map_err(SourceError::library(folder))
    }

    /// Removes all downloads but these. Nobody may be downloading others.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn remove_others(folder: &Path, kept: &[Self]) -> Result<(), SourceError> {
        let kept: BTreeSet<&Path> = kept.iter().flat_map(|partial| [&*partial.data, &*partial.state]).collect();
        let is_other = |entry: &DirEntry| Ok(!kept.contains(&*entry.path()));
        remove_where(folder, is_other).map_err(SourceError::library(folder))
    }

    /// Leaves so many bytes, and no file when that is none.
    pub(super) fn cut(&self, bytes: u64) -> Result<(), SourceError> {
        if bytes == 0 {
            // A file that may have a second name is not written to.
            return self.discard();
        }
        let cut = OpenOptions::new().write(true).open(&self.data).and_then(|file| file.set_len(bytes));
        cut.map_err(SourceError::library(&self.data))
    }

    /// What is there; nothing when the two files do not fit each other.
    pub(super) fn load(&self) -> Pinned {
        let Ok(text) = fs::read(&self.state) else { return Pinned::default() };
        let Ok(pinned) = serde_json::from_slice::<Pinned>(&text) else { return Pinned::default() };
        let Ok(on_disk) = fs::metadata(&self.data) else { return Pinned::default() };
        // Content with a second name may be published already: it is never written to.
        let can_be_continued = on_disk.len() >= pinned.flushed_bytes && on_disk.nlink() == 1;
        if can_be_continued || (pinned.complete && on_disk.len() == pinned.flushed_bytes) {
            pinned
        } else {
            Pinned::default()
        }
    }

    pub(super) fn save(&self, pinned: &Pinned) -> Result<(), SourceError> {
        let text = serde_json::to_vec(pinned).map_err(|error| SourceError::library(&self.state)(error.into()))?;
        let new = self.state.with_extension("json.new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &self.state)).map_err(SourceError::library(&self.state))
    }
}

/// Appends to a download and checks its digest on the way.
pub(super) struct Appender<'a> {
    partial: &'a Partial,
    pinned: Pinned,
    file: File,
    check: DigestCheck,
    disk: DiskAdmission,
    progress: &'a Progress,
    written_bytes: u64,
}

impl<'a> Appender<'a> {
    /// Continues a file that was cut to `pinned.flushed_bytes` ([`Partial::cut`]). Hashes again what is there.
    pub(super) fn open(
        partial: &'a Partial,
        pinned: Pinned,
        expected: Option<SourceDigest>,
        disk: DiskAdmission,
        progress: &'a Progress,
    ) -> Result<Self, SourceError> {
        let failed = |error| SourceError::library(&partial.data)(error);
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&partial.data).map_err(failed)?;
        let mut check = DigestCheck::new(expected);
        if expected.is_some() {
            hash_file(&mut file, &mut check).map_err(failed)?;
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        partial.save(&pinned)?;
        let written_bytes = pinned.flushed_bytes;
        Ok(Self { partial, pinned, file, check, disk, progress, written_bytes })
    }

    pub(super) fn append(&mut self, bytes: &Bytes) -> Result<(), SourceError> {
        let count = bytes.len() as u64;
        self.disk.admit(count)?;
        self.check.update(bytes);
        let written = self.progress.disk(count, || self.file.write_all(bytes));
        written.map_err(|error| self.disk.write_failed(count, error))?;
        self.written_bytes += count;
        if self.written_bytes - self.pinned.flushed_bytes >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Makes what was written count.
    pub(super) fn flush(&mut self) -> Result<(), SourceError> {
        let flushed = self.progress.disk(0, || self.file.sync_data());
        flushed.map_err(SourceError::library(&self.partial.data))?;
        self.pinned.flushed_bytes = self.written_bytes;
        self.partial.save(&self.pinned)
    }

    /// The end of the content: checks size and digest. A wrong digest leaves nothing behind.
    pub(super) fn finish(mut self, uri: &str) -> Result<(), SourceError> {
        self.flush()?;
        if let Err(error) = self.check.finish(&uri) {
            self.partial.discard()?;
            return Err(error);
        }
        self.pinned.total_bytes = Some(self.written_bytes);
        self.pinned.complete = true;
        self.partial.save(&self.pinned)
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }
}

fn remove_where(folder: &Path, is_meant: impl Fn(&DirEntry) -> io::Result<bool>) -> io::Result<()> {
    let remove_if_meant = |entry: DirEntry| if is_meant(&entry)? { fs::remove_file(entry.path()) } else { Ok(()) };
    for entry in fs::read_dir(folder)? {
        match remove_if_meant(entry?) {
            // Another download ended, or removed it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn hash_file(file: &mut File, check: &mut DigestCheck) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => check.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
