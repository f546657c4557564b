//! Manifest pages on disk, and small caches of what is decoded: a few entry pages and the chunk tables in use.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use peerdist_core::digest::Digest;
use peerdist_core::manifest::{ChunkTable, EntryPage, ManifestRoot, PageError, PageRef, page_digest_matches};

use super::error::{StoreError, io_error};
use super::lru::Lru;
use super::package::lock;

/// Decoded entry pages that are kept: about 1 MiB each.
const ENTRY_PAGES_KEPT_MAX: usize = 8;
/// Memory for chunk tables: a package of usual size takes 0.7 MiB.
const TABLE_BYTES_KEPT_MAX: usize = 32 << 20;

/// Pages of all packages, in one folder a package.
#[derive(Debug)]
pub(super) struct Pages {
    folder: PathBuf,
    entry_pages: Mutex<Lru<Digest, Arc<EntryPage>>>,
    tables: Mutex<Lru<Digest, Arc<ChunkTable>>>,
}

impl Pages {
    pub(super) fn new(folder: PathBuf) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let entry_pages = Mutex::new(Lru::new(ENTRY_PAGES_KEPT_MAX));
        Ok(Self { folder, entry_pages, tables: Mutex::new(Lru::new(TABLE_BYTES_KEPT_MAX)) })
    }

    pub(super) fn folder_of(&self, package: Digest) -> PathBuf {
        self.folder.join(package.to_hex())
    }

    fn file_of(&self, package: Digest, page: Digest) -> PathBuf {
        self.folder_of(package).join(page.to_hex())
    }

    /// Names of the packages that have a folder.
    pub(super) fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let listing = fs::read_dir(&self.folder).map_err(io_error("list", &self.folder))?;
        listing
            .map(|item| item.map(|item| item.path()))
            .collect::<io::Result<_>>()
            .map_err(io_error("list", &self.folder))
    }

    /// Pages that are not here yet.
    pub(super) fn missing(&self, root: &ManifestRoot) -> Vec<Digest> {
        let absent = |page: &PageRef| {
            let size = fs::metadata(self.file_of(root.digest(), page.digest)).map(|metadata| metadata.len());
            size.ok() != Some(page.compressed_bytes.into())
        };
        root.pages().filter(|(_, page)| absent(page)).map(|(_, page)| page.digest).collect()
    }

    /// Stores a page whose digest was checked.
    pub(super) fn put(&self, package: Digest, page: Digest, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = self.folder_of(package);
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        write_page(&folder, page, bytes)
    }

    /// The compressed page.
    pub(super) fn read(&self, root: &ManifestRoot, page: &PageRef) -> Result<Bytes, StoreError> {
        let path = self.file_of(root.digest(), page.digest);
        let incomplete = StoreError::ManifestIncomplete { digest: root.digest(), missing: 1 };
        match fs::read(&path) {
            Ok(bytes) if page_digest_matches(page, &bytes) => Ok(bytes.into()),
            Ok(_) => {
                // A page that was torn by a power loss: it counts as missing and is fetched again.
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                Err(incomplete)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(incomplete),
            Err(error) => Err(io_error("read", path)(error)),
        }
    }

    /// The decoded entry page at a position.
    pub(super) fn entry_page(&self, root: &ManifestRoot, position: usize) -> Result<Arc<EntryPage>, StoreError> {
        let reference = root.entry_pages().get(position).ok_or(StoreError::UnknownPackage(root.digest()))?;
        // Two packages may have a page in common, at different places: the offset belongs to the name.
        let name = Digest::of(&[&reference.digest.as_bytes()[..], &reference.first_byte.to_le_bytes()].concat());
        if let Some(page) = lock(&self.entry_pages).find(&name) {
            return Ok(page);
        }
        let page = Arc::new(EntryPage::decode(reference, &self.read(root, reference)?)?);
        lock(&self.entry_pages).insert(name, Arc::clone(&page), 1);
        Ok(page)
    }

    /// The chunk table of a package.
    pub(super) fn table(&self, root: &ManifestRoot) -> Result<Arc<ChunkTable>, StoreError> {
        if let Some(table) = lock(&self.tables).find(&root.digest()) {
            return Ok(table);
        }
        let table = Arc::new(ChunkTable::from_pages(root, |page| self.read(root, page))?);
        lock(&self.tables).insert(root.digest(), Arc::clone(&table), table.memory_bytes());
        Ok(table)
    }

    /// Removes all pages of a package.
    pub(super) fn remove(&self, package: Digest) -> Result<(), StoreError> {
        lock(&self.tables).remove(&package);
        let folder = self.folder_of(package);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", folder)(error)),
            _ => Ok(()),
        }
    }
}

/// Writes a page under its digest: whole or not at all.
pub(super) fn write_page(folder: &Path, page: Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let (path, half) = (folder.join(page.to_hex()), folder.join(format!("{}.half", page.to_hex())));
    let written = File::create(&half).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()
    });
    written.and_then(|()| fs::rename(&half, &path)).map_err(io_error("write", path))
}

/// Checks a page's content before it is stored, so that what is stored can be used.
pub(super) fn check_page(root: &ManifestRoot, page: Digest, bytes: &[u8]) -> Result<(), StoreError> {
    let unknown = StoreError::UnknownPage { digest: root.digest(), page };
    let (_, reference) = root.page(page).ok_or(unknown)?;
    if page_digest_matches(reference, bytes) {
        Ok(())
    } else {
        Err(StoreError::Page(PageError::WrongDigest { expected: page }))
    }
}
