//! The manifest: what a package consists of, and the proof of it.
//!
//! A signed root of at most 64 KiB names the package, its totals and the digest of each page; its BLAKE3 is the
//! package's digest. Entry pages list the tree in path order, chunk pages list the chunks that cut the concatenation
//! of all regular files in that order. Pages are fetched, verified and dropped one by one; only the chunk table of a
//! package (40 bytes a chunk) is kept whole.
//!
//! In reading order: [`path`](RelativePath) says which names may exist, [`Entry`] what they are, [`TreeOrder`] how
//! they follow each other; [`EntryPage`] and [`ChunkTable`] read pages; [`ManifestRoot`] binds them; a
//! [`ManifestBuilder`] makes them. Files and the network are somebody else's business.

mod builder;
mod chunk_table;
mod entry;
mod page;
mod path;
mod root;

pub use crate::signature::{SignatureError, SigningDomain, sign, verify_signature};
pub use builder::{BuildError, BuiltManifest, ManifestBuilder};
pub use chunk_table::ChunkTable;
pub use entry::{Entry, EntryError, EntryKind, OrderError, TreeOrder};
pub use page::{EncodedPage, EntryPage, PageError, page_digest_matches};
pub use path::{LinkTarget, PathError, PathFault, RelativePath};
pub use root::{ManifestError, ManifestRoot, PageKind, PageRef};

/// Largest signed root in bytes: it travels inside plans, so it stays small.
pub const ROOT_BYTES_MAX: usize = 64 << 10;
/// Most entries (files, directories, links) a package may have; beyond it ingest refuses and says the count.
pub const ENTRIES_MAX: u32 = 2_000_000;
/// Largest page in bytes, compressed as well as decompressed: what a receiver must be ready to hold.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Longest path of an entry in bytes: what one system call accepts (PATH_MAX without the final NUL).
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest component of a path in bytes (NAME_MAX).
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Deepest nesting of an entry: bounds the directories a walk keeps open.
pub const DEPTH_MAX: usize = 128;
