//! The signed root: identity, totals and the pages in order.

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use prost::Message;

use super::{ENTRIES_MAX, PAGE_BYTES_MAX, ROOT_BYTES_MAX};
use crate::chunk_set::CHUNKS_MAX;
use crate::chunking::{CHUNK_BYTES_AVERAGE_MAX, CHUNK_BYTES_AVERAGE_MIN};
use crate::digest::Digest;
use crate::names::{DistributionKey, NameError, Namespace, PackageKey, PackageName, Version};
use crate::signature::{SignatureError, SigningDomain, verify_signature};
use crate::wire::proto;

/// What a page lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageKind {
    /// Files, directories and links.
    Entries,
    /// Digests and lengths of chunks.
    Chunks,
}

/// A page as its root describes it, checked against its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// BLAKE3 of the compressed page.
    pub digest: Digest,
    /// Size of the compressed page.
    pub compressed_bytes: u32,
    /// Index of its first entry or chunk.
    pub first_index: u32,
    /// Entries or chunks in it, at least 1.
    pub count: u32,
    /// Offset of its first byte in the concatenation of all files.
    pub first_byte: u64,
    /// Bytes its entries or chunks cover.
    pub bytes: u64,
}

/// A manifest root whose signature and totals were checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestRoot {
    package: PackageKey,
    digest: Digest,
    sequence: u64,
    total_bytes: u64,
    entry_count: u32,
    chunk_count: u32,
    chunk_bytes_average: u32,
    entry_pages: Vec<PageRef>,
    chunk_pages: Vec<PageRef>,
    signed: proto::Signed,
}

/// A root that is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Too large.
    #[error("the manifest root has {bytes} bytes, expected at most 65536")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The signature.
    #[error("the manifest root is not trusted")]
    Signature(#[from] SignatureError),
    /// Not the root that was stored.
    #[error("the manifest root does not match its digest {expected}")]
    WrongDigest {
        /// The expected digest.
        expected: Digest,
    },
    /// No root message.
    #[error("the manifest root is malformed")]
    Malformed(#[from] prost::DecodeError),
    /// Names the package wrongly.
    #[error("the manifest root names its package wrongly")]
    Name(#[from] NameError),
    /// A count or size outside its limits.
    #[error("the manifest root says {field} {value}, expected {expected}")]
    OutOfBounds {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The rule in words.
        expected: &'static str,
    },
    /// Pages with gaps, overlaps or without content.
    #[error("the manifest root has pages that do not follow each other: {field} of page {page}")]
    PagesNotContiguous {
        /// The field.
        field: &'static str,
        /// Position of the page.
        page: usize,
    },
}

impl ManifestRoot {
    /// Checks the signature against the trusted keys, then the content.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong.
    pub fn verify(signed: &proto::Signed, trusted: &[VerifyingKey]) -> Result<Self, ManifestError> {
        check_size(signed)?;
        verify_signature(SigningDomain::ManifestRoot, signed, trusted)?;
        Self::parse(signed)
    }

    /// Reads back a root that was verified before it was stored: its digest stands for the signature.
    ///
    /// # Errors
    /// [`ManifestError`] when the bytes are not those of the digest.
    pub fn restore(signed: &proto::Signed, expected: Digest) -> Result<Self, ManifestError> {
        check_size(signed)?;
        if Digest::of(&signed.body) != expected {
            return Err(ManifestError::WrongDigest { expected });
        }
        Self::parse(signed)
    }

    fn parse(signed: &proto::Signed) -> Result<Self, ManifestError> {
        let message = proto::ManifestRoot::decode(signed.body.clone())?;
        check_totals(&message)?;
        let end = |count, bytes| PagesEnd { count, bytes };
        Ok(Self {
            package: package_key(message.package.unwrap_or_default())?,
            digest: Digest::of(&signed.body),
            sequence: message.sequence,
            total_bytes: message.total_bytes,
            entry_count: message.entry_count,
            chunk_count: message.chunk_count,
            chunk_bytes_average: message.chunk_bytes_average,
            entry_pages: contiguous(&message.entry_pages, end(message.entry_count, message.total_bytes))?,
            chunk_pages: contiguous(&message.chunk_pages, end(message.chunk_count, message.total_bytes))?,
            signed: signed.clone(),
        })
    }

    /// The package and version it describes.
    pub fn package(&self) -> &PackageKey {
        &self.package
    }

    /// BLAKE3 of the root's body: the digest that names the package.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Rises with every version of a distribution.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sum of the sizes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Files, directories and links.
    pub fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// Number of chunks.
    pub fn chunk_count(&self) -> u32 {
        self.chunk_count
    }

    /// Average chunk size that the chunker aimed at.
    pub fn chunk_bytes_average(&self) -> u32 {
        self.chunk_bytes_average
    }

    /// Pages of entries in order.
    pub fn entry_pages(&self) -> &[PageRef] {
        &self.entry_pages
    }

    /// Pages of chunks in order.
    pub fn chunk_pages(&self) -> &[PageRef] {
        &self.chunk_pages
    }

    /// All pages, entries first.
    pub fn pages(&self) -> impl Iterator<Item = (PageKind, &PageRef)> {
        let entries = self.entry_pages.iter().map(|page| (PageKind::Entries, page));
        entries.chain(self.chunk_pages.iter().map(|page| (PageKind::Chunks, page)))
    }

    /// The page of this digest.
    pub fn page(&self, digest: Digest) -> Option<(PageKind, &PageRef)> {
        self.pages().find(|(_, page)| page.digest == digest)
    }

    /// Position of the entry page that has the byte at `offset`.
    pub fn entry_page_of_byte(&self, offset: u64) -> usize {
        self.entry_pages.partition_point(|page| page.first_byte <= offset).saturating_sub(1)
    }

    /// The signed bytes, to store and to pass on.
    pub fn signed(&self) -> &proto::Signed {
        &self.signed
    }
}

fn check_size(signed: &proto::Signed) -> Result<(), ManifestError> {
    let bytes = signed.encoded_len();
    if bytes > ROOT_BYTES_MAX { Err(ManifestError::TooLarge { bytes }) } else { Ok(()) }
}

fn package_key(package: proto::Package) -> Result<PackageKey, NameError> {
    Ok(PackageKey {
        distribution: DistributionKey {
            namespace: Namespace::new(&package.namespace)?,
            name: PackageName::new(&package.name)?,
        },
        version: Version::new(&package.version)?,
    })
}

fn check_totals(root: &proto::ManifestRoot) -> Result<(), ManifestError> {
    let average = CHUNK_BYTES_AVERAGE_MIN..=CHUNK_BYTES_AVERAGE_MAX;
    let rules = [
        ("entry_count", u64::from(root.entry_count), root.entry_count <= ENTRIES_MAX, "at most 2000000"),
        ("chunk_count", root.chunk_count.into(), root.chunk_count <= CHUNKS_MAX, "at most 4194304"),
        (
            "chunk_bytes_average",
            root.chunk_bytes_average.into(),
            average.contains(&root.chunk_bytes_average),
            "16 KiB to 4 MiB",
        ),
        ("total_bytes", root.total_bytes, root.total_bytes <= i64::MAX as u64, "at most 2^63 - 1"),
    ];
    match rules.into_iter().find(|(_, _, holds, _)| !holds) {
        Some((field, value, _, expected)) => Err(ManifestError::OutOfBounds { field, value, expected }),
        None => Ok(()),
    }
}

/// Where the last page must end.
struct PagesEnd {
    count: u32,
    bytes: u64,
}

fn contiguous(pages: &[proto::PageRef], end: PagesEnd) -> Result<Vec<PageRef>, ManifestError> {
    let fault = |field, page| ManifestError::PagesNotContiguous { field, page };
    let Some(first) = pages.first() else {
        return if end.count == 0 && end.bytes == 0 { Ok(Vec::new()) } else { Err(fault("count", 0)) };
    };
    if first.first_index != 0 || first.first_byte != 0 {
        return Err(fault("start", 0));
    }
    let mut checked = Vec::with_capacity(pages.len());
    for (position, page) in pages.iter().enumerate() {
        let next = pages.get(position + 1);
        let next_index = next.map_or(end.count, |next| next.first_index);
        let next_byte = next.map_or(end.bytes, |next| next.first_byte);
        let count = next_index.checked_sub(page.first_index).filter(|&count| count > 0);
        checked.push(PageRef {
            digest: Digest::try_from(&page.digest[..]).map_err(|_| fault("digest", position))?,
            compressed_bytes: Some(page.compressed_bytes)
                .filter(|&bytes| bytes > 0 && bytes as usize <= PAGE_BYTES_MAX)
                .ok_or(fault("compressed_bytes", position))?,
            first_index: page.first_index,
            count: count.ok_or(fault("first_index", position))?,
            first_byte: page.first_byte,
            bytes: next_byte.checked_sub(page.first_byte).ok_or(fault("first_byte", position))?,
        });
    }
    Ok(checked)
}

/// The body of a root, to be signed.
pub(super) fn encode_root(message: &proto::ManifestRoot) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
