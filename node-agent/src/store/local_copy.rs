//! Copies chunks that this or another package has instead of fetching them. Runs of chunks are copied inside the
//! kernel, which shares the blocks where the file system can (XFS, btrfs), and verified at their new place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ChunkTable;

use super::error::{StoreError, io_error};
use super::node_store::NodeStore;
use super::package::{Package, Unflushed, lock};
use super::segments::segments_of;

/// Most bytes of a run: bounds what is copied in vain when a source is damaged.
const RUN_BYTES_MAX: u64 = 32 << 20;
/// Blocks are shared only when both places have the same offset in a block.
const BLOCK_BYTES: u64 = 4096;

/// Chunks that follow each other in both packages.
#[derive(Debug, Clone, Copy)]
struct CopyRun {
    source: ChunkIndex,
    target: ChunkIndex,
    count: u32,
    bytes: u64,
}

/// Missing chunks by digest.
type Wanted = BTreeMap<Digest, Vec<ChunkIndex>>;

/// One end of a copy.
#[derive(Clone, Copy)]
struct Side<'store> {
    package: &'store Package,
    table: &'store ChunkTable,
}

impl NodeStore {
    /// Copies what is missing from where it is. Returns the bytes that became available.
    pub(super) fn copy_from_others(&self, package: &Package, table: &ChunkTable) -> Result<u64, StoreError> {
        let missing = package.state().available.complement();
        if missing.is_empty() {
            return Ok(0);
        }
        let mut wanted = Wanted::new();
        for index in missing.iter() {
            if let Some(digest) = table.digest(index) {
                wanted.entry(digest).or_default().push(index);
            }
        }
        let others: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let mut copied = 0;
        for other in others.iter().filter(|other| !other.state().available.is_empty()) {
            // A package whose pages were lost cannot help; it is no reason to fail.
            let Ok(source) = self.pages.table(&other.root) else { continue };
            let from = Side { package: other, table: &source };
            for run in runs_between(from, &mut wanted) {
                copied += self.copy_run(from, Side { package, table }, run)?;
            }
        }
        Ok(copied)
    }

    fn copy_run(&self, from: Side<'_>, to: Side<'_>, run: CopyRun) -> Result<u64, StoreError> {
        // Not every file system can copy inside the kernel: then each chunk goes through memory.
        let mut touched = self.copy_in_kernel(from, to, run).ok();
        let mut copied = 0;
        for step in 0..run.count {
            let (source, target) = (run.source + step, run.target + step);
            let length = to.table.length(target).unwrap_or_default();
            match &mut touched {
                Some(files) if self.read_verified(to.package, to.table, target).is_ok() => {
                    self.note_written(to.package, target, length, std::mem::take(files))?;
                }
                _ => match self.read_chunk(from.package.digest(), source) {
                    Ok(bytes) => {
                        self.store_verified(to.package, to.table, target, &bytes)?;
                    }
                    Err(_) => continue,
                },
            }
            copied += u64::from(length);
        }
        Ok(copied)
    }

    /// Copies the bytes of a run unverified. Returns the files it wrote to.
    fn copy_in_kernel(&self, from: Side<'_>, to: Side<'_>, run: CopyRun) -> Result<Unflushed, StoreError> {
        let place = |side: Side<'_>, index| side.table.offset(index).unwrap_or_default();
        let segments = |side: Side<'_>, first| segments_of(&self.pages, &side.package.root, first, run.bytes as u32);
        let sources = segments(from, place(from, run.source))?;
        let targets = segments(to, place(to, run.target))?;
        let source_tree = self.tree(from.package)?;
        let mut touched = Unflushed::default();
        let mut sources = sources.iter();
        let (mut source, mut used) = (sources.next(), 0);
        for target in &targets {
            let open_target = self.open_segment(to.package, to.table, target)?;
            touched.add_file(target.entry, &open_target);
            let mut filled = 0;
            while let Some(segment) = source.filter(|_| filled < target.length) {
                let length = (segment.length - used).min(target.length - filled);
                let path = || self.tree_path(from.package).join(segment.file.path.to_string());
                self.files
                    .for_reading(from.package.digest(), segment.entry, &source_tree, &segment.file)
                    .and_then(|open| {
                        let (read_at, write_at) = (segment.offset + used as u64, target.offset + filled as u64);
                        copy_range(&open.file, read_at, &open_target.file, write_at, length as u64)
                    })
                    .map_err(|error| io_error("copy", path())(error))?;
                (used, filled) = (used + length, filled + length);
                if used == segment.length {
                    (source, used) = (sources.next(), 0);
                }
            }
        }
        Ok(touched)
    }
}

/// What `from` has of the wanted chunks, which are wanted no longer.
fn runs_between(from: Side<'_>, wanted: &mut Wanted) -> Vec<CopyRun> {
    let available = from.package.state().available.clone();
    let mut runs: Vec<CopyRun> = Vec::new();
    for source in available.iter() {
        let Some((digest, length)) = from.table.digest(source).zip(from.table.length(source)) else { continue };
        let bytes = u64::from(length);
        for target in wanted.remove(&digest).unwrap_or_default() {
            match runs.last_mut() {
                Some(run) if run.continues_with(source, target) && run.bytes + bytes <= RUN_BYTES_MAX => {
                    run.count += 1;
                    run.bytes += bytes;
                }
                _ => runs.push(CopyRun { source, target, count: 1, bytes }),
            }
        }
    }
    runs
}

impl CopyRun {
    fn continues_with(&self, source: ChunkIndex, target: ChunkIndex) -> bool {
        self.source + self.count == source && self.target + self.count == target
    }
}

/// Copies a range; what comes before the first whole block goes separately, so that the rest can be shared.
fn copy_range(source: &File, read_at: u64, target: &File, write_at: u64, length: u64) -> io::Result<()> {
    let head = if read_at % BLOCK_BYTES == write_at % BLOCK_BYTES {
        (read_at.next_multiple_of(BLOCK_BYTES) - read_at).min(length)
    } else {
        0
    };
    copy_exactly(source, read_at, target, write_at, head)?;
    copy_exactly(source, read_at + head, target, write_at + head, length - head)
}

fn copy_exactly(source: &File, mut read_at: u64, target: &File, mut write_at: u64, mut length: u64) -> io::Result<()> {
    while length > 0 {
        let wish = usize::try_from(length).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut read_at), target, Some(&mut write_at), wish)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            copied => length -= copied as u64,
        }
    }
    Ok(())
}
