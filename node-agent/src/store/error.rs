//! What can go wrong in a store. Each error names the object, what was expected, and what to do.

use std::io;
use std::path::PathBuf;

use peerdist_core::chunk_set::{ChunkIndex, ChunkRun};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ManifestError, OrderError, PageError};
use peerdist_core::names::PackageKey;
use rustix::io::Errno;

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the root.
    #[error("{} is in use by {holder}: stop it, or use another root", root.display())]
    Locked {
        /// The root folder.
        root: PathBuf,
        /// Who has it, as far as known.
        holder: String,
    },
    /// Another user made what is in the root: what we would write there is closed to that user.
    #[error(
        "{} belongs to user {owner} and this is user {us}: run peerdist as user {owner}, or give the folder to this \
         user with chown -R {us} {}",
        path.display(),
        root.display()
    )]
    OwnedByAnother {
        /// The root folder.
        root: PathBuf,
        /// What belongs to the other user.
        path: PathBuf,
        /// Number of that user.
        owner: u32,
        /// Number of the user that we are.
        us: u32,
    },
    /// A file operation.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not enough space.
    #[error("{}", space_words(*need_bytes, *have_bytes, *limit_bytes))]
    DiskFull {
        /// Bytes that must be free; 0 where only a few are needed and there are none.
        need_bytes: u64,
        /// Bytes that are free for us, on the disk or below the limit.
        have_bytes: u64,
        /// The office's storage limit.
        limit_bytes: Option<u64>,
    },
    /// Not enough inodes.
    #[error("not enough inodes: need {need}, have {have}: make room for more files on this file system")]
    InodesFull {
        /// Entries of the package.
        need: u64,
        /// Free inodes.
        have: u64,
    },
    /// The journal.
    #[error("the journal cannot {operation}")]
    Journal {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// A journal entry that makes no sense.
    #[error("the journal's entry for package {digest} is damaged: move the root away and start with an empty one")]
    JournalDamaged {
        /// The package.
        digest: String,
    },
    /// No such package.
    #[error("package {0} is not known here")]
    UnknownPackage(Digest),
    /// The package is on its way out.
    #[error("package {0} is being removed")]
    BeingRemoved(Digest),
    /// Pages are missing.
    #[error("the manifest of package {digest} lacks {missing} pages")]
    ManifestIncomplete {
        /// The package.
        digest: Digest,
        /// How many.
        missing: usize,
    },
    /// A page that the manifest does not name.
    #[error("package {digest} has no manifest page {page}")]
    UnknownPage {
        /// The package.
        digest: Digest,
        /// The page.
        page: Digest,
    },
    /// The root.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The order of entries.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// No staging tree yet.
    #[error("package {0} is not prepared: there is no tree to write to")]
    NotPrepared(Digest),
    /// A chunk that is not the announced one.
    #[error("chunk {index} of package {digest} is refused: {fault}")]
    ChunkRefused {
        /// The package.
        digest: Digest,
        /// The chunk.
        index: ChunkIndex,
        /// Why.
        fault: ChunkFault,
    },
    /// Chunks are missing.
    #[error("package {digest} lacks {missing} chunks and cannot be published")]
    NotComplete {
        /// The package.
        digest: Digest,
        /// How many.
        missing: u32,
    },
    /// Something foreign lies where the package belongs.
    #[error("{} is not ours: move it away, package {package} belongs there", path.display())]
    PathOccupied {
        /// The place.
        path: PathBuf,
        /// The package that should go there.
        package: PackageKey,
    },
}

/// Why a chunk is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// Index outside the package.
    #[error("the package has no such chunk")]
    UnknownIndex,
    /// Wrong length.
    #[error("its length is wrong")]
    Length,
    /// Wrong content.
    #[error("its digest is wrong")]
    Digest,
}

/// A chunk that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not here.
    #[error("chunk {index} of package {digest} is not here")]
    Missing {
        /// The package.
        digest: Digest,
        /// The chunk.
        index: ChunkIndex,
    },
    /// It was here, but its file changed: it counts as lost from now on.
    #[error("chunk {index} of package {digest} is damaged on disk and must be fetched again")]
    Corrupt {
        /// The package.
        digest: Digest,
        /// The chunk.
        index: ChunkIndex,
    },
    /// Something else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A flush that failed. What was flushed before stays held; chunks in `lost` must be fetched again.
#[derive(Debug, thiserror::Error)]
#[error("cannot bring written chunks to the disk")]
pub struct FlushError {
    /// Chunks that were available and are not any more.
    pub lost: Vec<(Digest, Vec<ChunkRun>)>,
    /// Why.
    #[source]
    pub source: StoreError,
}

fn space_words(need_bytes: u64, have_bytes: u64, limit_bytes: Option<u64>) -> String {
    if need_bytes == 0 {
        return "no space left on the disk: free some".to_owned();
    }
    let words = format!("not enough space: need {need_bytes} bytes, have {have_bytes}");
    match limit_bytes {
        Some(limit) => format!("{words} (storage limit {limit} bytes): raise spec.storage.limit, or make room"),
        None => format!("{words}: make room on the disk"),
    }
}

impl StoreError {
    /// A stable word for statuses, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            StoreError::Locked { .. } => "StoreLocked",
            StoreError::OwnedByAnother { .. } => "StoreOwnedByAnother",
            StoreError::DiskFull { .. } | StoreError::InodesFull { .. } => "DiskFull",
            StoreError::PathOccupied { .. } => "PathOccupied",
            StoreError::ChunkRefused { .. } => "ChunkRefused",
            StoreError::Manifest(_) | StoreError::Page(_) | StoreError::Order(_) => "ManifestRefused",
            StoreError::ManifestIncomplete { .. } | StoreError::UnknownPage { .. } => "ManifestIncomplete",
            StoreError::UnknownPackage(_)
            | StoreError::BeingRemoved(_)
            | StoreError::NotPrepared(_)
            | StoreError::NotComplete { .. } => "NotReady",
            StoreError::Io { .. } | StoreError::Journal { .. } | StoreError::JournalDamaged { .. } => "StorageFailed",
        }
    }
}

/// Whether the error says that the disk or the quota is full.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    let full = [Errno::NOSPC, Errno::DQUOT, Errno::FBIG];
    error.raw_os_error().is_some_and(|code| full.iter().any(|errno| errno.raw_os_error() == code))
}

/// An I/O error with what was tried on what.
pub(super) fn io_error(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
    move |source| {
        if is_disk_full(&source) {
            // Whoever knows the need gives the numbers.
            return StoreError::DiskFull { need_bytes: 0, have_bytes: 0, limit_bytes: None };
        }
        StoreError::Io { operation, path: path.into(), source }
    }
}
