//! The pass over the content: the caller reads (and writes) files in manifest order, a second thread cuts, hashes and
//! describes them, a third brings large copies to the disk meanwhile. Each byte is read once; between the first two are
//! a few buffers, whatever the size of the package.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use peerdist_core::chunking::Chunker;
use peerdist_core::manifest::{EncodedPage, Entry, ManifestBuilder};
use tokio_util::sync::CancellationToken;

use crate::source::digest::DigestCheck;
use crate::source::disk::DiskAdmission;
use crate::source::error::SourceError;
use crate::source::file::CheckedFile;
use crate::source::progress::Progress;
use crate::store::IngestStaging;

/// Size of one buffer.
const BATCH_BYTES: usize = 1 << 20;
/// A buffer goes on its way when less than this is free in it: reads stay large.
const BATCH_ROOM_BYTES: usize = 64 << 10;
/// Most entries that go with one buffer.
const BATCH_ENTRIES_MAX: usize = 1024;
/// Buffers on their way, besides the one that is filled and the one that is hashed.
const BATCHES_QUEUED_MAX: usize = 2;
/// Copied bytes after which they begin their way to the disk: otherwise all of it would be waited for at the end.
const WRITEBACK_BYTES: u64 = 32 << 20;

/// Entries and bytes, both in manifest order.
struct Batch {
    entries: Vec<Entry>,
    data: Vec<u8>,
    filled: usize,
}

impl Batch {
    fn new() -> Self {
        Self { entries: Vec::new(), data: vec![0; BATCH_BYTES], filled: 0 }
    }
}

/// Describes everything that `feed` hands over.
///
/// # Errors
/// What `feed` says, or why the manifest cannot be made.
pub(super) fn describe(
    chunk_bytes_average: u32,
    staging: &IngestStaging,
    progress: &Progress,
    feed: impl FnOnce(&mut Feeder<'_>) -> Result<(), SourceError>,
) -> Result<ManifestBuilder, SourceError> {
    let (full_sender, full) = sync_channel(BATCHES_QUEUED_MAX);
    let (empty_sender, empty) = sync_channel(BATCHES_QUEUED_MAX + 2);
    let (writeback, copies) = sync_channel::<File>(1);
    thread::scope(|scope| {
        let describer = Describer {
            builder: ManifestBuilder::default(),
            chunker: Chunker::new(chunk_bytes_average),
            chunks: Vec::new(),
            staging,
            progress,
        };
        let describing = scope.spawn(move || describer.run(&full, &empty_sender));
        let writing = scope.spawn(move || copies.iter().try_for_each(|copy| copy.sync_data()));
        let mut feeder = Feeder { full: full_sender, empty, batch: Batch::new(), progress, writeback, copied_bytes: 0 };
        let fed = feed(&mut feeder).and_then(|()| feeder.send());
        drop(feeder);
        let described = describing
            .join()
            .unwrap_or_else(|_| Err(SourceError::manifest(io::Error::other("the hashing thread panicked"))));
        let written = writing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes back panicked")));
        // When the describer gives up, the feeder only notices that nobody takes its buffers.
        match (fed, described) {
            (Ok(()), described) => {
                written.map_err(SourceError::library(staging.tree()))?;
                described
            }
            (Err(SourceError::Cancelled), Err(error)) => Err(error),
            (Err(error), _) => Err(error),
        }
    })
}

/// Takes what is read.
pub(super) struct Feeder<'a> {
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    batch: Batch,
    progress: &'a Progress,
    writeback: SyncSender<File>,
    copied_bytes: u64,
}

impl Feeder<'_> {
    /// The next entry in manifest order. The bytes of a file follow by [`Feeder::copy`].
    pub(super) fn entry(&mut self, entry: Entry) -> Result<(), SourceError> {
        self.batch.entries.push(entry);
        self.progress.add_entry();
        if self.batch.entries.len() < BATCH_ENTRIES_MAX { Ok(()) } else { self.send() }
    }

    /// Reads a file to its end, and writes it to `copy` if there is one.
    pub(super) fn copy(
        &mut self,
        source: &mut CheckedFile,
        mut copy: Option<Copy<'_>>,
        cancel: &CancellationToken,
    ) -> Result<(), SourceError> {
        loop {
            if cancel.is_cancelled() {
                return Err(SourceError::Cancelled);
            }
            if self.batch.data.len() - self.batch.filled < BATCH_ROOM_BYTES {
                self.send()?;
            }
            let room = &mut self.batch.data[self.batch.filled..];
            // What lies in staging already is read from our own disk.
            let count = match &copy {
                Some(_) => self.progress.source(|| source.read(room), |result| *result.as_ref().unwrap_or(&0) as u64),
                None => self.progress.disk(0, || source.read(room)),
            }?;
            if count == 0 {
                return Ok(());
            }
            if let Some(copy) = &mut copy {
                copy.write(&room[..count], self.progress)?;
                self.copied_bytes += count as u64;
                if self.copied_bytes >= WRITEBACK_BYTES {
                    self.copied_bytes = 0;
                    // A disk that is busy with the last part takes this one with the next.
                    let _ = copy.file.try_clone().map(|file| self.writeback.try_send(file));
                }
            }
            self.batch.filled += count;
        }
    }

    fn send(&mut self) -> Result<(), SourceError> {
        let next = self.empty.try_recv().unwrap_or_else(|_| Batch::new());
        let batch = mem::replace(&mut self.batch, next);
        self.full.send(batch).map_err(|_| SourceError::Cancelled)
    }
}

/// Where a file is copied to while it is read.
pub(super) struct Copy<'a> {
    pub(super) file: File,
    pub(super) disk: &'a mut DiskAdmission,
    pub(super) check: Option<&'a mut DigestCheck>,
}

impl Copy<'_> {
    fn write(&mut self, bytes: &[u8], progress: &Progress) -> Result<(), SourceError> {
        let count = bytes.len() as u64;
        self.disk.admit(count)?;
        if let Some(check) = &mut self.check {
            check.update(bytes);
        }
        let written = progress.disk(count, || self.file.write_all(bytes));
        written.map_err(|error| self.disk.write_failed(count, error))
    }
}

/// Cuts, hashes and describes.
struct Describer<'a> {
    builder: ManifestBuilder,
    chunker: Chunker,
    chunks: Vec<peerdist_core::chunking::Chunk>,
    staging: &'a IngestStaging,
    progress: &'a Progress,
}

impl Describer<'_> {
    fn run(mut self, full: &Receiver<Batch>, empty: &SyncSender<Batch>) -> Result<ManifestBuilder, SourceError> {
        for mut batch in full {
            for entry in batch.entries.drain(..) {
                let page = self.builder.push_entry(&entry).map_err(SourceError::manifest)?;
                self.keep(page)?;
            }
            let (chunker, chunks) = (&mut self.chunker, &mut self.chunks);
            let data = &batch.data[..batch.filled];
            self.progress.hash(data.len() as u64, || chunker.push(data, |chunk| chunks.push(chunk)));
            self.keep_chunks()?;
            batch.filled = 0;
            // A full channel means that enough buffers are around: this one may go.
            let _ = empty.try_send(batch);
        }
        let chunker = mem::replace(&mut self.chunker, Chunker::new(0));
        let chunks = &mut self.chunks;
        self.progress.hash(0, || chunker.finish(|chunk| chunks.push(chunk)));
        self.keep_chunks()?;
        Ok(self.builder)
    }

    fn keep_chunks(&mut self) -> Result<(), SourceError> {
        for chunk in mem::take(&mut self.chunks) {
            let page = self.builder.push_chunk(chunk.digest, chunk.length).map_err(SourceError::manifest)?;
            self.keep(page)?;
        }
        Ok(())
    }

    fn keep(&self, page: Option<EncodedPage>) -> Result<(), SourceError> {
        page.map_or(Ok(()), |page| Ok(self.staging.put_page(&page)?))
    }
}
