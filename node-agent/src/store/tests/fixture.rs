//! Packages made from a list of entries, and stores on temporary folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use peerdist_core::chunk_set::{ChunkIndex, ChunkSet};
use peerdist_core::chunking::{Chunk, Chunker};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{EncodedPage, Entry, ManifestBuilder, ManifestRoot, RelativePath, SigningDomain, sign};
use peerdist_core::names::{DistributionKey, Namespace, PackageKey, PackageName, Version};
use tempfile::TempDir;

use crate::store::{NodeStore, StoreLimits};

pub(crate) const AVERAGE: u32 = 16 << 10;

/// A package with all its bytes.
pub(crate) struct TestPackage {
    pub(crate) root: ManifestRoot,
    pub(crate) pages: Vec<EncodedPage>,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) entries: Vec<(Entry, Vec<u8>)>,
}

pub(crate) fn key(version: &str) -> PackageKey {
    let distribution = distribution();
    PackageKey { distribution, version: Version::new(version).unwrap() }
}

pub(crate) fn distribution() -> DistributionKey {
    DistributionKey { namespace: Namespace::new("retail").unwrap(), name: PackageName::new("pos").unwrap() }
}

pub(crate) fn path(bytes: impl AsRef<[u8]>) -> RelativePath {
    RelativePath::new(bytes.as_ref().to_vec()).unwrap()
}

pub(crate) fn file(name: impl AsRef<[u8]>, content: impl Into<Vec<u8>>) -> (Entry, Vec<u8>) {
    let content = content.into();
    (Entry::file(path(name), content.len() as u64, false), content)
}

pub(crate) fn program(name: &str, content: impl Into<Vec<u8>>) -> (Entry, Vec<u8>) {
    let content = content.into();
    (Entry::file(path(name), content.len() as u64, true), content)
}

pub(crate) fn directory(name: &str) -> (Entry, Vec<u8>) {
    (Entry::directory(path(name)), Vec::new())
}

pub(crate) fn link(name: &str, target: &str) -> (Entry, Vec<u8>) {
    (Entry::symlink(path(name), target.as_bytes().to_vec()).unwrap(), Vec::new())
}

/// Bytes that look random and are the same for the same seed.
pub(crate) fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut content = vec![0; bytes];
    reader.fill(&mut content);
    content
}

impl TestPackage {
    pub(crate) fn new(version: &str, entries: Vec<(Entry, Vec<u8>)>) -> Self {
        Self::with_sequence(version, 1, entries)
    }

    pub(crate) fn with_sequence(version: &str, sequence: u64, mut entries: Vec<(Entry, Vec<u8>)>) -> Self {
        entries.sort_by(|left, right| left.0.path.cmp(&right.0.path));
        let all: Vec<u8> = entries.iter().flat_map(|(_, content)| content.iter().copied()).collect();
        let mut cut: Vec<Chunk> = Vec::new();
        let mut chunker = Chunker::new(AVERAGE);
        chunker.push(&all, |chunk| cut.push(chunk));
        chunker.finish(|chunk| cut.push(chunk));
        Self::from_parts(version, sequence, entries, &all, &cut)
    }

    pub(crate) fn from_parts(
        version: &str,
        sequence: u64,
        entries: Vec<(Entry, Vec<u8>)>,
        all: &[u8],
        cut: &[Chunk],
    ) -> Self {
        let (mut builder, mut pages) = (ManifestBuilder::default(), Vec::new());
        for (entry, _) in &entries {
            pages.extend(builder.push_entry(entry).unwrap());
        }
        let (mut chunks, mut offset) = (Vec::new(), 0);
        for chunk in cut {
            pages.extend(builder.push_chunk(chunk.digest, chunk.length).unwrap());
            let end = offset + chunk.length as usize;
            chunks.push(Bytes::copy_from_slice(&all[offset..end]));
            offset = end;
        }
        let built = builder.finish(&key(version), sequence, AVERAGE).unwrap();
        pages.extend(built.last_pages);
        let signing = SigningKey::from_bytes(&[9; 32]);
        let signed = sign(SigningDomain::ManifestRoot, built.body, &signing);
        let root = ManifestRoot::verify(&signed, &[signing.verifying_key()]).unwrap();
        Self { root, pages, chunks, entries }
    }

    /// A small tree with everything in it.
    pub(crate) fn mixed(version: &str) -> Self {
        Self::new(
            version,
            vec![
                directory("bin"),
                program("bin/pos", content(1, 300_000)),
                directory("data"),
                directory("data/empty"),
                file("data/a", content(2, 100)),
                file("data/b", Vec::new()),
                file(b"data/\xff\xfe not text", content(3, 70_000)),
                link("data/latest", "../bin/pos"),
                file("readme", content(4, 50_000)),
            ],
        )
    }

    pub(crate) fn digest(&self) -> Digest {
        self.root.digest()
    }

    pub(crate) fn count(&self) -> u32 {
        self.root.chunk_count()
    }

    pub(crate) fn put_manifest(&self, store: &NodeStore) {
        store.put_root(&self.root).unwrap();
        for page in &self.pages {
            store.put_page(self.digest(), page.digest, &page.bytes).unwrap();
        }
        assert!(store.missing_pages(self.digest()).unwrap().is_empty());
    }

    pub(crate) fn write(&self, store: &NodeStore, chunks: impl IntoIterator<Item = ChunkIndex>) {
        for index in chunks {
            store.write_chunk(self.digest(), index, &self.chunks[index as usize]).unwrap();
        }
    }

    /// Manifest, tree, content, journal.
    pub(crate) fn hold(&self, store: &NodeStore) {
        self.put_manifest(store);
        store.prepare(self.digest()).unwrap();
        self.write(store, 0..self.count());
        store.flush().unwrap();
    }

    pub(crate) fn deliver(&self, store: &NodeStore) {
        self.hold(store);
        store.publish(self.digest()).unwrap();
    }

    /// Compares a published tree with what the package should be: names, content, modes, and nothing else.
    pub(crate) fn assert_published_in(&self, store: &NodeStore) {
        let top = store.published_path(self.root.package());
        assert_eq!(mode(&top), 0o555);
        for (entry, content) in &self.entries {
            let place = top.join(os_path(&entry.path));
            match &entry.kind {
                peerdist_core::manifest::EntryKind::File { executable, .. } => {
                    assert_eq!(&fs::read(&place).unwrap(), content, "{}", entry.path);
                    assert_eq!(mode(&place), if *executable { 0o555 } else { 0o444 });
                }
                peerdist_core::manifest::EntryKind::Directory => assert_eq!(mode(&place), 0o555),
                peerdist_core::manifest::EntryKind::Symlink { target } => {
                    assert_eq!(
                        fs::read_link(&place).unwrap(),
                        Path::new(std::str::from_utf8(target.as_bytes()).unwrap())
                    );
                }
            }
        }
        assert_eq!(count_below(&top), self.entries.len());
    }

    /// Writes the tree as an ingest would find it.
    pub(crate) fn unpack_to(&self, folder: &Path) {
        for (entry, content) in &self.entries {
            let place = folder.join(os_path(&entry.path));
            match &entry.kind {
                peerdist_core::manifest::EntryKind::File { .. } => fs::write(place, content).unwrap(),
                peerdist_core::manifest::EntryKind::Directory => fs::create_dir(place).unwrap(),
                peerdist_core::manifest::EntryKind::Symlink { target } => {
                    symlink(std::str::from_utf8(target.as_bytes()).unwrap(), place).unwrap();
                }
            }
        }
    }
}

pub(crate) fn os_path(path: &RelativePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes what is in a sealed directory, as only its owner or root can.
pub(crate) fn inside<Outcome>(directory: &Path, change: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let before = mode(directory);
    set_mode(directory, 0o755);
    let outcome = change(directory);
    set_mode(directory, before);
    outcome
}

/// Writes other content into a sealed file, which stays the same file with the same mode.
pub(crate) fn rewrite(file: &Path, content: &[u8]) {
    let before = mode(file);
    set_mode(file, 0o644);
    fs::write(file, content).unwrap();
    set_mode(file, before);
}

/// Moves a published tree, which keeps its inode, and seals it again.
pub(crate) fn move_out(tree: &Path, to: &Path) {
    set_mode(tree, 0o755);
    fs::rename(tree, to).unwrap();
    set_mode(to, 0o555);
}

/// A user that runs no tests.
pub(crate) const OTHER_USER: u32 = 65532;

/// Gives a path to another user, and says whether it could: only root can, as whom CI runs.
pub(crate) fn give_away(path: &Path) -> bool {
    if rustix::process::geteuid().is_root() {
        lchown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "only root can give {} away", path.display());
    eprintln!("skipped: only root can give {} away", path.display());
    false
}

pub(crate) fn count_below(path: &Path) -> usize {
    fs::read_dir(path)
        .unwrap()
        .map(|item| item.unwrap())
        .map(|item| 1 + if item.file_type().unwrap().is_dir() { count_below(&item.path()) } else { 0 })
        .sum()
}

/// A temporary root; published trees are made writable again when it goes, so that it can be removed.
pub(crate) struct Root(pub(crate) TempDir);

impl Root {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub(crate) fn open(&self) -> NodeStore {
        NodeStore::open(&self.path(), StoreLimits::default()).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        make_writable(self.0.path());
    }
}

pub(crate) fn make_writable(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        if item.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&item.path());
        }
    }
}

pub(crate) fn held(store: &NodeStore, digest: Digest) -> ChunkSet {
    store.inventory().into_iter().find(|package| package.digest == digest).unwrap().held
}
