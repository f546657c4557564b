//! What opening a root does: brings every package into a clear stage, removes what a crash left half made, and gives
//! published trees their form again where a verification found another. The journal is the truth about stages, the
//! inodes of trees tell whether a rename happened.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{Entry, EntryKind, ManifestRoot};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::beneath;
use super::error::{StoreError, io_error};
use super::ingest::DOWNLOADS_FOLDER;
use super::journal::{JournalledPackage, Record, RecordedStage};
use super::node_store::{NodeStore, now_seconds};
use super::package::{Package, Stage, lock};
use super::tree::{self, Directories};

/// Trees that the journal names: inode to package.
type Claims = BTreeMap<u64, Digest>;

/// Packages whose trees are gone, and what to say about each.
pub(super) type Gone = BTreeMap<Digest, &'static str>;

const GONE_FROM_PLACE: &str =
    "its tree is not at its place any more: the next run fetches it again, if it is still wanted";
const ELSE_AT_PLACE: &str =
    "something else lies at its place: move it away, and the next run fetches the package again";
const GONE_FROM_STAGING: &str = "its tree is gone from staging: the next run fetches it again, if it is still wanted";

/// What becomes of the journal's entry for a package whose tree is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Losses {
    /// It says that nothing is held, so that everything is fetched again.
    Journalled,
    /// It stays: the tree may come back, as with a disk that was not mounted.
    OnlyTold,
}

/// Where a package is after recovery.
struct Recovered {
    stage: RecordedStage,
    /// What to say, when its tree was lost.
    gone: Option<&'static str>,
    /// Its published tree is ours and does not look so: another mode or owner.
    differs: bool,
}

impl NodeStore {
    pub(super) fn recover(&self, losses: Losses) -> Result<Gone, StoreError> {
        let journalled = self.journal.packages()?;
        let claims: Claims = journalled.iter().filter_map(claim).collect();
        let (mut half_published, mut removing, mut gone) = (Vec::new(), Vec::new(), Gone::new());
        for package in journalled {
            let was_publishing = matches!(package.record.stage, RecordedStage::Publishing { .. });
            let recovered = self.recovered(&package, &claims).unwrap_or_else(|error| {
                // It may be ours: nothing is decided about it, and it keeps no other one from being used.
                tracing::warn!(package = %package.root.package(), %error, "a package cannot be looked at");
                Recovered { stage: package.record.stage, gone: None, differs: false }
            });
            if let Some(problem) = recovered.gone {
                tracing::warn!(package = %package.root.package(), "a package is lost: {problem}");
                gone.insert(package.root.digest(), problem);
            }
            if recovered.differs && losses == Losses::Journalled {
                self.journal.commit(|changes| changes.mark_faulty(package.root.digest()), || ())?;
            }
            let package = Arc::new(self.recover_package(package, &recovered, losses)?);
            lock(&self.packages).insert(package.digest(), Arc::clone(&package));
            let stage = package.state().stage;
            match stage {
                Stage::Removing { .. } => removing.push(package.digest()),
                Stage::Published { .. } if was_publishing => half_published.push(package),
                _ => {}
            }
        }
        for digest in removing {
            if let Err(error) = self.delete(digest) {
                tracing::warn!(%digest, %error, "a package cannot be deleted yet");
            }
        }
        self.sweep_staging()?;
        self.sweep_pages()?;
        self.mark_current()?;
        half_published.iter().try_for_each(|package| self.finish_publication(package))?;
        self.stamp_superseded()?;
        if losses == Losses::Journalled {
            self.restore_faulty()?;
        }
        Ok(gone)
    }

    fn recover_package(
        &self,
        journalled: JournalledPackage,
        recovered: &Recovered,
        losses: Losses,
    ) -> Result<Package, StoreError> {
        let JournalledPackage { root, record, held } = journalled;
        let stage = recovered.stage;
        if stage == record.stage {
            return Ok(Package::journalled(JournalledPackage { root, record, held }));
        }
        if recovered.gone.is_none() || losses == Losses::Journalled {
            self.journal_stage(root.digest(), &record, stage)?;
        }
        let held = if stage == RecordedStage::Listed { ChunkSet::new(root.chunk_count()) } else { held };
        Ok(Package::journalled(JournalledPackage { root, record: Record { stage, ..record }, held }))
    }

    fn journal_stage(&self, digest: Digest, record: &Record, stage: RecordedStage) -> Result<(), StoreError> {
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
        )
    }

    fn recovered(&self, package: &JournalledPackage, claims: &Claims) -> Result<Recovered, StoreError> {
        let (digest, was) = (package.root.digest(), package.record.stage);
        let at_place = self.tree_at_place(package.root.package())?;
        let inode_at_place = at_place.as_ref().and_then(inode_of);
        let is_of_another = inode_at_place.and_then(|inode| claims.get(&inode)).is_some_and(|owner| *owner != digest);
        let is_staged = self.is_staged(digest)?;
        let stage = match (was, inode_at_place) {
            (RecordedStage::Removing { .. } | RecordedStage::Listed, _) => was,
            // The tree that we made, whatever became of its mode and owner.
            (RecordedStage::Publishing { inode } | RecordedStage::Published { inode }, Some(found))
                if found == inode && at_place.as_ref().is_some_and(|tree| self.is_same_tree(&package.root, tree)) =>
            {
                RecordedStage::Published { inode }
            }
            (RecordedStage::Staged | RecordedStage::Publishing { .. }, _) if is_staged => RecordedStage::Staged,
            // A root that was copied to another disk has other inodes.
            (RecordedStage::Published { .. }, Some(inode))
                if !is_of_another && at_place.as_ref().is_some_and(looks_like_ours) =>
            {
                RecordedStage::Published { inode }
            }
            _ => RecordedStage::Listed,
        };
        // Another manifest of the same version that took the place of this one is no loss.
        let is_replaced = is_of_another && matches!(was, RecordedStage::Published { .. });
        let is_gone = stage == RecordedStage::Listed && stage != was && !is_replaced;
        let is_published = matches!(stage, RecordedStage::Published { .. });
        Ok(Recovered {
            stage,
            gone: is_gone.then(|| what_is_gone(was, inode_at_place)),
            differs: is_published && !at_place.as_ref().is_some_and(looks_like_ours),
        })
    }

    /// Whether the tree with the journalled inode is the one that we made: file systems give inodes away again. One of
    /// another mode or owner must resemble it; one that we may not look into stays as it is.
    fn is_same_tree(&self, root: &ManifestRoot, tree: &OwnedFd) -> bool {
        looks_like_ours(tree) || self.resembles(root, tree).unwrap_or(true)
    }

    fn is_staged(&self, digest: Digest) -> Result<bool, StoreError> {
        let name = digest.to_hex();
        let kind = beneath::kind_of(&self.staging, name.as_bytes());
        Ok(kind.map_err(io_error("examine", self.staging_path(&name)))? == Some(FileType::Directory))
    }

    /// Puts right what a verification found.
    fn restore_faulty(&self) -> Result<(), StoreError> {
        for digest in self.journal.faulty()? {
            match self.package(digest).ok().filter(|package| is_published(package)) {
                // What lacks content is put right when that is brought.
                Some(package) if !package.state().held.is_full() => {}
                Some(package) => self.restore_or_warn(&package),
                None => self.journal.commit(|changes| changes.clear_faulty(digest), || ())?,
            }
        }
        Ok(())
    }

    /// What cannot be put right, because it belongs to another user for example, keeps its mark, and keeps neither
    /// content from being brought nor the package from being used.
    pub(super) fn restore_or_warn(&self, package: &Package) {
        if let Err(error) = self.restore(package) {
            let package = package.root.package();
            tracing::warn!(%package, %error, "a published tree cannot be put right: run peerdist verify");
        }
    }

    /// Gives a published tree its form again: directories, links, empty files, modes. Content comes in chunks: a tree
    /// that lacks some keeps its mark and is sealed when they are there. Names that no manifest has stay.
    fn restore(&self, package: &Package) -> Result<(), StoreError> {
        self.restore_tree(package)?;
        self.files.forget(package.digest());
        self.sync_file_system()?;
        if !package.state().held.is_full() {
            return Ok(());
        }
        self.journal.commit(|changes| changes.clear_faulty(package.digest()), || ())
    }

    fn restore_tree(&self, package: &Package) -> Result<(), StoreError> {
        let path = self.tree_path(package);
        self.admit_owner_to_top(package)?;
        let tree = self.tree(package)?;
        let top = beneath::open_directory(&*tree, b".").map_err(io_error("open", &path))?;
        let mut directories =
            Directories::new(top, |directory: &OwnedFd| set_mode(directory, beneath::SEALED_DIRECTORY));
        for position in 0..package.root.entry_pages().len() {
            for entry in &self.pages.entry_page(&package.root, position)?.entries {
                let restored = restore_entry(&mut directories, entry);
                restored.map_err(|error| io_error("restore", path.join(entry.path.to_string()))(error))?;
            }
        }
        let top = directories.finish().map_err(io_error("restore", &path))?;
        set_mode(&top, beneath::SEALED_DIRECTORY).map_err(io_error("restore", path))
    }

    /// Lets us into the top of a published tree. Somebody may have put another directory at its place: that one stays as
    /// it is.
    fn admit_owner_to_top(&self, package: &Package) -> Result<(), StoreError> {
        let (stage, key) = (package.state().stage, package.root.package());
        let at_place = self.tree_at_place(key)?;
        match at_place.filter(|top| inode_of(top).is_some_and(|inode| stage == Stage::Published { inode })) {
            Some(top) => tree::admit_owner(&top).map_err(io_error("restore", self.published_path(key))),
            None => Ok(()),
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

fn what_is_gone(was: RecordedStage, inode_at_place: Option<u64>) -> &'static str {
    match (was, inode_at_place) {
        (RecordedStage::Published { .. }, None) => GONE_FROM_PLACE,
        (RecordedStage::Published { .. }, Some(_)) => ELSE_AT_PLACE,
        _ => GONE_FROM_STAGING,
    }
}

fn is_published(package: &Package) -> bool {
    matches!(package.state().stage, Stage::Published { .. })
}

fn restore_entry<Leave: FnMut(&OwnedFd) -> io::Result<()>>(
    directories: &mut Directories<Leave>,
    entry: &Entry,
) -> io::Result<()> {
    let (parent, name) = (directories.parent_of(&entry.path)?, entry.path.name());
    match &entry.kind {
        EntryKind::File { bytes: 0, executable } => restore_empty_file(parent, name, *executable),
        EntryKind::File { executable, .. } => match beneath::kind_of(parent, name)? {
            Some(FileType::RegularFile) => seal_file(parent, name, *executable),
            // Whoever writes its content makes it anew.
            _ => Ok(()),
        },
        EntryKind::Symlink { target } => restore_link(parent, name, target.as_bytes()),
        EntryKind::Directory => {
            let directory = restore_directory(parent, name)?;
            directories.enter(&entry.path, directory);
            Ok(())
        }
    }
}

fn restore_empty_file(parent: BorrowedFd<'_>, name: &[u8], executable: bool) -> io::Result<()> {
    let is_empty = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0);
    if !is_empty {
        change_in(parent, || {
            beneath::remove_all(parent, name)?;
            beneath::create_file(parent, name)
        })?;
    }
    seal_file(parent, name, executable)
}

fn restore_link(parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
    if beneath::link_target(parent, name)?.as_deref() == Some(target) {
        return Ok(());
    }
    change_in(parent, || {
        beneath::remove_all(parent, name)?;
        Ok(rustix::fs::symlinkat(target, parent, name)?)
    })
}

fn restore_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    if beneath::kind_of(parent, name)? != Some(FileType::Directory) {
        change_in(parent, || {
            beneath::remove_all(parent, name)?;
            Ok(rustix::fs::mkdirat(parent, name, beneath::OPEN_DIRECTORY)?)
        })?;
    }
    tree::open_own_directory(parent, name)
}

/// Changes what is in a directory that is sealed before and afterwards.
fn change_in<Outcome>(directory: BorrowedFd<'_>, change: impl FnOnce() -> io::Result<Outcome>) -> io::Result<Outcome> {
    rustix::fs::fchmod(directory, beneath::OPEN_DIRECTORY)?;
    let changed = change();
    rustix::fs::fchmod(directory, beneath::SEALED_DIRECTORY)?;
    changed
}

fn seal_file(parent: BorrowedFd<'_>, name: &[u8], executable: bool) -> io::Result<()> {
    let file = beneath::open(parent, name, OFlags::RDONLY | OFlags::NONBLOCK)?;
    set_mode(&file, beneath::sealed_file(executable))
}

/// Writes nothing where the mode is right already.
fn set_mode(place: &OwnedFd, mode: Mode) -> io::Result<()> {
    if Mode::from_raw_mode(rustix::fs::fstat(place)?.st_mode) != mode {
        rustix::fs::fchmod(place, mode)?;
    }
    Ok(())
}
