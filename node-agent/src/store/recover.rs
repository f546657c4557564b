//! What opening a root does: brings every package into a clear stage and removes what a crash left half made. The
//! journal is the truth about stages, the inodes of trees tell whether a rename happened.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use rustix::fs::Mode;

use super::beneath;
use super::error::{StoreError, io_error};
use super::ingest::DOWNLOADS_FOLDER;
use super::journal::{JournalledPackage, Record, RecordedStage};
use super::node_store::{NodeStore, now_seconds};
use super::package::{Package, Stage, lock};

/// Trees that the journal names: inode to package.
type Claims = BTreeMap<u64, Digest>;

impl NodeStore {
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let journalled = self.journal.packages()?;
        let claims: Claims = journalled.iter().filter_map(claim).collect();
        let (mut half_published, mut removing) = (Vec::new(), Vec::new());
        for package in journalled {
            let was_publishing = matches!(package.record.stage, RecordedStage::Publishing { .. });
            let package = Arc::new(self.recover_package(package, &claims)?);
            lock(&self.packages).insert(package.digest(), Arc::clone(&package));
            let stage = package.state().stage;
            match stage {
                Stage::Removing { .. } => removing.push(package.digest()),
                Stage::Published { .. } if was_publishing => half_published.push(package),
                _ => {}
            }
        }
        removing.into_iter().try_for_each(|digest| self.delete(digest))?;
        self.sweep_staging()?;
        self.sweep_pages()?;
        self.mark_current()?;
        half_published.iter().try_for_each(|package| self.finish_publication(package))?;
        self.stamp_superseded()
    }

    fn recover_package(&self, journalled: JournalledPackage, claims: &Claims) -> Result<Package, StoreError> {
        let stage = self.recovered_stage(&journalled, claims);
        let JournalledPackage { root, record, held } = journalled;
        let digest = root.digest();
        if stage == record.stage {
            return Ok(Package::journalled(JournalledPackage { root, record, held }));
        }
        let lost = stage == RecordedStage::Listed;
        // A renamed tree stays marked until its publication is finished.
        let written =
            if matches!(record.stage, RecordedStage::Publishing { .. }) && !lost { record.stage } else { stage };
        self.journal.commit(
            |changes| {
                if lost {
                    changes.forget_held(digest)?;
                }
                changes.put_record(digest, &Record { stage: written, ..record.clone() })
            },
            || (),
        )?;
        let held = if lost { ChunkSet::new(root.chunk_count()) } else { held };
        Ok(Package::journalled(JournalledPackage { root, record: Record { stage, ..record }, held }))
    }

    fn recovered_stage(&self, package: &JournalledPackage, claims: &Claims) -> RecordedStage {
        let digest = package.root.digest();
        let staged = || beneath::open_directory(&self.staging, digest.to_hex().as_bytes()).is_ok();
        let at_place = self.tree_at_place(package.root.package());
        let inode_at_place = at_place.as_ref().and_then(inode_of);
        match package.record.stage {
            stage @ (RecordedStage::Removing { .. } | RecordedStage::Listed) => stage,
            RecordedStage::Publishing { inode } if inode_at_place == Some(inode) => RecordedStage::Published { inode },
            RecordedStage::Staged | RecordedStage::Publishing { .. } if staged() => RecordedStage::Staged,
            // A root that was copied to another disk has other inodes.
            RecordedStage::Published { .. } => match (inode_at_place, at_place.as_ref().is_some_and(looks_like_ours)) {
                (Some(inode), true) if claims.get(&inode).is_none_or(|owner| *owner == digest) => {
                    RecordedStage::Published { inode }
                }
                _ => RecordedStage::Listed,
            },
            RecordedStage::Staged | RecordedStage::Publishing { .. } => RecordedStage::Listed,
        }
    }

    /// Removes from staging what is nobody's.
    fn sweep_staging(&self) -> Result<(), StoreError> {
        let kept: Vec<Vec<u8>> = {
            let packages = lock(&self.packages);
            let staged = packages.values().filter(|package| package.state().stage == Stage::Staged);
            let downloads = std::iter::once(DOWNLOADS_FOLDER.into());
            staged.map(|package| package.staging_name().into_bytes()).chain(downloads).collect()
        };
        let path = self.root.join("staging");
        let names = beneath::names_in(&self.staging).map_err(io_error("list", &path))?;
        for name in names.iter().filter(|name| !kept.contains(name)) {
            beneath::remove_all(&self.staging, name).map_err(io_error("clean", &path))?;
        }
        Ok(())
    }

    /// Removes manifest pages of packages that the journal does not know.
    fn sweep_pages(&self) -> Result<(), StoreError> {
        for folder in self.pages.folders()? {
            let name = folder.file_name().and_then(|name| name.to_str());
            let digest = name.and_then(|name| name.parse::<Digest>().ok());
            if digest.is_none_or(|digest| self.package(digest).is_err()) {
                fs::remove_dir_all(&folder).map_err(io_error("clean", &folder))?;
            }
        }
        Ok(())
    }

    fn mark_current(&self) -> Result<(), StoreError> {
        for package in lock(&self.packages).values() {
            let key = package.root.package();
            let target = self.current_target(&key.distribution)?;
            let mut state = package.state();
            state.current = matches!(state.stage, Stage::Published { .. })
                && target.is_some_and(|target| target == key.version.as_str().as_bytes());
        }
        Ok(())
    }

    /// A version may have lost `current` in a crash before its time was written: it counts from now, which is later.
    fn stamp_superseded(&self) -> Result<(), StoreError> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        for package in packages {
            let inode = {
                let mut state = package.state();
                match state.stage {
                    Stage::Published { inode } if !state.current && state.superseded_at_seconds.is_none() => {
                        state.superseded_at_seconds = Some(now_seconds());
                        inode
                    }
                    _ => continue,
                }
            };
            self.commit_record(&package, RecordedStage::Published { inode })?;
        }
        Ok(())
    }
}

fn claim(package: &JournalledPackage) -> Option<(u64, Digest)> {
    match package.record.stage {
        RecordedStage::Publishing { inode } | RecordedStage::Published { inode } => {
            Some((inode, package.root.digest()))
        }
        _ => None,
    }
}

fn inode_of(directory: &OwnedFd) -> Option<u64> {
    rustix::fs::fstat(directory).ok().map(|stat| stat.st_ino)
}

/// Sealed, and owned by whoever we are: not something that a person put there.
fn looks_like_ours(directory: &OwnedFd) -> bool {
    rustix::fs::fstat(directory).is_ok_and(|stat| {
        Mode::from_raw_mode(stat.st_mode) == beneath::SEALED_DIRECTORY
            && stat.st_uid == rustix::process::geteuid().as_raw()
    })
}
