//! Re-hashes everything that is held, compares trees with their manifests, and names what is wrong, for `peerdist
//! verify`. It changes no tree: what it finds is noted in the journal, and put right by the next run.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use peerdist_core::chunk_set::ChunkIndex;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ChunkTable, Entry, EntryKind, ManifestRoot};
use peerdist_core::names::PackageKey;
use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;

use super::beneath;
use super::error::{StoreError, io_error};
use super::node_store::NodeStore;
use super::package::{Package, Stage, lock};
use super::read::ReadFault;
use super::segments::segments_of;

/// Faults that a report names for each package; more are counted.
const FAULTS_NAMED_MAX: usize = 1000;
/// Path of a tree itself in a report.
const TOP: &str = ".";

const MISSING: &str = "it is missing";
const OTHER_KIND: &str = "it is something else than the manifest says";
const OTHER_SIZE: &str = "its size is not the one that the manifest says";
const OTHER_TARGET: &str = "it leads elsewhere than the manifest says";
const NOT_EXECUTABLE: &str = "it should be executable and is not";
const EXECUTABLE: &str = "it is executable and should not be";
const FILE_MODE: &str = "its mode is not that of a published file (0444, of a program 0555)";
const DIRECTORY_MODE: &str = "its mode is not that of a published directory (0555)";
const CLOSED: &str = "it cannot be examined: access is denied";
const FOREIGN: &str = "it does not belong to the package";
const DAMAGED: &str = "its content does not match the manifest";
const AWAITED: &str = "its content is lost: the next run fetches it again, if it is still wanted";

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Each package that has a tree, or had one, in the order of its digest.
    pub packages: Vec<PackageReport>,
    /// How many more are known by their manifests only.
    pub listed: usize,
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
    /// Whether its tree was gone when the root was opened.
    pub gone: bool,
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
    /// File, directory or link, relative to the package: as it is, but for bytes that are no UTF-8. Names may have any
    /// character, so whoever shows it on a terminal escapes some.
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
    fn new(package: &Package) -> Self {
        Self::of(&package.root, matches!(package.state().stage, Stage::Published { .. }))
    }

    fn of(root: &ManifestRoot, published: bool) -> Self {
        Self {
            key: root.package().clone(),
            digest: root.digest(),
            published,
            gone: false,
            chunks: 0,
            bytes: 0,
            fault_count: 0,
            faults: Vec::new(),
        }
    }

    fn of_gone(package: &Package, problem: &'static str) -> Self {
        let mut report = Self { gone: true, ..Self::new(package) };
        report.add(TOP.to_owned(), None, problem);
        report
    }

    fn add(&mut self, path: String, chunk: Option<ChunkIndex>, problem: &'static str) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_NAMED_MAX {
            self.faults.push(VerifyFault { path, chunk, problem });
        }
    }
}

impl NodeStore {
    /// Re-hashes all that is held and compares trees with their manifests. Chunks that are bad are lost from then on,
    /// so that the next run fetches them again; trees that differ are noted, so that it puts them right. The root is
    /// locked meanwhile: opening it fails while an agent runs on it.
    ///
    /// # Errors
    /// What says nothing about the content: a journal or a directory that cannot be read.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let packages: Vec<Arc<Package>> = lock(&self.packages).values().cloned().collect();
        let mut report = VerifyReport::default();
        for package in &packages {
            match self.gone.get(&package.digest()) {
                _ if Self::has_tree(package) => {
                    report.packages.push(self.verify_package(package).or_else(|error| closed(package, error))?);
                }
                Some(&problem) => report.packages.push(PackageReport::of_gone(package, problem)),
                None => report.listed += 1,
            }
        }
        Ok(report)
    }

    fn verify_package(&self, package: &Package) -> Result<PackageReport, StoreError> {
        let mut report = PackageReport::new(package);
        self.verify_entries(package, &mut report)?;
        self.verify_chunks(package, &mut report)?;
        if report.published && report.fault_count > 0 {
            self.journal.commit(|changes| changes.mark_faulty(package.digest()), || ())?;
        }
        Ok(report)
    }

    /// Whether most of a tree is as the manifest says, without a look at modes and content: somebody changed it, and did
    /// not put something else in its place.
    pub(super) fn resembles(&self, root: &ManifestRoot, tree: &OwnedFd) -> Result<bool, StoreError> {
        let mut report = PackageReport::of(root, false);
        self.compare(root, tree, &self.published_path(root.package()), &mut report)?;
        Ok(report.fault_count * 2 <= u64::from(root.entry_count()))
    }

    fn verify_entries(&self, package: &Package, report: &mut PackageReport) -> Result<(), StoreError> {
        let tree = self.tree(package)?;
        self.compare(&package.root, &tree, &self.tree_path(package), report)
    }

    fn compare(
        &self,
        root: &ManifestRoot,
        tree: &OwnedFd,
        path: &Path,
        report: &mut PackageReport,
    ) -> Result<(), StoreError> {
        let mut comparison = Comparison::begin(tree, report).map_err(io_error("examine", path))?;
        for position in 0..root.entry_pages().len() {
            for entry in &self.pages.entry_page(root, position)?.entries {
                let compared = comparison.compare(entry);
                compared.map_err(|error| io_error("examine", path.join(entry.path.to_string()))(error))?;
            }
        }
        comparison.finish().map_err(io_error("examine", path))
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
                    self.report_chunk(package, &table, index, DAMAGED, report)?;
                }
            }
        }
        if report.published {
            // In staging, chunks that are not held are on their way.
            for index in held.complement().iter() {
                self.report_chunk(package, &table, index, AWAITED, report)?;
            }
        }
        if lost.is_empty() { Ok(()) } else { self.lose(package, lost) }
    }

    /// Names the files that a chunk lies in.
    fn report_chunk(
        &self,
        package: &Package,
        table: &ChunkTable,
        index: ChunkIndex,
        problem: &'static str,
        report: &mut PackageReport,
    ) -> Result<(), StoreError> {
        let (first, length) = table.offset(index).zip(table.length(index)).unwrap_or_default();
        for segment in segments_of(&self.pages, &package.root, first, length)? {
            report.add(segment.file.path.to_string(), Some(index), problem);
        }
        Ok(())
    }
}

/// A tree that we may not enter keeps no other one from being verified.
fn closed(package: &Package, error: StoreError) -> Result<PackageReport, StoreError> {
    match &error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            let mut report = PackageReport::new(package);
            report.add(TOP.to_owned(), None, CLOSED);
            Ok(report)
        }
        _ => Err(error),
    }
}

/// Compares a tree with the entries of its manifest, in their order. Memory: one open directory a level, and eight
/// bytes for each name that belongs in one of them.
struct Comparison<'report> {
    /// Hashes names; its key is random, so that nobody can make a foreign name pass for another.
    names: RandomState,
    levels: Vec<Level>,
    report: &'report mut PackageReport,
}

/// A directory of the manifest, from its entry to the last one below it.
struct Level {
    /// Empty for the top.
    path: Vec<u8>,
    /// The directory, or what is wrong with all that belongs in it.
    directory: Result<OwnedFd, &'static str>,
    /// Hashes of the names that belong in it.
    expected: Vec<u64>,
}

impl<'report> Comparison<'report> {
    fn begin(tree: &OwnedFd, report: &'report mut PackageReport) -> io::Result<Self> {
        let top = beneath::open_directory(tree, b".")?;
        if report.published && Mode::from_raw_mode(rustix::fs::fstat(&top)?.st_mode) != beneath::SEALED_DIRECTORY {
            report.add(TOP.to_owned(), None, DIRECTORY_MODE);
        }
        let level = Level { path: Vec::new(), directory: Ok(top), expected: Vec::new() };
        Ok(Self { names: RandomState::new(), levels: vec![level], report })
    }

    fn compare(&mut self, entry: &Entry) -> io::Result<()> {
        let (parent, name) = (entry.path.parent().unwrap_or_default(), entry.path.name());
        while self.levels.len() > 1 && self.levels.last().is_some_and(|level| level.path != parent) {
            self.leave()?;
        }
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        level.expected.push(self.names.hash_one(name));
        let problems = match &level.directory {
            Ok(directory) => problems_of(directory, entry, self.report.published)?,
            Err(problem) => vec![*problem],
        };
        for problem in problems {
            self.report.add(entry.path.to_string(), None, problem);
        }
        if entry.kind == EntryKind::Directory {
            let directory = match &level.directory {
                Ok(directory) => enter(directory, name)?,
                Err(problem) => Err(*problem),
            };
            self.levels.push(Level { path: entry.path.as_bytes().to_vec(), directory, expected: Vec::new() });
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        while !self.levels.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    /// Names what does not belong in the innermost directory; what is in a foreign directory is not named.
    fn leave(&mut self) -> io::Result<()> {
        let Some(Level { path, directory: Ok(directory), mut expected }) = self.levels.pop() else { return Ok(()) };
        expected.sort_unstable();
        for item in Dir::new(directory)? {
            let item = item?;
            let name = item.file_name().to_bytes();
            let belongs = name == b"." || name == b".." || expected.binary_search(&self.names.hash_one(name)).is_ok();
            if !belongs {
                self.report.add(path_of(&path, name), None, FOREIGN);
            }
        }
        Ok(())
    }
}

/// A path that is no manifest's.
fn path_of(directory: &[u8], name: &[u8]) -> String {
    let path = if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') };
    String::from_utf8_lossy(&path).into_owned()
}

/// Opens a directory of the manifest, or says what is wrong with all that belongs in it.
fn enter(parent: &OwnedFd, name: &[u8]) -> io::Result<Result<OwnedFd, &'static str>> {
    let error = match beneath::open_directory(parent, name) {
        Ok(directory) => return Ok(Ok(directory)),
        Err(error) => error,
    };
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Err(MISSING)),
        Some(Errno::ACCESS) => Ok(Err(CLOSED)),
        _ => Err(error),
    }
}

/// What is wrong with an entry besides its content. Modes are final once a tree is published.
fn problems_of(parent: &OwnedFd, entry: &Entry, published: bool) -> io::Result<Vec<&'static str>> {
    let name = entry.path.name();
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(vec![MISSING]),
        Err(Errno::ACCESS) => return Ok(vec![CLOSED]),
        Err(other) => return Err(other.into()),
    };
    let mode = Mode::from_raw_mode(stat.st_mode);
    Ok(match (&entry.kind, FileType::from_raw_mode(stat.st_mode)) {
        (EntryKind::File { bytes, executable }, FileType::RegularFile) => {
            let size = (stat.st_size as u64 != *bytes).then_some(OTHER_SIZE);
            let mode = published.then(|| file_mode_problem(mode, *executable)).flatten();
            size.into_iter().chain(mode).collect()
        }
        (EntryKind::Directory, FileType::Directory) if published && mode != beneath::SEALED_DIRECTORY => {
            vec![DIRECTORY_MODE]
        }
        (EntryKind::Directory, FileType::Directory) => Vec::new(),
        (EntryKind::Symlink { target }, FileType::Symlink) => {
            let found = beneath::link_target(parent, name)?;
            if found.as_deref() == Some(target.as_bytes()) { Vec::new() } else { vec![OTHER_TARGET] }
        }
        _ => vec![OTHER_KIND],
    })
}

fn file_mode_problem(mode: Mode, executable: bool) -> Option<&'static str> {
    match (executable, mode.contains(Mode::XUSR)) {
        _ if mode == beneath::sealed_file(executable) => None,
        (true, false) => Some(NOT_EXECUTABLE),
        (false, true) => Some(EXECUTABLE),
        _ => Some(FILE_MODE),
    }
}
