//! SQLite: the embedded default. One file, write-ahead log, one writer at a time.
//!
//! The SQL is portable (`$1`, `ON CONFLICT`, `RETURNING`) but for `json_each`; `decode` turns rows into the types of the core.

mod decode;
mod nodes;
mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName, PackageKey};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

use super::{Answer, DatabaseError, MetadataStore, NodeRow, PackageNodeRow, PackageRow};

/// Connections: readers beside one writer.
const CONNECTIONS_MAX: u32 = 4;
/// How long a writer waits for another, for example a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Metadata in one SQLite file. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, makes it when absent, and brings its schema to this version.
    ///
    /// # Errors
    /// [`DatabaseError`] when the file cannot be used.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A sequence number that was given must not be given again after power loss.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let open_error = |source| DatabaseError::Open { database: path.to_owned(), source };
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_with(options)
            .await
            .map_err(open_error)?;
        sqlx::migrate!("./migrations/sqlite")
            .run(&pool)
            .await
            .map_err(|source| DatabaseError::Migrate { database: path.to_owned(), source })?;
        Ok(Self { pool })
    }

    /// Opens the database of a URL, `sqlite:PATH`, or the file in the root when there is no URL.
    ///
    /// # Errors
    /// [`DatabaseError`] when the URL is of another kind or the file cannot be used.
    pub async fn open_url(url: Option<&str>, server_root: &Path) -> Result<Self, DatabaseError> {
        Self::open(&database_path(url, server_root)?).await
    }

    /// Waits for what is under way and closes the file.
    pub async fn close(self) {
        self.pool.close().await;
    }

    async fn begin(&self, operation: &'static str) -> Result<Transaction<'static, Sqlite>, DatabaseError> {
        // A transaction that reads first and writes later would otherwise fail instead of wait.
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(query_error(operation))
    }
}

impl MetadataStore for SqliteStore {
    fn put_node<'a>(&'a self, node: &'a NodeRow) -> Answer<'a, ()> {
        Box::pin(nodes::put(&self.pool, node))
    }

    fn put_node_anew<'a>(&'a self, node: &'a NodeRow) -> Answer<'a, ()> {
        Box::pin(async move { nodes::put_anew(self.begin("record a node").await?, node).await })
    }

    fn nodes(&self) -> Answer<'_, Vec<NodeRow>> {
        Box::pin(nodes::all(&self.pool))
    }

    fn remove_node<'a>(&'a self, name: &'a NodeName) -> Answer<'a, ()> {
        Box::pin(nodes::remove(&self.pool, name))
    }

    fn embedded_indices<'a>(&'a self, offices: &'a BTreeSet<OfficeName>) -> Answer<'a, BTreeMap<OfficeName, u8>> {
        Box::pin(async move { nodes::embedded_indices(self.begin("give offices their indices").await?, offices).await })
    }

    fn next_sequence<'a>(&'a self, distribution: &'a DistributionKey) -> Answer<'a, u64> {
        Box::pin(packages::next_sequence(&self.pool, distribution))
    }

    fn put_package<'a>(&'a self, package: &'a PackageRow) -> Answer<'a, ()> {
        Box::pin(async move { packages::put(self.begin("record a package").await?, package).await })
    }

    fn packages(&self) -> Answer<'_, Vec<PackageRow>> {
        Box::pin(packages::all(&self.pool))
    }

    fn remove_package<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, ()> {
        Box::pin(packages::remove(&self.pool, key))
    }

    fn put_package_nodes<'a>(&'a self, rows: &'a [PackageNodeRow]) -> Answer<'a, ()> {
        Box::pin(async move { packages::put_nodes(self.begin("record progress of nodes").await?, rows).await })
    }

    fn keep_progress<'a>(&'a self, wanted: &'a BTreeMap<PackageKey, BTreeSet<OfficeName>>) -> Answer<'a, ()> {
        Box::pin(async move {
            for (key, offices) in wanted {
                let transaction = self.begin("forget progress of nodes").await?;
                packages::keep_progress(transaction, key, offices).await?;
            }
            Ok(())
        })
    }

    fn package_nodes<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, Vec<PackageNodeRow>> {
        Box::pin(packages::nodes(&self.pool, key))
    }

    fn put_chunk_holders<'a>(
        &'a self,
        key: &'a PackageKey,
        office: &'a OfficeName,
        chunks: &'a ChunkSet,
    ) -> Answer<'a, ()> {
        Box::pin(packages::put_chunk_holders(&self.pool, key, office, chunks))
    }

    fn chunk_holders<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, BTreeMap<OfficeName, ChunkSet>> {
        Box::pin(packages::chunk_holders(&self.pool, key))
    }
}

fn database_path(url: Option<&str>, server_root: &Path) -> Result<PathBuf, DatabaseError> {
    let Some(url) = url else { return Ok(server_root.join("metadata.sqlite")) };
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        Some(path) if !path.is_empty() => Ok(server_root.join(path)),
        _ => Err(DatabaseError::UnknownScheme { url: without_credentials(url) }),
    }
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}

/// Says what we were doing when a query fails.
fn query_error(operation: &'static str) -> impl Fn(sqlx::Error) -> DatabaseError + Copy {
    move |source| DatabaseError::Query { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::suite;

    async fn in_directory(directory: &tempfile::TempDir) -> SqliteStore {
        SqliteStore::open_url(None, directory.path()).await.unwrap()
    }

    #[tokio::test]
    async fn sqlite_passes_the_suite() {
        suite::run(async || {
            let directory = tempfile::tempdir().unwrap();
            let store = in_directory(&directory).await;
            (store, directory)
        })
        .await;
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = in_directory(&directory).await;
        let distribution = suite::package_key("pos-app", "1").distribution;
        assert_eq!(store.next_sequence(&distribution).await.unwrap(), 1);
        store.close().await;
        let store = in_directory(&directory).await;
        assert_eq!(store.next_sequence(&distribution).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn writers_wait_for_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = in_directory(&directory).await;
        let distribution = suite::package_key("pos-app", "1").distribution;
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (store, distribution) = (store.clone(), distribution.clone());
                tokio::spawn(async move { store.next_sequence(&distribution).await.unwrap() })
            })
            .collect();
        let mut given = BTreeSet::new();
        for task in tasks {
            given.insert(task.await.unwrap());
        }
        assert_eq!(given, (1..=20).collect());
    }

    #[test]
    fn url_is_sqlite_or_refused_without_its_password() {
        let root = Path::new("/root");
        assert_eq!(database_path(None, root).unwrap(), Path::new("/root/metadata.sqlite"));
        assert_eq!(database_path(Some("sqlite:///data/a.db"), root).unwrap(), Path::new("/data/a.db"));
        assert_eq!(database_path(Some("sqlite:a.db"), root).unwrap(), Path::new("/root/a.db"));
        let refused = database_path(Some("mysql://me:secret@db/peerdist"), root).unwrap_err().to_string();
        assert!(refused.contains("mysql") && !refused.contains("secret"), "{refused}");
    }
}
