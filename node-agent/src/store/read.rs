//! Reads chunks. What comes from disk is verified each time: files can change under us, disks forget, and nothing wrong
//! may be passed on. What was verified and written a moment ago is still in memory.

use std::fs::File;
use std::io;

use bytes::Bytes;
use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ChunkTable;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::error::{ReadError, StoreError, io_error};
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};
use super::segments::{Segment, SegmentFile, segments_of};

/// Why a chunk that should be there cannot be used.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// Its file is gone, changed or unreadable.
    Damaged,
    /// Something that says nothing about the chunk.
    Store(StoreError),
}

impl NodeStore {
    /// Reads an available chunk, verified. One that fails counts as lost and must be fetched again.
    ///
    /// # Errors
    /// [`ReadError::Missing`] when it is not here, [`ReadError::Corrupt`] when its file changed.
    pub fn read_chunk(&self, digest: Digest, index: ChunkIndex) -> Result<Bytes, ReadError> {
        if let Some(bytes) = self.recent_chunk(digest, index) {
            return Ok(bytes);
        }
        let missing = || ReadError::Missing { digest, index };
        let package = self.package(digest).map_err(|_| missing())?;
        if !package.state().available.contains(index) {
            return Err(missing());
        }
        let table = self.pages.table(&package.root)?;
        match self.read_verified(&package, &table, index) {
            Ok(bytes) => Ok(bytes),
            Err(ReadFault::Store(error)) => Err(error.into()),
            Err(ReadFault::Damaged) => {
                self.lose(&package, [index])?;
                Err(ReadError::Corrupt { digest, index })
            }
        }
    }

    /// The chunk if it is in memory, verified when it was written a moment ago: never waits for a disk.
    pub fn recent_chunk(&self, digest: Digest, index: ChunkIndex) -> Option<Bytes> {
        lock(&self.recent).find((digest, index))
    }

    pub(super) fn read_verified(
        &self,
        package: &Package,
        table: &ChunkTable,
        index: ChunkIndex,
    ) -> Result<Bytes, ReadFault> {
        let place = table.offset(index).zip(table.length(index)).zip(table.digest(index));
        let Some(((first, length), digest)) = place else { return Err(ReadFault::Damaged) };
        let segments = segments_of(&self.pages, &package.root, first, length).map_err(ReadFault::Store)?;
        let mut content = Vec::with_capacity(length as usize);
        for segment in &segments {
            self.read_segment(package, segment, &mut content)?;
        }
        if Digest::of(&content) == digest { Ok(content.into()) } else { Err(ReadFault::Damaged) }
    }

    /// Appends the bytes of a segment to what was read already.
    fn read_segment(&self, package: &Package, segment: &Segment, content: &mut Vec<u8>) -> Result<(), ReadFault> {
        let tree = match self.tree(package) {
            Ok(tree) => tree,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(ReadFault::Damaged);
            }
            Err(error) => return Err(ReadFault::Store(error)),
        };
        let open = self.files.for_reading(package.digest(), segment.entry, &tree, &segment.file);
        let read = open.and_then(|open| append_exact_at(&open.file, content, segment.length, segment.offset));
        read.map_err(|error| {
            self.files.forget_file(package.digest(), segment.entry);
            if is_about_us(&error) {
                let path = self.tree_path(package).join(segment.file.path.to_string());
                ReadFault::Store(io_error("read", path)(error))
            } else {
                ReadFault::Damaged
            }
        })
    }

    /// Takes chunks away from what is available and held.
    pub(super) fn lose(
        &self,
        package: &Package,
        chunks: impl IntoIterator<Item = ChunkIndex>,
    ) -> Result<(), StoreError> {
        let _flushing = lock(&self.flushing);
        let chunks: Vec<ChunkIndex> = chunks.into_iter().collect();
        self.journal.commit(
            |changes| {
                let mut held = package.state().held.clone();
                let touched: Vec<ChunkIndex> = chunks.iter().copied().filter(|&index| held.remove(index)).collect();
                changes.put_held(package.digest(), &held, touched)
            },
            || {
                let mut state = package.state();
                for &index in &chunks {
                    state.held.remove(index);
                    state.available.remove(index);
                }
            },
        )
    }

    /// Loses every chunk with a byte in a file.
    pub(super) fn lose_file(
        &self,
        package: &Package,
        table: &ChunkTable,
        file: &SegmentFile,
    ) -> Result<(), StoreError> {
        let chunks = table.covering(file.first_byte, file.bytes);
        let state = package.state();
        let affected: Vec<ChunkIndex> = chunks.filter(|&index| state.available.contains(index)).collect();
        drop(state);
        if affected.is_empty() {
            return Ok(());
        }
        self.lose(package, affected.iter().copied())?;
        package.state().lost_with_file.extend(affected);
        Ok(())
    }

    /// Whether the tree of a package can be read at all.
    pub(super) fn has_tree(package: &Package) -> bool {
        matches!(package.state().stage, Stage::Staged | Stage::Published { .. })
    }
}

/// Reads into memory that was never written, unlike `read_exact_at`: every chunk that is served comes through here.
fn append_exact_at(file: &File, content: &mut Vec<u8>, length: usize, mut offset: u64) -> io::Result<()> {
    let end = content.len() + length;
    content.reserve_exact(length);
    while content.len() < end {
        let begin = content.len();
        let read = match rustix::io::pread(file, spare_capacity(content), offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        content.truncate(end.min(begin + read));
        offset += read as u64;
    }
    Ok(())
}

/// Errors of the process or the system rather than of the file.
fn is_about_us(error: &io::Error) -> bool {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}
