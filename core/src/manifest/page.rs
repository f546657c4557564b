//! Pages of a manifest: compressed on disk and on the wire, bounded when they are opened.

use bytes::Bytes;
use prost::Message;

use super::PAGE_BYTES_MAX;
use super::entry::{Entry, EntryError};
use super::root::{PageKind, PageRef};
use crate::digest::Digest;
use crate::wire::proto;

/// Level of compression: paths shrink five-fold, digests not at all, so more effort buys nothing.
const COMPRESSION_LEVEL: i32 = 3;

/// A finished page, ready to be stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPage {
    /// What it lists.
    pub kind: PageKind,
    /// BLAKE3 of `bytes`: its name.
    pub digest: Digest,
    /// The compressed page.
    pub bytes: Bytes,
}

/// A page that is refused.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// Not the page that was asked for.
    #[error("manifest page {expected} is refused: its bytes do not match this digest")]
    WrongDigest {
        /// Digest in the root.
        expected: Digest,
    },
    /// Damaged, or larger than a page may be when decompressed.
    #[error("manifest page {page} does not decompress to at most 1 MiB")]
    Compression {
        /// The page.
        page: Digest,
        /// What the decompressor said.
        #[source]
        source: std::io::Error,
    },
    /// No page message.
    #[error("manifest page {page} is malformed")]
    Malformed {
        /// The page.
        page: Digest,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// A refused entry.
    #[error("manifest page {page} has a refused entry")]
    Entry {
        /// The page.
        page: Digest,
        /// What is wrong with it.
        #[source]
        source: EntryError,
    },
    /// Counts or sizes that contradict the root.
    #[error("manifest page {page} has {found} {what}, expected {expected} as its root says")]
    Contradiction {
        /// The page.
        page: Digest,
        /// What was counted.
        what: &'static str,
        /// In the page.
        found: u64,
        /// In the root.
        expected: u64,
    },
    /// A chunk length of zero or above the limit.
    #[error("manifest page {page} has a chunk of {length} bytes, expected 1 to 8388608")]
    ChunkLength {
        /// The page.
        page: Digest,
        /// The length.
        length: u32,
    },
}

/// Whether these are the bytes of the page.
pub fn page_digest_matches(reference: &PageRef, bytes: &[u8]) -> bool {
    bytes.len() == reference.compressed_bytes as usize && Digest::of(bytes) == reference.digest
}

/// A decoded page of entries, with the place of each file in the concatenation of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPage {
    /// Entries in path order.
    pub entries: Vec<Entry>,
    /// Offset of each entry's first byte in the package.
    pub first_bytes: Vec<u64>,
}

impl EntryPage {
    /// Verifies and opens a page.
    ///
    /// # Errors
    /// [`PageError`] when it is not the referenced page, or its content contradicts the reference.
    pub fn decode(reference: &PageRef, compressed: &[u8]) -> Result<Self, PageError> {
        let page = reference.digest;
        let message = proto::EntryPage::decode(decompress(reference, compressed)?)
            .map_err(|source| PageError::Malformed { page, source })?;
        expect_equal(page, "entries", message.entries.len() as u64, reference.count.into())?;
        let entries = message
            .entries
            .into_iter()
            .map(|entry| Entry::try_from(entry).map_err(|source| PageError::Entry { page, source }))
            .collect::<Result<Vec<Entry>, PageError>>()?;
        let mut next = reference.first_byte;
        let mut first_bytes = Vec::with_capacity(entries.len());
        for entry in &entries {
            first_bytes.push(next);
            next = next.saturating_add(entry.bytes());
        }
        expect_equal(page, "file bytes", next.saturating_sub(reference.first_byte), reference.bytes)?;
        Ok(Self { entries, first_bytes })
    }

    /// Position in the page of the first entry that has the byte at `offset` or lies behind it.
    pub fn position_of_byte(&self, offset: u64) -> usize {
        let behind = self.first_bytes.partition_point(|&first| first <= offset);
        // Entries without bytes share their offset with the file that follows: the last one at or before it has it.
        behind.saturating_sub(1)
    }
}

pub(super) fn expect_equal(page: Digest, what: &'static str, found: u64, expected: u64) -> Result<(), PageError> {
    if found == expected { Ok(()) } else { Err(PageError::Contradiction { page, what, found, expected }) }
}

/// Verifies the digest and decompresses to at most [`PAGE_BYTES_MAX`].
pub(super) fn decompress(reference: &PageRef, compressed: &[u8]) -> Result<Bytes, PageError> {
    if !page_digest_matches(reference, compressed) {
        return Err(PageError::WrongDigest { expected: reference.digest });
    }
    zstd::bulk::decompress(compressed, PAGE_BYTES_MAX)
        .map(Bytes::from)
        .map_err(|source| PageError::Compression { page: reference.digest, source })
}

pub(super) fn compress(kind: PageKind, raw: &[u8]) -> std::io::Result<EncodedPage> {
    let bytes = Bytes::from(zstd::bulk::compress(raw, COMPRESSION_LEVEL)?);
    Ok(EncodedPage { kind, digest: Digest::of(&bytes), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(page: &EncodedPage, count: u32, bytes: u64) -> PageRef {
        let compressed_bytes = page.bytes.len() as u32;
        PageRef { digest: page.digest, compressed_bytes, first_index: 0, count, first_byte: 0, bytes }
    }

    fn page_of(entries: Vec<proto::Entry>) -> EncodedPage {
        compress(PageKind::Entries, &proto::EntryPage { entries }.encode_to_vec()).unwrap()
    }

    fn file(path: &'static [u8], bytes: u64) -> proto::Entry {
        proto::Entry { path: Bytes::from_static(path), kind: 1, bytes, ..Default::default() }
    }

    #[test]
    fn a_page_that_decompresses_to_more_than_its_limit_is_refused() {
        let bomb = compress(PageKind::Entries, &vec![0; 64 << 20]).unwrap();
        assert!(bomb.bytes.len() < 64 << 10);
        let refused = EntryPage::decode(&reference(&bomb, 1, 0), &bomb.bytes);
        assert!(matches!(refused, Err(PageError::Compression { .. })), "{refused:?}");
    }

    #[test]
    fn a_page_that_contradicts_its_root_is_refused() {
        let page = page_of(vec![file(b"a", 5), file(b"b", 7)]);
        assert!(EntryPage::decode(&reference(&page, 2, 12), &page.bytes).is_ok());
        for (count, bytes) in [(1, 12), (3, 12), (2, 11), (2, 13)] {
            let refused = EntryPage::decode(&reference(&page, count, bytes), &page.bytes);
            assert!(matches!(refused, Err(PageError::Contradiction { .. })), "{refused:?}");
        }
        let huge = page_of(vec![file(b"a", u64::MAX), file(b"b", 13)]);
        assert!(EntryPage::decode(&reference(&huge, 2, 12), &huge.bytes).is_err());
        let other = page_of(vec![file(b"c", 12)]);
        let refused = EntryPage::decode(&reference(&page, 2, 12), &other.bytes);
        assert!(matches!(refused, Err(PageError::WrongDigest { .. })));
    }

    #[test]
    fn names_that_leave_the_tree_are_refused_in_a_page() {
        for bad in [&b"../x"[..], b"/x", b"a/../../x", b"", b"a\0"] {
            let page = page_of(vec![file(bad, 0)]);
            let refused = EntryPage::decode(&reference(&page, 1, 0), &page.bytes);
            assert!(matches!(refused, Err(PageError::Entry { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_byte_belongs_to_the_file_that_has_it_and_not_to_empty_neighbours() {
        let page = page_of(vec![file(b"a", 0), file(b"b", 5), file(b"c", 0), file(b"d", 0), file(b"e", 2)]);
        let decoded = EntryPage::decode(&reference(&page, 5, 7), &page.bytes).unwrap();
        assert_eq!([0, 4, 5, 6].map(|offset| decoded.position_of_byte(offset)), [1, 1, 4, 4]);
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let raw = compress(PageKind::Entries, &bytes).unwrap();
            let _ = EntryPage::decode(&reference(&raw, 1, 0), &raw.bytes);
            let plain = EncodedPage { kind: PageKind::Entries, digest: Digest::of(&bytes), bytes: bytes.into() };
            let _ = EntryPage::decode(&reference(&plain, 1, 0), &plain.bytes);
        }
    }
}
