//! Prepares a package for its content: checks the whole manifest, admits it to the disk, makes the empty tree, finds
//! what a crash left, and copies what other packages have.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use peerdist_core::chunk_set::{ChunkIndex, ChunkSet};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ChunkTable, EntryKind, TreeOrder};
use rustix::fs::SeekFrom;

use super::beneath;
use super::error::{StoreError, io_error};
use super::journal::RecordedStage;
use super::node_store::NodeStore;
use super::package::{FILES_SYNCED_SINGLY_MAX, Package, Stage, lock};
use super::segments::segments_of;
use super::tree::{Directories, create_entry};

/// Space that stays free for the journal and for others.
const SPACE_LEFT_FREE_BYTES: u64 = 16 << 20;
/// What a directory or link takes, and what a file's size is rounded up to.
const BLOCK_BYTES: u64 = 4096;

/// A package that can be written to.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Chunks that can be read.
    pub available: ChunkSet,
    /// Chunks that survive a crash.
    pub held: ChunkSet,
    /// Bytes that were copied from other packages just now; they become held with the next flush.
    pub bytes_from_local: u64,
}

/// What a tree takes.
#[derive(Debug, Clone, Copy)]
struct Need {
    bytes: u64,
    inodes: u64,
}

impl NodeStore {
    /// Makes a package ready for [`NodeStore::write_chunk`]. Again and again is fine.
    ///
    /// # Errors
    /// [`StoreError::ManifestIncomplete`], [`StoreError::DiskFull`], [`StoreError::PathOccupied`], or a manifest that
    /// is refused.
    pub fn prepare(&self, digest: Digest) -> Result<Prepared, StoreError> {
        let package = self.package(digest)?;
        let _lifecycle = lock(&package.lifecycle);
        let stage = package.state().stage;
        match stage {
            Stage::Removing { .. } => return Err(StoreError::BeingRemoved(digest)),
            Stage::Listed => self.stage_tree(&package)?,
            Stage::Staged | Stage::Published { .. } => {}
        }
        let table = self.pages.table(&package.root)?;
        self.hash_what_a_crash_left(&package, &table)?;
        let bytes_from_local = self.copy_from_others(&package, &table)?;
        let (available, held) = self.journal.between_commits(|| {
            let state = package.state();
            (state.available.clone(), state.held.clone())
        });
        Ok(Prepared { available, held, bytes_from_local })
    }

    /// Compares a need with what the disk and the limit leave.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`] with need, have and limit.
    pub fn check_space(&self, need_bytes: u64) -> Result<(), StoreError> {
        let limit_bytes = self.limits().limit_bytes;
        let below_limit = limit_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(self.stored_bytes()));
        let have_bytes = self.free_bytes()?.min(below_limit);
        if need_bytes > have_bytes {
            return Err(StoreError::DiskFull { need_bytes, have_bytes, limit_bytes });
        }
        Ok(())
    }

    /// Gives a disk-full error its numbers.
    pub(super) fn with_numbers(&self, error: StoreError, need_bytes: u64) -> StoreError {
        match error {
            StoreError::DiskFull { .. } => StoreError::DiskFull {
                need_bytes,
                have_bytes: self.free_bytes().unwrap_or_default(),
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

    /// Free bytes of the disk that are not promised to anybody.
    fn free_bytes(&self) -> Result<u64, StoreError> {
        let disk = rustix::fs::fstatvfs(&self.root_directory)
            .map_err(|error| io_error("examine", &self.root)(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let promised = self.promised_bytes()?.saturating_add(*lock(&self.reserving));
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

    fn stage_tree(&self, package: &Package) -> Result<(), StoreError> {
        let missing = self.pages.missing(&package.root).len();
        if missing > 0 {
            return Err(StoreError::ManifestIncomplete { digest: package.digest(), missing });
        }
        let need = self.check_manifest(package)?;
        self.check_place(package)?;
        self.check_inodes(need)?;
        let _reservation = self.reserve(need.bytes)?;
        let name = package.staging_name();
        let built = self.build_tree(package, &name);
        if built.is_err() {
            let cleaned = beneath::remove_all(&self.staging, name.as_bytes());
            cleaned.map_err(io_error("clean", self.staging_path(&name)))?;
        }
        let BuiltTree { sparse, synced } = built.map_err(|error| self.with_numbers(error, need.bytes))?;
        {
            let mut state = package.state();
            state.sparse = sparse;
            if !synced {
                state.unflushed.sync_everything();
            }
        }
        self.commit_record(package, RecordedStage::Staged)?;
        let mut state = package.state();
        state.stage = Stage::Staged;
        state.rehashed = true;
        Ok(())
    }

    /// Reads the whole manifest once, before anything is made: order, parents, sizes.
    fn check_manifest(&self, package: &Package) -> Result<Need, StoreError> {
        let (mut order, mut need) = (TreeOrder::default(), Need { bytes: BLOCK_BYTES, inodes: 1 });
        for position in 0..package.root.entry_pages().len() {
            for entry in &self.pages.entry_page(&package.root, position)?.entries {
                order.check(entry)?;
                need.inodes += 1;
                need.bytes = need.bytes.saturating_add(match &entry.kind {
                    EntryKind::File { bytes, .. } => bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
                    EntryKind::Directory | EntryKind::Symlink { .. } => BLOCK_BYTES,
                });
            }
        }
        self.pages.table(&package.root)?;
        Ok(need)
    }

    fn check_inodes(&self, need: Need) -> Result<(), StoreError> {
        let disk = rustix::fs::fstatvfs(&self.root_directory)
            .map_err(|error| io_error("examine", &self.root)(error.into()))?;
        // File systems that make inodes on demand say that they have none at all.
        if disk.f_files > 0 && disk.f_favail < need.inodes {
            return Err(StoreError::InodesFull { need: need.inodes, have: disk.f_favail });
        }
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, StoreError> {
        self.check_space(bytes)?;
        *lock(&self.reserving) += bytes;
        Ok(Reservation { store: self, bytes })
    }

    fn build_tree(&self, package: &Package, name: &str) -> Result<BuiltTree, StoreError> {
        let path = self.staging_path(name);
        let top = beneath::remove_all(&self.staging, name.as_bytes())
            .and_then(|()| beneath::ensure_directory(&self.staging, name.as_bytes(), beneath::OPEN_DIRECTORY))
            .map_err(io_error("create", &path))?;
        let synced = package.root.entry_count() as usize <= FILES_SYNCED_SINGLY_MAX;
        let sync = |directory: &OwnedFd| if synced { Ok(rustix::fs::fsync(directory)?) } else { Ok(()) };
        let mut directories = Directories::new(top.0, sync);
        let mut sparse = false;
        for position in 0..package.root.entry_pages().len() {
            for entry in &self.pages.entry_page(&package.root, position)?.entries {
                let created = create_entry(&mut directories, entry);
                sparse |= !created.map_err(|error| io_error("create", path.join(entry.path.to_string()))(error))?;
            }
        }
        let top = directories.finish().map_err(io_error("sync", &path))?;
        if synced {
            sync(&top).and_then(|()| sync(&self.staging)).map_err(io_error("sync", &path))?;
        }
        Ok(BuiltTree { sparse, synced })
    }

    /// After a crash, staging may have more than the journal knows: hash it instead of fetching it again.
    fn hash_what_a_crash_left(&self, package: &Package, table: &ChunkTable) -> Result<(), StoreError> {
        let unknown = {
            let state = package.state();
            if state.rehashed {
                return Ok(());
            }
            state.available.complement()
        };
        for index in unknown.iter() {
            if self.has_data(package, table, index)? && self.read_verified(package, table, index).is_ok() {
                let mut state = package.state();
                state.available.insert(index);
                state.unflushed.chunks.push(index);
                state.unflushed.sync_everything();
            }
        }
        package.state().rehashed = true;
        Ok(())
    }

    /// Whether something was written where a chunk starts: most of a preallocated file needs no reading.
    fn has_data(&self, package: &Package, table: &ChunkTable, index: ChunkIndex) -> Result<bool, StoreError> {
        let Some((first, length)) = table.offset(index).zip(table.length(index)) else { return Ok(false) };
        let tree = self.tree(package)?;
        let segments = segments_of(&self.pages, &package.root, first, length)?;
        let Some(segment) = segments.first() else { return Ok(false) };
        let Ok(open) = self.files.for_reading(package.digest(), segment.entry, &tree, &segment.file) else {
            return Ok(false);
        };
        let end = segment.offset + segment.length as u64;
        Ok(match rustix::fs::seek(&open.file, SeekFrom::Data(segment.offset)) {
            Ok(data) => data < end,
            Err(rustix::io::Errno::NXIO) => false,
            Err(_) => true,
        })
    }

    /// Copies chunks that this or another package has, after verifying them. Returns the bytes copied.
    fn copy_from_others(&self, package: &Package, table: &ChunkTable) -> Result<u64, StoreError> {
        let missing = package.state().available.complement();
        if missing.is_empty() {
            return Ok(0);
        }
        let mut wanted: BTreeMap<Digest, Vec<ChunkIndex>> = BTreeMap::new();
        for index in missing.iter() {
            if let Some(digest) = table.digest(index) {
                wanted.entry(digest).or_default().push(index);
            }
        }
        let others: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let mut copied = 0;
        for other in others.iter().filter(|other| !other.state().available.is_empty()) {
            copied += self.copy_from(other, package, table, &mut wanted)?;
        }
        Ok(copied)
    }

    fn copy_from(
        &self,
        other: &Package,
        package: &Package,
        table: &ChunkTable,
        wanted: &mut BTreeMap<Digest, Vec<ChunkIndex>>,
    ) -> Result<u64, StoreError> {
        // A package whose pages were lost cannot help; it is no reason to fail.
        let Ok(source) = self.pages.table(&other.root) else { return Ok(0) };
        let available = other.state().available.clone();
        let mut copied = 0;
        for index in available.iter() {
            let Some(digest) = source.digest(index).filter(|digest| wanted.contains_key(digest)) else { continue };
            let Ok(bytes) = self.read_chunk(other.digest(), index) else { continue };
            for target in wanted.remove(&digest).unwrap_or_default() {
                copied += self.copy_to(package, table, target, &bytes)?;
            }
        }
        Ok(copied)
    }

    fn copy_to(
        &self,
        package: &Package,
        table: &ChunkTable,
        index: ChunkIndex,
        bytes: &Bytes,
    ) -> Result<u64, StoreError> {
        self.store_verified(package, table, index, bytes)?;
        Ok(bytes.len() as u64)
    }
}

struct BuiltTree {
    sparse: bool,
    /// Its names are on disk.
    synced: bool,
}

/// Space promised to a tree that is being made.
struct Reservation<'store> {
    store: &'store NodeStore,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *lock(&self.store.reserving) -= self.bytes;
    }
}
