//! The server's metadata: nodes, addresses of embedded offices, packages, how far each node is with each of them, and
//! which chunks each office has.
//!
//! [`MetadataStore`] is the contract, [`SqliteStore`] the embedded default; another database passes the same suite
//! (`database::suite`). Content, chunk digests and clients' journals are elsewhere. Times come in as arguments.

mod error;
mod rows;
mod sqlite;
#[cfg(test)]
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use peerdist_core::chunk_set::ChunkSet;
use peerdist_core::names::{DistributionKey, NodeName, OfficeName, PackageKey};

pub use error::DatabaseError;
pub use rows::{NodeRow, PackageNodeRow, PackageRow};
pub use sqlite::SqliteStore;

/// Most offices of an embedded run: each takes one value of the third octet, 0 is the server's and 255 is broadcast's.
pub const EMBEDDED_OFFICES_MAX: u8 = 254;

/// What a store will have answered.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, DatabaseError>>;

/// What the server remembers. Every method is one transaction, unless it says otherwise.
pub trait MetadataStore: Send + Sync {
    /// Adds or replaces a node (by name).
    fn put_node<'a>(&'a self, node: &'a NodeRow) -> Answer<'a, ()>;

    /// Adds or replaces a node (by name) and forgets how far it was.
    fn put_node_anew<'a>(&'a self, node: &'a NodeRow) -> Answer<'a, ()>;

    /// All nodes, by name.
    fn nodes(&self) -> Answer<'_, Vec<NodeRow>>;

    /// Forgets a node and how far it was.
    fn remove_node<'a>(&'a self, name: &'a NodeName) -> Answer<'a, ()>;

    /// The index of every given office in an embedded run: kept once given; new offices take the lowest free ones in
    /// the order of their names. Offices that are gone keep theirs.
    fn embedded_indices<'a>(&'a self, offices: &'a BTreeSet<OfficeName>) -> Answer<'a, BTreeMap<OfficeName, u8>>;

    /// The next sequence number of a distribution, from 1. A number is never given twice, not even after its package
    /// was removed.
    fn next_sequence<'a>(&'a self, distribution: &'a DistributionKey) -> Answer<'a, u64>;

    /// Adds or replaces a package (by key). How far nodes were with other content under that key is forgotten.
    fn put_package<'a>(&'a self, package: &'a PackageRow) -> Answer<'a, ()>;

    /// All packages, by namespace, name and sequence.
    fn packages(&self) -> Answer<'_, Vec<PackageRow>>;

    /// Forgets a package and how far nodes were with it.
    fn remove_package<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, ()>;

    /// Adds or replaces rows a node and package. Those of a node or package that is not known any more are left out.
    fn put_package_nodes<'a>(&'a self, rows: &'a [PackageNodeRow]) -> Answer<'a, ()>;

    /// Keeps how far nodes were with each of these packages, and which chunks offices had of it, in these offices alone.
    /// Each package is a transaction of its own, so that other writers get in between: after an error some may be done,
    /// and doing it again does no harm.
    fn keep_progress<'a>(&'a self, wanted: &'a BTreeMap<PackageKey, BTreeSet<OfficeName>>) -> Answer<'a, ()>;

    /// The nodes of a package, by name.
    fn package_nodes<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, Vec<PackageNodeRow>>;

    /// Replaces the set of chunks that some node of the office has. Nothing happens when the package is not known any
    /// more.
    fn put_chunk_holders<'a>(
        &'a self,
        key: &'a PackageKey,
        office: &'a OfficeName,
        chunks: &'a ChunkSet,
    ) -> Answer<'a, ()>;

    /// The chunks that each office has of a package.
    fn chunk_holders<'a>(&'a self, key: &'a PackageKey) -> Answer<'a, BTreeMap<OfficeName, ChunkSet>>;
}

/// Opens the database of a URL, or the embedded one below the server's root when there is no URL.
///
/// # Errors
/// [`DatabaseError`] when the URL is of no known kind or the database cannot be used.
pub async fn open(url: Option<&str>, server_root: &Path) -> Result<Arc<dyn MetadataStore>, DatabaseError> {
    Ok(Arc::new(SqliteStore::open_url(url, server_root).await?))
}
