//! The chunks of one package: digest, place and length of each, for random access. About 40 bytes a chunk.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use super::page::{PageError, decompress, expect_equal};
use super::root::{ManifestRoot, PageRef};
use crate::chunk_set::ChunkIndex;
use crate::chunking::CHUNK_BYTES_MAX;
use crate::digest::Digest;
use crate::wire::proto;

/// Digests and places of all chunks of a package, in the order of its files' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTable {
    digests: Vec<Digest>,
    /// Offset of each chunk, and the end of the last.
    offsets: Vec<u64>,
}

impl ChunkTable {
    /// Reads all chunk pages of a package; `load` brings the compressed page.
    ///
    /// # Errors
    /// What `load` returns, and [`PageError`] when a page is not what the root says.
    pub fn from_pages<E: From<PageError>>(
        root: &ManifestRoot,
        mut load: impl FnMut(&PageRef) -> Result<Bytes, E>,
    ) -> Result<Self, E> {
        let mut table = Self { digests: Vec::new(), offsets: vec![0] };
        for page in root.chunk_pages() {
            let bytes = load(page)?;
            table.push_page(page, &bytes)?;
        }
        Ok(table)
    }

    fn push_page(&mut self, reference: &PageRef, compressed: &[u8]) -> Result<(), PageError> {
        let page = reference.digest;
        let message = check_chunk_page(reference, compressed)?;
        debug_assert_eq!(self.end(), reference.first_byte, "page {page} follows its predecessor");
        self.digests.reserve_exact(message.lengths.len());
        self.offsets.reserve_exact(message.lengths.len());
        for (digest, length) in message.digests.chunks_exact(Digest::BYTES).zip(message.lengths) {
            self.digests.extend(Digest::try_from(digest));
            self.offsets.push(self.end() + u64::from(length));
        }
        Ok(())
    }

    fn end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// How many chunks.
    pub fn len(&self) -> u32 {
        self.digests.len() as u32
    }

    /// Whether the package has no chunk (no file has a byte).
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Digest of a chunk.
    pub fn digest(&self, index: ChunkIndex) -> Option<Digest> {
        self.digests.get(index as usize).copied()
    }

    /// All digests in order.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Offset of a chunk in the concatenation of all files.
    pub fn offset(&self, index: ChunkIndex) -> Option<u64> {
        (index < self.len()).then(|| self.offsets[index as usize])
    }

    /// Length of a chunk in bytes, at least 1.
    pub fn length(&self, index: ChunkIndex) -> Option<u32> {
        let (first, next) = (self.offset(index)?, self.offsets.get(index as usize + 1)?);
        Some((next - first) as u32)
    }

    /// Sum of the lengths of the chunks, without those outside the package.
    pub fn bytes_of(&self, chunks: impl IntoIterator<Item = ChunkIndex>) -> u64 {
        chunks.into_iter().filter_map(|index| self.length(index)).map(u64::from).sum()
    }

    /// The chunks that have a byte in the range.
    pub fn covering(&self, first_byte: u64, bytes: u64) -> Range<ChunkIndex> {
        let end = first_byte.saturating_add(bytes);
        let first = self.offsets.partition_point(|&offset| offset <= first_byte).saturating_sub(1);
        let behind = self.offsets.partition_point(|&offset| offset < end).min(self.digests.len());
        first as ChunkIndex..behind as ChunkIndex
    }

    /// Memory the table takes, for caches.
    pub fn memory_bytes(&self) -> usize {
        self.digests.len() * (Digest::BYTES + size_of::<u64>())
    }
}

/// Verifies and opens a chunk page: as many chunks and bytes as the root says, each of a permitted length.
pub(super) fn check_chunk_page(reference: &PageRef, compressed: &[u8]) -> Result<proto::ChunkPage, PageError> {
    let page = reference.digest;
    let message = proto::ChunkPage::decode(decompress(reference, compressed)?)
        .map_err(|source| PageError::Malformed { page, source })?;
    expect_equal(page, "chunk lengths", message.lengths.len() as u64, reference.count.into())?;
    let digest_bytes = u64::from(reference.count) * Digest::BYTES as u64;
    expect_equal(page, "digest bytes", message.digests.len() as u64, digest_bytes)?;
    if let Some(&length) = message.lengths.iter().find(|&&length| length == 0 || length > CHUNK_BYTES_MAX) {
        return Err(PageError::ChunkLength { page, length });
    }
    let bytes = message.lengths.iter().map(|&length| u64::from(length)).sum();
    expect_equal(page, "chunk bytes", bytes, reference.bytes)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::page::compress;
    use crate::manifest::root::PageKind;

    fn check(lengths: Vec<u32>, digests: usize, count: u32, bytes: u64) -> Result<proto::ChunkPage, PageError> {
        let message = proto::ChunkPage { digests: vec![7; digests].into(), lengths };
        let page = compress(PageKind::Chunks, &message.encode_to_vec()).unwrap();
        let compressed_bytes = page.bytes.len() as u32;
        let reference = PageRef { digest: page.digest, compressed_bytes, first_index: 0, count, first_byte: 0, bytes };
        check_chunk_page(&reference, &page.bytes)
    }

    #[test]
    fn chunk_pages_that_contradict_their_root_are_refused() {
        assert!(check(vec![5, 6], 64, 2, 11).is_ok());
        for (lengths, digests, count, bytes) in [
            (vec![5, 6], 63, 2, 11),
            (vec![5, 6], 96, 2, 11),
            (vec![5], 32, 2, 5),
            (vec![5, 6, 7], 96, 2, 18),
            (vec![5, 6], 64, 2, 10),
        ] {
            assert!(matches!(check(lengths, digests, count, bytes), Err(PageError::Contradiction { .. })));
        }
        for length in [0, CHUNK_BYTES_MAX + 1, u32::MAX] {
            assert!(matches!(check(vec![length], 32, 1, length.into()), Err(PageError::ChunkLength { .. })));
        }
    }

    #[test]
    fn chunks_of_a_range_are_found() {
        let table = ChunkTable { digests: vec![Digest::of(b"x"); 3], offsets: vec![0, 10, 15, 30] };
        let expected = [((0, 30), 0..3), ((0, 10), 0..1), ((10, 5), 1..2), ((9, 2), 0..2), ((29, 100), 2..3)];
        for ((first_byte, bytes), chunks) in expected {
            assert_eq!(table.covering(first_byte, bytes), chunks, "{first_byte} {bytes}");
        }
        assert_eq!((table.offset(2), table.length(2), table.length(3)), (Some(15), Some(15), None));
    }
}
