//! Brings written chunks to the disk and then into the journal: from then on they are held.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun, runs_of};
use peerdist_core::digest::Digest;

use super::error::{FlushError, StoreError, io_error};
use super::node_store::NodeStore;
use super::package::{FILES_SYNCED_SINGLY_MAX, Package, Stage, Unflushed, lock};

/// What one flush covers of a package.
struct Batch {
    package: Arc<Package>,
    unflushed: Unflushed,
    /// Chunks that are still available when they are journalled.
    fresh: Vec<ChunkIndex>,
}

impl NodeStore {
    /// Flushes what was written and journals it. Returns what became held. One thread calls this, others may write
    /// meanwhile.
    ///
    /// # Errors
    /// [`FlushError`]; it names the chunks that must be fetched again. When only the journal failed none is lost, and
    /// the next flush tries again.
    pub fn flush(&self) -> Result<Vec<(Digest, Vec<ChunkRun>)>, FlushError> {
        lock(&self.recent).expire(Instant::now());
        let _flushing = lock(&self.flushing);
        let mut batches = self.take_batches();
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        if let Err(source) = self.sync(&batches) {
            let source = self.with_numbers(source, unflushed_bytes(&batches));
            return Err(FlushError { lost: drop_batches(batches), source });
        }
        if let Err(source) = self.journal_batches(&mut batches) {
            let source = self.with_numbers(source, unflushed_bytes(&batches));
            self.put_back(batches);
            return Err(FlushError { lost: Vec::new(), source });
        }
        Ok(batches.into_iter().map(Batch::into_runs).filter(|(_, runs)| !runs.is_empty()).collect())
    }

    fn take_batches(&self) -> Vec<Batch> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let written = packages.into_iter().filter(|package| !package.state().unflushed.chunks.is_empty());
        written.map(|package| Batch { unflushed: self.take_unflushed(&package), package, fresh: Vec::new() }).collect()
    }

    /// A few files are synced one by one; syncing the file system is cheaper than syncing many.
    fn sync(&self, batches: &[Batch]) -> Result<(), StoreError> {
        let files = batches.iter().map(|batch| batch.unflushed.files.len()).sum::<usize>();
        let everything = batches.iter().any(|batch| batch.unflushed.whole_file_system);
        if everything || files > FILES_SYNCED_SINGLY_MAX {
            return self.sync_file_system();
        }
        for batch in batches {
            for open in batch.unflushed.files.values() {
                let path = || self.tree_path(&batch.package);
                open.file.sync_data().map_err(|error| io_error("sync files of", path())(error))?;
            }
        }
        Ok(())
    }

    pub(super) fn sync_file_system(&self) -> Result<(), StoreError> {
        rustix::fs::syncfs(self.root_directory.as_fd()).map_err(|error| io_error("sync", &self.root)(error.into()))
    }

    fn journal_batches(&self, batches: &mut [Batch]) -> Result<(), StoreError> {
        for batch in batches.iter_mut() {
            batch.fresh = batch.still_available();
        }
        let batches: &[Batch] = batches;
        self.journal.commit(
            |changes| {
                for Batch { package, fresh, .. } in batches {
                    let mut held = package.state().held.clone();
                    fresh.iter().for_each(|&index| {
                        held.insert(index);
                    });
                    changes.put_held(package.digest(), &held, fresh.iter().copied())?;
                }
                Ok(())
            },
            || {
                for Batch { package, fresh, .. } in batches {
                    let mut state = package.state();
                    fresh.iter().for_each(|&index| {
                        state.held.insert(index);
                    });
                }
            },
        )
    }

    /// The data is on disk but the journal does not know: the next flush tells it.
    fn put_back(&self, batches: Vec<Batch>) {
        for Batch { package, unflushed, .. } in batches {
            package.state().unflushed.chunks.extend(unflushed.chunks);
        }
    }
}

impl Batch {
    fn still_available(&self) -> Vec<ChunkIndex> {
        let state = self.package.state();
        if matches!(state.stage, Stage::Removing { .. }) {
            return Vec::new();
        }
        let mut fresh: Vec<ChunkIndex> =
            self.unflushed.chunks.iter().copied().filter(|&index| state.available.contains(index)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        fresh
    }

    fn into_runs(self) -> (Digest, Vec<ChunkRun>) {
        (self.package.digest(), runs_of(self.fresh))
    }
}

fn unflushed_bytes(batches: &[Batch]) -> u64 {
    batches.iter().map(|batch| batch.unflushed.bytes).sum()
}

/// After a failed sync nobody knows what reached the disk, and reading back would show the cache.
fn drop_batches(batches: Vec<Batch>) -> Vec<(Digest, Vec<ChunkRun>)> {
    let mut lost = Vec::new();
    for mut batch in batches {
        batch.fresh = batch.still_available();
        let mut state = batch.package.state();
        batch.fresh.iter().for_each(|&index| {
            state.available.remove(index);
        });
        drop(state);
        lost.push(batch.into_runs());
    }
    lost
}
