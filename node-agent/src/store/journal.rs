//! The journal: which packages a root has, in what stage, which of their chunks are held, and which trees are to be put
//! right. An embedded database whose commits survive power loss. Says nothing about files: the other modules order
//! writes and commits.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use peerdist_core::chunk_set::{ChunkIndex, ChunkSet};
use peerdist_core::digest::Digest;
use peerdist_core::manifest::ManifestRoot;
use peerdist_core::wire::proto;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::error::{StoreError, io_error};
use super::package::lock;

/// Memory for pages of the database; its default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;
/// Chunks in a row of the table of held chunks: a flush rewrites only the rows it touches (4 KiB each).
const CHUNKS_PER_ROW: u32 = 32 << 10;

/// Package digest to [`Record`] as JSON.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// Package digest to the signed manifest root.
const ROOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("roots");
/// Package digest and row number (big-endian) to a bitmap of held chunks.
const HELD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("held");
/// Package digest to nothing: published trees that differ from their manifests.
const FAULTY: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("faulty");

/// What is known about a package besides its chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) stage: RecordedStage,
    /// When it stopped being current, in seconds since 1970.
    pub(super) superseded_at_seconds: Option<u64>,
    /// Its files have no space of their own on disk yet: the file system cannot preallocate.
    pub(super) sparse: bool,
}

/// How far a package is, as the disk knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RecordedStage {
    /// Manifest only.
    Listed,
    /// A complete tree of files in staging, content arriving.
    Staged,
    /// About to be renamed, or renamed: the inode of the tree tells.
    Publishing {
        /// Inode of the tree's top directory.
        inode: u64,
    },
    /// At its place.
    Published {
        /// Inode of the tree's top directory: another one is not ours.
        inode: u64,
    },
    /// Being deleted.
    Removing {
        /// Inode of the tree's top directory, if it was published.
        inode: Option<u64>,
    },
}

/// A package as the journal has it.
#[derive(Debug)]
pub(super) struct JournalledPackage {
    pub(super) root: ManifestRoot,
    pub(super) record: Record,
    pub(super) held: ChunkSet,
}

/// The database. Whoever changes held chunks in memory does it under this lock, so that memory and disk agree.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    database: Mutex<Option<Database>>,
}

/// Changes of one commit.
pub(super) struct Changes<'tx> {
    transaction: &'tx WriteTransaction,
}

impl Journal {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open_database(path)?;
        let journal = Self { path: path.to_owned(), database: Mutex::new(Some(database)) };
        journal.commit(|changes| changes.create_tables(), || ())?;
        Ok(journal)
    }

    /// Commits changes durably, then runs `after` before anybody else can commit or read a consistent state.
    pub(super) fn commit<Outcome>(
        &self,
        change: impl FnOnce(&Changes<'_>) -> Result<(), redb::Error>,
        after: impl FnOnce() -> Outcome,
    ) -> Result<Outcome, StoreError> {
        let mut guard = lock(&self.database);
        let database = match guard.take() {
            Some(database) => database,
            // After an I/O error the database refuses work until it is opened again.
            None => open_database(&self.path)?,
        };
        let database = guard.insert(database);
        if let Err(source) = write(database, change) {
            *guard = None;
            return Err(journal_error("commit", source));
        }
        Ok(after())
    }

    /// Runs `read` while no commit is under way.
    pub(super) fn between_commits<Outcome>(&self, read: impl FnOnce() -> Outcome) -> Outcome {
        let _guard = lock(&self.database);
        read()
    }

    /// Everything in it.
    pub(super) fn packages(&self) -> Result<Vec<JournalledPackage>, StoreError> {
        let guard = lock(&self.database);
        let Some(database) = guard.as_ref() else { return Ok(Vec::new()) };
        let rows = read_rows(database).map_err(|source| journal_error("read", source))?;
        rows.into_iter().map(PackageRows::parse).collect()
    }

    /// Packages whose published trees are to be put right.
    pub(super) fn faulty(&self) -> Result<Vec<Digest>, StoreError> {
        let guard = lock(&self.database);
        let Some(database) = guard.as_ref() else { return Ok(Vec::new()) };
        let keys = read_faulty(database).map_err(|source| journal_error("read", source))?;
        Ok(keys.iter().filter_map(|key| Digest::try_from(&key[..]).ok()).collect())
    }
}

/// Whether rows of the journal with these bytes would be a package: its signed root, its record and one row of chunks.
pub(crate) fn is_package(root: &[u8], record: &[u8], held: &[u8]) -> bool {
    let digest = proto::Signed::decode(root).map(|signed| Digest::of(&signed.body)).unwrap_or(Digest::of(root));
    let held = vec![(u32::from(held.first().copied().unwrap_or(0)), held.to_vec())];
    let (key, record, root) = (digest.as_bytes().to_vec(), record.to_vec(), Some(root.to_vec()));
    PackageRows { key, record, root, held }.parse().is_ok()
}

struct PackageRows {
    key: Vec<u8>,
    record: Vec<u8>,
    root: Option<Vec<u8>>,
    held: Vec<(u32, Vec<u8>)>,
}

impl PackageRows {
    fn parse(self) -> Result<JournalledPackage, StoreError> {
        let damaged = || StoreError::JournalDamaged { digest: hex::encode(&self.key) };
        let digest = Digest::try_from(&self.key[..]).map_err(|_| damaged())?;
        let record = serde_json::from_slice(&self.record).map_err(|_| damaged())?;
        let signed = proto::Signed::decode(self.root.as_deref().ok_or_else(damaged)?).map_err(|_| damaged())?;
        let root = ManifestRoot::restore(&signed, digest)?;
        let mut held = ChunkSet::new(root.chunk_count());
        for (row, bitmap) in &self.held {
            for position in ChunkSet::from_bytes(CHUNKS_PER_ROW, bitmap).iter() {
                held.insert(row.saturating_mul(CHUNKS_PER_ROW).saturating_add(position));
            }
        }
        Ok(JournalledPackage { root, record, held })
    }
}

fn read_rows(database: &Database) -> Result<Vec<PackageRows>, redb::Error> {
    let transaction = database.begin_read()?;
    let (records, roots) = (transaction.open_table(RECORDS)?, transaction.open_table(ROOTS)?);
    let held = transaction.open_table(HELD)?;
    let mut packages = Vec::new();
    for row in records.iter()? {
        let (key, record) = row?;
        let key = key.value().to_vec();
        let root = roots.get(&key[..])?.map(|root| root.value().to_vec());
        let mut rows = Vec::new();
        for row in held.range(&held_key(&key, 0)[..]..=&held_key(&key, u32::MAX)[..])? {
            let (held_key, bitmap) = row?;
            let number = held_key.value().last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            rows.push((number, bitmap.value().to_vec()));
        }
        packages.push(PackageRows { record: record.value().to_vec(), root, held: rows, key });
    }
    Ok(packages)
}

fn read_faulty(database: &Database) -> Result<Vec<Vec<u8>>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(FAULTY)?;
    let mut keys = Vec::new();
    for row in table.iter()? {
        let (key, _) = row?;
        keys.push(key.value().to_vec());
    }
    Ok(keys)
}

fn held_key(digest: &[u8], row: u32) -> Vec<u8> {
    [digest, &row.to_be_bytes()].concat()
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| journal_error("open", error.into()))
}

fn write(database: &Database, change: impl FnOnce(&Changes<'_>) -> Result<(), redb::Error>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    change(&Changes { transaction: &transaction })?;
    Ok(transaction.commit()?)
}

fn journal_error(operation: &'static str, source: redb::Error) -> StoreError {
    match source {
        redb::Error::Io(source) => io_error(operation, "the journal")(source),
        source => StoreError::Journal { operation, source: Box::new(source) },
    }
}

impl Changes<'_> {
    fn create_tables(&self) -> Result<(), redb::Error> {
        for table in [RECORDS, ROOTS, HELD, FAULTY] {
            self.transaction.open_table(table)?;
        }
        Ok(())
    }

    pub(super) fn put_root(&self, root: &ManifestRoot) -> Result<(), redb::Error> {
        let signed = root.signed().encode_to_vec();
        self.transaction.open_table(ROOTS)?.insert(&root.digest().as_bytes()[..], &signed[..])?;
        Ok(())
    }

    pub(super) fn put_record(&self, digest: Digest, record: &Record) -> Result<(), redb::Error> {
        let value = serde_json::to_vec(record).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
        self.transaction.open_table(RECORDS)?.insert(&digest.as_bytes()[..], &value[..])?;
        Ok(())
    }

    /// Writes the rows of `held` that contain one of `touched`.
    pub(super) fn put_held(
        &self,
        digest: Digest,
        held: &ChunkSet,
        touched: impl IntoIterator<Item = ChunkIndex>,
    ) -> Result<(), redb::Error> {
        let mut rows: Vec<u32> = touched.into_iter().map(|index| index / CHUNKS_PER_ROW).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut table = self.transaction.open_table(HELD)?;
        let bytes = held.to_bytes();
        let row_bytes = CHUNKS_PER_ROW as usize / 8;
        for row in rows {
            let start = (row as usize * row_bytes).min(bytes.len());
            let end = (start + row_bytes).min(bytes.len());
            table.insert(&held_key(digest.as_bytes(), row)[..], &bytes[start..end])?;
        }
        Ok(())
    }

    pub(super) fn forget_held(&self, digest: Digest) -> Result<(), redb::Error> {
        let mut table = self.transaction.open_table(HELD)?;
        let (first, last) = (held_key(digest.as_bytes(), 0), held_key(digest.as_bytes(), u32::MAX));
        table.retain_in(&first[..]..=&last[..], |_, _| false)?;
        Ok(())
    }

    /// Notes that a published tree is to be put right.
    pub(super) fn mark_faulty(&self, digest: Digest) -> Result<(), redb::Error> {
        self.transaction.open_table(FAULTY)?.insert(&digest.as_bytes()[..], &b""[..])?;
        Ok(())
    }

    pub(super) fn clear_faulty(&self, digest: Digest) -> Result<(), redb::Error> {
        self.transaction.open_table(FAULTY)?.remove(&digest.as_bytes()[..])?;
        Ok(())
    }

    pub(super) fn forget(&self, digest: Digest) -> Result<(), redb::Error> {
        self.forget_held(digest)?;
        self.clear_faulty(digest)?;
        self.transaction.open_table(RECORDS)?.remove(&digest.as_bytes()[..])?;
        self.transaction.open_table(ROOTS)?.remove(&digest.as_bytes()[..])?;
        Ok(())
    }
}
