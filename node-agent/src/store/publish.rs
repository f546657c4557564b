//! Publishes a complete tree: seals it, moves it to its place by one rename, and turns `current` to it. Each step can
//! be the last before a crash; opening the root again ends in one of the states before or after.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use peerdist_core::digest::Digest;
use peerdist_core::names::DistributionKey;
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::beneath;
use super::error::{StoreError, io_error};
use super::journal::RecordedStage;
use super::node_store::{NodeStore, now_seconds};
use super::package::{FILES_SYNCED_SINGLY_MAX, Package, Stage, lock};
use super::tree::{Directories, seal_entry};

/// What publishing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// The tree went to its place.
    Published,
    /// It was there; `current` leads to it again.
    Activated,
    /// It was there and current: nothing was written.
    Unchanged,
}

impl NodeStore {
    /// Publishes a complete package and makes it current. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotComplete`] while chunks are not held, [`StoreError::PathOccupied`] when something foreign
    /// lies at its place.
    pub fn publish(&self, digest: Digest) -> Result<Publication, StoreError> {
        let package = self.package(digest)?;
        let _lifecycle = lock(&package.lifecycle);
        let stage = package.state().stage;
        match stage {
            Stage::Removing { .. } => Err(StoreError::BeingRemoved(digest)),
            Stage::Listed => Err(StoreError::NotPrepared(digest)),
            Stage::Published { .. } => self.activate(&package),
            Stage::Staged => {
                self.check_complete(&package)?;
                self.check_place(&package)?;
                self.seal(&package)?;
                let places = lock(&self.places);
                self.record_intent(&package)?;
                self.move_into_place(&package)?;
                drop(places);
                self.finish_publication(&package)?;
                Ok(Publication::Published)
            }
        }
    }

    fn activate(&self, package: &Package) -> Result<Publication, StoreError> {
        // A published tree may have lost chunks since.
        self.check_complete(package)?;
        if self.journal.faulty()?.contains(&package.digest()) {
            self.restore_or_warn(package);
        }
        let key = package.root.package();
        let target = self.current_target(&key.distribution)?;
        if package.state().current && target.as_deref() == Some(key.version.as_str().as_bytes()) {
            return Ok(Publication::Unchanged);
        }
        self.finish_publication(package)?;
        Ok(Publication::Activated)
    }

    fn check_complete(&self, package: &Package) -> Result<(), StoreError> {
        let missing = package.state().held.complement().len();
        if missing == 0 { Ok(()) } else { Err(StoreError::NotComplete { digest: package.digest(), missing }) }
    }

    /// Refuses when something that is not ours lies where the package or its link belongs.
    pub(super) fn check_place(&self, package: &Package) -> Result<(), StoreError> {
        let key = package.root.package();
        let occupied = |path| Err(StoreError::PathOccupied { path, package: key.clone() });
        let examine = |error| io_error("examine", self.published_path(key))(error);
        let (namespace, name) = (&key.distribution.namespace, &key.distribution.name);
        let folders = [namespace.to_string(), format!("{namespace}/{name}")];
        for folder in folders {
            match beneath::kind_of(&self.published, folder.as_bytes()).map_err(examine)? {
                None => return Ok(()),
                Some(FileType::Directory) => {}
                Some(_) => return occupied(self.root.join("packages").join(folder)),
            }
        }
        let place = format!("{namespace}/{name}/{}", key.version);
        let ours = self.inode_at_place(key).is_some_and(|inode| self.is_published_inode(&key.distribution, inode));
        if !ours && beneath::kind_of(&self.published, place.as_bytes()).map_err(examine)?.is_some() {
            return occupied(self.published_path(key));
        }
        let link = format!("{namespace}/{name}/current");
        match beneath::kind_of(&self.published, link.as_bytes()).map_err(examine)? {
            None | Some(FileType::Symlink) => Ok(()),
            Some(_) => occupied(self.distribution_path(&key.distribution).join("current")),
        }
    }

    fn is_published_inode(&self, distribution: &DistributionKey, inode: u64) -> bool {
        let published = |package: &Arc<Package>| package.state().stage == Stage::Published { inode };
        self.versions_of(distribution).iter().any(published)
    }

    /// Gives every entry its final mode. The top stays writable: a non-root process cannot rename a directory that
    /// it may not write.
    pub(super) fn seal(&self, package: &Package) -> Result<(), StoreError> {
        let path = self.staging_path(&package.staging_name());
        let name = package.staging_name();
        let top = beneath::open_directory(&self.staging, name.as_bytes()).map_err(io_error("open", &path))?;
        let sync = package.root.entry_count() as usize <= FILES_SYNCED_SINGLY_MAX;
        let mut directories = Directories::new(top, |directory: &OwnedFd| {
            rustix::fs::fchmod(directory, beneath::SEALED_DIRECTORY)?;
            if sync { Ok(rustix::fs::fsync(directory)?) } else { Ok(()) }
        });
        for position in 0..package.root.entry_pages().len() {
            for entry in &self.pages.entry_page(&package.root, position)?.entries {
                let sealed = seal_entry(&mut directories, entry, sync);
                sealed.map_err(|error| io_error("seal", path.join(entry.path.to_string()))(error))?;
            }
        }
        let top = directories.finish().map_err(io_error("seal", &path))?;
        if !sync {
            return self.sync_file_system();
        }
        rustix::fs::fsync(&top).map_err(|error| io_error("sync", path)(error.into()))
    }

    /// Writes down which tree is about to move, so that a crash leaves no doubt whether it did.
    pub(super) fn record_intent(&self, package: &Package) -> Result<(), StoreError> {
        let name = package.staging_name();
        let stat = beneath::open_directory(&self.staging, name.as_bytes())
            .and_then(|directory| Ok(rustix::fs::fstat(directory)?))
            .map_err(io_error("open", self.staging_path(&name)))?;
        self.commit_record(package, RecordedStage::Publishing { inode: stat.st_ino })
    }

    /// The rename. A tree of ours that has the same version is exchanged for it.
    pub(super) fn move_into_place(&self, package: &Package) -> Result<(), StoreError> {
        let key = package.root.package();
        let (staged, version) = (package.staging_name(), key.version.as_str());
        let folder = self.distribution_folder(&key.distribution)?;
        let occupied = || StoreError::PathOccupied { path: self.published_path(key), package: key.clone() };
        let io = |error: Errno| io_error("publish", self.published_path(key))(error.into());
        let replaced = self.published_version(package);
        let flags = match &replaced {
            Some(_) => RenameFlags::EXCHANGE,
            None => RenameFlags::NOREPLACE,
        };
        if replaced.is_some() {
            let old = beneath::open_directory(&folder, version.as_bytes())
                .map_err(io_error("open", self.published_path(key)))?;
            rustix::fs::fchmod(&old, beneath::OPEN_DIRECTORY).map_err(io)?;
        }
        let mut state = package.state();
        let inode = beneath::open_directory(&self.staging, staged.as_bytes())
            .and_then(|directory| Ok(rustix::fs::fstat(directory)?.st_ino))
            .map_err(io_error("open", self.staging_path(&staged)))?;
        match rustix::fs::renameat_with(&self.staging, staged.as_str(), &folder, version, flags) {
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Err(occupied()),
            Err(Errno::INVAL | Errno::NOSYS) if replaced.is_none() => {
                rustix::fs::renameat(&self.staging, staged.as_str(), &folder, version).map_err(io)?;
            }
            renamed => renamed.map_err(io)?,
        }
        state.stage = Stage::Published { inode };
        drop(state);
        lock(&self.recent).forget(package.digest());
        Ok(())
    }

    /// Another package of the same version that is published.
    fn published_version(&self, package: &Package) -> Option<Arc<Package>> {
        let key = package.root.package();
        self.versions_of(&key.distribution).into_iter().find(|other| {
            other.digest() != package.digest()
                && other.root.package() == key
                && matches!(other.state().stage, Stage::Published { .. })
        })
    }

    /// All that follows the rename: the top's mode, the link, the journal, and what was replaced. Repeatable.
    pub(super) fn finish_publication(&self, package: &Package) -> Result<(), StoreError> {
        let _places = lock(&self.places);
        let key = package.root.package();
        let Stage::Published { inode } = package.state().stage else {
            return Err(StoreError::NotPrepared(package.digest()));
        };
        let folder = self.distribution_folder(&key.distribution)?;
        let path = self.published_path(key);
        let top = beneath::open_directory(&folder, key.version.as_str().as_bytes()).map_err(io_error("open", &path))?;
        let io = |error: Errno| io_error("seal", &path)(error.into());
        rustix::fs::fchmod(&top, beneath::SEALED_DIRECTORY).map_err(io)?;
        rustix::fs::fsync(&top).map_err(io)?;
        rustix::fs::fsync(&folder).map_err(io)?;
        rustix::fs::fsync(&self.staging).map_err(io)?;
        self.turn_current(package, &folder)?;
        self.record_publication(package, inode)?;
        self.drop_replaced(package)
    }

    /// Points `current` at a version by renaming a new link over the old one.
    fn turn_current(&self, package: &Package, folder: &OwnedFd) -> Result<(), StoreError> {
        let version = package.root.package().version.as_str();
        let link = format!("{}.current", package.staging_name());
        let io = |error: Errno| {
            let path = self.distribution_path(&package.root.package().distribution).join("current");
            io_error("turn", path)(error.into())
        };
        beneath::remove_all(&self.staging, link.as_bytes()).map_err(io_error("clean", self.staging_path(&link)))?;
        rustix::fs::symlinkat(version, &self.staging, link.as_str()).map_err(io)?;
        rustix::fs::renameat(&self.staging, link.as_str(), folder, "current").map_err(io)?;
        rustix::fs::fsync(folder).map_err(io)
    }

    fn record_publication(&self, package: &Package, inode: u64) -> Result<(), StoreError> {
        let others = self.versions_of(&package.root.package().distribution);
        for other in others.iter().filter(|other| other.digest() != package.digest()) {
            self.supersede(other)?;
        }
        {
            let mut state = package.state();
            state.current = true;
            state.superseded_at_seconds = None;
            // The old handle still works, but names of errors and repairs should say where the tree is now.
            state.tree = None;
        }
        self.files.forget(package.digest());
        self.commit_record(package, RecordedStage::Published { inode })
    }

    /// Writes down since when a version is not current any more.
    pub(super) fn supersede(&self, package: &Package) -> Result<(), StoreError> {
        let inode = {
            let mut state = package.state();
            if !std::mem::take(&mut state.current) {
                return Ok(());
            }
            state.superseded_at_seconds = Some(now_seconds());
            match state.stage {
                Stage::Published { inode } => inode,
                _ => return Ok(()),
            }
        };
        self.commit_record(package, RecordedStage::Published { inode })
    }

    /// Forgets a package whose tree was exchanged for this one; the old tree lies under this one's name in staging.
    fn drop_replaced(&self, package: &Package) -> Result<(), StoreError> {
        let Some(replaced) = self.published_version(package) else { return Ok(()) };
        let digest = replaced.digest();
        {
            let mut state = replaced.state();
            state.stage = Stage::Removing { inode: None };
            state.tree = None;
        }
        self.files.forget(digest);
        self.take_unflushed(&replaced);
        let name = package.staging_name();
        beneath::remove_all(&self.staging, name.as_bytes()).map_err(io_error("remove", self.staging_path(&name)))?;
        self.pages.remove(digest)?;
        self.journal.commit(|changes| changes.forget(digest), || lock(&self.packages).remove(&digest))?;
        Ok(())
    }

    /// Target of a distribution's `current` link.
    pub(super) fn current_target(&self, key: &DistributionKey) -> Result<Option<Vec<u8>>, StoreError> {
        let link = format!("{}/{}/current", key.namespace, key.name);
        beneath::link_target(&self.published, link.as_bytes())
            .map_err(io_error("read", self.distribution_path(key).join("current")))
    }

    /// The folder of a distribution, made if absent.
    pub(super) fn distribution_folder(&self, key: &DistributionKey) -> Result<OwnedFd, StoreError> {
        let path = self.distribution_path(key);
        let made = ensure_synced(&self.published, key.namespace.as_str())
            .and_then(|namespace| ensure_synced(&namespace, key.name.as_str()));
        made.map_err(io_error("create", path))
    }
}

fn ensure_synced(parent: &OwnedFd, name: &str) -> std::io::Result<OwnedFd> {
    let (directory, created) = beneath::ensure_directory(parent.as_fd(), name.as_bytes(), beneath::OPEN_DIRECTORY)?;
    if created {
        rustix::fs::fsync(parent)?;
    }
    Ok(directory)
}
