//! Writes verified chunks straight to their final place.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peerdist_core::chunk_set::{ChunkIndex, ChunkRun, runs_of};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ChunkTable;

use super::error::{ChunkFault, StoreError, io_error};
use super::node_store::NodeStore;
use super::open_files::OpenFile;
use super::package::{Package, Stage, Unflushed, lock};
use super::segments::{Segment, segments_of};

/// Written bytes after which a flush is due: what a crash may cost.
pub(super) const FLUSH_DUE_BYTES: u64 = 8 << 20;

/// What became of a written chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkOutcome {
    /// It was not here before.
    pub new: bool,
    /// Enough is unflushed: call [`NodeStore::flush`] now.
    pub needs_flush: bool,
    /// Chunks that were here and are not any more: their file had to be made anew for this one.
    pub lost: Vec<ChunkRun>,
    /// How long it took to compare the chunk with the manifest, before anything was written.
    pub verifying: Duration,
}

impl NodeStore {
    /// Verifies a chunk against the manifest and writes it to its place.
    ///
    /// # Errors
    /// [`StoreError::ChunkRefused`] for other bytes than the manifest's, [`StoreError::NotPrepared`] without a tree.
    pub fn write_chunk(&self, digest: Digest, index: ChunkIndex, bytes: &Bytes) -> Result<ChunkOutcome, StoreError> {
        let package = self.package(digest)?;
        let table = self.pages.table(&package.root)?;
        let began = Instant::now();
        let fault = fault_of(&table, index, bytes);
        let verifying = began.elapsed();
        if let Some(fault) = fault {
            return Err(StoreError::ChunkRefused { digest, index, fault });
        }
        let outcome = self.store_verified(&package, &table, index, bytes)?;
        if matches!(package.state().stage, Stage::Staged) {
            lock(&self.recent).keep(Instant::now(), (digest, index), bytes.clone());
        }
        Ok(ChunkOutcome { verifying, ..outcome })
    }

    /// Writes bytes that were verified to be this chunk.
    pub(super) fn store_verified(
        &self,
        package: &Package,
        table: &ChunkTable,
        index: ChunkIndex,
        bytes: &[u8],
    ) -> Result<ChunkOutcome, StoreError> {
        if package.state().available.contains(index) {
            return Ok(self.outcome(false, Vec::new()));
        }
        let (first, length) = table.offset(index).zip(table.length(index)).unwrap_or_default();
        let (mut rest, mut touched) = (bytes, Unflushed::default());
        for segment in segments_of(&self.pages, &package.root, first, length)? {
            let (part, behind) = rest.split_at(segment.length.min(rest.len()));
            let written = self.write_segment(package, table, &segment, part);
            let open = written.map_err(|error| self.with_numbers(error, bytes.len() as u64))?;
            touched.add_file(segment.entry, &open);
            rest = behind;
        }
        self.note_written(package, index, length, touched)
    }

    fn write_segment(
        &self,
        package: &Package,
        table: &ChunkTable,
        segment: &Segment,
        bytes: &[u8],
    ) -> Result<Arc<OpenFile>, StoreError> {
        let open = self.open_segment(package, table, segment)?;
        let path = || self.tree_path(package).join(segment.file.path.to_string());
        open.file.write_all_at(bytes, segment.offset).map_err(|error| io_error("write", path())(error))?;
        Ok(open)
    }

    /// Opens the file of a segment for writing; what a file lost that had to be put right is fetched again.
    pub(super) fn open_segment(
        &self,
        package: &Package,
        table: &ChunkTable,
        segment: &Segment,
    ) -> Result<Arc<OpenFile>, StoreError> {
        let tree = self.tree(package)?;
        let path = || self.tree_path(package).join(segment.file.path.to_string());
        let sealed = matches!(package.state().stage, Stage::Published { .. });
        let opened = self.files.for_writing(package.digest(), segment.entry, &tree, &segment.file, sealed);
        let open = opened.map_err(|error| io_error("open", path())(error))?;
        if open.restored {
            self.lose_file(package, table, &segment.file)?;
        }
        Ok(open)
    }

    /// Notes a chunk whose bytes are in their files, and which files a flush must sync.
    pub(super) fn note_written(
        &self,
        package: &Package,
        index: ChunkIndex,
        length: u32,
        touched: Unflushed,
    ) -> Result<ChunkOutcome, StoreError> {
        let mut state = package.state();
        if matches!(state.stage, Stage::Removing { .. }) {
            return Err(StoreError::BeingRemoved(package.digest()));
        }
        state.unflushed.add_files(touched);
        let new = state.available.insert(index);
        if new {
            state.unflushed.chunks.push(index);
            state.unflushed.bytes += u64::from(length);
            self.unflushed_bytes.fetch_add(length.into(), Ordering::Relaxed);
        }
        let lost = std::mem::take(&mut state.lost_with_file);
        let lost = runs_of(lost.into_iter().filter(|&index| !state.available.contains(index)));
        Ok(self.outcome(new, lost))
    }

    fn outcome(&self, new: bool, lost: Vec<ChunkRun>) -> ChunkOutcome {
        let needs_flush = self.unflushed_bytes.load(Ordering::Relaxed) >= FLUSH_DUE_BYTES;
        ChunkOutcome { new, needs_flush, lost, verifying: Duration::ZERO }
    }
}

fn fault_of(table: &ChunkTable, index: ChunkIndex, bytes: &[u8]) -> Option<ChunkFault> {
    let Some((digest, length)) = table.digest(index).zip(table.length(index)) else {
        return Some(ChunkFault::UnknownIndex);
    };
    if bytes.len() != length as usize {
        return Some(ChunkFault::Length);
    }
    (Digest::of(bytes) != digest).then_some(ChunkFault::Digest)
}
