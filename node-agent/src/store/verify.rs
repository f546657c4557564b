//! Re-hashes everything that is held and names what is wrong, for `peerdist verify`.

use std::sync::Arc;

use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{Entry, EntryKind};
use peerdist_core::names::PackageKey;
use rustix::fs::FileType;

use super::beneath;
use super::error::{StoreError, io_error};
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};
use super::read::ReadFault;
use super::segments::segments_of;

/// Faults that a report names for each package; more are counted.
const FAULTS_NAMED_MAX: usize = 1000;

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Each package, in the order of its digest.
    pub packages: Vec<PackageReport>,
}

/// One package of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageReport {
    /// Distribution and version.
    pub key: PackageKey,
    /// Its digest.
    pub digest: Digest,
    /// Whether it is published.
    pub published: bool,
    /// Chunks that were hashed.
    pub chunks: u32,
    /// Their bytes.
    pub bytes: u64,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first thousand of them.
    pub faults: Vec<VerifyFault>,
}

/// Something that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFault {
    /// File, directory or link, relative to the package.
    pub path: String,
    /// The chunk, if one is bad.
    pub chunk: Option<ChunkIndex>,
    /// What is wrong.
    pub problem: &'static str,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        self.packages.iter().all(|package| package.fault_count == 0)
    }
}

impl PackageReport {
    fn add(&mut self, path: String, chunk: Option<ChunkIndex>, problem: &'static str) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_NAMED_MAX {
            self.faults.push(VerifyFault { path, chunk, problem });
        }
    }
}

impl NodeStore {
    /// Re-hashes all that is held. Chunks that are bad are lost from then on, so that the next run fetches them again.
    /// The root is locked meanwhile: opening it fails while an agent runs on it.
    ///
    /// # Errors
    /// What says nothing about the content: a journal or a directory that cannot be read.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let with_trees = packages.iter().filter(|package| Self::has_tree(package));
        Ok(VerifyReport { packages: with_trees.map(|package| self.verify_package(package)).collect::<Result<_, _>>()? })
    }

    fn verify_package(&self, package: &Package) -> Result<PackageReport, StoreError> {
        let mut report = PackageReport {
            key: package.root.package().clone(),
            digest: package.digest(),
            published: matches!(package.state().stage, Stage::Published { .. }),
            chunks: 0,
            bytes: 0,
            fault_count: 0,
            faults: Vec::new(),
        };
        self.verify_entries(package, &mut report)?;
        self.verify_chunks(package, &mut report)?;
        Ok(report)
    }

    fn verify_entries(&self, package: &Package, report: &mut PackageReport) -> Result<(), StoreError> {
        let tree = self.tree(package)?;
        for position in 0..package.root.entry_pages().len() {
            for entry in &self.pages.entry_page(&package.root, position)?.entries {
                let problem = entry_problem(&tree, entry).map_err(|error| {
                    io_error("examine", self.tree_path(package).join(entry.path.to_string()))(error)
                })?;
                if let Some(problem) = problem {
                    report.add(entry.path.to_string(), None, problem);
                }
            }
        }
        Ok(())
    }

    fn verify_chunks(&self, package: &Package, report: &mut PackageReport) -> Result<(), StoreError> {
        let table = self.pages.table(&package.root)?;
        let held = package.state().held.clone();
        let mut lost = Vec::new();
        for index in held.iter() {
            report.chunks += 1;
            report.bytes += u64::from(table.length(index).unwrap_or_default());
            match self.read_verified(package, &table, index) {
                Ok(_) => {}
                Err(ReadFault::Store(error)) => return Err(error),
                Err(ReadFault::Damaged) => {
                    lost.push(index);
                    let (first, length) = table.offset(index).zip(table.length(index)).unwrap_or_default();
                    for segment in segments_of(&self.pages, &package.root, first, length)? {
                        report.add(
                            segment.file.path.to_string(),
                            Some(index),
                            "its content does not match the manifest",
                        );
                    }
                }
            }
        }
        if lost.is_empty() { Ok(()) } else { self.lose(package, lost) }
    }
}

/// What is wrong with an entry besides its content.
fn entry_problem(tree: &std::os::fd::OwnedFd, entry: &Entry) -> std::io::Result<Option<&'static str>> {
    let path = entry.path.as_bytes();
    let found = match entry.path.parent() {
        None => beneath::kind_of(tree, path),
        Some(parent) => match beneath::open(tree, parent, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY) {
            Ok(parent) => beneath::kind_of(parent, entry.path.name()),
            Err(_) => Ok(None),
        },
    }?;
    Ok(match (&entry.kind, found) {
        (_, None) => Some("it is missing"),
        (EntryKind::File { .. }, Some(FileType::RegularFile)) => None,
        (EntryKind::Directory, Some(FileType::Directory)) => None,
        (EntryKind::Symlink { target }, Some(FileType::Symlink)) => {
            let found = beneath::link_target(tree, path)?;
            (found.as_deref() != Some(target.as_bytes())).then_some("it leads elsewhere than the manifest says")
        }
        _ => Some("it is something else than the manifest says"),
    })
}
