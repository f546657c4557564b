//! One package in memory: its stage, its chunks, and what is written but not flushed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerdist_core::chunk_set::{ChunkIndex, ChunkSet};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ManifestRoot;

use super::journal::{JournalledPackage, Record, RecordedStage};
use super::open_files::OpenFile;

/// Files that a flush syncs one by one; with more, the whole file system is synced at once.
pub(super) const FILES_SYNCED_SINGLY_MAX: usize = 16;

/// How far a package is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Manifest only.
    Listed,
    /// Its tree lies in staging.
    Staged,
    /// Its tree lies at its place.
    Published {
        /// Inode of the tree's top directory.
        inode: u64,
    },
    /// On its way out; nothing of it may be used any more.
    Removing {
        /// Inode of the tree's top directory, if it was published.
        inode: Option<u64>,
    },
}

/// A package of a store.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) root: ManifestRoot,
    /// Held by whoever changes the stage: prepare, publish, delete.
    pub(super) lifecycle: Mutex<()>,
    pub(super) state: Mutex<PackageState>,
}

/// What changes. Never do slow things while holding it.
#[derive(Debug)]
pub(super) struct PackageState {
    pub(super) stage: Stage,
    /// Staged content without a journal entry was hashed in this run.
    pub(super) rehashed: bool,
    pub(super) current: bool,
    pub(super) superseded_at_seconds: Option<u64>,
    pub(super) sparse: bool,
    /// Journalled after its data was flushed.
    pub(super) held: ChunkSet,
    /// Written or verified in this run.
    pub(super) available: ChunkSet,
    /// Lost with a file that had to be made anew, which whoever repairs the tree has not been told.
    pub(super) lost_with_file: Vec<ChunkIndex>,
    pub(super) unflushed: Unflushed,
    /// Top directory of the tree, opened once.
    pub(super) tree: Option<Arc<OwnedFd>>,
}

/// Written since the last flush.
#[derive(Debug, Default)]
pub(super) struct Unflushed {
    pub(super) chunks: Vec<ChunkIndex>,
    pub(super) bytes: u64,
    /// Files with unflushed data, by entry; kept only while they are few.
    pub(super) files: BTreeMap<u32, Arc<OpenFile>>,
    /// More files than are kept, or names that are not on disk yet.
    pub(super) whole_file_system: bool,
}

impl Unflushed {
    pub(super) fn add_file(&mut self, entry: u32, file: &Arc<OpenFile>) {
        if self.whole_file_system {
            return;
        }
        self.files.entry(entry).or_insert_with(|| Arc::clone(file));
        if self.files.len() > FILES_SYNCED_SINGLY_MAX {
            self.sync_everything();
        }
    }

    pub(super) fn add_files(&mut self, other: Unflushed) {
        if other.whole_file_system {
            self.sync_everything();
        }
        other.files.iter().for_each(|(entry, file)| self.add_file(*entry, file));
    }

    pub(super) fn sync_everything(&mut self) {
        self.files.clear();
        self.whole_file_system = true;
    }
}

impl Package {
    pub(super) fn listed(root: ManifestRoot) -> Self {
        let held = ChunkSet::new(root.chunk_count());
        let record = Record { stage: RecordedStage::Listed, superseded_at_seconds: None, sparse: false };
        Self::journalled(JournalledPackage { root, record, held })
    }

    /// A package as the journal has it, after recovery: never in between two stages.
    pub(super) fn journalled(journalled: JournalledPackage) -> Self {
        let JournalledPackage { root, record, held } = journalled;
        let stage = match record.stage {
            RecordedStage::Listed => Stage::Listed,
            RecordedStage::Staged | RecordedStage::Publishing { .. } => Stage::Staged,
            RecordedStage::Published { inode } => Stage::Published { inode },
            RecordedStage::Removing { inode } => Stage::Removing { inode },
        };
        let state = PackageState {
            stage,
            rehashed: !matches!(stage, Stage::Staged),
            current: false,
            superseded_at_seconds: record.superseded_at_seconds,
            sparse: record.sparse,
            available: held.clone(),
            lost_with_file: Vec::new(),
            held,
            unflushed: Unflushed::default(),
            tree: None,
        };
        Self { root, lifecycle: Mutex::new(()), state: Mutex::new(state) }
    }

    pub(super) fn digest(&self) -> Digest {
        self.root.digest()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, PackageState> {
        lock(&self.state)
    }

    /// Name of the staging tree.
    pub(super) fn staging_name(&self) -> String {
        self.digest().to_hex()
    }
}

impl PackageState {
    /// What the journal should say about it.
    pub(super) fn record(&self, stage: RecordedStage) -> Record {
        Record { stage, superseded_at_seconds: self.superseded_at_seconds, sparse: self.sparse }
    }
}

/// Locks; a thread that panicked left nothing half done that the next one could trip over.
pub(super) fn lock<Value>(mutex: &Mutex<Value>) -> MutexGuard<'_, Value> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
