//! Prepares a package for its content: checks the whole manifest, admits it to the disk, makes the empty tree, finds
//! what a crash left, and copies what other packages have.

use std::os::fd::OwnedFd;

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
use super::space::Need;
use super::tree::{Directories, create_entry};

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
            Stage::Staged => {}
            Stage::Published { .. } => self.begin_repair(&package)?,
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

    /// A published tree that lacks chunks gets its directories back before they are written, and is marked so that it
    /// is sealed when all of them are there.
    fn begin_repair(&self, package: &Package) -> Result<(), StoreError> {
        if package.state().held.is_full() {
            return Ok(());
        }
        self.journal.commit(|changes| changes.mark_faulty(package.digest()), || ())?;
        self.restore_or_warn(package);
        Ok(())
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
}

struct BuiltTree {
    sparse: bool,
    /// Its names are on disk.
    synced: bool,
}
