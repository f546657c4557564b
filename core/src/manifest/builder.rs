//! Makes a manifest: takes entries in path order and chunks in byte order, hands out pages as they fill up.
//! Memory: two unfinished pages.

use bytes::Bytes;
use prost::Message;

use super::entry::{Entry, OrderError, TreeOrder};
use super::page::{EncodedPage, compress};
use super::root::{PageKind, encode_root};
use super::{ENTRIES_MAX, ROOT_BYTES_MAX};
use crate::chunk_set::CHUNKS_MAX;
use crate::chunking::CHUNK_BYTES_MAX;
use crate::digest::Digest;
use crate::names::PackageKey;
use crate::wire::proto;

/// A page of entries is closed at this size before compression: a receiver decodes it in a few milliseconds, and a
/// root has room for 600 MB of entries.
const ENTRY_PAGE_BYTES_TARGET: usize = 512 << 10;
/// Chunks in a page: about 290 KiB, and at most 512 pages.
const CHUNKS_PER_PAGE: u32 = 8192;
/// Room that signature and key take of [`ROOT_BYTES_MAX`].
const SIGNATURE_BYTES: usize = 256;

/// A manifest that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The order of entries.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Too many entries.
    #[error("the package has more than 2000000 files, directories and links ({found} so far): split it")]
    TooManyEntries {
        /// Entries so far.
        found: u64,
    },
    /// Too many chunks.
    #[error("the package has more than 4194304 chunks: it is too large for its chunk size")]
    TooManyChunks,
    /// A chunk of no bytes or too many.
    #[error("a chunk has {length} bytes, expected 1 to 8388608")]
    ChunkLength {
        /// Its length.
        length: u32,
    },
    /// More than 2^63 bytes.
    #[error("the files of the package have more than 2^63 - 1 bytes")]
    TooManyBytes,
    /// Files and chunks disagree: a file changed while it was read.
    #[error("the files have {file_bytes} bytes but the chunks {chunk_bytes}: a file changed while it was read")]
    BytesDiffer {
        /// Sum of the file sizes.
        file_bytes: u64,
        /// Sum of the chunk lengths.
        chunk_bytes: u64,
    },
    /// Too many pages for a root.
    #[error(
        "the manifest root would have {bytes} bytes, expected at most 65536: split the package or shorten its paths"
    )]
    RootTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The compressor.
    #[error("cannot compress a manifest page")]
    Compression(#[from] std::io::Error),
}

/// Pages and totals of one kind while they are collected.
#[derive(Debug)]
struct PageSeries {
    kind: PageKind,
    references: Vec<proto::PageRef>,
    /// Where the open page starts.
    page_first_index: u32,
    page_first_byte: u64,
    /// Where the next entry or chunk goes.
    next_index: u32,
    next_byte: u64,
}

impl PageSeries {
    fn new(kind: PageKind) -> Self {
        let references = Vec::new();
        Self { kind, references, page_first_index: 0, page_first_byte: 0, next_index: 0, next_byte: 0 }
    }

    fn advance(&mut self, bytes: u64) -> Result<(), BuildError> {
        self.next_byte = self.next_byte.checked_add(bytes).ok_or(BuildError::TooManyBytes)?;
        self.next_index += 1;
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.next_index > self.page_first_index
    }

    fn close(&mut self, raw: &[u8]) -> Result<EncodedPage, BuildError> {
        let page = compress(self.kind, raw)?;
        self.references.push(proto::PageRef {
            digest: page.digest.as_bytes().to_vec().into(),
            compressed_bytes: page.bytes.len() as u32,
            first_index: self.page_first_index,
            first_byte: self.page_first_byte,
        });
        self.page_first_index = self.next_index;
        self.page_first_byte = self.next_byte;
        Ok(page)
    }
}

/// Collects a manifest. Entries and chunks may come interleaved.
#[derive(Debug)]
pub struct ManifestBuilder {
    order: TreeOrder,
    entries: PageSeries,
    entry_bytes: Vec<u8>,
    chunks: PageSeries,
    chunk_page: ChunkPageBuffer,
}

#[derive(Debug, Default)]
struct ChunkPageBuffer {
    digests: Vec<u8>,
    lengths: Vec<u32>,
}

/// A finished manifest: the body to sign and the last pages.
#[derive(Debug)]
pub struct BuiltManifest {
    /// Body of the root, to be signed; its BLAKE3 names the package.
    pub body: Bytes,
    /// Pages that were not handed out before.
    pub last_pages: Vec<EncodedPage>,
    /// Sum of the sizes of all files.
    pub total_bytes: u64,
    /// Files, directories and links.
    pub entry_count: u32,
    /// Chunks.
    pub chunk_count: u32,
}

impl Default for ManifestBuilder {
    fn default() -> Self {
        Self {
            order: TreeOrder::default(),
            entries: PageSeries::new(PageKind::Entries),
            entry_bytes: Vec::new(),
            chunks: PageSeries::new(PageKind::Chunks),
            chunk_page: ChunkPageBuffer::default(),
        }
    }
}

impl ManifestBuilder {
    /// Adds the next entry in path order; returns a page when one is full.
    ///
    /// # Errors
    /// [`BuildError`] for an entry out of order, without a parent directory, or one too many.
    pub fn push_entry(&mut self, entry: &Entry) -> Result<Option<EncodedPage>, BuildError> {
        if self.entries.next_index >= ENTRIES_MAX {
            return Err(BuildError::TooManyEntries { found: u64::from(self.entries.next_index) + 1 });
        }
        self.order.check(entry)?;
        prost::encoding::message::encode(1, &entry.to_message(), &mut self.entry_bytes);
        self.entries.advance(entry.bytes())?;
        if self.entry_bytes.len() < ENTRY_PAGE_BYTES_TARGET { Ok(None) } else { self.close_entries() }
    }

    /// Adds the next chunk; returns a page when one is full.
    ///
    /// # Errors
    /// [`BuildError`] for a chunk without bytes, above the limit, or one too many.
    pub fn push_chunk(&mut self, digest: Digest, length: u32) -> Result<Option<EncodedPage>, BuildError> {
        if length == 0 || length > CHUNK_BYTES_MAX {
            return Err(BuildError::ChunkLength { length });
        }
        if self.chunks.next_index >= CHUNKS_MAX {
            return Err(BuildError::TooManyChunks);
        }
        self.chunk_page.digests.extend_from_slice(digest.as_bytes());
        self.chunk_page.lengths.push(length);
        self.chunks.advance(length.into())?;
        if self.chunks.next_index - self.chunks.page_first_index < CHUNKS_PER_PAGE {
            Ok(None)
        } else {
            self.close_chunks()
        }
    }

    /// Closes the last pages and makes the root's body.
    ///
    /// # Errors
    /// [`BuildError`] when files and chunks disagree or the root would be too large.
    pub fn finish(
        mut self,
        package: &PackageKey,
        sequence: u64,
        chunk_bytes_average: u32,
    ) -> Result<BuiltManifest, BuildError> {
        let (file_bytes, chunk_bytes) = (self.entries.next_byte, self.chunks.next_byte);
        if file_bytes != chunk_bytes {
            return Err(BuildError::BytesDiffer { file_bytes, chunk_bytes });
        }
        if file_bytes > i64::MAX as u64 {
            return Err(BuildError::TooManyBytes);
        }
        let last_pages = [self.close_entries()?, self.close_chunks()?].into_iter().flatten().collect();
        let (entry_count, chunk_count) = (self.entries.next_index, self.chunks.next_index);
        let body = encode_root(&proto::ManifestRoot {
            package: Some(proto::Package {
                namespace: package.distribution.namespace.to_string(),
                name: package.distribution.name.to_string(),
                version: package.version.to_string(),
            }),
            sequence,
            total_bytes: file_bytes,
            entry_count,
            chunk_count,
            chunk_bytes_average,
            entry_pages: self.entries.references,
            chunk_pages: self.chunks.references,
        });
        let bytes = body.len() + SIGNATURE_BYTES;
        if bytes > ROOT_BYTES_MAX {
            return Err(BuildError::RootTooLarge { bytes });
        }
        Ok(BuiltManifest { body, last_pages, total_bytes: file_bytes, entry_count, chunk_count })
    }

    fn close_entries(&mut self) -> Result<Option<EncodedPage>, BuildError> {
        if !self.entries.is_open() {
            return Ok(None);
        }
        let page = self.entries.close(&self.entry_bytes)?;
        self.entry_bytes.clear();
        Ok(Some(page))
    }

    fn close_chunks(&mut self) -> Result<Option<EncodedPage>, BuildError> {
        if !self.chunks.is_open() {
            return Ok(None);
        }
        let buffer = std::mem::take(&mut self.chunk_page);
        let message = proto::ChunkPage { digests: buffer.digests.into(), lengths: buffer.lengths };
        self.chunks.close(&message.encode_to_vec()).map(Some)
    }
}

#[cfg(test)]
mod tests;
