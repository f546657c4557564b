//! Takes packages away: out of the consumers' sight first, then off the disk. Only what is ours, and never through a
//! link.

use std::io;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use peerdist_core::names::DistributionKey;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::beneath;
use super::error::{StoreError, io_error};
use super::journal::RecordedStage;
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};

impl NodeStore {
    /// Ends a distribution: removes its `current` link and notes when. Its versions stay until they are deleted.
    ///
    /// # Errors
    /// What failed on disk.
    pub fn retire(&self, distribution: &DistributionKey) -> Result<(), StoreError> {
        let _places = lock(&self.places);
        for package in self.versions_of(distribution) {
            if package.state().current {
                self.remove_current(&package)?;
                self.supersede(&package)?;
            }
        }
        Ok(())
    }

    /// Deletes a package: its tree, its manifest, its journal entries. One that is not here is fine.
    ///
    /// # Errors
    /// What failed on disk; deleting again continues.
    pub fn delete(&self, digest: Digest) -> Result<(), StoreError> {
        let Ok(package) = self.package(digest) else { return Ok(()) };
        let _lifecycle = lock(&package.lifecycle);
        let trash = format!("{}.removed", package.staging_name());
        self.detach(&package, &trash)?;
        beneath::remove_all(&self.staging, trash.as_bytes()).map_err(io_error("remove", self.staging_path(&trash)))?;
        self.pages.remove(digest)?;
        self.journal.commit(|changes| changes.forget(digest), || lock(&self.packages).remove(&digest))?;
        Ok(())
    }

    /// Moves the tree of a package out of its place, after noting that it goes.
    fn detach(&self, package: &Package, trash: &str) -> Result<(), StoreError> {
        let _places = lock(&self.places);
        let inode = self.mark_removing(package)?;
        self.files.forget(package.digest());
        lock(&self.recent).forget(package.digest());
        let at_place = inode.is_some() && self.inode_at_place(package.root.package()) == inode;
        if std::mem::take(&mut package.state().current) || at_place {
            self.remove_current(package)?;
        }
        if at_place {
            match self.move_out(package, trash) {
                Err(StoreError::Io { path, source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                    // It was given to another user or closed since. Trying for ever would keep all else from going on.
                    let package = package.root.package();
                    tracing::warn!(%package, path = %path.display(), %source, "a tree that we may not remove is left");
                }
                moved => moved?,
            }
        }
        let staged = package.staging_name();
        match rustix::fs::renameat(&self.staging, staged.as_str(), &self.staging, trash) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(io_error("remove", self.staging_path(&staged))(error.into())),
        }
    }

    pub(super) fn mark_removing(&self, package: &Package) -> Result<Option<u64>, StoreError> {
        let _flushing = lock(&self.flushing);
        let inode = match package.state().stage {
            Stage::Published { inode } => Some(inode),
            Stage::Removing { inode } => inode,
            Stage::Listed | Stage::Staged => None,
        };
        let record = package.state().record(RecordedStage::Removing { inode });
        self.journal.commit(
            |changes| {
                changes.forget_held(package.digest())?;
                changes.put_record(package.digest(), &record)
            },
            || {
                self.take_unflushed(package);
                let mut state = package.state();
                state.stage = Stage::Removing { inode };
                state.held = ChunkSet::new(package.root.chunk_count());
                state.available = ChunkSet::new(package.root.chunk_count());
                state.tree = None;
            },
        )?;
        Ok(inode)
    }

    fn move_out(&self, package: &Package, trash: &str) -> Result<(), StoreError> {
        let key = package.root.package();
        let folder = self.distribution_folder(&key.distribution)?;
        let io = |error: Errno| io_error("remove", self.published_path(key))(error.into());
        let top = beneath::open_directory(&folder, key.version.as_str().as_bytes())
            .map_err(io_error("open", self.published_path(key)))?;
        rustix::fs::fchmod(&top, beneath::PRIVATE_DIRECTORY).map_err(io)?;
        rustix::fs::renameat(&folder, key.version.as_str(), &self.staging, trash).map_err(io)?;
        rustix::fs::fsync(&folder).map_err(io)?;
        drop(folder);
        self.remove_empty_folders(&key.distribution);
        Ok(())
    }

    /// Removes `current` if it leads to this version.
    fn remove_current(&self, package: &Package) -> Result<(), StoreError> {
        let key = package.root.package();
        if self.current_target(&key.distribution)?.as_deref() != Some(key.version.as_str().as_bytes()) {
            return Ok(());
        }
        let folder = self.distribution_folder(&key.distribution)?;
        let io =
            |error: Errno| io_error("remove", self.distribution_path(&key.distribution).join("current"))(error.into());
        rustix::fs::unlinkat(&folder, "current", AtFlags::empty()).map_err(io)?;
        rustix::fs::fsync(&folder).map_err(io)
    }

    /// Folders of a distribution without versions go too. They stay when anything is in them.
    fn remove_empty_folders(&self, key: &DistributionKey) {
        let name = format!("{}/{}", key.namespace, key.name);
        if rustix::fs::unlinkat(&self.published, name, AtFlags::REMOVEDIR).is_ok() {
            // Not empty is no failure: other distributions live in the namespace.
            let _ = rustix::fs::unlinkat(&self.published, key.namespace.as_str(), AtFlags::REMOVEDIR);
        }
    }
}
