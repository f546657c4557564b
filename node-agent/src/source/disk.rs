//! Disk admission while content arrives: bytes are admitted before they are written, so that a package that does not
//! fit is refused with what it needs and what there is, and an archive cannot inflate beyond the disk.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::error::SourceError;

/// Free bytes that ingest leaves alone, for the journal, the database and everybody else on this disk.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The free space is asked for again after this many admitted bytes.
const RECHECK_BYTES: u64 = 64 << 20;

/// What ingest may still write.
pub struct DiskAdmission {
    path: PathBuf,
    directory: rustix::fd::OwnedFd,
    /// What the configured limit of the library leaves, if there is one.
    limit_left_bytes: Option<u64>,
    admitted_since_check: u64,
    free_at_check: u64,
}

impl DiskAdmission {
    /// Admission to the disk that `path` lies on.
    ///
    /// # Errors
    /// [`SourceError::LibraryFailed`]
    pub fn new(path: &Path, limit_left_bytes: Option<u64>) -> Result<Self, SourceError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| SourceError::library(path)(errno.into()))?;
        let mut admission =
            Self { path: path.to_owned(), directory, limit_left_bytes, admitted_since_check: 0, free_at_check: 0 };
        admission.check_again()?;
        Ok(admission)
    }

    /// Whether `bytes` would fit now; admits nothing.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] with need and have.
    pub fn expect(&mut self, bytes: u64) -> Result<(), SourceError> {
        self.check_again()?;
        self.compare(bytes)
    }

    /// Admits `bytes` that are written next.
    ///
    /// # Errors
    /// [`SourceError::DiskFull`] with need and have.
    pub fn admit(&mut self, bytes: u64) -> Result<(), SourceError> {
        if self.admitted_since_check.saturating_add(bytes) > RECHECK_BYTES || self.have() < bytes {
            self.check_again()?;
        }
        self.compare(bytes)?;
        self.admitted_since_check = self.admitted_since_check.saturating_add(bytes);
        if let Some(left) = &mut self.limit_left_bytes {
            *left -= bytes;
        }
        Ok(())
    }

    /// What a failed write of `bytes` means: a full disk is told from a broken one.
    pub fn write_failed(&mut self, bytes: u64, error: io::Error) -> SourceError {
        if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return SourceError::library(&self.path)(error);
        }
        match self.check_again() {
            Ok(()) => SourceError::DiskFull { need: bytes, have: self.have().min(bytes.saturating_sub(1)) },
            Err(error) => error,
        }
    }

    fn compare(&self, need: u64) -> Result<(), SourceError> {
        let have = self.have();
        if need <= have { Ok(()) } else { Err(SourceError::DiskFull { need, have }) }
    }

    fn have(&self) -> u64 {
        let free = self.free_at_check.saturating_sub(self.admitted_since_check);
        free.min(self.limit_left_bytes.unwrap_or(u64::MAX))
    }

    fn check_again(&mut self) -> Result<(), SourceError> {
        let space = rustix::fs::fstatvfs(self.directory.as_fd())
            .map_err(|errno| SourceError::library(&self.path)(errno.into()))?;
        self.free_at_check = space.f_bavail.saturating_mul(space.f_frsize).saturating_sub(RESERVE_BYTES);
        self.admitted_since_check = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_need_and_have() {
        let root = tempfile::tempdir().unwrap();
        let mut disk = DiskAdmission::new(root.path(), Some(100)).unwrap();
        disk.expect(100).unwrap();
        disk.admit(60).unwrap();
        match disk.admit(50).unwrap_err() {
            SourceError::DiskFull { need, have } => assert_eq!((need, have), (50, 40)),
            error => panic!("{error}"),
        }
        disk.admit(40).unwrap();
        assert!(disk.admit(1).is_err());
        let mut disk = DiskAdmission::new(root.path(), None).unwrap();
        assert!(disk.expect(1 << 60).is_err());
    }
}
