//! Opens a root, recovers it, and answers what is in it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ChunkTable, ManifestRoot};
use peerdist_core::names::{DistributionKey, PackageKey};
use rustix::fs::{AtFlags, FlockOperation, OFlags};
use rustix::io::Errno;

use super::beneath;
use super::error::{StoreError, io_error};
use super::journal::{Journal, RecordedStage};
use super::open_files::OpenFiles;
use super::package::{Package, Stage, Unflushed, lock};
use super::pages::{Pages, check_page};
use super::recent::Recent;
use super::recover::{Gone, Losses};

/// What a store may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreLimits {
    /// Most bytes of packages, and in a library of what arrives for it; `None`: as much as the disk has.
    pub limit_bytes: Option<u64>,
}

/// A package as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPackage {
    /// Distribution and version.
    pub key: PackageKey,
    /// Digest of its manifest root.
    pub digest: Digest,
    /// Chunks the package has.
    pub chunk_count: u32,
    /// Chunks that survive a crash.
    pub held: ChunkSet,
    /// Chunks that can be read: held, or verified in this run.
    pub available: ChunkSet,
    /// Whether its tree lies at its place.
    pub published: bool,
    /// Whether `current` leads to it.
    pub current: bool,
    /// When it stopped being current, in seconds since 1970.
    pub superseded_at_seconds: Option<u64>,
}

/// The content of one node, or the server's library.
#[derive(Debug)]
pub struct NodeStore {
    pub(super) root: PathBuf,
    /// Locked for as long as the store lives.
    _lock: File,
    pub(super) root_directory: OwnedFd,
    pub(super) staging: OwnedFd,
    pub(super) published: OwnedFd,
    limits: Mutex<StoreLimits>,
    pub(super) journal: Journal,
    pub(super) pages: Pages,
    pub(super) files: OpenFiles,
    pub(super) recent: Mutex<Recent>,
    pub(super) packages: Mutex<BTreeMap<Digest, Arc<Package>>>,
    /// Packages whose trees were gone when the root was opened.
    pub(super) gone: Gone,
    /// Held while places under `packages/` change. Taken after a package's lifecycle, before `flushing`.
    pub(super) places: Mutex<()>,
    /// Held by a flush, and by whoever takes chunks away. Taken before the journal.
    pub(super) flushing: Mutex<()>,
    pub(super) unflushed_bytes: AtomicU64,
    /// Bytes of trees that are being made.
    pub(super) reserving: Mutex<u64>,
    pub(super) ingests: AtomicU64,
    /// Bytes that ingests have in staging.
    pub(super) staged_bytes: Arc<AtomicU64>,
    /// What whoever fills a library leaves free of its disk.
    pub(super) kept_free_percent: AtomicU8,
}

impl NodeStore {
    /// Opens a root folder, made if absent; recovers what a crash left.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::OwnedByAnother`] when another user made it,
    /// otherwise what failed on disk.
    pub fn open(root: &Path, limits: StoreLimits) -> Result<Self, StoreError> {
        Self::open_with(root, limits, Losses::Journalled)
    }

    /// Opens a root for [`NodeStore::verify`]. What a crash left is recovered as always, but a package whose tree is
    /// gone stays in the journal: to look must not be what loses it.
    ///
    /// # Errors
    /// As of [`NodeStore::open`].
    pub fn open_to_verify(root: &Path) -> Result<Self, StoreError> {
        Self::open_with(root, StoreLimits::default(), Losses::OnlyTold)
    }

    fn open_with(root: &Path, limits: StoreLimits, losses: Losses) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(io_error("create", root))?;
        let root_directory = OwnedFd::from(File::open(root).map_err(io_error("open", root))?);
        check_owner(root, &root_directory)?;
        let folder = |name: &str, mode| {
            let made = beneath::ensure_directory(&root_directory, name.as_bytes(), mode);
            made.map(|(directory, _)| directory).map_err(io_error("create", root.join(name)))
        };
        let (staging, published) =
            (folder("staging", beneath::PRIVATE_DIRECTORY)?, folder("packages", beneath::OPEN_DIRECTORY)?);
        folder("journal", beneath::PRIVATE_DIRECTORY)?;
        let lock_file = take_lock(root)?;
        let mut store = Self {
            root: root.to_owned(),
            _lock: lock_file,
            root_directory,
            staging,
            published,
            limits: Mutex::new(limits),
            journal: Journal::open(&root.join("journal/journal.redb"))?,
            pages: Pages::new(root.join("journal/manifests"))?,
            files: OpenFiles::new(),
            recent: Mutex::new(Recent::default()),
            packages: Mutex::new(BTreeMap::new()),
            gone: Gone::new(),
            places: Mutex::new(()),
            flushing: Mutex::new(()),
            unflushed_bytes: AtomicU64::new(0),
            reserving: Mutex::new(0),
            ingests: AtomicU64::new(0),
            staged_bytes: Arc::default(),
            kept_free_percent: AtomicU8::new(0),
        };
        store.gone = store.recover(losses)?;
        Ok(store)
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The limits in force.
    pub fn limits(&self) -> StoreLimits {
        *lock(&self.limits)
    }

    /// Changes the limits; what is there stays.
    pub fn set_limits(&self, limits: StoreLimits) {
        *lock(&self.limits) = limits;
    }

    /// Everything that is here.
    pub fn inventory(&self) -> Vec<StoredPackage> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        self.journal.between_commits(|| packages.iter().filter_map(|package| stored(package)).collect())
    }

    /// The stored manifest root of a package.
    ///
    /// # Errors
    /// [`StoreError::UnknownPackage`] when there is none.
    pub fn manifest_root(&self, digest: Digest) -> Result<ManifestRoot, StoreError> {
        self.package(digest).map(|package| package.root.clone())
    }

    /// Stores a verified root. Returns the digests of its missing pages.
    ///
    /// # Errors
    /// What failed on disk; [`StoreError::BeingRemoved`] while the same package is being deleted.
    pub fn put_root(&self, root: &ManifestRoot) -> Result<Vec<Digest>, StoreError> {
        let digest = root.digest();
        if let Ok(package) = self.package(digest) {
            return match package.state().stage {
                Stage::Removing { .. } => Err(StoreError::BeingRemoved(digest)),
                _ => Ok(self.pages.missing(root)),
            };
        }
        let package = Arc::new(Package::listed(root.clone()));
        let record = package.state().record(RecordedStage::Listed);
        self.journal.commit(
            |changes| {
                changes.forget_held(digest)?;
                changes.put_root(root)?;
                changes.put_record(digest, &record)
            },
            || {
                lock(&self.packages).entry(digest).or_insert(package);
            },
        )?;
        Ok(self.pages.missing(root))
    }

    /// Stores a page of a known package after checking its digest.
    ///
    /// # Errors
    /// [`StoreError::UnknownPage`] or [`StoreError::Page`] for bytes that the manifest does not name.
    pub fn put_page(&self, digest: Digest, page: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let package = self.package(digest)?;
        check_page(&package.root, page, bytes)?;
        self.pages.put(digest, page, bytes)
    }

    /// Pages that are still missing.
    ///
    /// # Errors
    /// [`StoreError::UnknownPackage`].
    pub fn missing_pages(&self, digest: Digest) -> Result<Vec<Digest>, StoreError> {
        self.package(digest).map(|package| self.pages.missing(&package.root))
    }

    /// A compressed manifest page, to pass on.
    ///
    /// # Errors
    /// [`StoreError::UnknownPage`], or [`StoreError::ManifestIncomplete`] when it is not here.
    pub fn manifest_page(&self, digest: Digest, page: Digest) -> Result<Bytes, StoreError> {
        let package = self.package(digest)?;
        let (_, reference) = package.root.page(page).ok_or(StoreError::UnknownPage { digest, page })?;
        self.pages.read(&package.root, reference)
    }

    /// The chunks of a package.
    ///
    /// # Errors
    /// [`StoreError::ManifestIncomplete`] while a chunk page is missing.
    pub fn chunk_table(&self, digest: Digest) -> Result<Arc<ChunkTable>, StoreError> {
        self.pages.table(&self.package(digest)?.root)
    }

    /// Where a package is or will be published.
    pub fn published_path(&self, key: &PackageKey) -> PathBuf {
        self.distribution_path(&key.distribution).join(key.version.as_str())
    }

    pub(super) fn distribution_path(&self, key: &DistributionKey) -> PathBuf {
        self.root.join("packages").join(key.namespace.as_str()).join(key.name.as_str())
    }

    pub(super) fn staging_path(&self, name: &str) -> PathBuf {
        self.root.join("staging").join(name)
    }

    /// Where a package's tree is now, for messages.
    pub(super) fn tree_path(&self, package: &Package) -> PathBuf {
        match package.state().stage {
            Stage::Published { .. } => self.published_path(package.root.package()),
            _ => self.staging_path(&package.staging_name()),
        }
    }

    pub(super) fn package(&self, digest: Digest) -> Result<Arc<Package>, StoreError> {
        lock(&self.packages).get(&digest).cloned().ok_or(StoreError::UnknownPackage(digest))
    }

    /// All packages of a distribution.
    pub(super) fn versions_of(&self, key: &DistributionKey) -> Vec<Arc<Package>> {
        lock(&self.packages).values().filter(|package| package.root.package().distribution == *key).cloned().collect()
    }

    /// The top directory of a package's tree.
    pub(super) fn tree(&self, package: &Package) -> Result<Arc<OwnedFd>, StoreError> {
        let mut state = package.state();
        if let Some(tree) = &state.tree {
            return Ok(Arc::clone(tree));
        }
        let key = package.root.package();
        let opened = match state.stage {
            Stage::Listed => return Err(StoreError::NotPrepared(package.digest())),
            Stage::Removing { .. } => return Err(StoreError::BeingRemoved(package.digest())),
            Stage::Staged => {
                let name = package.staging_name();
                beneath::open_directory(&self.staging, name.as_bytes())
                    .map_err(io_error("open", self.staging_path(&name)))
            }
            Stage::Published { .. } => {
                self.open_published(key, OFlags::RDONLY).map_err(io_error("open", self.published_path(key)))
            }
        };
        let tree = Arc::new(opened?);
        state.tree = Some(Arc::clone(&tree));
        Ok(tree)
    }

    fn open_published(&self, key: &PackageKey, flags: OFlags) -> std::io::Result<OwnedFd> {
        let path = format!("{}/{}/{}", key.distribution.namespace, key.distribution.name, key.version);
        beneath::open(&self.published, path.as_bytes(), flags | OFlags::DIRECTORY)
    }

    /// The directory at a package's place, whosever it is, to be looked at only: its inode can be told even where its
    /// mode keeps us from reading it. What cannot be looked at is an error: it may be ours.
    pub(super) fn tree_at_place(&self, key: &PackageKey) -> Result<Option<OwnedFd>, StoreError> {
        match self.open_published(key, OFlags::PATH) {
            Ok(tree) => Ok(Some(tree)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
                _ => Err(io_error("examine", self.published_path(key))(error)),
            },
        }
    }

    /// Inode of the directory at a package's place.
    pub(super) fn inode_at_place(&self, key: &PackageKey) -> Option<u64> {
        let tree = self.tree_at_place(key).ok().flatten()?;
        rustix::fs::fstat(tree).ok().map(|stat| stat.st_ino)
    }

    /// Writes the journal's record of a package; `change` decides what it says and what memory says afterwards.
    pub(super) fn commit_record(&self, package: &Package, stage: RecordedStage) -> Result<(), StoreError> {
        let record = package.state().record(stage);
        self.journal.commit(|changes| changes.put_record(package.digest(), &record), || ())
    }

    /// Takes what is unflushed of a package.
    pub(super) fn take_unflushed(&self, package: &Package) -> Unflushed {
        let taken = std::mem::take(&mut package.state().unflushed);
        self.unflushed_bytes.fetch_sub(taken.bytes, Ordering::Relaxed);
        taken
    }
}

fn stored(package: &Package) -> Option<StoredPackage> {
    let state = package.state();
    if matches!(state.stage, Stage::Removing { .. }) {
        return None;
    }
    Some(StoredPackage {
        key: package.root.package().clone(),
        digest: package.digest(),
        chunk_count: package.root.chunk_count(),
        held: state.held.clone(),
        available: state.available.clone(),
        published: matches!(state.stage, Stage::Published { .. }),
        current: state.current,
        superseded_at_seconds: state.superseded_at_seconds,
    })
}

/// Refuses root a root folder whose journal another user made: it could open it, and that user could not afterwards.
/// Anybody else meets the kernel's word where it matters; who owns files on a volume that maps users tells nothing.
fn check_owner(root: &Path, directory: &OwnedFd) -> Result<(), StoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let us = rustix::process::geteuid().as_raw();
    for name in ["journal", "journal/journal.redb"] {
        let path = root.join(name);
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_uid == us => {}
            Ok(stat) => {
                return Err(StoreError::OwnedByAnother { root: root.to_owned(), path, owner: stat.st_uid, us });
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(io_error("examine", path)(error.into())),
        }
    }
    Ok(())
}

/// Locks the root against a second process. The file names the holder for the other one's message.
fn take_lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("journal/lock");
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io_error("open", &path))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = fs::read_to_string(&path).unwrap_or_default();
        let holder = match holder.trim().parse::<u32>() {
            Ok(process) => format!("process {process}"),
            Err(_) => "another process".to_owned(),
        };
        return Err(StoreError::Locked { root: root.to_owned(), holder });
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(io_error("write", &path))?;
    Ok(file)
}

/// Wall-clock time in seconds since 1970.
pub(super) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
