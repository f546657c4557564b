//! Space: what a package needs, what the disk and the limit leave, what is promised but not taken yet, and what arrives
//! for a library. How much of its disk a library leaves free is kept here and obeyed by whoever fills it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{StoreError, io_error};
use super::ingest::DOWNLOADS_FOLDER;
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};

/// Space that stays free for the journal and for others.
const SPACE_LEFT_FREE_BYTES: u64 = 16 << 20;

/// What a tree takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

impl NodeStore {
    /// Compares a need with what the disk and the limit leave.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] with need, have and limit.
    pub fn check_space(&self, need_bytes: u64) -> Result<(), StoreError> {
        self.check_space_beside(need_bytes, *lock(&self.reserving))
    }

    fn check_space_beside(&self, need_bytes: u64, reserved_bytes: u64) -> Result<(), StoreError> {
        let limit_bytes = self.limits().limit_bytes;
        let below_limit = self.limit_left_bytes().map_or(u64::MAX, |left| left.saturating_sub(reserved_bytes));
        let have_bytes = self.free_bytes(reserved_bytes)?.min(below_limit);
        if need_bytes > have_bytes {
            return Err(StoreError::DiskFull { need_bytes, have_bytes, limit_bytes });
        }
        Ok(())
    }

    /// What the limit leaves; `None` without a limit. What arrives for a library counts as its packages do.
    pub fn limit_left_bytes(&self) -> Option<u64> {
        let limit_bytes = self.limits().limit_bytes?;
        let taken_bytes = self.stored_bytes().saturating_add(self.arriving_bytes());
        Some(limit_bytes.saturating_sub(taken_bytes))
    }

    /// Has whoever fills the library leave that share of its disk free.
    pub fn keep_free(&self, percent: u8) {
        self.kept_free_percent.store(percent, Ordering::Relaxed);
    }

    /// The share of its disk that whoever fills the library leaves free.
    pub fn kept_free_percent(&self) -> u8 {
        self.kept_free_percent.load(Ordering::Relaxed)
    }

    /// Downloads lie there from earlier tries and runs, too; nobody has to count those.
    fn arriving_bytes(&self) -> u64 {
        let downloads = fs::read_dir(self.staging_path(DOWNLOADS_FOLDER)).into_iter().flatten().flatten();
        let downloaded: u64 = downloads.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
        downloaded.saturating_add(self.staged_bytes.load(Ordering::Relaxed))
    }

    /// Gives a disk-full error its numbers.
    pub(super) fn with_numbers(&self, error: StoreError, need_bytes: u64) -> StoreError {
        match error {
            StoreError::DiskFull { .. } => StoreError::DiskFull {
                need_bytes,
                have_bytes: self.free_bytes(*lock(&self.reserving)).unwrap_or_default(),
                limit_bytes: self.limits().limit_bytes,
            },
            other => other,
        }
    }

    fn stored_bytes(&self) -> u64 {
        let has_tree =
            |package: &&Arc<Package>| matches!(package.state().stage, Stage::Staged | Stage::Published { .. });
        lock(&self.packages).values().filter(has_tree).map(|package| package.root.total_bytes()).sum()
    }

    /// Free bytes of the disk that are neither reserved nor promised to anybody.
    fn free_bytes(&self, reserved_bytes: u64) -> Result<u64, StoreError> {
        let disk = rustix::fs::fstatvfs(&self.root_directory)
            .map_err(|error| io_error("examine", &self.root)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let promised = self.promised_bytes()?.saturating_add(reserved_bytes);
        Ok(free.saturating_sub(promised).saturating_sub(SPACE_LEFT_FREE_BYTES))
    }

    /// Bytes that staged packages still lack, where the file system could not reserve them.
    fn promised_bytes(&self) -> Result<u64, StoreError> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let mut promised = 0u64;
        for package in packages {
            let missing = {
                let state = package.state();
                if !state.sparse || state.stage != Stage::Staged {
                    continue;
                }
                state.available.complement()
            };
            promised = promised.saturating_add(self.pages.table(&package.root)?.bytes_of(missing.iter()));
        }
        Ok(promised)
    }

    pub(super) fn check_inodes(&self, need: Need) -> Result<(), StoreError> {
        let disk = rustix::fs::fstatvfs(&self.root_directory)
            .map_err(|error| io_error("examine", &self.root)(error.into()))?;
        // File systems that make inodes on demand say that they have none at all.
        if disk.f_files > 0 && disk.f_favail < need.inodes {
            return Err(StoreError::InodesFull { need: need.inodes, have: disk.f_favail });
        }
        Ok(())
    }

    /// Reserves space for a tree until the reservation is dropped. Of two at once the second sees the first.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, StoreError> {
        let mut reserving = lock(&self.reserving);
        self.check_space_beside(bytes, *reserving)?;
        *reserving += bytes;
        Ok(Reservation { store: self, bytes })
    }
}

/// Bytes that one ingest has in staging. They count until its folder is gone, or has become a package.
#[derive(Debug)]
pub struct StagedBytes {
    of_all: Arc<AtomicU64>,
    own: AtomicU64,
}

impl StagedBytes {
    pub(super) fn new(of_all: Arc<AtomicU64>) -> Self {
        Self { of_all, own: AtomicU64::new(0) }
    }

    /// Counts what is written next.
    pub fn add(&self, bytes: u64) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.of_all.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for StagedBytes {
    fn drop(&mut self) {
        self.of_all.fetch_sub(*self.own.get_mut(), Ordering::Relaxed);
    }
}

/// Space promised to a tree that is being made.
pub(super) struct Reservation<'store> {
    store: &'store NodeStore,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *lock(&self.store.reserving) -= self.bytes;
    }
}
