//! The server's way in: a folder to fill, and its adoption as a package without a copy.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{EncodedPage, ManifestRoot};

use super::beneath;
use super::error::{StoreError, io_error};
use super::journal::{Record, RecordedStage};
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};
use super::pages::write_page;
use super::publish::Publication;
use super::space::StagedBytes;

/// Name of the folder in staging that is kept when a root is opened again.
pub(super) const DOWNLOADS_FOLDER: &str = "downloads";

/// A folder in staging for a tree that is being fetched and unpacked. Dropping it removes it.
#[derive(Debug)]
pub struct IngestStaging {
    staging: OwnedFd,
    name: String,
    tree: PathBuf,
    pages: PathBuf,
    bytes: Arc<StagedBytes>,
}

impl IngestStaging {
    /// Where the tree goes: its entries at the top.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Where what is written to the tree is counted.
    pub fn bytes(&self) -> Arc<StagedBytes> {
        Arc::clone(&self.bytes)
    }

    /// Keeps a finished page.
    ///
    /// # Errors
    /// What failed on disk.
    pub fn put_page(&self, page: &EncodedPage) -> Result<(), StoreError> {
        write_page(&self.pages, page.digest, &page.bytes)
    }
}

impl Drop for IngestStaging {
    fn drop(&mut self) {
        if let Err(error) = beneath::remove_all(&self.staging, self.name.as_bytes()) {
            tracing::warn!(folder = %self.tree.display(), %error, "cannot remove the folder of an ended ingest; the next start removes it");
        }
    }
}

impl NodeStore {
    /// Makes a folder to fill.
    ///
    /// # Errors
    /// What failed on disk.
    pub fn begin_ingest(&self) -> Result<IngestStaging, StoreError> {
        let name = format!("ingest-{}", self.ingests.fetch_add(1, Ordering::Relaxed));
        let path = self.staging_path(&name);
        let staging = self.staging.try_clone().map_err(io_error("open", &path))?;
        let bytes = Arc::new(StagedBytes::new(Arc::clone(&self.staged_bytes)));
        let ingest = IngestStaging { staging, name, tree: path.join("tree"), pages: path.join("pages"), bytes };
        fs::create_dir_all(&ingest.tree)
            .and_then(|()| fs::create_dir_all(&ingest.pages))
            .map_err(io_error("create", &path))?;
        Ok(ingest)
    }

    /// The folder in staging for downloads that are not finished. What is in it outlives a restart.
    ///
    /// # Errors
    /// What failed on disk.
    pub fn downloads_folder(&self) -> Result<PathBuf, StoreError> {
        let path = self.staging_path(DOWNLOADS_FOLDER);
        fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }

    /// Makes a filled folder a package: held and published, without copying. The caller hashed its content and put
    /// every page. A package that is here already stays, and the folder goes.
    ///
    /// # Errors
    /// [`StoreError::ManifestIncomplete`] when a page was not put, [`StoreError::PathOccupied`], or what failed on
    /// disk. The package may be held then; publish it again.
    pub fn adopt(&self, ingest: IngestStaging, root: &ManifestRoot) -> Result<Publication, StoreError> {
        let digest = root.digest();
        if let Ok(package) = self.package(digest) {
            if package.state().held.is_full() && Self::has_tree(&package) {
                return self.publish(digest);
            }
            self.delete(digest)?;
        }
        self.check_place(&Package::listed(root.clone()))?;
        self.adopt_pages(&ingest, root)?;
        self.adopt_tree(&ingest, root)?;
        self.publish(digest)
    }

    fn adopt_pages(&self, ingest: &IngestStaging, root: &ManifestRoot) -> Result<(), StoreError> {
        let folder = self.pages.folder_of(root.digest());
        self.pages.remove(root.digest())?;
        fs::rename(&ingest.pages, &folder).map_err(io_error("create", folder))?;
        match self.pages.missing(root).len() {
            0 => Ok(()),
            missing => Err(StoreError::ManifestIncomplete { digest: root.digest(), missing }),
        }
    }

    fn adopt_tree(&self, ingest: &IngestStaging, root: &ManifestRoot) -> Result<(), StoreError> {
        let digest = root.digest();
        let target = self.staging_path(&digest.to_hex());
        fs::rename(&ingest.tree, &target).map_err(io_error("create", target))?;
        self.sync_file_system()?;
        let package = Arc::new(Package::listed(root.clone()));
        let full = ChunkSet::full(root.chunk_count());
        {
            let mut state = package.state();
            state.stage = Stage::Staged;
            state.rehashed = true;
            state.held = full.clone();
            state.available = full.clone();
        }
        let record = Record { stage: RecordedStage::Staged, superseded_at_seconds: None, sparse: false };
        self.journal.commit(
            |changes| {
                changes.put_root(root)?;
                changes.put_held(digest, &full, full.iter())?;
                changes.put_record(digest, &record)
            },
            || lock(&self.packages).insert(digest, package),
        )?;
        Ok(())
    }

    /// Whether the package is here, complete and safe.
    pub fn is_held(&self, digest: Digest) -> bool {
        self.package(digest).is_ok_and(|package| package.state().held.is_full() && Self::has_tree(&package))
    }
}
