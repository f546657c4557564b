//! Disk admission while content arrives: bytes are admitted before they are written, so that a package that does not
//! fit is refused with what it needs and what there is, and neither an archive nor a download without end can inflate
//! beyond the disk, beyond what is left to others on it, or beyond the limit of the library.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::error::SourceError;
use crate::store::{NodeStore, StagedBytes};

/// Free bytes that ingest leaves alone besides a share of the disk: for the journal, the database, and what several
/// ingests write before one of them looks again.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// What is left is looked at again after this many admitted bytes. Several ingests at a time see each other by that, and
/// exceed together what is left by less than the reserve.
const RECHECK_BYTES: u64 = 8 << 20;
/// What an entry takes on the disk, however short it is.
const ENTRY_BYTES: u64 = 4 << 10;

/// What bounds the bytes besides the disk itself.
#[derive(Debug, Clone)]
pub enum Quota {
    /// So many in all, if there is a bound.
    Bytes(Option<u64>),
    /// The limit of this library and the share of its disk that it leaves free, both as they are at each look.
    Library(Arc<NodeStore>),
}

impl Quota {
    fn limit_bytes(&self) -> Option<u64> {
        match self {
            Self::Bytes(limit_bytes) => *limit_bytes,
            Self::Library(library) => library.limits().limit_bytes,
        }
    }

    fn kept_free_percent(&self) -> u8 {
        match self {
            Self::Bytes(_) => 0,
            Self::Library(library) => library.kept_free_percent(),
        }
    }
}

/// What ingest may still write.
pub struct DiskAdmission {
    path: PathBuf,
    directory: rustix::fd::OwnedFd,
    quota: Quota,
    /// Where the library counts what is admitted.
    counted: Option<Arc<StagedBytes>>,
    /// What the limit leaves, if there is one.
    limit_left_bytes: Option<u64>,
    admitted_since_check: u64,
    free_at_check: u64,
    /// Free bytes at the last look that are not ours to take.
    kept_free_bytes: u64,
}

impl DiskAdmission {
    /// Admission to the disk that `path` lies on, of so many bytes if there is a bound.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn new(path: &Path, limit_left_bytes: Option<u64>) -> Result<Self, SourceError> {
        Self::within(path, Quota::Bytes(limit_left_bytes))
    }

    /// Admission to the disk that `path` lies on, within a quota.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn within(path: &Path, quota: Quota) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| SourceError::library(path)(errno.into()))?;
        let mut admission = Self {
            path: path.to_owned(),
            directory,
            limit_left_bytes: quota.limit_bytes(),
            quota,
            counted: None,
            admitted_since_check: 0,
            free_at_check: 0,
            kept_free_bytes: 0,
        };
        admission.check_again()?;
        Ok(admission)
    }

    /// The same, and the library counts what is admitted for as long as it is in staging.
    pub fn counted_in(self, staged: Arc<StagedBytes>) -> Self {
        Self { counted: Some(staged), ..self }
    }

    /// Whether `bytes` would fit, which is looked at again before it is denied; admits nothing.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] with need, have and limit.
    pub fn expect(&mut self, bytes: u64) -> Result<(), SourceError> {
        if self.have() < bytes {
            self.check_again()?;
        }
        self.compare(bytes, self.have())
    }

    /// Admits `bytes` that are written next.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] with need, have and limit.
    pub fn admit(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.take(bytes, Self::have)?;
        if let Some(left) = &mut self.limit_left_bytes {
            *left = left.saturating_sub(bytes);
        }
        if let Some(counted) = &self.counted {
            counted.add(bytes);
        }
        Ok(())
    }

    /// Admits an entry without its bytes. The disk has to have room for it; limits count bytes of files alone.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] with need, have and limit.
    pub fn admit_entry(&mut self) -> Result<(), SourceError> {
        self.take(ENTRY_BYTES, Self::free)
    }

    /// What a failed write of `bytes` means: a full disk is told from a broken one.
    pub fn write_failed(&mut self, bytes: u64, error: io::Error) -> SourceError {
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return SourceError::library(&self.path)(error);
        }
        match self.check_again() {
            Ok(()) => self.full(bytes, self.have().min(bytes.saturating_sub(1))),
            Err(error) => error,
        }
    }

    fn take(&mut self, bytes: u64, have: fn(&Self) -> u64) -> Result<(), SourceError> {
        if self.admitted_since_check.saturating_add(bytes) > RECHECK_BYTES || have(self) < bytes {
            self.check_again()?;
        }
        self.compare(bytes, have(self))?;
        self.admitted_since_check = self.admitted_since_check.saturating_add(bytes);
        Ok(())
    }

    fn compare(&self, need: u64, have: u64) -> Result<(), SourceError> {
        if need <= have { Ok(()) } else { Err(self.full(need, have)) }
    }

    fn full(&self, need: u64, have: u64) -> SourceError {
        SourceError::DiskFull { need, have, limit: self.quota.limit_bytes(), kept_free: self.kept_free_bytes }
    }

    /// What is left of the disk and of the limit.
    fn have(&self) -> u64 {
        self.free().min(self.limit_left_bytes.unwrap_or(u64::MAX))
    }

    /// What is left of the disk.
    fn free(&self) -> u64 {
        self.free_at_check.saturating_sub(self.admitted_since_check)
    }

    fn check_again(&mut self) -> Result<(), SourceError> {
        let space = rustix::fs::fstatvfs(self.directory.as_fd())
            .map_err(|errno| SourceError::library(&self.path)(errno.into()))?;
        let disk_bytes = space.f_blocks.saturating_mul(space.f_frsize);
        let share_bytes = disk_bytes / 100 * u64::from(self.quota.kept_free_percent());
        self.kept_free_bytes = RESERVE_BYTES.saturating_add(share_bytes);
        self.free_at_check = space.f_bavail.saturating_mul(space.f_frsize).saturating_sub(self.kept_free_bytes);
        self.admitted_since_check = 0;
        if let Quota::Library(library) = &self.quota {
            self.limit_left_bytes = library.limit_left_bytes();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLimits;

    /// Need, have and limit.
    fn numbers(result: Result<(), SourceError>) -> (u64, u64, Option<u64>) {
        match result.unwrap_err() {
            SourceError::DiskFull { need, have, limit, .. } => (need, have, limit),
            error => panic!("{error}"),
        }
    }

    #[test]
    fn a_refusal_says_need_and_have() {
        let root = tempfile::tempdir().unwrap();
        let mut disk = DiskAdmission::new(root.path(), Some(100)).unwrap();
        disk.expect(100).unwrap();
        disk.admit(60).unwrap();
        assert_eq!(numbers(disk.admit(50)), (50, 40, Some(100)));
        disk.admit(40).unwrap();
        assert!(disk.admit(1).is_err());
        disk.admit_entry().unwrap();
        let mut disk = DiskAdmission::new(root.path(), None).unwrap();
        assert!(disk.expect(1 << 60).is_err());
    }

    #[test]
    fn all_ingests_of_a_library_share_its_limit() {
        let root = tempfile::tempdir().unwrap();
        let limits = StoreLimits { limit_bytes: Some(100 << 20) };
        let library = Arc::new(NodeStore::open(root.path(), limits).unwrap());
        let (one, other) = (library.begin_ingest().unwrap(), library.begin_ingest().unwrap());
        let admission = |staging: &crate::store::IngestStaging| {
            let disk = DiskAdmission::within(staging.tree(), Quota::Library(Arc::clone(&library))).unwrap();
            disk.counted_in(staging.bytes())
        };
        let (mut first, mut second) = (admission(&one), admission(&other));
        first.admit(60 << 20).unwrap();
        assert_eq!(numbers(second.admit(50 << 20)), (50 << 20, 40 << 20, Some(100 << 20)));
        let downloads = library.downloads_folder().unwrap();
        std::fs::write(downloads.join("left.partial"), vec![0; 10 << 20]).unwrap();
        assert_eq!(numbers(second.admit(40 << 20)), (40 << 20, 30 << 20, Some(100 << 20)));
        drop((first, one));
        second.admit(50 << 20).unwrap();
    }

    #[test]
    fn a_library_leaves_a_share_of_its_disk_free_and_says_so() {
        let root = tempfile::tempdir().unwrap();
        let library = Arc::new(NodeStore::open(root.path(), StoreLimits::default()).unwrap());
        let mut disk = DiskAdmission::within(root.path(), Quota::Library(Arc::clone(&library))).unwrap();
        disk.admit(1).unwrap();
        library.keep_free(100);
        disk.check_again().unwrap();
        let error = disk.admit_entry().unwrap_err();
        let SourceError::DiskFull { need: ENTRY_BYTES, have: 0, limit: None, kept_free } = error else {
            panic!("{error}");
        };
        assert!(kept_free > RESERVE_BYTES);
        let told = format!("0 bytes are free beside the {kept_free} that it leaves to others");
        assert!(error.to_string().contains(&told), "{error}");
    }
}
