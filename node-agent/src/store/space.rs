//! Space: what a package needs, what the disk and the limit leave, and what is promised but not taken yet.

use std::sync::Arc;

use super::error::{StoreError, io_error};
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

    /// What the limit leaves; `None` without a limit.
    pub fn limit_left_bytes(&self) -> Option<u64> {
        self.limits().limit_bytes.map(|limit| limit.saturating_sub(self.stored_bytes()))
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
